"""The checkers of lesson 13 reject wrong answers. (nbs/solutions shows that they accept the solutions.)"""

import numpy as np

from cantolyric._exercises.ngram import RIGHT, check_bootstrap, check_contexts, check_mixture


def test_empty_stubs_are_rejected():
    for check in (check_contexts, check_bootstrap, check_mixture):
        assert check(lambda *a: ...).startswith("Not yet")


def test_typical_mistakes_are_rejected():
    plain = lambda texts: {c: sum(t.count(c) for t in texts) for t in texts for c in t}
    assert "expected" in check_contexts(plain)  # counts characters, not what precedes them

    def unpaired(a, b, n, seed):
        rng = np.random.default_rng(seed)
        draw = lambda x: x[rng.integers(0, len(x), (n, len(x)))].sum(1)
        return (draw(b) >= draw(a)).mean()

    assert "same texts" in check_bootstrap(unpaired)
    assert "best weight" in check_mixture(lambda a, b: 0.5)
    assert "ZeroDivisionError" in check_mixture(lambda a, b: 1 / 0)


def test_right_answers():
    def paired(a, b, n, seed):
        d = np.asarray(b) - a
        return (d[np.random.default_rng(seed).integers(0, len(d), (n, len(d)))].sum(1) >= 0).mean()

    assert check_bootstrap(paired) == RIGHT
