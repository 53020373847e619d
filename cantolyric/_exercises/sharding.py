"""Checkers for lesson 32. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_rows_of_each(fn: Callable) -> str:
    "`fn(rows, n)` -> the number of rows of each process."
    for rows, n, want in (
        (8, 2, [4, 4]),
        (7, 2, [4, 3]),
        (5, 4, [2, 2, 1, 0]),
        (2, 4, [1, 1, 0, 0]),
        (9, 4, [3, 3, 3, 0]),
        (1, 1, [1]),
    ):
        got, error = run(fn, rows, n)
        if error:
            return error
        try:
            same = list(got) == want
        except TypeError:
            return f"Not yet: expected a list of {n} numbers, got {got!r}"
        if not same:
            return f"Not yet: for {rows} rows and {n} processes expected {want}, got {got!r}"
    return RIGHT


def check_most_whole(fn: Callable) -> str:
    "`fn(times, sizes)` -> the largest number of bytes that are unsharded at any moment."

    def spans(*x: tuple) -> list[dict]:
        return [dict(unit=u, start=float(a), end=float(b)) for u, a, b in x]

    sizes = dict(rest=10, a=3, b=4, c=5)
    cases: tuple[tuple[list[dict], int, str], ...] = (
        (spans(("rest", 0, 9), ("a", 1, 2), ("b", 3, 4)), 14, "one block at a time"),
        (spans(("rest", 0, 9), ("a", 1, 5), ("b", 4, 6), ("c", 5.5, 7)), 19, "two at a time"),
        (spans(("a", 0, 2), ("b", 2, 4)), 4, "one that ends as the other starts"),
        (spans(("b", 4, 6), ("a", 1, 5), ("c", 4.5, 5)), 12, "three, in any order"),
        ([], 0, "no unit at all"),
    )
    for times, want, what in cases:
        if why := number_of(fn, ([dict(x) for x in times], dict(sizes)), want, what):
            return why
    return RIGHT


def check_share_lost(fn: Callable) -> str:
    "`fn(interval, save, death)` -> the share of the time that is lost."
    for args, want in (
        ((600.0, 6.0, 36_000.0), 0.01 + 1 / 120),
        ((100.0, 10.0, 1000.0), 0.15),
        ((2000.0, 0.0, 4000.0), 0.25),
        ((50.0, 5.0, 1e12), 0.1),
    ):
        if why := number_of(fn, args, want, f"interval, save, death {args}", 1e-6):
            return why
    return RIGHT
