"""Finetune open LLMs to write Cantonese lyrics to a given topic and given tones."""

__version__ = "0.1.0"
__all__ = ["Lyricist"]


def __getattr__(name):
    # Lazy, so that `import cantolyric` and the modules of part 0 never import torch.
    if name == "Lyricist":
        from cantolyric.lyricist import Lyricist
        return Lyricist
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
