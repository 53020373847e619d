"""Checkers for lesson 50. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_seconds(fn: Callable) -> str:
    "`fn(pilot_seconds, pilot_steps, steps, setup)` -> the seconds of a full stage."
    for args, want, about in [
        ((16, 16, 256, 0), 256, "one second per step"),
        ((10, 20, 100, 30), 80, "half a second per step, plus setup"),
        ((8, 4, 0, 5), 5, "no steps"),
    ]:
        got, error = run(fn, *args)
        if error:
            return error
        try:
            ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if not ok:
            return f"Not yet: {about}: expected {want}, got {got}"
    return RIGHT


def _metrics(name, without, prompt, after):
    before = dict(without=dict(masked=without), with_prompt=dict(masked=prompt), best=dict(masked=min(without, prompt)))
    return dict(config=dict(name=name), stages=dict(full=dict(held_out=dict(before=before, after=dict(masked=after)))))


def check_ranking(fn: Callable) -> str:
    "`fn(metrics)` -> the names of the runs that helped, the largest gain first."
    a, b, c, d = (
        _metrics("a", 4.4, 5.0, 4.0),
        _metrics("b", 4.4, 5.0, 3.9),
        _metrics("c", 4.4, 5.0, 4.6),
        _metrics("d", 6.0, 5.0, 4.2),
    )
    for given, want, about in [
        ([a, b], ["b", "a"], "two that helped"),
        ([a, c], ["a"], "4.6 beats one baseline, but not the stronger one"),
        ([a, b, d], ["d", "b", "a"], "runs are ranked by their gain, not by their final figure"),
        ([c], [], "none that helped"),
    ]:
        got, error = run(fn, given)
        if error:
            return error
        if not isinstance(got, (list, tuple)) or list(got) != want:
            return f"Not yet: {about}: expected {want}, got {got!r}"
    return RIGHT
