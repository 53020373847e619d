"""Families of open models: their shapes, tiny variants of them, and how they are loaded."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.families.table cantolyric.families.tiny cantolyric.families.loading",
)
