"""A page for each module: every public name with its signature, what it does, and what each parameter is.

The comments beside the parameters (docments: shape and unit) become tables. Modules are read, never imported, so
that neither torch nor anything else that they need has to be there.
"""

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "cantolyric"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PROPERTIES = {"property", "cached_property"}
LONG = 60  # characters of a constant's value that are still shown


@dataclass
class Thing:
    "A function, class or constant as a page shows it."

    kind: str  # "function", "class", "data", "method", "property"
    name: str
    signature: str = ""
    doc: str = ""
    rows: list = field(default_factory=list)  # (name, type, default, comment)
    returns: tuple = ()  # (type, comment)
    parts: list = field(default_factory=list)  # methods


def comments(source: str) -> dict:
    "Line number -> the comment at its end."
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        alone = token.line[: token.start[1]].strip() == ""
        if token.type == tokenize.COMMENT and not alone:
            found[token.start[0]] = token.string.lstrip("# ").strip()
    return found


def arguments(node) -> list:
    "(name with its stars, annotation, default) of each parameter, self and cls left out."
    a, rows = node.args, []
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    rows += [(p.arg, p, d) for p, d in zip(plain, defaults)]
    if a.vararg:
        rows.append(("*" + a.vararg.arg, a.vararg, None))
    rows += [(p.arg, p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg:
        rows.append(("**" + a.kwarg.arg, a.kwarg, None))
    return rows


def written(node) -> str:
    "Source of an annotation or a default; the quotes of an annotation that is a string are left out."
    if node is None:
        return ""
    return (
        node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"[A-Z]\w*$", node.value)
        else ast.unparse(node)
    )


def function(node, said: dict, kind: str = "function") -> Thing:
    "A function from its syntax tree."
    own = arguments(node)
    if kind != "function" and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list):
        own = own[1:]
    lines = [(d or p).end_lineno for _, p, d in own]
    # Of several parameters in a line the last has its comment, as fastcore reads it; a comment in the body is none.
    about = lambda i: (
        said.get(lines[i], "") if lines[i] not in lines[i + 1 :] and lines[i] < node.body[0].lineno else ""
    )
    rows = [
        (name, written(p.annotation), "" if d is None else ast.unparse(d), about(i))
        for i, (name, p, d) in enumerate(own)
    ]
    shown = [
        name + (f": {t}" if t else "") + (f" = {d}" if d and t else f"={d}" if d else "") for name, t, d, _ in rows
    ]
    if node.args.kwonlyargs and not node.args.vararg:
        shown.insert(len(own) - len(node.args.kwonlyargs) - bool(node.args.kwarg), "*")
    back = written(node.returns)
    # The comment on what comes back stands after the colon, on a line where no parameter is.
    end = node.returns.end_lineno if node.returns else node.lineno
    meaning = said.get(end, "") if end not in lines and end < node.body[0].lineno else ""
    signature = f"({', '.join(shown)})" + (f" -> {back}" if back else "")
    return Thing(kind, node.name, signature, ast.get_docstring(node) or "", rows, (back, meaning))


def fields(node, said: dict) -> list:
    "Rows of a dataclass's or named tuple's fields."
    return [
        (x.target.id, written(x.annotation), written(x.value), said.get(x.end_lineno, ""))
        for x in node.body
        if isinstance(x, ast.AnnAssign) and not x.target.id.startswith("_")
    ]


def method(node, said: dict) -> Thing | None:
    "A method or property; None if it is private, or the setter of a property."
    decorators = {ast.unparse(d) for d in node.decorator_list}
    if node.name.startswith("_") or f"{node.name}.setter" in decorators:
        return None
    made = function(node, said, "function" if "staticmethod" in decorators else "method")
    if decorators & PROPERTIES:
        return Thing("property", node.name, made.returns[0], made.doc, [], made.returns)
    made.kind = "method"
    return made


def class_(node, said: dict) -> Thing:
    "A class from its syntax tree: fields, or what `__init__` takes; methods."
    made = Thing("class", node.name, "", ast.get_docstring(node) or "", fields(node, said))
    for x in node.body:
        if not isinstance(x, FUNCTIONS):
            continue
        if x.name == "__init__":
            init = function(x, said, "method")
            made.signature, made.rows = init.signature, init.rows
        elif part := method(x, said):
            made.parts.append(part)
    return made


def assigned(node) -> list:
    "Names that an assignment makes; `Class.name = ...` makes none."
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [
        t.id
        for target in targets
        for t in (target.elts if isinstance(target, ast.Tuple) else [target])
        if isinstance(t, ast.Name)
    ]


def things(source: str) -> list:
    "All public names of a module, in the order of its `__all__`."
    tree, said, found = ast.parse(source), comments(source), {}
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            found[node.name] = lambda node=node: function(node, said)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = lambda node=node: class_(node, said)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for name in assigned(node):
                found[name] = lambda node=node, name=name: constant(node, name, said)
    names = next(
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and written(n.targets[0]) == "__all__"
    )
    made = {name: found[name]() for name in names if not name.startswith("_")}
    return list(made.values())


