"""The wheel, installed elsewhere with the light core only, works and never touches torch."""

import configparser
import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import cantolyric

ROOT = Path(__file__).resolve().parent.parent

TRY = """
import json, sys
import cantolyric, cantolyric.tones, cantolyric.reading, cantolyric.template, cantolyric.ngram
from cantolyric.reading import Reader
from cantolyric.template.template import ToneTemplate
from cantolyric.ngram import KneserNey
KneserNey().fit(["落雨", "落雪"]).bits("落雨")
print(json.dumps({
    "where": cantolyric.__file__, "version": cantolyric.__version__,
    "tones": Reader().tones("銀行行長"), "matches": ToneTemplate.parse("03").matches("銀紙"),
    "heavy": sorted({"torch", "transformers", "datasets", "matplotlib", "fastcore", "IPython"} & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built from a copy, so that no build folder is left in the repository."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "cantolyric", source / "cantolyric", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source]
    subprocess.run(pip, check=True)
    return next(out.glob("*.whl"))


def test_wheel_holds_the_assets(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for p in ROOT.glob("cantolyric/**/*"):
        if p.is_file() and "__pycache__" not in p.parts:
            assert p.relative_to(ROOT).as_posix() in inside
    assert not [name for name in inside if name.startswith(("tests", "nbs", "tools", "benchmarks"))]


def test_one_version(wheel):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    assert cantolyric.__version__ == settings["metadata"]["version"] == wheel.name.split("-")[1]


def test_works_elsewhere_without_torch(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel], check=True)
    done = subprocess.run([python, "-c", TRY], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert Path(got["where"]).is_relative_to(tmp_path / "env"), "imported the repository, not the wheel"
    assert got["heavy"] == [] and got["version"] == cantolyric.__version__
    assert got["tones"] == "0003" and got["matches"]  # 銀行行長: ngan4 hong4 hong4 zoeng2
