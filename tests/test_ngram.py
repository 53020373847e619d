"""`KneserNey` compared with the formula written out with dictionaries, and with nltk where both count the same."""

import tempfile
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
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
                    gram = tuple(line[i : i + n])
                    if gram == ("<s>",):
                        continue
                    plain[gram] += 1
                    if i:
                        before[gram].add(line[i - 1])
            self.a.append(
                plain if n == order else Counter({g: c if g[0] == "<s>" else len(before[g]) for g, c in plain.items()})
            )
        self.d = [discounts(np.array(list(a.values()), int), kinds) for a in self.a]

    def p(self, w, context):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        return self._p(w, context)

    def _p(self, w, context):
        a, d = self.a[len(context)], self.d[len(context)]
        below = self._p(w, context[1:]) if context else 1 / (CODE_POINTS + 1)
        here = {g: c for g, c in a.items() if g[:-1] == context}
        total = sum(here.values())
        if not total:
            return below
        c = here.get(context + (w,), 0)
        return (c - d[min(c, 3)]) / total + sum(d[min(x, 3)] for x in here.values()) / total * below

    def bits(self, text):
        line = ["<s>", *text, "</s>"]
        return np.array([-np.log2(self.p(w, line[:i])) for i, w in enumerate(line) if i])


short = st.text("食飯好未呀", max_size=8)
# Repeated texts leave few n-grams that are seen once, which pushes the estimated discounts out of bounds.
repeated = st.lists(st.tuples(short, st.sampled_from([1, 2, 3, 4, 50])), min_size=4, max_size=12)
unfolded = repeated.map(lambda pairs: [t for t, n in pairs for _ in range(n)])
texts = (st.lists(short, min_size=1, max_size=12) | unfolded).filter(any)
FEW = ["呀", "呀好未", "呀呀呀好", "呀呀呀好"]


