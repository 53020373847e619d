"""`KneserNey` against the formula written out with dictionaries, and against nltk where the two agree on what is counted."""
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric.ngram import CODE_POINTS, KneserNey, discounts


class Slow:
    "Interpolated Kneser–Ney, word for word from the formula: tuples and dictionaries, one n-gram at a time."
    def __init__(self, texts, order, kinds):
        self.order, self.a = order, []
        lines = [["<s>", *t, "</s>"] for t in texts]
        for n in range(1, order + 1):
            plain, before = Counter(), defaultdict(set)
            for line in lines:
                for i in range(len(line) - n + 1):
                    gram = tuple(line[i:i + n])
                    if gram == ("<s>",): continue
                    plain[gram] += 1
                    if i: before[gram].add(line[i - 1])
            self.a.append(plain if n == order else Counter({g: c if g[0] == "<s>" else len(before[g]) for g, c in plain.items()}))
        self.d = [discounts(np.array(list(a.values()), int), kinds) for a in self.a]

    def p(self, w, context):
        context = tuple(context)[-(self.order - 1):] if self.order > 1 else ()
        return self._p(w, context)

    def _p(self, w, context):
        a, d = self.a[len(context)], self.d[len(context)]
        below = self._p(w, context[1:]) if context else 1 / (CODE_POINTS + 1)
        here = {g: c for g, c in a.items() if g[:-1] == context}
        total = sum(here.values())
        if not total: return below
        c = here.get(context + (w,), 0)
        return (c - d[min(c, 3)]) / total + sum(d[min(x, 3)] for x in here.values()) / total * below

    def bits(self, text):
        line = ["<s>", *text, "</s>"]
        return np.array([-np.log2(self.p(w, line[:i])) for i, w in enumerate(line) if i])


texts = st.lists(st.text("食飯好未呀", max_size=8), min_size=1, max_size=12).filter(any)


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.text("食飯好未呀貓😀", max_size=8), min_size=1, max_size=3), st.integers(1, 5), st.sampled_from([1, 3]))
def test_same_as_the_formula(train, test, order, kinds):
    model, slow = KneserNey(order, kinds).fit(train), Slow(train, order, kinds)
    want = [slow.bits(t) for t in test]
    for t, w in zip(test, want): np.testing.assert_allclose(model.bits(t), w, rtol=1e-10)
    np.testing.assert_allclose(model.bits_per_text(test), [w.sum() for w in want], rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(texts, st.text("食飯好未呀貓", max_size=8), st.integers(1, 5), st.sampled_from([1, 3]))
def test_probabilities_sum_to_one(train, context, order, kinds):
    model = KneserNey(order, kinds).fit(train)
    p = model.next(context)
    assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()
    for slot, c in enumerate(model.alphabet, 2): # the same numbers by the other way
        assert -np.log2(p[slot]) == pytest.approx(model.bits(context + chr(c))[len(context)], rel=1e-10)
    assert -np.log2(p[1]) == pytest.approx(model.bits(context)[-1], rel=1e-10)
    unknown = p[0] / (CODE_POINTS - len(model.alphabet)) # one of the characters never seen
    assert -np.log2(unknown) == pytest.approx(model.bits(context + "龘")[len(context)], rel=1e-10)


def test_nltk():
    "nltk has one fixed discount and no order below the characters: with its choices set here, inner positions agree."
    lm = pytest.importorskip("nltk.lm")
    train = ["我哋去食飯", "佢哋去食麵", "去邊度食飯好", "食飯未呀", "我去食麵"]
    grams = lambda line, n: [tuple(line[i:i + n]) for i in range(len(line) - n + 1)]
    lines = [["<s>", *t, "</s>"] for t in train]
    peer = lm.KneserNeyInterpolated(2, discount=.4)
    peer.fit([[(w,) for w in line[1:]] + grams(line, 2) for line in lines], {w for line in lines for w in line})
    ours = KneserNey(2, kinds=1).fit(train)
    for n, d in ((0, 0.), (1, .4)): # nltk: nothing taken off the single characters
        context = ours.keys[n] >> ours.shift
        total = np.bincount(context, ours.counts[n])
        alpha = np.maximum(ours.counts[n] - d, 0) / np.maximum(total[context], 1)
        gamma = np.where(total > 0, np.bincount(context, d * (ours.counts[n] > 0)) / np.maximum(total, 1), 1.)
        size = len(ours.tables[n][1]) - 1
        ours.tables[n] = np.append(alpha, 0.), np.append(np.append(gamma, np.ones(size - len(gamma))), 1.)
    for t in train:
        with np.errstate(divide="ignore"): costs = ours.bits(t)[1:]
        for a, b, cost in zip(t, [*t[1:], "</s>"], costs):
            assert 2 ** -cost == pytest.approx(peer.score(b, [a]), rel=1e-9)


def test_more_than_63_bits():
    "A long n-gram over a large alphabet has no room in one integer; the keys must stay exact."
    rng = np.random.default_rng(0)
    train = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 30))) for _ in range(300)]
    model = KneserNey(order=6).fit(train)
    assert model.shift * 6 > 63
    assert all((np.diff(k) > 0).all() for k in model.keys)
    assert model.bits_per_character(train) < 1.5 # it has seen each of these texts


def test_same_after_saving(tmp_path):
    model = KneserNey().fit(["我哋今晚去邊度食飯", "食咗飯未呀", "落雨喇"])
    model.save(tmp_path / "m.npz")
    again = KneserNey.load(tmp_path / "m.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    np.testing.assert_array_equal(again.bits("今晚落雨未"), model.bits("今晚落雨未"))
    assert again.sample(5, seed=3) == model.sample(5, seed=3)
