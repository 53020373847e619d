"""Checkers for lesson 50. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, run


def check_seconds(fn) -> str:
    "`fn(pilot_seconds, pilot_steps, steps, setup)` -> seconds of a full rung."
    for args, want, about in [((16, 16, 256, 0), 256, "a second a step"), ((10, 20, 100, 30), 80, "half a second a step, and setting up"), ((8, 4, 0, 5), 5, "no steps")]:
        got, error = run(fn, *args)
        if error: return error
        try: ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if not ok: return f"Not yet: {about}: wanted is {want}, it returned {got}"
    return RIGHT


def _metrics(name, without, prompt, after):
    before = dict(without=dict(masked=without), with_prompt=dict(masked=prompt), best=dict(masked=min(without, prompt)))
    return dict(config=dict(name=name), rungs=dict(full=dict(held_out=dict(before=before, after=dict(masked=after)))))


def check_ranking(fn) -> str:
    "`fn(metrics)` -> names of the runs that helped, the best gain first."
    a, b, c, d = _metrics("a", 4.4, 5., 4.), _metrics("b", 4.4, 5., 3.9), _metrics("c", 4.4, 5., 4.6), _metrics("d", 6., 5., 4.2)
    for given, want, about in [([a, b], ["b", "a"], "two that helped"), ([a, c], ["a"], "4.6 is below one before, but not below the better one"),
                               ([a, b, d], ["d", "b", "a"], "gains count, not the figures themselves"), ([c], [], "none that helped")]:
        got, error = run(fn, given)
        if error: return error
        if not isinstance(got, (list, tuple)) or list(got) != want: return f"Not yet: {about}: wanted is {want}, it returned {got!r}"
    return RIGHT
