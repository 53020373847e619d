"""Checkers for lesson 00. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run

NUMERALS = {"0": "ling4", "2": "ji6", "3": "saam1", "4": "sei3", "5": "ng5", "9": "gau2"}


def check_pronounces_itself(fn: Callable) -> str:
    "`fn(table, numerals)` -> whether each digit of a table, read aloud, has the tone class that it names."
    for table, want in [
        ("334042", True),
        ("394042", True),
        ("394052", True),
        ("332024", False),
        ("334022", True),
        ("334024", False),
        ("394025", False),
        ("349052", False),
    ]:
        got, error = run(fn, table, dict(NUMERALS))
        if error:
            return error
        if got is not want:
            return f"Not yet: for {table!r} expected {want}, got {got!r}"
    return RIGHT


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
