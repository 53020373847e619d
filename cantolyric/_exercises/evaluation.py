"""Checkers for lesson 51. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, number_of, run


def check_expected(fn) -> str:
    "`fn(tones, share)` -> share of slots that are right by chance."
    even, odd = dict.fromkeys("0243", .25), {"0": .2, "2": .1, "4": .3, "3": .4}
    for args, want, about in [(("0243", even), .25, "four equal classes"), (("33", odd), .4, "one class only"),
                              (("0/3", odd), .3, "a slash is no slot"), (("0243/3", odd), 1.4 / 5, "two lines of unequal length count by slots")]:
        if said := number_of(fn, args, want, about): return said
    return RIGHT


def check_bootstrap(fn) -> str:
    "`fn(a, b, rng, rounds)` -> share of draws in which b is not better."
    import numpy as np
    rng = np.random.default_rng(1)
    a = rng.normal(size=60)
    for x, y, low, high, about in [(a, a + 1, 0, 0, "b is better on every request"), (a, a - 1, 1, 1, "a is better on every request"), (a, a, 1, 1, "equal systems: b is never better"),
                                   (a, a + rng.permutation(np.repeat([1., -1.], 30)), .25, .75, "half of the requests better, half worse by as much"),
                                   (a, a + np.where(np.arange(60) < 36, 1., -1.), .02, .15, "36 of 60 better by as much as the rest are worse")]:
        got, error = run(fn, x, y, np.random.default_rng(0), 1000)
        if error: return error
        try: ok = low <= float(got) <= high
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if not ok: return f"Not yet: {about}: wanted is {low:g}{f' to {high:g}' if high != low else ''}, it returned {got}"
    return RIGHT


def check_longest(fn) -> str:
    "`fn(line, texts)` -> the longest run of `line` that some text has."
    for args, want, about in [(("今晚落雨", ["琴晚落雨啦"]), "晚落雨", "one text"), (("今晚落雨", ["今晚", "落雨"]), "今晚", "two of the same length: the first"),
                              (("今晚落雨", ["今晚\n落雨"]), "今晚", "a run never crosses a line end"), (("今晚", ["天光"]), "", "nothing in common"),
                              (("今晚落雨", ["晚", "晚落", "晚落雨大"]), "晚落雨", "the longest over all texts"), (("", ["天"]), "", "an empty line")]:
        got, error = run(fn, *args)
        if error: return error
        if got != want: return f"Not yet: {about} {args}: wanted is {want!r}, it returned {got!r}"
    return RIGHT


def check_rarefied(fn) -> str:
    "`fn(counts, size)` -> how many different pieces are to be expected among `size` drawn ones."
    many = [7] * 600 + [1] * 800
    for args, want, about in [(([1, 1, 1], 2), 2, "three pieces, each once: two draws, two kinds"), (([5], 3), 1, "one kind only"), (([2, 1], 2), 5 / 3, "two of one kind and one of another"),
                              (([3, 2, 1], 6), 3, "all of them are drawn"), (([4, 4], 1), 1, "one draw"), ((many, 2500), 600 * (1 - _missed(5000, 7, 2500)) + 800 * .5, "five thousand pieces")]:
        if said := number_of(fn, args, want, about, 1e-6): return said
    return RIGHT


def _missed(total, count, size):
    "The chance that a kind is missed, factor by factor."
    out = 1.
    for k in range(count): out *= (total - size - k) / (total - k)
    return out
