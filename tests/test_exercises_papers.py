"""The checkers of lesson 42 reject wrong answers, and never raise."""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import pytest

from cantolyric._exercises import RIGHT, papers

CHECKERS = [getattr(papers, n) for n in dir(papers) if n.startswith("check_")]


@pytest.mark.parametrize("check", CHECKERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    "answer",
    [
        lambda *a, **k: ...,
        lambda *a, **k: None,
        lambda *a, **k: 0,
        lambda *a, **k: True,
        lambda *a, **k: "x",
        lambda: 1,
        lambda *a: 1 / 0,
    ],
    ids=["stub", "none", "zero", "true", "text", "signature", "crash"],
)
def test_wrong_answers_are_rejected(check, answer):
    assert check(answer).startswith("Not yet: ")


def bits(bits, block, group=None, constant=32, small=8):
    return bits + (constant / block if group is None else small / block + constant / (block * group))


def could_be(printed, exact, ways=(ROUND_HALF_UP, ROUND_DOWN)):
    digits = printed.replace(",", "")
    number = Decimal(digits.rstrip("KMB"))
    value = Decimal(exact).scaleb(-{"K": 3, "M": 6, "B": 9}.get(digits[-1], 0))
    return any(number == value.quantize(Decimal(1).scaleb(number.as_tuple().exponent), way) for way in ways)


def test_right_answers_are_accepted():
    assert papers.check_bits(bits) == RIGHT
    assert papers.check_houlsby(lambda d, n, r: 2 * n * (2 * d * r + r + d)) == RIGHT
    assert papers.check_could_be(could_be) == RIGHT


def test_typical_mistakes_are_rejected():
    assert "256 constants" in papers.check_bits(
        lambda b, block, group=None, constant=32, small=8: (
            b + (constant / block if group is None else small / block + constant / group)
        )
    )  # divided by constants, not by weights
    assert "Not yet" in papers.check_bits(
        lambda b, block, group=None, constant=32, small=8: bits(b, block, group)
    )  # other constants forgotten
    assert "r = 1" in papers.check_houlsby(lambda d, n, r: 2 * n * 2 * d * r)  # no biases
    assert "r = 1" in papers.check_houlsby(lambda d, n, r: n * (2 * d * r + r + d))  # one adapter per block
    assert "'18.8M'" in papers.check_could_be(lambda p, e: could_be(p, e, (ROUND_HALF_UP,)))  # rounds only
    assert "Not yet" in papers.check_could_be(lambda p, e: could_be(p, e, (ROUND_DOWN,)))  # truncates only
    assert "Not yet" in papers.check_could_be(
        lambda p, e: (
            abs(float(p.strip("KMB").replace(",", "")) * {"K": 1e3, "M": 1e6, "B": 1e9}.get(p[-1], 1) / e - 1) < 0.02
        )
    )  # a rule of thumb
