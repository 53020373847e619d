"""Checkers for lesson 51. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_expected(fn: Callable) -> str:
    "`fn(tones, share)` -> the share of slots that are right by chance."
    even, odd = dict.fromkeys("0243", 0.25), {"0": 0.2, "2": 0.1, "4": 0.3, "3": 0.4}
    for args, want, about in [
        (("0243", even), 0.25, "four equal classes"),
        (("33", odd), 0.4, "one class only"),
        (("0/3", odd), 0.3, "a slash is not a slot"),
        (("0243/3", odd), 1.4 / 5, "two lines of unequal length count by slots"),
    ]:
        if problem := number_of(fn, args, want, about):
            return problem
    return RIGHT


def check_bootstrap(fn: Callable) -> str:
    "`fn(a, b, rng, rounds)` -> the share of draws in which b is not better."
    import numpy as np

    rng = np.random.default_rng(1)
    a = rng.normal(size=60)
    for x, y, low, high, about in [
        (a, a + 1, 0, 0, "b is better on every request"),
        (a, a - 1, 1, 1, "a is better on every request"),
        (a, a, 1, 1, "equal systems: b is never better"),
        (
            a,
            a + rng.permutation(np.repeat([1.0, -1.0], 30)),
            0.25,
            0.75,
            "half of the requests better, and half worse by the same amount",
        ),
        (
            a,
            a + np.where(np.arange(60) < 36, 1.0, -1.0),
            0.02,
            0.15,
            "36 of 60 better, and the rest worse by the same amount",
        ),
    ]:
        got, error = run(fn, x, y, np.random.default_rng(0), 1000)
        if error:
            return error
        try:
            ok = low <= float(got) <= high
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if not ok:
            return f"Not yet: {about}: expected {low:g}{f' to {high:g}' if high != low else ''}, got {got}"
    return RIGHT


def check_longest(fn: Callable) -> str:
    "`fn(line, texts)` -> the longest run of characters of `line` that occurs in some text."
    for args, want, about in [
        (("今晚落雨", ["琴晚落雨啦"]), "晚落雨", "one text"),
        (("今晚落雨", ["今晚", "落雨"]), "今晚", "ties go to the first run"),
        (("今晚落雨", ["今晚\n落雨"]), "今晚", "a run never crosses a line end"),
        (("今晚", ["天光"]), "", "nothing in common"),
        (("今晚落雨", ["晚", "晚落", "晚落雨大"]), "晚落雨", "the longest over all texts"),
        (("", ["天"]), "", "an empty line"),
    ]:
        got, error = run(fn, *args)
        if error:
            return error
        if got != want:
            return f"Not yet: {about} {args}: expected {want!r}, got {got!r}"
    return RIGHT


def check_rarefied(fn: Callable) -> str:
    "`fn(counts, size)` -> the expected number of different n-grams among `size` drawn ones."
    many = [7] * 600 + [1] * 800
    for args, want, about in [
        (([1, 1, 1], 2), 2, "three n-grams, each once: two draws, two kinds"),
        (([5], 3), 1, "one kind only"),
        (([2, 1], 2), 5 / 3, "two of one kind and one of another"),
        (([3, 2, 1], 6), 3, "all of them are drawn"),
        (([4, 4], 1), 1, "one draw"),
        ((many, 2500), 600 * (1 - _missed(5000, 7, 2500)) + 800 * 0.5, "five thousand n-grams"),
    ]:
        if problem := number_of(fn, args, want, about, 1e-6):
            return problem
    return RIGHT


def _missed(total, count, size):
    "Return the chance that a kind is missed, factor by factor."
    out = 1.0
    for k in range(count):
        out *= (total - size - k) / (total - k)
    return out
