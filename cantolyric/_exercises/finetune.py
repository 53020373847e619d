"""Checkers for lesson 41. Each returns "Right." or says what is not right yet; none raises."""
import math

from cantolyric._exercises import RIGHT, number_of, run


def check_combined(fn) -> str:
    "`fn(losses, tokens)` -> the mean loss of all tokens."
    for args, want, about in [(([2., 4.], [10, 10]), 3., "equal parts"), (([2., 4.], [3, 1]), 2.5, "three tokens at 2 and one at 4"),
                              (([5.], [7]), 5., "one part"), (([1., 9., 3.], [0, 1, 1]), 6., "a part without labels does not count")]:
        if said := number_of(fn, args, want, about): return said
    return RIGHT


def check_falling(fn) -> str:
    "`fn(losses, least)` -> a `GateResult` that fails when the loss no longer falls."
    nan = float("nan")
    for losses, least, want, about in [([6, 6, 5, 5, 4, 4], .01, True, "a loss that falls"), ([6, 6, 5, 5, 5, 5], .01, False, "the last third is no lower than the middle one"),
                                       ([6, 5, 4, 4, 4.5, 4.5], .01, False, "a loss that rises"), ([6, 6, 5, 5, 4.995, 4.995], .01, False, "a fall of 0.005 where 0.01 is wanted"),
                                       ([6, 6, 5, 5, 4.995, 4.995], .001, True, "a fall of 0.005 where 0.001 is wanted"), ([6, 6, 5, 5, nan, 4], .01, False, "a loss that is no number")]:
        got, error = run(fn, losses, least)
        if error: return error
        if not all(hasattr(got, k) for k in ("name", "ok", "message")): return f"Not yet: wanted is a GateResult, it returned {got!r}"
        if bool(got.ok) != want: return f"Not yet: {about}: the gate should {'pass' if want else 'fail'}, it {'passed' if got.ok else 'failed'}"
        if got.name != "falling": return f"Not yet: the name should be 'falling', not {got.name!r}"
    return RIGHT


def check_rate(fn) -> str:
    "`fn(step, steps, warmup, peak)` -> the learning rate of a step."
    for args, want, about in [((0, 100, 10, 1.), 0., "the first step"), ((5, 100, 10, 1.), .5, "half-way up"), ((10, 100, 10, 2.), 2., "the peak"),
                              ((55, 100, 10, 1.), .5, "half-way down"), ((100, 100, 10, 1.), 0., "behind the last step"),
                              ((25, 100, 0, 1.), (1 + math.cos(math.pi / 4)) / 2, "no warm-up")]:
        if said := number_of(fn, args, want, about): return said
    return RIGHT
