"""Checkers for lesson 13. Each returns "Right." or says what is not right yet; none raises."""
import numpy as np

from cantolyric._exercises import RIGHT, run


def check_contexts(fn) -> str:
    "`fn(texts)` -> for each character, after how many different ones (or a start) it came."
    for texts, want in [
        (["好食", "好食", "好飲"], {"好": 1, "食": 1, "飲": 1}),
        (["食", "好食", "唔食", "唔好食"], {"食": 3, "好": 2, "唔": 1}),
        (["哈哈哈"], {"哈": 2}),
        ([""], {}),
    ]:
        got, error = run(fn, texts)
        if error: return error
        if not isinstance(got, dict): return f"Not yet: wanted is a dict, it returned {got!r}"
        if dict(got) != want: return f"Not yet: for {texts} wanted is {want}, it returned {dict(got)}"
    return RIGHT


def check_bootstrap(fn) -> str:
    "`fn(a, b, n, seed)` -> the share of draws in which `b` does not cost less than `a`."
    rng = np.random.default_rng(1)
    a = rng.exponential(100, 400) # texts differ a hundred times more than the models do
    cases = [("b is always 1 bit cheaper", a - 1, 0, 0), ("b equals a", a, 1, 1),
             ("b is cheaper on the whole, but not on every text", a - .5 + rng.normal(0, 5, 400), .0, .1),
             ("b is as often cheaper as dearer", a + rng.permutation(np.repeat([-1., 1.], 200)), .4, .65)]
    for name, b, low, high in cases:
        got, error = run(fn, a, b, 500, 0)
        if error: return error
        try: ok = low <= float(got) <= high
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if not ok: return f"Not yet: {name}: wanted is between {low} and {high}, it returned {got}; are both costs drawn with the same texts?"
    return RIGHT


def check_mixture(fn) -> str:
    "`fn(a, b)` -> the weight of the first model that makes the mixture cheapest, to 0.01."
    rng = np.random.default_rng(2)
    x, y = rng.exponential(4, (2, 3_000))
    for name, a, b in [("two equally good models", x, y), ("a better first model", x * .7, y), ("a useless second model", x, x + 8)]:
        grid = np.linspace(0, 1, 1_001)
        cost = [-np.log2(w * 2**-a + (1 - w) * 2**-b).mean() for w in grid]
        got, error = run(fn, a, b)
        if error: return error
        try: off = abs(float(got) - grid[int(np.argmin(cost))])
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if off > .011: return f"Not yet: {name}: the best weight is {grid[int(np.argmin(cost))]:.2f}, it returned {float(got):.2f}"
    return RIGHT
