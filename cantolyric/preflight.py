"""The old import path of `cantolyric.checks`. Its names still work here."""

from cantolyric._reexport import lazily

_find = lazily(__name__, "cantolyric.checks cantolyric.machine")


def __getattr__(name: str) -> object:
    if name == "preflight":  # the function here, the module in `cantolyric.checks`
        from cantolyric.checks.preflight import preflight

        return preflight
    return _find(name)
