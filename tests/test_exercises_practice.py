"""The checkers of lessons 41, 50 and 51 reject unfinished answers, and never raise."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from cantolyric._exercises import evaluation, finetune, full_finetune

ROOT = Path(__file__).resolve().parent.parent
CHECKERS = [getattr(m, n) for m in (evaluation, finetune, full_finetune) for n in dir(m) if n.startswith("check_")]


@pytest.mark.parametrize("check", CHECKERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    "answer",
    [lambda *a, **k: ..., lambda *a, **k: None, lambda *a, **k: 0, lambda *a, **k: "x", lambda: 1],
    ids=["stub", "none", "zero", "text", "signature"],
)
def test_wrong_answers_are_rejected(check, answer):
    assert check(answer).startswith("Not yet: ")


def functions(path):
    "Name and number of lines of each function that a notebook defines."
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    sources = [
        "".join(line for line in c["source"] if not line.lstrip().startswith(("!", "%")))
        for c in cells
        if not any(line.startswith("!") for line in c["source"])
    ]
    return [
        (n.name, n.end_lineno - n.lineno + 1)
        for s in sources
        for n in ast.walk(ast.parse(s))
        if isinstance(n, ast.FunctionDef)
    ]


def test_the_full_finetune_defines_no_function_longer_than_25_lines():
    found = functions(ROOT / "nbs" / "50_full_finetune.ipynb")
    assert len(found) >= 4 and max(n for _, n in found) <= 25, found


def test_the_form_for_results():
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "results.yml").read_text(encoding="utf-8"))
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids) and {"figures", "command", "lyrics"} <= set(ids)
    assert all(
        part["type"] in ("markdown", "input", "textarea", "checkboxes") and part["attributes"] for part in form["body"]
    )
