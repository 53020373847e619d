"""Lessons that open in Colab: a badge under the title, and a first code cell that sets a fresh machine up.

python tools/colab.py [FOLDER]           put both into FOLDER's notebooks (nbs); write tools/constraints-colab.txt
python tools/colab.py [FOLDER] --check   say what is not as this would have it (exit status 1)

Both cells are known by their ids, so that doing it again changes nothing. The repository's address is in settings.ini.
"""

import configparser
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "tools/constraints-colab.txt"
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
# Colab's own kernel has these loaded, or stands on them: another version would ask for a restart, or break it.
COLABS_OWN = {"numpy", "matplotlib", "tqdm", "psutil", "pydantic", "fastapi", "uvicorn"}
BENEATH = ["rustling", "huggingface_hub"]  # not required by name, and yet what a reading or a loaded model hangs on
FOLDED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
}  # by Colab and JupyterLab: a reader comes for the lesson
ROW = re.compile(r"^(\|[^|]*\| \[(\d\d_\w+)\]\(\2\.ipynb\))[^|]*\|", re.M)

CELL = """#| hide
# @title Set-up, on Colab only
import sys

# A new machine from Colab gets this repository and the versions that the lessons were run with.
if "google.colab" in sys.modules:
    import os
    import subprocess

    folder = "/content/{name}"
    if not os.path.isdir(folder):
        clone = ["git", "clone", "-q", "--depth", "1"]
        subprocess.run([*clone, "{repository}", folder], check=True)
    os.chdir(f"{{folder}}/nbs")  # lessons read ../benchmarks/results
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "install", "-c", "../tools/constraints-colab.txt", f"{{folder}}[train,colab]"], check=True)
    # These two are built for Colab's own torch, and no lesson needs them.
    subprocess.run([*pip, "uninstall", "-y", "torchvision", "torchaudio"], check=True)"""


def settings():
    "settings.ini."
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config


def badge(name: str) -> str:
    "A picture that opens the notebook of that name in Colab."
    owner = settings()["metadata"]["repository"].removeprefix("https://github.com/")
    return f"[![Open in Colab]({PICTURE})](https://colab.research.google.com/github/{owner}/blob/main/nbs/{name}.ipynb)"


def install() -> str:
    "The first code cell: nothing at all where this is not Colab."
    repository = settings()["metadata"]["repository"]
    return CELL.format(repository=repository, name=repository.rsplit("/", 1)[1])


def required(*extras: str) -> list[str]:
    "Requirements of the core and of some extras; an extra that stands for another, cantolyric[NAME], is followed."
    config, found = settings(), []
    groups = [config["requirements"]["core"], *(config["extras"][name] for name in extras)]
    for line in "\n".join(groups).split("\n"):
        if other := re.match(r"cantolyric\[(\w+)\]", line):
            found += required(other[1])
        elif line.strip() and not line.startswith("#"):
            found.append(line.strip())
    return found


def pins() -> str:
    "constraints.txt, as far as Colab needs it: what the lessons call by name."
    name = lambda line: re.split(r"[=<>\[ ;]", line.strip())[0].lower().replace("_", "-")
    wanted = {name(line) for line in [*required("train", "colab"), *BENEATH]} - COLABS_OWN
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    lines = [line for line in pinned if name(line) in wanted]
    head = "# Made from constraints.txt by tools/colab.py. Whatever else Colab has stays as it is."
    return "\n".join([head, *lines]) + "\n"


def with_cells(nb: dict, name: str) -> dict:
    "The notebook with both cells after its title; in the index each lesson's badge too."
    cells = [c for c in nb["cells"] if not c.get("id", "").startswith("colab-")]
    if not "".join(cells[0]["source"]).startswith("# "):
        raise SystemExit(f"{name}: the first cell has to be the title")
    lines = lambda text: text.splitlines(keepends=True)
    if name == "index":
        for c in cells:
            text = "".join(c["source"])
            if c["cell_type"] == "markdown" and ROW.search(text):
                c["source"] = lines(ROW.sub(lambda m: f"{m[1]} {badge(m[2])} |", text))
    new = [
        dict(cell_type="markdown", id="colab-badge", metadata={}, source=lines(badge(name))),
        dict(
            cell_type="code",
            execution_count=None,
            id="colab-install",
            metadata=FOLDED,
            outputs=[],
            source=lines(install()),
        ),
    ]
    return dict(nb, cells=cells[:1] + new + cells[1:])


def changes(folder: Path) -> dict:
    "File -> what it should be, where it is not."
    found = {} if PINS.exists() and PINS.read_text(encoding="utf-8") == pins() else {PINS: pins()}
    for path in [*sorted(folder.glob("[0-9]*.ipynb")), folder / "index.ipynb"]:
        was = path.read_text(encoding="utf-8")
        new = (
            json.dumps(with_cells(json.loads(was), path.stem), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        )  # as nbdev-clean writes
        if new != was:
            found[path] = new
    return found


if __name__ == "__main__":
    folders = [a for a in sys.argv[1:] if not a.startswith("-")]
    wrong = changes(Path(folders[0]) if folders else ROOT / "nbs")
    if "--check" not in sys.argv:
        for path, text in wrong.items():
            path.write_text(text, encoding="utf-8")
    elif wrong:
        sys.exit("run  python tools/colab.py: " + ", ".join(p.name for p in wrong))
