"""What Sphinx reads: copies of the notebooks and pages, made ready for a site, and a page for each module.

python docs/source.py FOLDER

Nothing under nbs/ is changed. A page keeps its place: nbs/24_loss.ipynb becomes 24_loss.html, and a link that
leads to no page of the site leads to the repository.
"""

import configparser
import json
import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
import api

PAGES = {  # file of the repository -> page of the site; notebooks come beside them
    "GLOSSARY.md": "glossary.md",
    "README.zh-HK.md": "zh-hk.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "cantolyric/assets/CORPORA.md": "corpora.md",
    "cantolyric/assets/VERSES.md": "verses.md",
    "cantolyric/assets/base/README.md": "base-model.md",
}
OTHER = {"README.md": "index.ipynb", "nbs/solutions": "solutions/index.md"}  # where else a link may lead
LINK = re.compile(r"(\]\(|(?:src|href)=\")(?![a-z]+:|#|/)([^)\"\s#]+)(#[^)\"\s]*)?")
BADGE = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\]\(([^)]*)\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(https?:[^)]*\)")
DIRECTIVE = re.compile(r"^#\|\s*(\w+)(?:[: ]+(.*))?$", re.M)
ROW = re.compile(r"^\|\s*(?:\*\*(.+?)\*\*)?\s*\| \[(\d\d_\w+)\]", re.M)
TERM = re.compile(r"\| ([\u3400-\u9fff]+) \|")  # a cell of Chinese alone
HIDE = {"hide", "default_exp"}  # cells that nbdev does not show either
MARKS = {
    "export",
    "exporti",
    "slow",
    "gpu",
    "hub",
    "qwen",
}  # directives that a reader is told of: a word above the cell


def repository():
    "The address that settings.ini has, and nothing else."
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["metadata"]["repository"]


def lessons():
    "Names of the notebooks that are lessons, in order."
    return sorted(p.stem for p in ROOT.glob("nbs/[0-9]*.ipynb"))


def library_notebooks():
    "Paths, relative to nbs/lib and without the suffix, of the notebooks that hold production code, in order."
    found = (p.relative_to(ROOT / "nbs/lib") for p in ROOT.glob("nbs/lib/**/[!.]*.ipynb"))
    return sorted(p.with_suffix("").as_posix() for p in found if ".ipynb_checkpoints" not in p.parts)


def page_of(path: str):
    "The page (or picture) for a file of the repository, or None."
    if path in PAGES:
        return PAGES[path]
    if path in OTHER:
        return OTHER[path]
    if path.startswith("nbs/colab/"):
        return None  # it is run in Colab and has no outputs to show
    inside = path.removeprefix("nbs/")
    return inside if inside != path and (path.endswith(".ipynb") or inside.startswith("images/")) else None


def relink(text: str, path: str, html: bool = False) -> str:
    "Links of the file at `path`, as they have to be on the site; `html`: in an output, where Sphinx does not look."
    here, at = posixpath.dirname(path), posixpath.dirname(page_of(path))

    def mend(m):
        target = posixpath.normpath(posixpath.join(here, m[2]))
        if not (ROOT / target).exists():
            raise SystemExit(f"{path}: the link to {m[2]} leads nowhere; mend it there")
        page = page_of(target)
        if page is None:
            return f"{m[1]}{repository()}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}{m[3] or ''}"
        page = posixpath.relpath(page, at or ".")
        return m[1] + (re.sub(r"\.(ipynb|md)$", ".html", page) if html or m[1] != "](" else page) + (m[3] or "")

    return LINK.sub(mend, text)


def no_remote_images(text: str) -> str:
    "A badge is a picture on somebody else's machine: its link stays, as a word."
    return IMAGE.sub("", BADGE.sub(r"[\1](\2)", text))


def outputs(cell: dict, path: str) -> list:
    """The outputs that a page can show.

    Leaves out live widgets (a progress bar would stand still), repairs links in HTML, and makes wide HTML scroll."""
    kept = []
    for out in cell["outputs"]:
        data = out.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            continue
        if "text/html" in data:
            text = relink("".join(data["text/html"]), path, html=True)
            data["text/html"] = f'<div class="wide">{text}</div>' if "<table" in text else text
        if "text/markdown" in data:
            data["text/markdown"] = relink("".join(data["text/markdown"]), path)
        kept.append(out)
    return kept


def code_cell(cell: dict, path: str):
    "The cell as the site has it, or None where nbdev would hide it too."
    source = "".join(cell["source"])
    said = {m[1]: (m[2] or "").strip() for m in DIRECTIVE.finditer(source)}
    if HIDE & set(said) or not source.strip():
        return None
    tags = [f"mark-{name}" for name in said if name in MARKS]
    if said.get("echo") == "false":
        tags.append("remove-input")
    source = "\n".join(line for line in source.split("\n") if not line.startswith("#|")).strip("\n")
    return dict(cell, source=source, outputs=outputs(cell, path), execution_count=None, metadata={"tags": tags})


def markdown(text: str, id: str) -> dict:
    "A new cell."
    return dict(cell_type="markdown", id=id, metadata={}, source=text)


