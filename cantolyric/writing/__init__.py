"""Writing lyrics to a topic and tones with a language model."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.writing.lyricist cantolyric.writing.results cantolyric.writing.request cantolyric.writing.ranking "
    "cantolyric.writing.infill cantolyric.writing.prompts cantolyric.writing.candidates cantolyric.writing.sampler "
    "cantolyric.writing.scoring cantolyric.writing.session cantolyric.writing.widget cantolyric.writing.deprecated",
)
