"""Checkers for lesson 13. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

import numpy as np

from cantolyric._exercises import RIGHT, run


def check_contexts(fn: Callable) -> str:
    "`fn(texts)` -> the number of different characters (or a start) that precede each character."
    for texts, want in [
        (["好食", "好食", "好飲"], {"好": 1, "食": 1, "飲": 1}),
        (["食", "好食", "唔食", "唔好食"], {"食": 3, "好": 2, "唔": 1}),
        (["哈哈哈"], {"哈": 2}),
        ([""], {}),
    ]:
        got, error = run(fn, texts)
        if error:
            return error
        if not isinstance(got, dict):
            return f"Not yet: expected a dict, got {got!r}"
        if dict(got) != want:
            return f"Not yet: for {texts} expected {want}, got {dict(got)}"
    return RIGHT


def check_bootstrap(fn: Callable) -> str:
    "`fn(a, b, n, seed)` -> the share of draws in which `b` has no lower NLL than `a`."
    rng = np.random.default_rng(1)
    a = rng.exponential(100, 400)  # texts differ a hundred times more than the models do
    cases = [
        ("b is always 1 bit lower", a - 1, 0, 0),
        ("b equals a", a, 1, 1),
        ("b is lower on average, but not on every text", a - 0.5 + rng.normal(0, 5, 400), 0.0, 0.1),
        ("b is lower as often as higher", a + rng.permutation(np.repeat([-1.0, 1.0], 200)), 0.4, 0.65),
    ]
    for name, b, low, high in cases:
        got, error = run(fn, a, b, 500, 0)
        if error:
            return error
        try:
            ok = low <= float(got) <= high
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if not ok:
            return (
                f"Not yet: {name}: expected a share between {low} and {high}, got {got}: "
                "draw the same texts for both models"
            )
    return RIGHT


def check_mixture(fn: Callable) -> str:
    "`fn(a, b)` -> the weight of the first model that minimizes the NLL of the mixture, to 0.01."
    rng = np.random.default_rng(2)
    x, y = rng.exponential(4, (2, 3_000))
    for name, a, b in [
        ("two equally good models", x, y),
        ("a better first model", x * 0.7, y),
        ("a useless second model", x, x + 8),
    ]:
        grid = np.linspace(0, 1, 1_001)
        cost = [-np.log2(w * 2**-a + (1 - w) * 2**-b).mean() for w in grid]
        got, error = run(fn, a, b)
        if error:
            return error
        try:
            off = abs(float(got) - grid[int(np.argmin(cost))])
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if off > 0.011:
            return f"Not yet: {name}: expected the best weight, {grid[int(np.argmin(cost))]:.2f}, got {float(got):.2f}"
    return RIGHT
