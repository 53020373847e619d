"""Lyrics from a model behind an OpenAI-compatible API, drafted, checked and repaired; without torch."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.endpoint.writer cantolyric.endpoint.drafting cantolyric.endpoint.client cantolyric.endpoint.failures "
    "cantolyric.endpoint.prompts cantolyric.endpoint.transport cantolyric.endpoint.server",
)
