"""The checkers of lessons 41, 50 and 51: an unfinished answer is told so, and never raises."""
import pytest

from cantolyric._exercises import evaluation, finetune, full_finetune

CHECKERS = [getattr(m, n) for m in (evaluation, finetune, full_finetune) for n in dir(m) if n.startswith("check_")]


@pytest.mark.parametrize("check", CHECKERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("answer", [lambda *a, **k: ..., lambda *a, **k: None, lambda *a, **k: 0, lambda *a, **k: "x", lambda: 1], ids=["stub", "none", "zero", "text", "signature"])
def test_wrong_answers_are_told(check, answer):
    assert check(answer).startswith("Not yet: ")