def under_title(path: str) -> str:
    "The line below a lesson's title: where its solutions, its module's page and the notebook itself are."
    name, repo = Path(path).stem, repository()
    places = [
        f"[Open in Colab](https://colab.research.google.com/github/{repo.removeprefix('https://github.com/')}/blob/main/{path})",
        f"[the notebook]({repo}/blob/main/{path})",
    ]
    exported = [m for m, file in api.modules().items() if api.notebook_of(file) == f"{name}.ipynb"]
    for module in exported:
        places.insert(0, f"[cantolyric.{module}](api/{module}.md)")
    if (ROOT / f"nbs/solutions/{name}.ipynb").exists():
        places.insert(0, f"[Solutions](solutions/{name}.ipynb)")
    return " · ".join(places)


def notebook(path: str) -> dict:
    "One notebook, ready for the site."
    nb, cells = json.loads((ROOT / path).read_text(encoding="utf-8")), []
    for cell in nb["cells"]:
        if cell.get("id", "").startswith("colab-") or cell["cell_type"] == "raw":
            continue
        if cell["cell_type"] == "code":
            cell = code_cell(cell, path)
        else:
            cell = dict(cell, source=relink(no_remote_images("".join(cell["source"])), path), metadata={})
        if cell:
            cells.append(cell)
    if Path(path).stem in lessons() and "solutions" not in path:
        cells.insert(1, markdown(under_title(path), "site-places"))
    nb["metadata"] = {
        "kernelspec": nb["metadata"].get("kernelspec", {}),
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return dict(nb, cells=cells)


def title(path: str) -> str:
    "The first heading of a notebook."
    for cell in json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]:
        m = re.search(r"^# (.+)$", "".join(cell["source"]), re.M)
        if cell["cell_type"] == "markdown" and m:
            return m[1].strip()
    raise SystemExit(f"{path} has no title: its first cell should begin with  # Title")


def parts() -> dict:
    "Part -> names of its lessons, from the table in the index."
    found, part = {}, None
    for cell in json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]:
        for m in ROW.finditer("".join(cell["source"])):
            part = m[1] or part
            found.setdefault(part, []).append(m[2])
    missing = set(lessons()) - {name for names in found.values() for name in names}
    if missing:
        raise SystemExit(f"not in the table of lessons in nbs/index.ipynb: {', '.join(sorted(missing))}")
    return found


def toctree(caption: str, entries: list, depth: int = 1) -> str:
    "A part of the navigation; it is seen at the side, not in the page."
    head = (
        f"```{{toctree}}\n:hidden:\n:maxdepth: {depth}\n:caption: {caption}\n\n"
        if caption
        else f"```{{toctree}}\n:maxdepth: {depth}\n\n"
    )
    return head + "\n".join(entries) + "\n```"


def navigation() -> str:
    "All of it, for the end of the index."
    lesson = lambda name: f"{name[:2]} {title(f'nbs/{name}.ipynb')} <{name}>"
    groups = [toctree(part, [lesson(name) for name in names]) for part, names in parts().items()]
    back = ["Solutions <solutions/index>", "settings", "Modules <api/index>", "glossary", "粵語 <zh-hk>"]
    library = [f"{title(f'nbs/lib/{name}.ipynb')} <lib/{name}>" for name in library_notebooks()]
    about = ["contributing", "changelog", "corpora", "verses", "base-model"]
    return "\n\n".join(
        [*groups, toctree("To look up", back), toctree("For maintainers", library), toctree("The project", about)]
    )


def page(path: str) -> str:
    "A Markdown file, without the fields that the Hub reads in a model card."
    text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.S)
    text = re.sub(r"^<table.*?</table>$", r'<div class="wide">\g<0></div>', text, flags=re.M | re.S)
    if path == "GLOSSARY.md":
        text = TERM.sub(r'| <span lang="yue" class="nowrap">\1</span> |', text)
    return relink(no_remote_images(text), path)


SETTINGS = """# Finetune settings

Set any of these with `cantolyric finetune --set NAME=VALUE`, in a YAML file (`--config FILE`), or as an argument of
`FinetuneConfig`. The most common ones also have their own options; see `cantolyric finetune --help`.

<div class="wide">

{table}

</div>
"""


def settings() -> str:
    "The fields of `FinetuneConfig`, which also define the command line and the YAML file."
    from cantolyric.training.config_file import settings_table

    return SETTINGS.format(table=settings_table())


def write(folder: Path):
    "The whole source."
    shutil.rmtree(folder, ignore_errors=True)

    def put(name, text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    for path in sorted(
        p.relative_to(ROOT).as_posix()
        for p in [*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("nbs/lib/**/[!.]*.ipynb"), *ROOT.glob("nbs/solutions/*.ipynb")]
    ):
        nb = notebook(path)
        if path == "nbs/index.ipynb":
            nb["cells"].append(markdown(navigation(), "site-navigation"))
        put(page_of(path), json.dumps(nb, ensure_ascii=False))
    shutil.copytree(ROOT / "nbs/images", folder / "images")
    for path, name in PAGES.items():
        put(name, page(path))
    put("settings.md", settings())
    solved = [f"{name[:2]} {title(f'nbs/{name}.ipynb')} <{name}>" for name in lessons()]
    put(
        "solutions/index.md",
        "# Solutions\n\nTry the exercises first; each lesson ends with its own.\n\n" + toctree("", solved),
    )
    for name, text in api.pages().items():
        put(f"api/{name}.md", text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
