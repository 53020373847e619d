"""Checkers for lesson 00. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable
from operator import methodcaller
from typing import Any

from cantolyric._exercises import RIGHT, run

TABLES = ("334042", "394042", "394052", "123456", "332024")


def check_scheme(cls: type) -> str:
    "`cls(table)` -> a scheme with `encode(jyutping)` and `tones(digit)`."
    for table in TABLES:
        scheme, error = run(cls, table)
        for case in (_check_encode, _check_tones):
            error = error or case(scheme, table)
        if error:
            return error
    return RIGHT


def _check_encode(scheme: Any, table: str) -> str | None:
    for line in ("je6 jyu5", "si1 si2 si3 si4 si5 si6", "ng5", "seoi4 hon3 sing1 gwong1 ziu3 je6 lou6 coeng4"):
        got, error = run(methodcaller("encode", line), scheme)
        want = "".join(table[int(syllable[-1]) - 1] for syllable in line.split())
        if error:
            return error
        if got != want:
            return f"Not yet: for {table!r}, encode({line!r}) should be {want!r}, got {got!r}"
    for line, wrong in (("si1 je", "je"), ("luk9 si1", "luk9"), ("si0", "si0"), ("si1 si7", "si7")):
        message = _refusal(methodcaller("encode", line), scheme)
        if message is None:
            return f"Not yet: encode({line!r}) should raise a ValueError"
        if wrong not in message:
            return f"Not yet: the ValueError of encode({line!r}) should contain {wrong!r}, got {message!r}"
    return None


def _check_tones(scheme: Any, table: str) -> str | None:
    for digit in sorted(set(table)):
        got, error = run(methodcaller("tones", digit), scheme)
        want = {tone for tone in range(1, 7) if table[tone - 1] == digit}
        if error:
            return error
        if got != want:
            return f"Not yet: for {table!r}, tones({digit!r}) should be {want}, got {got!r}"
    if _refusal(methodcaller("tones", "7"), scheme) is None:
        return f"Not yet: for {table!r}, tones('7') should raise a ValueError"
    return None


def _refusal(fn: Callable, scheme: Any) -> str | None:
    "Return the message of the `ValueError` that `fn` raises, or None."
    try:
        fn(scheme)
    except ValueError as e:
        return str(e)
    except Exception:
        return None
    return None


def check_coarser(fn: Callable) -> str:
    "`fn(a, b)` -> the dict from digits of a to digits of b, or None."
    same = {d: d for d in "0234"}
    for a, b, want in [
        ("334042", "334042", same),
        ("394042", "334042", same | {"9": "3"}),
        ("334042", "394042", None),
        ("394052", "334042", same | {"9": "3", "5": "4"}),
        ("394052", "394042", same | {"9": "9", "5": "4"}),
        ("123456", "334042", dict(zip("123456", "334042"))),
        ("334042", "123456", None),
        ("394042", "394052", None),
    ]:
        got, error = run(fn, a, b)
        if error:
            return error
        if got is ...:
            return "Not yet: expected a dict or None, got ..."
        if got != want:
            return f"Not yet: from {a!r} to {b!r} expected {want}, got {got!r}"
    return RIGHT


def check_count_fitting(fn: Callable) -> str:
    "`fn(tune)` -> the number of strings of 0243 digits that never move against the tune."
    for tune, want, about in [
        ([60], 4, "one note leaves every digit free"),
        ([60, 62], 10, "4 strings that stay and 6 that rise"),
        ([62, 60], 10, "4 strings that stay and 6 that fall"),
        ([60, 60], 4, "on a held note only strings that stay fit"),
        ([60, 62, 64], 20, "strings that never fall"),
        ([62, 60, 62], 30, "down, then up"),
        ([62, 67, 71, 71, 69, 67, 64, 62], 456, "as counted in the lesson"),
    ]:
        got, error = run(fn, list(tune))
        if error:
            return error
        if got != want:
            return f"Not yet: for {tune} expected {want} ({about}), got {got!r}"
    return RIGHT