@settings(max_examples=60)
@given(
    texts,
    st.lists(st.text("食飯好未呀貓😀", max_size=8), min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
)
def test_same_as_the_formula(train, test, order, kinds):
    model, slow = KneserNey(order, kinds).fit(train), Slow(train, order, kinds)
    want = [slow.bits(t) for t in test]
    for t, w in zip(test, want):
        np.testing.assert_allclose(model.bits(t), w, rtol=1e-10)
    np.testing.assert_allclose(model.bits_per_text(test), [w.sum() for w in want], rtol=1e-10)


@settings(max_examples=200)
@given(texts, st.text("食飯好未呀貓", max_size=8), st.integers(1, 5), st.sampled_from([1, 3]))
@example(FEW, "", 2, 3)
def test_probabilities_sum_to_one(train, context, order, kinds):
    model = KneserNey(order, kinds).fit(train)
    p = model.next_probabilities(context)
    assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()
    for slot, c in enumerate(model.alphabet, 2):  # the same numbers by the other way
        assert -np.log2(p[slot]) == pytest.approx(model.bits(context + chr(c))[len(context)], rel=1e-10)
    assert -np.log2(p[1]) == pytest.approx(model.bits(context)[-1], rel=1e-10)
    unknown = p[0] / (CODE_POINTS - len(model.alphabet))  # one of the characters never seen
    assert -np.log2(unknown) == pytest.approx(model.bits(context + "龘")[len(context)], rel=1e-10)


@settings(max_examples=200)
@given(texts, st.text("食飯好未呀貓😀", max_size=8), st.integers(1, 5), st.sampled_from([1, 3]))
@example(FEW, "好", 2, 3)
def test_nothing_is_impossible(train, text, order, kinds):
    "Neither in a text of the corpus, nor in a new one, nor among unseen characters; before and after saving."
    model = KneserNey(order, kinds).fit(train)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/m.npz")
        again = KneserNey.load(f"{folder}/m.npz")
    for t in [*set(train), text, "龘" + text, text + "龘龘" + text]:
        bits = model.bits(t)
        assert np.isfinite(bits).all() and (bits > 0).all()
        np.testing.assert_array_equal(again.bits(t), bits)
        np.testing.assert_array_equal(again.next_probabilities(t), model.next_probabilities(t))


@pytest.mark.parametrize("kinds", [1, 3])
@pytest.mark.parametrize("order", range(1, 6))
@pytest.mark.parametrize(
    "train",
    [
        pytest.param(["好"], id="one character"),
        pytest.param(["好"] * 10_000, id="one text, repeated"),
        pytest.param(["好" * 1_000], id="one long text"),
        pytest.param(list("食飯好未呀"), id="singletons"),
        pytest.param(["食"] * 10_000 + ["飯"], id="skewed"),
        pytest.param(FEW, id="formula out of bounds"),
    ],
)
def test_extreme_corpora(train, order, kinds):
    model = KneserNey(order, kinds).fit(train)
    for context in ("", "食", "好好好好", "龘"):
        p = model.next_probabilities(context)
        assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()


@settings(max_examples=300)
@given(st.lists(st.integers(0, 3) | st.integers(0, 40), min_size=5, max_size=5), st.sampled_from([1, 3]))
@example([25, 15, 22, 22, 0], 3)  # D2 is 0; in floats 2e-16
@example([3, 1, 1, 2, 0], 3)  # D3+ is negative
@example([3, 2, 1, 0, 5], 3)  # D3+ is 3
def test_discounts_are_inside_their_bounds(n, kinds):
    "Chen and Goodman's formulas, here in exact fractions, where they are usable; the fallback elsewhere."
    d = discounts(np.repeat([1, 2, 3, 4, 9], n), kinds)
    assert d[0] == 0 and (d[1:] > 0).all() and (d < [1, 1, 2, 3]).all()
    n1, n2, n3, n4 = map(Fraction, n[:4])
    if kinds == 1:
        assert (d[1:] == (float(n1 / (n1 + 2 * n2)) if n1 and n2 else 0.5)).all()
        return
    exact = None
    if all(n[:4]):
        y = n1 / (n1 + 2 * n2)
        exact = [j - (j + 1) * y * more / few for j, few, more in ((1, n1, n2), (2, n2, n3), (3, n3, n4))]
    usable = exact and all(0 < e < j for j, e in enumerate(exact, 1))
    np.testing.assert_allclose(d[1:], [float(e) for e in exact] if usable else [0.5, 1, 1.5], rtol=1e-9)


def test_nltk():
    "nltk has one fixed discount and no order below the characters: with its choices set here, inner positions agree."
    lm = pytest.importorskip("nltk.lm")
    train = ["我哋去食飯", "佢哋去食麵", "去邊度食飯好", "食飯未呀", "我去食麵"]
    grams = lambda line, n: [tuple(line[i : i + n]) for i in range(len(line) - n + 1)]
    lines = [["<s>", *t, "</s>"] for t in train]
    peer = lm.KneserNeyInterpolated(2, discount=0.4)
    peer.fit([[(w,) for w in line[1:]] + grams(line, 2) for line in lines], {w for line in lines for w in line})
    ours = KneserNey(2, kinds=1).fit(train)
    for n, d in ((0, 0.0), (1, 0.4)):  # nltk: nothing taken off the single characters
        context = ours.keys[n] >> ours.shift
        total = np.bincount(context, ours.counts[n])
        alpha = np.maximum(ours.counts[n] - d, 0) / np.maximum(total[context], 1)
        gamma = np.where(total > 0, np.bincount(context, d * (ours.counts[n] > 0)) / np.maximum(total, 1), 1.0)
        size = len(ours.tables[n][1]) - 1
        ours.tables[n] = np.append(alpha, 0.0), np.append(np.append(gamma, np.ones(size - len(gamma))), 1.0)
    for t in train:
        with np.errstate(divide="ignore"):
            costs = ours.bits(t)[1:]
        for a, b, cost in zip(t, [*t[1:], "</s>"], costs):
            assert 2**-cost == pytest.approx(peer.score(b, [a]), rel=1e-9)


def test_more_than_63_bits():
    "A long n-gram over a large alphabet has no room in one integer; the keys must stay exact."
    rng = np.random.default_rng(0)
    train = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 30))) for _ in range(300)]
    model = KneserNey(order=6).fit(train)
    assert model.shift * 6 > 63
    assert all((np.diff(k) > 0).all() for k in model.keys)
    assert model.bits_per_character(train) < 1.5  # it has seen each of these texts


def test_same_after_saving(tmp_path):
    model = KneserNey().fit(["我哋今晚去邊度食飯", "食咗飯未呀", "落雨喇"])
    model.save(tmp_path / "m.npz")
    again = KneserNey.load(tmp_path / "m.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    np.testing.assert_array_equal(again.bits("今晚落雨未"), model.bits("今晚落雨未"))
    assert again.sample(5, seed=3) == model.sample(5, seed=3)
