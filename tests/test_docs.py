"""The site's source and its checks, Colab's cells, the workflows, and the Cantonese README beside the English one. `make docs` builds the site itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "tools")]
import api  # noqa: E402
import check as site_check  # noqa: E402
import colab  # noqa: E402
import han  # noqa: E402
import source  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "What Sphinx reads."
    folder = tmp_path_factory.mktemp("site")
    source.write(folder)
    return folder


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


# the source


def test_every_page_is_there(site):
    for name in source.lessons():
        assert (site / f"{name}.ipynb").exists() and (site / f"solutions/{name}.ipynb").exists()
        assert f"<{name}>" in "".join(cells(site / "index.ipynb")[-1]["source"])
        assert f"solutions/{name}.ipynb" in cells(site / f"{name}.ipynb")[1]["source"]
    for path in ROOT.glob("cantolyric/[a-z]*.py"):
        assert (site / f"api/{path.stem}.md").exists()
    for path in ROOT.glob("nbs/lib/*.ipynb"):
        assert (site / f"lib/{path.name}").exists()
    assert {p for _, p in source.PAGES.items()} <= {p.name for p in site.iterdir()}


def test_hidden_cells_and_directives_are_gone(site):
    "By another way than the builder's: nbdev's own reading of its directives."
    from nbdev.process import NBProcessor

    for name in source.lessons():
        shown = [c["source"] for c in cells(site / f"{name}.ipynb") if c["cell_type"] == "code"]
        assert not [s for s in shown if re.search(r"^#\|", s, re.M)]
        nb = NBProcessor(ROOT / f"nbs/{name}.ipynb", procs=[], rm_directives=False).nb
        kept = [
            c
            for c in nb.cells
            if c.cell_type == "code"
            and c.source.strip()
            and not {"hide", "default_exp"} & set(getattr(c, "directives_", {}))
        ]
        assert len(shown) == len(kept), name


def test_cells_as_nbdev_has_them():
    cell = lambda text, **data: dict(
        cell_type="code",
        source=text.splitlines(keepends=True),
        outputs=[dict(output_type="display_data", data=data)] if data else [],
    )
    assert (
        source.code_cell(cell("#| hide\nx = 1"), "nbs/24_loss.ipynb") is None
        and source.code_cell(cell("#|default_exp loss"), "nbs/24_loss.ipynb") is None
    )
    shown = source.code_cell(cell("#| export\nx = '#| hide'"), "nbs/24_loss.ipynb")
    assert shown["source"] == "x = '#| hide'" and shown["metadata"]["tags"] == ["mark-export"]
    assert source.code_cell(cell("#| echo: false\nx"), "nbs/24_loss.ipynb")["metadata"]["tags"] == ["remove-input"]
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": ["0%|"]}
    assert source.code_cell(cell("x", **widget), "nbs/24_loss.ipynb")["outputs"] == []


def test_links():
    "To a page where there is one, to the repository where there is none, and an error where there is nothing."
    link = lambda text, path, **k: source.relink(text, path, **k)
    assert link("[a](24_loss.ipynb#x)", "nbs/23_hooks.ipynb") == "[a](24_loss.ipynb#x)"
    assert link("[a](../24_loss.ipynb)", "nbs/solutions/24_loss.ipynb") == "[a](../24_loss.ipynb)"
    assert (
        link("[a](../GLOSSARY.md)", "nbs/index.ipynb") == "[a](glossary.md)"
        and link("[a](nbs/24_loss.ipynb)", "GLOSSARY.md") == "[a](24_loss.ipynb)"
    )
    assert link('<a href="solutions/24_loss.ipynb">', "nbs/24_loss.ipynb") == '<a href="solutions/24_loss.html">'
    assert (
        link("[a](../benchmarks/loss.py)", "nbs/24_loss.ipynb")
        == f"[a]({source.repository()}/blob/main/benchmarks/loss.py)"
    )
    own_songs = "nbs/colab/own_songs.ipynb"  # not on the site
    assert link("[a](colab/own_songs.ipynb)", "nbs/index.ipynb") == f"[a]({source.repository()}/blob/main/{own_songs})"
    assert link("[a](https://x.org) [b](#c)", "nbs/24_loss.ipynb") == "[a](https://x.org) [b](#c)"
    with pytest.raises(SystemExit, match="24_lost"):
        link("[a](24_lost.ipynb)", "nbs/23_hooks.ipynb")
    assert source.no_remote_images(colab.badge("24_loss")).startswith("[Open in Colab](https://colab")


# modules

MODULE = '''"""What it is"""
__all__ = ["LIMIT", "f", "C", "D"]
LIMIT = 3 # at most
def f(
    x: "Reader", # (B, T), seconds
    *more, # the rest
    y: float = .5, # a < b | c
) -> list: # of `x`
    "Do `it` to $x$."
    z = 1 # not a parameter's
def _g(): pass
class C:
    "A thing."
    def __init__(self,
        size: int, # bytes
    ): self.size = size
    @property
    def double(self) -> int: return 2 * self.size # not shown
    def _own(self): pass
class D(tuple):
    "Fields."
    a: int = 0 # grams
@patch
def grow(self: C,
    by: int # bytes
):
    "Grow."
def _melt(self, at=0.): return at # not a comment on at
C.melt = _melt
C.of, C.half = classmethod(_melt), property(lambda self: 1)
'''


def test_modules_are_read():
    limit, f, c, d = api.things(MODULE)
    assert (limit.kind, limit.signature, limit.doc) == ("data", "3", "at most")
    assert f.signature == "(x: Reader, *more, y: float = 0.5) -> list"
    assert f.rows == [
        ("x", "Reader", "", "(B, T), seconds"),
        ("*more", "", "", "the rest"),
        ("y", "float", "0.5", "a < b | c"),
    ] and f.returns == ("list", "of `x`")
    assert c.rows == [("size", "int", "", "bytes")] and [(p.kind, p.name) for p in c.parts] == [
        ("property", "double"),
        ("method", "grow"),
        ("method", "melt"),
        ("method", "of"),
        ("property", "half"),
    ]
    assert c.parts[2].rows == [("at", "", "0.0", "")]
    assert c.parts[1].rows == [("by", "int", "", "bytes")] and d.rows == [("a", "int", "0", "grams")]
    shown = api.block(f)
    assert "Do `it` to \\$x\\$." in shown and "a \\< b \\| c" in shown and "| *returns* | `list` |" in shown


@pytest.mark.parametrize("name", [p.stem for p in sorted(ROOT.glob("cantolyric/[a-z]*.py"))])
def test_modules_as_fastcore_reads_them(name):
    "Names, comments and defaults against fastcore's docments, which imports the module."
    from fastcore.docments import docments

    module = pytest.importorskip(f"cantolyric.{name}", exc_type=ImportError)
    shown = {t.name: t for t in api.things((ROOT / f"cantolyric/{name}.py").read_text(encoding="utf-8"))}
    assert set(shown) == {n for n in module.__all__ if not n.startswith("_")}
    for t in shown.values():
        assert (t.kind == "class") == isinstance(getattr(module, t.name), type) or t.kind == "data", t.name
    for t in (
        t for t in shown.values() if t.kind == "class"
    ):  # methods and properties: those of the class itself, wherever they were put in
        own = {
            n
            for n, v in vars(getattr(module, t.name)).items()
            if not n.startswith("_")
            and (callable(v) or isinstance(v, (property, classmethod, staticmethod)) or hasattr(v, "func"))
        }
        looped = {"Lexicon": own, "TokenTable": {"ranks"}}.get(
            t.name, set()
        )  # cached values that a loop or a call puts in: not read, and of no use to others
        assert {p.name for p in t.parts} | looped == own - {r[0] for r in t.rows} | looped, t.name
    for t in shown.values():
        if t.kind != "function" or hasattr(getattr(module, t.name), "__wrapped__"):
            continue  # a decorator's wrapper has another signature
        theirs = docments(getattr(module, t.name), full=False, returns=False)
        assert [r[0].lstrip("*") for r in t.rows] == list(theirs), t.name
        for parameter, _, _, said in t.rows:  # fastcore leaves out the comment on **more
            if not parameter.startswith("*"):
                assert said == (theirs[parameter] or ""), (t.name, parameter)


# the search


def test_search_words():
    assert han.split("夜雨 rain 0243 聲") == ["夜", "雨", "夜雨", "rain", "n0243", "聲"]
    assert han.split("x夜雨天y_1") == ["x", "夜", "雨", "天", "夜雨", "雨天", "y_1"] and han.split("，。 !") == []


# the check of a built site


def built(folder, **pages):
    for name, text in {"index": "<p id='a'>x</p>", **pages}.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return site_check.check(folder)


@pytest.mark.parametrize(
    "page, wrong",
    [
        ("<img src='https://x.org/a.png' alt='a'>", "loads https://x.org/a.png"),
        ("<script src='//x.org/a.js'></script>", "loads //x.org/a.js"),
        ("<link rel='stylesheet' href='https://fonts.x.org/css'>", "loads https://fonts"),
        ("<style>@import 'https://x.org/f.css';</style>", "loads https://x.org/f.css"),
        ('<p style="background: url(https://x.org/b.png)">', "loads https://x.org/b.png"),
        ("<a href='nowhere.html'>", "nowhere.html leads nowhere"),
        ("<a href='index.html#b'>", "has no such place"),
        ("<img src='data:,' alt=''>", "without alternative text"),
        ("<pre>#| export\nx</pre>", "shows a line for nbdev"),
    ],
)
def test_check_finds(tmp_path, page, wrong):
    assert [w for w in built(tmp_path, page=page) if "page" in w and wrong in w]


def test_check_lets_pass_and_misses_lessons(tmp_path):
    found = built(
        tmp_path,
        page="<a href='https://x.org'>o</a> <a href='index.html#a'>i</a> <img alt='a' src='data:,'> <code>a #| export</code>",
    )
    assert (
        not [w for w in found if w.startswith("page")]
        and "24_loss.html is missing" in found
        and "the search does not know 夜雨" in found
    )
    (tmp_path / "a.css").write_text("@font-face {src: url(https://x.org/f.woff)}")
    (tmp_path / "a.js").write_text("fetch('https://x.org/data')")
    found = site_check.check(tmp_path)
    assert "a.css loads https://x.org/f.woff" in found and "a.js asks for https://x.org/data" in found


# Colab


def test_colab_cells(tmp_path):
    "Put in once, left alone after that; nothing else is changed."
    for name in ("index", "24_loss"):
        (tmp_path / f"{name}.ipynb").write_text(
            (ROOT / f"nbs/{name}.ipynb").read_text(encoding="utf-8"), encoding="utf-8"
        )
    run = lambda *more: subprocess.run(
        [sys.executable, ROOT / "tools/colab.py", tmp_path, *more], capture_output=True, text=True
    )
    before = [c for c in cells(tmp_path / "24_loss.ipynb") if not c["id"].startswith("colab-")]
    assert run().returncode == 0 and run("--check").returncode == 0
    after = cells(tmp_path / "24_loss.ipynb")
    assert [c["id"] for c in after[1:3]] == ["colab-badge", "colab-install"] and after[:1] + after[3:] == before
    table = "".join("".join(c["source"]) for c in cells(tmp_path / "index.ipynb") if c["cell_type"] == "markdown")
    for name in source.lessons():
        assert table.count(f"/blob/main/nbs/{name}.ipynb") == 1
    nb = json.loads((tmp_path / "24_loss.ipynb").read_text(encoding="utf-8"))
    nb["cells"][2]["source"] = ["x"]
    (tmp_path / "24_loss.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    assert run("--check").returncode == 1 and "24_loss" in run("--check").stderr


def test_colab_cells_in_all_lessons_or_none():
    "Once they are in, every lesson has them, as tools/colab.py would write them now."
    has = [p.stem for p in ROOT.glob("nbs/*.ipynb") if any(c["id"] == "colab-install" for c in cells(p))]
    if has:
        subprocess.run([sys.executable, ROOT / "tools/colab.py", "--check"], check=True)


def test_colab_cell_elsewhere_and_there(monkeypatch):
    "Nothing at all where this is not Colab; there, a clone, its folder, pins that exist and extras that exist."
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr("os.chdir", lambda folder: ran.append(folder))
    exec(colab.install(), {})
    assert ran == []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    exec(colab.install(), {})
    clone, folder, install, removed = ran
    assert (
        clone[-2] == source.repository()
        and folder == clone[-1] + "/nbs"
        and removed[-2:] == ["torchvision", "torchaudio"]
    )
    assert install[-1].startswith(clone[-1] + "[") and set(install[-1].split("[")[1].rstrip("]").split(",")) <= set(
        colab.settings()["extras"]
    )
    assert (ROOT / "nbs" / install[install.index("-c") + 1]).resolve() == colab.PINS


def test_colab_has_what_lessons_import():
    "Every package that a lesson or solution imports comes with train and colab, or is Colab's own, or is required by those."
    there = {
        "cantolyric",
        "IPython",
        "ipywidgets",
        "pandas",
        "numpy",
        "huggingface_hub",
        "matplotlib",
        "yaml",
    }  # yaml is pyyaml of train; pandas and huggingface_hub: of datasets, transformers
    config = colab.settings()
    names = "\n".join([config["requirements"]["core"], config["extras"]["train"], config["extras"]["colab"]]).split(
        "\n"
    )
    there |= {re.split(r"[=<>\[ ;]", n.strip())[0] for n in names if n.strip() and not n.startswith("#")}
    imported = {
        m
        for p in [*ROOT.glob("nbs/[0-9]*.ipynb"), *ROOT.glob("nbs/solutions/*.ipynb")]
        for c in cells(p)
        if c["cell_type"] == "code" and c["id"] != "colab-install"
        for m in re.findall(r"^(?:from|import) (\w+)", "".join(c["source"]), re.M)
    }
    assert imported - sys.stdlib_module_names <= there


def test_colab_pins_agree():
    assert colab.PINS.read_text(encoding="utf-8") == colab.pins(), "run python tools/colab.py"
    assert "torch==" in colab.pins() and not re.search(
        "^(ipython|ipykernel|tornado|pandas|numpy)==", colab.pins(), re.M
    )


def test_own_songs_in_colab():
    "What would break the notebook silently, as no test runs it: address, paths, options, and its one number."
    from IPython.core.inputtransformer2 import TransformerManager

    from cantolyric.cli import make_parser

    found = cells(ROOT / "nbs/colab/own_songs.ipynb")
    text = "".join("".join(c["source"]) for c in found)
    code = ["".join(c["source"]) for c in found if c["cell_type"] == "code"]
    assert len(code) == 5 and all(c.startswith("#| eval: false\n") for c in code)
    for c in code:
        compile(TransformerManager().transform_cell(c), "cell", "exec")
    assert colab.badge("colab/own_songs") in text and f'"{source.repository()}"' in code[0]
    paths = re.findall(r"(?:\{package\}|/content/cantolyric)/([\w./-]+)", text)
    assert len(paths) == 2 and all((ROOT / path).exists() for path in paths)
    settings = re.search(r'^settings = "(.*)"$', code[2], re.M)[1]
    commands = re.findall(r"^!cantolyric (.*)$", "\n".join(code), re.M)
    for command in commands:
        typed = command.replace("{settings}", settings).replace("{runs}", "runs").replace("{resume}", "--resume")
        assert make_parser().parse_args(typed.split()).mix in code[1]  # both cells draw the same examples
    assert len(commands) == 2
    verses = (ROOT / "cantolyric/assets/verses.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"{len(verses):,} CC0 verses" in text


# settings


def test_the_address_stands_in_one_place():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    address = source.repository()
    assert 'meta["repository"]' in setup and address not in setup
    for path in [
        *ROOT.glob("docs/*.py"),
        *ROOT.glob("tools/*.py"),
        ROOT / "Makefile",
        *ROOT.glob(".github/workflows/*"),
    ]:
        assert address not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", ["test", "docs", "drift"])
def test_workflows(name):
    "They can be read, ask for few rights, and call what there is."
    yaml = pytest.importorskip("yaml")
    flow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"} and flow[True]  # YAML reads the key `on` as true
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for job in flow["jobs"].values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            for made in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert made in targets
            for file in re.findall(r"(?<![\w/])((?:\.ci|tools)/[\w.]+)", step.get("run", "")):
                assert (ROOT / file).exists()
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_devcontainer():
    made = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    target = re.match(r"make ([a-z-]+) ", made["postCreateCommand"])[1]
    assert (
        re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        and "ms-toolsai.jupyter" in made["customizations"]["vscode"]["extensions"]
    )


# README.zh-HK.md beside README.md


def section(text, n):
    "What stands under the nth heading of the second level."
    return re.split(r"^## .*$", text, flags=re.M)[n]


def numbers(text):
    return set(re.findall(r"\d[\d,./:-]*\d|\d", re.sub(r"\([^)\s]*(?:\.ipynb|\.md|#[\w-]+|nbs/solutions)\)", "", text)))


@pytest.fixture
def readmes():
    english, cantonese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-HK.md"))
    return re.sub(r"<p><b lang=\"yue\">.*?</p><table>.*?$", "", english, flags=re.M), cantonese


def test_cantonese_readme_has_the_same_figures(readmes):
    english, cantonese = readmes
    assert numbers(cantonese) - numbers(english) <= {str(len(source.lessons()))}, "figures that README.md does not have"
    for n in (1, 2):
        assert numbers(section(english, n)) <= numbers(section(cantonese, n)), f"section {n} lacks figures of README.md"
    assert f"{len(source.lessons())} 課" in cantonese
    claims = [row for row in re.findall(r"^\| (\d+) \|", english, re.M)]
    assert f"{len(claims)} 句" in cantonese and cantonese.count("\n- **") == english.split("## What is not claimed")[
        1
    ].split("\n## ")[0].count("\n- **")


def test_cantonese_readme_has_the_same_result_and_commands(readmes):
    cells = [[c.replace(" of ", " / ") for c in re.findall(r"<td[^>]*>(.*?)</td>", text)] for text in readmes]
    assert len(cells[0]) == 16 and cells[0] == cells[1]  # four systems side by side
    code = [
        [re.sub(r"\s+#.*$", "", block, flags=re.M) for block in re.findall(r"```\w+\n(.*?)```", text, re.S)]
        for text in readmes
    ]
    assert code[0] == code[1]
    inline = [set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))) for text in readmes]
    assert inline[1] <= inline[0]


def test_cantonese_readme_has_the_terms(readmes):
    "The Chinese of the glossary, for the terms that both use."
    rows = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in (ROOT / "GLOSSARY.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ][1:]
    for english in (
        "tone",
        "lyricist",
        "melody",
        "token",
        "tokenizer",
        "mask",
        "constraint",
        "finetuning",
        "pretraining",
        "adapter",
        "decoding",
        "prompt",
        "corpus",
        "rhyme",
    ):
        assert next(r[1] for r in rows if r[0] == english) in readmes[1], english
