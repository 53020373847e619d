"""Families of open models: shapes, tiny variants and loading."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.families.table cantolyric.families.tiny cantolyric.families.loading",
)
