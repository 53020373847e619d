"""The checkers of lesson 13 know right from wrong. (That they accept the solutions is shown where those stand.)"""

import numpy as np

from cantolyric._exercises.ngram import RIGHT, check_bootstrap, check_contexts, check_mixture


def test_empty_stubs_are_told_so():
    for check in (check_contexts, check_bootstrap, check_mixture):
        assert check(lambda *a: ...).startswith("Not yet")


def test_mistakes_of_the_kind_that_are_made():
    plain = lambda texts: {c: sum(t.count(c) for t in texts) for t in texts for c in t}
    assert "wanted" in check_contexts(plain)  # counts characters, not what stands before them

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
