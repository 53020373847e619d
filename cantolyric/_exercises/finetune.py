"""Checkers for lesson 41. Each returns "Right." or explains what is wrong; none raises."""

import math
from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_combined(fn: Callable) -> str:
    "`fn(losses, tokens)` -> the mean loss over all tokens."
    for args, want, about in [
        (([2.0, 4.0], [10, 10]), 3.0, "equal parts"),
        (([2.0, 4.0], [3, 1]), 2.5, "three tokens at 2 and one at 4"),
        (([5.0], [7]), 5.0, "one part"),
        (([1.0, 9.0, 3.0], [0, 1, 1]), 6.0, "a part without labels does not count"),
    ]:
        if problem := number_of(fn, args, want, about):
            return problem
    return RIGHT


def check_falling(fn: Callable) -> str:
    "`fn(losses, least)` -> a `GateResult` that fails when the loss no longer falls."
    nan = float("nan")
    for losses, least, want, about in [
        ([6, 6, 5, 5, 4, 4], 0.01, True, "a loss that falls"),
        ([6, 6, 5, 5, 5, 5], 0.01, False, "the last third is no lower than the middle one"),
        ([6, 5, 4, 4, 4.5, 4.5], 0.01, False, "a loss that rises"),
        ([6, 6, 5, 5, 4.995, 4.995], 0.01, False, "a fall of 0.005 where 0.01 is required"),
        ([6, 6, 5, 5, 4.995, 4.995], 0.001, True, "a fall of 0.005 where 0.001 is required"),
        ([6, 6, 5, 5, nan, 4], 0.01, False, "a loss that is not a number"),
    ]:
        got, error = run(fn, losses, least)
        if error:
            return error
        if not all(hasattr(got, k) for k in ("name", "ok", "message")):
            return f"Not yet: expected a GateResult, got {got!r}"
        if bool(got.ok) != want:
            return f"Not yet: {about}: expected the gate to {'pass' if want else 'fail'}, got ok={got.ok!r}"
        if got.name != "falling":
            return f"Not yet: expected the name 'falling', got {got.name!r}"
    return RIGHT


def check_rate(fn: Callable) -> str:
    "`fn(step, steps, warmup, peak)` -> the learning rate of a step."
    for args, want, about in [
        ((0, 100, 10, 1.0), 0.0, "the first step"),
        ((5, 100, 10, 1.0), 0.5, "half-way up"),
        ((10, 100, 10, 2.0), 2.0, "the peak"),
        ((55, 100, 10, 1.0), 0.5, "half-way down"),
        ((100, 100, 10, 1.0), 0.0, "after the last step"),
        ((25, 100, 0, 1.0), (1 + math.cos(math.pi / 4)) / 2, "no warm-up"),
    ]:
        if problem := number_of(fn, args, want, about):
            return problem
    return RIGHT