def constant(node, name: str, said: dict) -> Thing:
    "A constant: its value where that is short, and the comment beside it."
    value = ast.unparse(node.value) if node.value is not None and not isinstance(node.value, ast.Lambda) else ""
    return Thing(
        "data",
        name,
        value if len(value) <= LONG and "\n" not in value else "",
        said.get(node.end_lineno, "") or said.get(node.lineno, ""),
    )


def text(s: str, cell: bool = False) -> str:
    "A docstring or comment as Markdown: what is not code means itself; `cell`: inside a table."
    pieces = re.split(r"(`+[^`]+`+)", s)
    plain = lambda p: re.sub(r"([\\<>$*_\[\]{}~#])", r"\\\1", p)
    made = "".join(p if i % 2 else plain(p) for i, p in enumerate(pieces))
    return re.sub(r"\s*\n\s*", " ", made).replace("|", "\\|") if cell else made


def grid(head: list, rows: list) -> str:
    "A Markdown table, without the columns that are empty."
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    line = lambda cells: "| " + " | ".join(cells[i] for i in kept) + " |"
    return "\n".join([line(head), "|---" * len(kept) + "|", *map(line, rows)]) if rows else ""


def table(thing: Thing) -> str:
    "The parameters or fields, one a row."
    code = lambda s: f"`{s}`".replace("|", "\\|") if s else ""
    head = "field" if thing.kind == "class" and not thing.signature else "parameter"
    rows = [(code(name), code(kind), code(default), text(said, cell=True)) for name, kind, default, said in thing.rows]
    if any(thing.returns) and thing.kind != "property":
        rows.append(("*returns*", code(thing.returns[0]), "", text(thing.returns[1], cell=True)))
    return grid([head, "type", "default", ""], rows)


def quoted(s: str) -> str:
    "An option's value that means itself."
    return "'" + s.replace("'", "''") + "'"


def block(thing: Thing, colons: int = 4) -> str:
    "One name as a directive of Sphinx's Python domain."
    fence, options = ":" * colons, []
    head = thing.name + (thing.signature if thing.kind in ("function", "method", "class") else "")
    if thing.kind == "property" and thing.signature:
        options = [f":type: {quoted(thing.signature)}"]
    if thing.kind == "data" and thing.signature:
        options = [f":value: {quoted(thing.signature)}"]
    inside = [text(thing.doc), table(thing), *(block(p, colons - 1) for p in thing.parts)]
    return "\n".join([f"{fence}{{py:{thing.kind}}} {head}", *options, "", "\n\n".join(filter(None, inside)), fence])


def modules() -> dict[str, Path]:
    "Dotted name without the package -> file, of every module that a notebook exports."
    files = (p for p in sorted(PACKAGE.rglob("*.py")) if notebook_of(p))
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in files}


def notebook_of(module: Path) -> str:
    "The notebook that a module is exported from, relative to nbs/; an empty string for what is written by hand."
    with open(module, encoding="utf-8") as f:
        found = re.search(r"File to edit: [./]*nbs/(\S+\.ipynb)", f.read(4096))
    return found[1] if found else ""


def about(module: Path) -> str:
    "The first line of a module's docstring."
    return ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""


def module_page(name: str, module: Path) -> str:
    "The page of one module."
    page = notebook_of(module)
    where = (
        f"Explained for maintainers in its [library notebook](../{page})."
        if page.startswith("lib/")
        else f"Explained, built and tried in lesson [{page.removesuffix('.ipynb')}](../{page})."
    )
    head = f"# cantolyric.{name}\n\n{text(about(module))}. {where}\n\n```{{py:module}} cantolyric.{name}\n```"
    return "\n\n".join([head, *map(block, things(module.read_text(encoding="utf-8")))]) + "\n"


INDEX = """# Modules

Every public name, with the shape and unit of each parameter. The light ones (tones, reading, template, ngram) do not
need torch.

"""


def pages() -> dict[str, str]:
    "Name of the page -> its text, for all modules: those of the lessons in their order, then the library's."
    notebooks = {name: notebook_of(p) for name, p in modules().items()}
    names = sorted(notebooks, key=lambda name: (notebooks[name].startswith("lib/"), notebooks[name], name))
    rows = ["| module | what it is | notebook |", "|---|---|---|"]
    for name in names:
        page = notebooks[name]
        called = "library" if page.startswith("lib/") else page[:2]
        rows.append(f"| [{name}]({name}.md) | {text(about(modules()[name]), cell=True)} | [{called}](../{page}) |")
    nav = "```{toctree}\n:hidden:\n\n" + "\n".join(f"{n} <{n}>" for n in names) + "\n```"
    index = INDEX + "\n".join(rows) + f"\n\n{nav}\n"
    return {"index": index, **{name: module_page(name, modules()[name]) for name in names}}
