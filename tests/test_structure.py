"""The shape of the package: layers, sizes, imports, and the names that others rely on."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cantolyric"

# From the bottom up. A module imports only from its own layer and from layers above it in this list.
LAYERS = {
    "common": "errors numeric paths files atomic_files progress machine yaml_values",
    "language": "tones characters pronunciation_data reading confidence custom_readings context_rules "
    "double_readings split_compounds lexicon_builder second_reader overlap template melody english numerals lyricfile "
    "lyricmarks lyricnotes api",
    "text": "tokenizer_files bpe text_encoding formats rows data ngram verses",
    "inside the model": "model_head nll generation generation_checks hooks loss lora quantization distributed "
    "distributed_files sharding sharded_training",
    "models": "gguf_blocks model_files integrity adapters adapter_files adapter_downloads models base pretraining "
    "families gpus memory_model fitting export options",
    "constraint": "constraint",
    "writing": "writing",
    "runs": "checks training evaluation",
    "endpoint": "endpoint",
    "commands": "cli",
}
# Written by hand: what they hold is for lessons and tests, or only points to other modules.
APART = {"__init__", "__main__", "_exercises", "_modidx", "_plots", "_published", "_reexport"}
SHIMS = {"finetune", "preflight", "lyricist"}


@cache
def modules() -> dict[str, ast.Module]:
    "Module name without the package -> its syntax tree; packages' `__init__` have no imports of their own."
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in APART | SHIMS and parts[-1] != "__init__":
            found[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST, nested: bool = True) -> Iterator[ast.AST]:
    "Everything below a node, without `if TYPE_CHECKING` and, unless `nested`, without the inside of functions."
    for child in ast.iter_child_nodes(node):
        if is_for_types(child) or (not nested and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))):
            continue
        yield child
        yield from statements(child, nested)


def imported(name: str, nested: bool = True) -> set[str]:
    "The modules of the package that a module imports, inside functions too."
    package = name.split(".")[:-1]
    found = set()
    for node in statements(modules()[name], nested):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*above, *([node.module] if node.module else [])])
            if node.level == 0 and not full.startswith("cantolyric"):
                continue
            full = full.removeprefix("cantolyric").removeprefix(".")
            inside = {f"{full}.{a.name}".strip(".") for a in node.names} & modules().keys()
            found |= inside or {full}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("cantolyric.") for a in node.names if a.name.startswith("cantolyric.")}
    return found - {""}  # the package itself, for its version


def layer(name: str) -> int:
    levels = [k for k, text in enumerate(LAYERS.values()) if name.split(".")[0] in text.split()]
    assert len(levels) == 1, f"{name} has no layer in {Path(__file__).name}, or has two"
    return levels[0]


def test_a_module_imports_only_from_its_layer_and_below():
    wrong = [f"{m} imports {other}" for m in modules() for other in imported(m) if layer(other) > layer(m)]
    assert wrong == []


def test_no_import_goes_round_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(imported(name, nested=False) & modules().keys()):
                visit(other, (*path, name))
            done.add(name)

    for name in modules():
        visit(name, ())


def test_siblings_keep_apart():
    "Training, checks and evaluation: training uses the checks, and that is all."
    for name in modules():
        used = {m.split(".")[0] for m in imported(name)} - {name.split(".")[0]}
        if name.startswith(("checks.", "evaluation.")):
            assert not used & {"training", "evaluation", "checks"}, name
        if name.startswith("training."):
            assert "evaluation" not in used, name


def test_nobody_inside_uses_the_old_paths():
    assert [m for m in modules() if {x.split(".")[0] for x in imported(m)} & SHIMS] == []


def test_no_module_uses_the_private_names_of_another():
    wrong = []
    for name, tree in modules().items():
        for node in statements(tree):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("cantolyric")):
                wrong += [f"{name}: {a.name}" for a in node.names if is_private(a.name) and node.module not in APART]
    assert wrong == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_class_is_patched():
    "Methods stand in the body of their class, where editors and type checkers see them."
    wrong = []
    for name, tree in modules().items():
        classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
        for node in tree.body:
            for target in node.targets if isinstance(node, ast.Assign) else []:
                for t in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id in classes:
                        wrong.append(f"{name}: {ast.unparse(t)}")
    assert wrong == []


def is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def test_sizes():
    "No module over 600 lines, no function over 40, no line over 120 columns."
    wrong = []
    for name, tree in modules().items():
        lines = PACKAGE.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8").splitlines()
        wrong += [f"{name}: {len(lines)} lines"] if len(lines) > 600 else []
        listed = {k for n in tree.body if is_all(n) for k in range(n.lineno, n.end_lineno + 1)}  # by nbdev
        long = [k for k, x in enumerate(lines, 1) if len(x) > 120 and k not in listed]
        wrong += [f"{name}, line {k}: {len(lines[k - 1])} columns" for k in long]
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = node.end_lineno - node.lineno + 1
                wrong += [f"{name}.{node.name}: {size} lines"] if size > 40 else []
    assert wrong == []


def public(body: list[ast.stmt], where: str, method: bool = False) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
                yield f"{where}.{node.name}", node, method
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{where}.{node.name}", True)


def test_every_public_signature_is_annotated():
    wrong = []
    for name, tree in modules().items():
        for where, node, method in public(tree.body, name):
            a = node.args
            given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
            static = any(ast.unparse(d) == "staticmethod" for d in node.decorator_list)
            given = given[1:] if method and not static else given
            wrong += [f"{where}({x.arg})" for x in given if x.annotation is None]
            wrong += [f"{where} -> ?"] if node.returns is None and node.name != "__init__" else []
    assert wrong == []


def test_every_public_name_has_a_docstring():
    wrong = []
    for name, tree in modules().items():
        for where, node, _ in public(tree.body, name):
            if not ast.get_docstring(node) and not node.name.startswith("__"):
                wrong.append(where)
        wrong += [f"{name}.{n.name}" for n in tree.body if is_undocumented_class(n)]
    assert wrong == []


def is_undocumented_class(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)


def loaded(code: str, *modules: str) -> list[str]:
    "Which of some modules are imported after a piece of code has run in a fresh interpreter."
    code += f"\nimport json, sys\nprint(json.dumps(sorted({set(modules)!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


HEAVY = ("torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "IPython", "pycantonese")


def test_importing_the_package_imports_nothing_heavy():
    assert loaded("import cantolyric", *HEAVY, "numpy") == []


def test_the_language_layer_never_imports_torch():
    names = [f"cantolyric.{m}" for m in modules() if layer(m) <= 1]
    assert loaded("import " + ", ".join(names), "torch", "transformers", "datasets") == []


def test_the_endpoint_never_imports_torch():
    names = [f"cantolyric.{m}" for m in modules() if m.startswith("endpoint.") and m != "endpoint.server"]
    assert loaded("import cantolyric.endpoint, " + ", ".join(names), "torch", "transformers") == []


def test_writing_does_not_need_training():
    names = [f"cantolyric.{m}" for m in modules() if m.startswith("writing.")]
    apart = ["cantolyric.training", "cantolyric.evaluation", "cantolyric.checks", "transformers.trainer", "datasets"]
    assert loaded("import " + ", ".join(names), *apart) == []


RELIED_ON = """
cantolyric: Lyricist Reader ToneTemplate ToneConstraint TokenTable Syllable FinetuneConfig run_finetune evaluate_texts
cantolyric: load_model read check
cantolyric.tones: Syllable ToneScheme
cantolyric.reading: Reader
cantolyric.template: ToneTemplate
cantolyric.melody: Melody
cantolyric.bpe: ByteLevelBPE
cantolyric.formats: Alpaca ChatML
cantolyric.data: load_corpus load_verses lyric_pairs
cantolyric.base: load_base
cantolyric.models: load_model CATALOGUE
cantolyric.generation: generate trace
cantolyric.constraint: TokenTable ToneConstraint
cantolyric.hooks: logits_hook
cantolyric.loss: tone_mask_loops tone_mask_slice masked_cross_entropy sliced_cross_entropy
cantolyric.lora: LoRALinear add_lora merge_lora
cantolyric.quantization: quantize_int8 quantize_nf4 dequantize_nf4
cantolyric.gpus: GPUS estimate
cantolyric.families: FAMILIES tiny_variant
cantolyric.preflight: MISTAKES preflight
cantolyric.finetune: FinetuneConfig finetune
cantolyric.evaluation: evaluate
cantolyric.lyricist: Lyricist
"""


@pytest.mark.parametrize("line", RELIED_ON.split("\n")[1:-1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_that_others_rely_on(line):
    pytest.importorskip("torch", exc_type=ImportError)
    from importlib import import_module

    module, names = line.split(": ")
    for name in names.split():
        assert getattr(import_module(module), name) is not None, name


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
