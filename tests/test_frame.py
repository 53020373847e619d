"""The repository agrees with itself: the package with its notebooks, the README with the index."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path):
    "Notebooks and package in a folder of their own, so that a test never changes the repository."
    leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.safetensors")
    for name in ("nbs", "cantolyric"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(command, folder):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def differing(folder, pattern):
    "Files of `folder` and of the repository that do not hold the same bytes, or stand in only one."
    paths = {
        p.relative_to(base)
        for base in (folder, ROOT)
        for p in base.glob(pattern)
        if ".ipynb_checkpoints" not in p.parts
    }
    content = lambda p: p.read_bytes() if p.exists() else None
    return sorted(str(p) for p in paths if content(folder / p) != content(ROOT / p))


def test_export_in_sync(copy):
    run(["nbdev-export"], copy)
    assert not differing(copy, "cantolyric/**/*.py"), "run nbdev-export, and edit notebooks only"


def test_every_module_has_its_notebook(copy):
    "A module whose notebook is gone would never show up as a difference."
    notebooks = {p.stem.split("_", 1)[1] for p in ROOT.glob("nbs/[0-9]*_*.ipynb")} | {
        p.stem for p in ROOT.glob("nbs/lib/*.ipynb")
    }
    assert {p.stem for p in ROOT.glob("cantolyric/[a-z]*.py")} <= notebooks


def test_clean_changes_nothing(copy):
    run(["nbdev-clean"], copy)
    assert not differing(copy, "nbs/**/*.ipynb"), "run nbdev-clean"


def test_readme_agrees_with_index():
    subprocess.run([sys.executable, ROOT / "tools/readme.py", "--check"], check=True)


@pytest.mark.parametrize("path", sorted(ROOT.glob("nbs/**/[!.]*.ipynb")), ids=lambda p: p.name)
def test_notebook_is_fit_to_read(path):
    "Outputs of a run without errors, no local paths, no state of widgets that are gone, small."
    if ".ipynb_checkpoints" in path.parts:
        pytest.skip("a checkpoint")
    text = path.read_text(encoding="utf-8")
    assert "widgets" not in json.loads(text)["metadata"]
    outputs = [o for c in json.loads(text)["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert len(text.encode()) < 1.5 * 2**20
    shown = json.dumps(outputs)
    assert not [bad for bad in (str(ROOT), str(Path.home()) + "/", "site-packages") if bad in shown]


def test_glossary():
    "A syllable for each character, the Reader's own except where a term has another; every lesson there is."
    from cantolyric.reading import Reader

    rows = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ][1:]
    known = {"韻母": "wan5 mou5"}
    for english, chinese, jyutping, _, lesson in rows:
        assert jyutping == known.get(chinese, " ".join(map(str, Reader().read(chinese)))), english
        assert (ROOT / lesson.partition("(")[2].rstrip(")")).exists(), lesson
    assert len(rows) > 40
