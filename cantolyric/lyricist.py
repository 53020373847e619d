"""The old import path of `cantolyric.writing`. Its names still work here."""

from cantolyric._reexport import lazily

__getattr__ = lazily(__name__, "cantolyric.writing cantolyric.template.song")
