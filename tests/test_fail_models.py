"""Models and adapters: what is missing, damaged, or does not belong together is refused; damaged caches are made again.

The module copies the shipped base and damages the copy.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from datasets import Dataset
from gguf_files import gguf_variant, write_gguf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from cantolyric import integrity
from cantolyric.adapter_files import load_lora, save_lora
from cantolyric.adapters import adapter_revision, adapter_run_settings, find_adapter, load_adapter, quiet_peft
from cantolyric.base import load_base
from cantolyric.constraint.compiled import CompiledVocabulary, load_arrays, save_arrays
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.corpora import load_corpus
from cantolyric.data.store import stored
from cantolyric.endpoint.server import save_servable
from cantolyric.errors import CantolyricError
from cantolyric.export import export_adapter
from cantolyric.lora import add_lora
from cantolyric.model_files import is_converted, weights_folder
from cantolyric.models import convert_gguf, load_model
from cantolyric.ngram import KneserNey
from cantolyric.paths import asset_path
from cantolyric.pretraining import load_pretraining
from cantolyric.reading import default_reader
from cantolyric.training.config import FinetuneConfig, adapter_shape
from cantolyric.training.context import continue_adapter
from cantolyric.training.stages import save_adapter
from cantolyric.writing.lyricist import Lyricist

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = asset_path("adapter")
UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"


def copied(source, to, **changes):
    "A copy of a folder with other tensors: name -> tensor, or None to leave it out."
    shutil.copytree(source, to)
    file = next(to.glob("*.safetensors"))
    tensors = load_file(file) | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, file, metadata={"format": "pt"})
    return to


def with_value(name, value):
    "One number of a tensor of the base is another."
    tensor = load_file(asset_path("base") / "model.safetensors")[name].clone()
    tensor[3, 5] = value
    return {name: tensor}


def refusal(function, *words):
    "The message of a CantolyricError: one line, with some words."
    with pytest.raises(CantolyricError) as e:
        function()
    text = str(e.value)
    assert "\n" not in text and all(w in text for w in words), text
    return text


def shell(*args, **env):
    "Run the command in a process of its own: exit code, stdout, stderr."
    code = "import sys; from cantolyric.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", autouse=True)
def corpus():
    "Read from the usual cache before a test has one of its own: the tiny variants train their tokenizers on it."
    load_corpus("validation")


# weights

DAMAGED = {
    "missing": ({UP: None}, [UP, "is missing", "random numbers"]),
    "two missing": ({UP: None, DOWN: None}, [DOWN, "is missing (and 1 more)"]),
    "the embedding": ({"model.embed_tokens.weight": None}, ["is missing"]),
    "shape": ({UP: torch.zeros(2, 2)}, [UP, "another shape"]),
    "unexpected": ({"model.layers.9.mlp.up_proj.weight": torch.zeros(2)}, ["layers.9.mlp.up_proj.weight", "left out"]),
    "nan": (with_value(UP, math.nan), [UP, "not finite"]),
    "infinite": (with_value(DOWN, math.inf), [DOWN, "not finite"]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_weights_that_are_missing_superfluous_or_not_finite(name, tmp_path):
    changes, words = DAMAGED[name]
    folder = copied(asset_path("base"), tmp_path / "base", **changes)
    for load in (load_base, load_model):
        refusal(lambda: load(str(folder)), *words, str(folder), "get ")


def test_tensors_that_a_file_may_leave_out_or_hold(tmp_path):
    head = load_file(asset_path("base") / "model.safetensors")["model.embed_tokens.weight"].clone()
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(32)}
    for n, changes in enumerate([{"lm_head.weight": head}, old]):
        folder = copied(asset_path("base"), tmp_path / str(n), **changes)
        model, _ = load_model(str(folder))
        assert model.base_folder == folder
        load_adapter(model, SHIPPED)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_weights(quantization, tmp_path):
    "The scales show what was not finite in the file."
    pytest.importorskip("bitsandbytes")
    model, _ = load_model("tiny", quantization)
    integrity.check_finite(model, "tiny")
    for n, value in enumerate((math.nan, math.inf)):
        folder = copied(asset_path("base"), tmp_path / str(n), **with_value(UP, value))
        refusal(lambda: load_model(str(folder), quantization), UP, "not finite")
    folder = copied(asset_path("base"), tmp_path / "gone", **{UP: None})
    refusal(lambda: load_model(str(folder), quantization), UP, "is missing")
    load_adapter(model, SHIPPED)  # the fingerprint is of the files, not of what became of them


@pytest.mark.parametrize("part", ["blk.0.ffn_up.weight", "blk.1.attn_q.bias", "output_norm.weight"])
def test_a_gguf_file_without_a_tensor(part, tmp_path, monkeypatch):
    "As a converter writes it that does not know the architecture: every tensor has another name."
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "t.gguf"
    write_gguf(gguf_variant("qwen2.5"), path)
    content = path.read_bytes()
    assert content.count(part.encode()) == 1
    path.write_bytes(content.replace(part.encode(), b"x" * len(part)))
    refusal(lambda: load_model(str(path)), "t.gguf", "is missing")


def test_a_checkpoint_of_pretraining_without_a_tensor(tmp_path):
    model, _ = load_base()
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    for changes, words in [
        ({UP: None}, [UP, "only one of the two"]),
        ({UP: weights[UP] * math.nan}, [UP, "not finite"]),
        ({"x": torch.zeros(2)}, ["x is in only one"]),
    ]:
        kept = {k: v for k, v in (weights | changes).items() if v is not None}
        save_file(kept, tmp_path / "model.safetensors")
        refusal(lambda: load_pretraining(tmp_path, model, []), *words)


# settings of a base


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_damaged_settings_of_a_base(file, tmp_path):
    folder = Path(shutil.copytree(asset_path("base"), tmp_path / "base"))
    for content in (b"", b'{"model_type": ', b"[]", b"3", b"\xff\xfe", b"[" * 100_000):
        (folder / file).write_bytes(content)
        for load in (load_base, load_model):
            refusal(lambda: load(str(folder)), file, str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        dict(model_type=None),
        dict(model_type=5),
        dict(hidden_size="wide"),
        dict(num_hidden_layers=-1),
        dict(rope_parameters=[]),
        dict(num_attention_heads=0),
        dict(layer_types=3),
    ],
)
def test_settings_of_the_wrong_type(changes, tmp_path):
    folder = Path(shutil.copytree(asset_path("base"), tmp_path / "base"))
    told = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    for load in (load_base, load_model):
        refusal(lambda: load(str(folder)), str(folder))


# the fingerprint of the base


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    "The shipped base with one number changed."
    return copied(asset_path("base"), tmp_path_factory.mktemp("changed") / "base", **with_value(UP, 0.5))


def test_a_changed_base_is_refused_wherever_an_adapter_is_put_on_it(changed, tmp_path):
    words = (
        "another version of this base",
        "1 of 68 tensors differ",
        UP,
        "other values",
        "delete base.json",
        str(SHIPPED),
    )
    model, _ = load_base(changed)
    for use in (
        lambda: load_adapter(model, SHIPPED),
        lambda: continue_adapter(model, "shipped"),
        lambda: load_lora(model, SHIPPED),
        lambda: Lyricist.from_pretrained(str(changed), SHIPPED),
        lambda: save_servable(tmp_path / "s", str(changed), SHIPPED),
        lambda: export_adapter(str(changed), SHIPPED, tmp_path / "m"),
        lambda: export_adapter(str(changed), SHIPPED, tmp_path / "g", "gguf"),
    ):
        refusal(use, *words)
    assert not list(tmp_path.iterdir())
    assert not any("lora" in n for n, _ in model.named_parameters())  # the base is as it was


def test_the_remedy_that_the_message_names(changed, tmp_path):
    "Without base.json, as adapters had it before, nothing is compared."
    adapter = Path(shutil.copytree(SHIPPED, tmp_path / "adapter"))
    (adapter / "base.json").unlink()
    assert load_adapter(load_base(changed)[0], adapter).peft_config["default"].r == 32
    load_lora(load_base(changed)[0], adapter)


def test_what_does_not_matter_to_the_fingerprint(tmp_path):
    "Another dtype, other files, another place."
    weights = load_file(asset_path("base") / "model.safetensors")
    wide = copied(asset_path("base"), tmp_path / "wide", **{k: v.float() for k, v in weights.items()})
    split = Path(shutil.copytree(asset_path("base"), tmp_path / "split"))
    (split / "model.safetensors").unlink()
    load_base()[0].bfloat16().save_pretrained(split, max_shard_size="5MB")
    assert len(list(split.glob("*.safetensors"))) > 1
    for folder in (wide, split):
        integrity.check_base(folder, SHIPPED)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(model_type="llama"), ["model_type='llama', not 'qwen3'"]),
        (dict(rms_norm_eps=1e-3), ["rms_norm_eps=0.001"]),
        (dict(num_key_value_heads=1), ["num_key_value_heads=1, not 2"]),
    ],
)
def test_changed_settings_of_the_base(change, words, tmp_path):
    folder = Path(shutil.copytree(asset_path("base"), tmp_path / "base"))
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | change))
    refusal(lambda: integrity.check_base(folder, SHIPPED), *words)


def test_another_architecture(tmp_path):
    "Other names and shapes: the message speaks of another base."
    changes = {UP: torch.zeros(2, 2), DOWN: None, "extra.weight": torch.zeros(2)}
    folder = copied(asset_path("base"), tmp_path / "base", **changes)
    words = ("trained on another base", "3 of 68", "extra.weight (it was added)")
    refusal(lambda: integrity.check_base(folder, SHIPPED), *words)
    folder = copied(asset_path("base"), tmp_path / "flat", **{UP: torch.zeros(2, 2)})
    refusal(lambda: integrity.check_base(folder, SHIPPED), f"{UP} (its shape is [2,2], not [768,256])")


def test_adapters_that_we_write_carry_the_fingerprint(changed, tmp_path):
    model, _ = load_base(changed)
    with quiet_peft():
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    save_adapter(tuned, tmp_path / "peft", "tiny")
    save_lora(add_lora(load_base(changed)[0], rank=2), tmp_path / "ours")
    for name in ("peft", "ours"):
        load_adapter(load_base(changed)[0], tmp_path / name)
        refusal(lambda: load_adapter(load_base()[0], tmp_path / name), "1 of 68", UP)
        assert str(changed.parent) not in (tmp_path / name / "base.json").read_text()
    own, _ = load_base()  # its files are not known: nothing is stored, and nothing of before stays
    del own.base_folder
    save_lora(add_lora(own, rank=2), tmp_path / "ours")
    assert not (tmp_path / "ours/base.json").exists()


def test_the_fingerprint_of_a_gguf_base(tmp_path, monkeypatch):
    "The GGUF file's own hash settles it: conversions by different versions of transformers may differ."
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        write_gguf(gguf_variant("qwen2.5", seed="ab".index(name)), tmp_path / f"{name}.gguf")
    model, _ = load_model(str(tmp_path / "a.gguf"))
    with quiet_peft():
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    save_adapter(tuned, tmp_path / "adapter", "a.gguf")
    told = json.loads((tmp_path / "adapter/base.json").read_text())
    assert len(told["gguf"]["sha256"]) == 64 and str(tmp_path) not in json.dumps(told)
    folder = load_model(str(tmp_path / "a.gguf"))[0].base_folder
    told["tensors"] = {k: v[:-16] + "0" * 16 for k, v in told["tensors"].items()}  # as another version converted it
    (tmp_path / "adapter/base.json").write_text(json.dumps(told))
    integrity.check_base(folder, tmp_path / "adapter")
    refusal(lambda: load_adapter(load_model(str(tmp_path / "b.gguf"))[0], tmp_path / "adapter"), "tensors differ")
    export = lambda name: export_adapter(str(tmp_path / name), tmp_path / "adapter", tmp_path / "out", "gguf")
    refusal(lambda: export("b.gguf"), "another GGUF file", "SHA-256")
    assert export("a.gguf").exists()


@pytest.mark.parametrize("folder, tensors", [(SHIPPED, 68), (ROOT / "adapters/qwen2.5-coder-0.5b", 291)])
def test_the_shipped_adapters_have_fingerprints(folder, tensors):
    if not folder.exists():
        pytest.skip("not in an installed package")
    told = integrity.read_base(folder)
    assert len(told["tensors"]) == tensors and told["settings"]["model_type"] in ("qwen3", "qwen2")
    assert not [w for w in ("/root", "/home", "\\\\", "http") if w in json.dumps(told)]
    integrity.check_base(asset_path("base") if tensors == 68 else weights_folder(told["gguf"]["sha256"]), folder)


def test_a_damaged_fingerprint(tmp_path):
    adapter = Path(shutil.copytree(SHIPPED, tmp_path / "adapter"))
    told = json.loads((adapter / "base.json").read_text())
    changes = (dict(version=2), dict(tensors={"a": "b"}), dict(tensors=None), dict(settings=[]))
    for wrong in ("{", "[]", *(json.dumps(told | change) for change in changes)):
        (adapter / "base.json").write_text(wrong)
        refusal(lambda: load_adapter(load_base()[0], adapter), "base.json", "delete the file")


# adapters

CONFIGS = {
    "empty object": (b"{}", ["peft_type is None"]),
    "empty file": (b"", ["not valid JSON"]),
    "not JSON": (b"{", ["not valid JSON"]),
    "list": (b"[]", ["expected a JSON object"]),
    "not UTF-8": (b"\xff", ["not valid JSON"]),
    "nested": (b"[" * 100_000, ["not valid JSON"]),
    "type": (dict(peft_type=5), ["peft_type is 5"]),
    "rank 0": (dict(r=0), ["r is 0", "at least 1"]),
    "rank of text": (dict(r="8"), ["r is '8'"]),
    "no rank": (dict(r=None), ["r is None"]),
    "alpha": (dict(lora_alpha="x"), ["lora_alpha is 'x'"]),
    "dropout": (dict(lora_dropout=-1), ["lora_dropout is -1"]),
    "targets": (dict(target_modules=5), ["target_modules is 5"]),
    "base": (dict(base_model_name_or_path=[]), ["base_model_name_or_path"]),
    "revision": (dict(revision=5), ["revision is 5"]),
    "pattern": (dict(rank_pattern=3), ["rank_pattern is 3"]),
    "unknown type": (dict(peft_type="LARO"), ["LARO"]),
    "other targets": (dict(target_modules=["nothing"]), ["nothing"]),
    "another rank": (dict(r=4), ["does not fit"]),
    "bias": (dict(bias="some"), ["does not fit"]),
    "task": (dict(task_type="POETRY"), ["does not fit"]),
    "layers": (dict(layers_to_transform="all"), ["does not fit"]),
}


def with_config(to, change):
    "A copy of the shipped adapter with another adapter_config.json."
    adapter = Path(shutil.copytree(SHIPPED, to))
    file = adapter / "adapter_config.json"
    told = change if isinstance(change, bytes) else json.dumps(json.loads(file.read_text()) | change).encode()
    file.write_bytes(told)
    return adapter


@pytest.mark.parametrize("name", CONFIGS)
def test_damaged_settings_of_an_adapter(name, tmp_path):
    change, words = CONFIGS[name]
    adapter = with_config(tmp_path / "adapter", change)
    refusal(lambda: load_adapter(load_base()[0], adapter), *words, str(adapter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refusal(lambda: continue_adapter(load_base()[0], str(adapter)), *words)
    if "does not fit" in words or name in ("other targets", "unknown type"):
        return  # these need the base, or PEFT
    for read in (
        adapter_shape,
        lambda a: FinetuneConfig(from_adapter=str(a)),
        lambda a: adapter_revision(a, "tiny"),
        lambda a: load_lora(load_base()[0], a),
        lambda a: export_adapter("tiny", a, tmp_path / "out", "gguf"),
    ):
        refusal(lambda: read(adapter), *words)


NAMES = sorted(load_file(SHIPPED / "adapter_model.safetensors"))
WEIGHTS = {
    "missing": ({NAMES[0]: None}, [NAMES[0], "is missing"]),
    "many missing": ({n: None for n in NAMES[:5]}, [NAMES[0], "and 4 more"]),
    "extra": ({NAMES[0].replace("layers.0", "layers.9"): torch.zeros(32, 256)}, ["layers.9", "fits nothing"]),
    "nan": ({NAMES[3]: torch.full((2, 2), math.nan)}, [NAMES[3], "not finite"]),
    "infinite": ({NAMES[3]: torch.full((2, 2), math.inf)}, [NAMES[3], "not finite"]),
    "shape": ({NAMES[3]: torch.zeros(2, 2)}, ["does not fit"]),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_damaged_weights_of_an_adapter(name, tmp_path):
    changes, words = WEIGHTS[name]
    adapter = copied(SHIPPED, tmp_path / "adapter", **changes)
    model, _ = load_base()
    refusal(lambda: load_adapter(model, adapter), *words, str(adapter))
    refusal(lambda: continue_adapter(load_base()[0], str(adapter)), *words)
    if name != "shape":
        assert not any("lora" in n for n, _ in model.named_parameters())  # the base is as it was


def test_weights_that_are_gone_or_cut_short(tmp_path):
    adapter = Path(shutil.copytree(SHIPPED, tmp_path / "adapter"))
    file = adapter / "adapter_model.safetensors"
    content = file.read_bytes()
    for cut in (0, 5, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        said = "cut short" if cut > 1000 else "adapter"
        for use in (load_adapter, load_lora):
            refusal(lambda: use(load_base()[0], adapter), str(adapter), said)
    file.write_bytes(content + b"more")
    refusal(lambda: load_adapter(load_base()[0], adapter), "damaged")
    file.unlink()
    refusal(lambda: load_adapter(load_base()[0], adapter), "no weights", "no adapter_model.safetensors")
    torch.save({}, adapter / "adapter_model.bin")
    refusal(lambda: load_adapter(load_base()[0], adapter), "only adapter_model.bin", "may run code")


@pytest.mark.parametrize(
    "options",
    [
        dict(use_dora=True),
        dict(modules_to_save=["norm"]),
        dict(bias="lora_only"),
        dict(use_rslora=True),
        dict(target_modules=["embed_tokens"]),
        dict(trainable_token_indices=[1, 2]),
    ],
)
def test_every_kind_of_adapter_that_is_whole_is_accepted(options, tmp_path):
    "The names that PEFT stores depend on the options."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(load_base()[0], LoraConfig(**dict(r=2, target_modules=["q_proj"]) | options))
        tuned.save_pretrained(str(tmp_path / "a"))
        again = load_adapter(load_base()[0], tmp_path / "a")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(tuned.eval()(input_ids=ids).logits, again(input_ids=ids).logits)


def test_settings_of_the_run_beside_an_adapter(tmp_path):
    adapter = Path(shutil.copytree(SHIPPED, tmp_path / "adapter"))
    for content, words in [
        (b"{", "not valid JSON"),
        (b"[]", "a JSON object"),
        (b'{"format": 5}', "format is 5"),
        (b'{"quantization": [1]}', "quantization is [1]"),
    ]:
        (tmp_path / "config.json").write_bytes(content)
        refusal(lambda: adapter_run_settings(adapter), words, "config.json", "restore")
        refusal(lambda: Lyricist.from_pretrained("tiny", tmp_path), words)


@pytest.mark.parametrize("adapter", ["x" * 300, "a\0b", "no/such/folder", 5, ["shipped"]])
def test_what_cannot_be_an_adapter(adapter):
    refusal(lambda: find_adapter("tiny", adapter), "adapter")


# from the command line


def test_refusals_on_the_command_line(changed, tmp_path):
    gone = copied(asset_path("base"), tmp_path / "gone", **{UP: None})
    empty = with_config(tmp_path / "empty", b"{}")
    write = ("write", "--topic", "夜雨", "--tones", "02")
    for args, words in [
        ((*write, "--base", gone, "--adapter", "none"), (UP, "is missing")),
        ((*write, "--base", changed, "--adapter", SHIPPED), ("1 of 68", UP)),
        ((*write, "--adapter", empty), ("adapter_config.json", "peft_type")),
    ]:
        code, out, err = shell(*args)
        said = [line for line in err.splitlines() if line.startswith("cantolyric")]
        assert code == 2 and not out and "Traceback" not in err, (args, code, out, err)
        assert len(said) == 1 and all(w in said[0] for w in words), err
        assert "LOAD REPORT" not in err and len(err.splitlines()) == 1, err


# caches


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_datasets_are_made_again(cache):
    rows = [str(n) * 50 for n in range(3000)]
    made = []

    def build():
        made.append(1)
        return Dataset.from_dict({"a": rows})

    def again(number):  # of times that it was made
        assert stored("x", build)["a"][:] == rows and len(made) == number
        assert stored("x", build)["a"][:] == rows and len(made) == number  # what was made is kept
        assert [p.name for p in cache.iterdir()] == ["x"]

    again(1)
    arrow = next((cache / "x").glob("*.arrow"))
    whole = arrow.read_bytes()
    cuts = [whole[:n] for n in (0, 10, 1000, len(whole) // 2, len(whole) - 8, len(whole) - 1)]
    for n, content in enumerate([*cuts, whole[:-5000] + b"x" + whole[-4999:], whole + b"x"], 2):
        arrow.write_bytes(content)
        again(n)
    for name in ("state.json", "dataset_info.json", "checksums.json", arrow.name):
        (cache / "x" / name).unlink()
        again(len(made) + 1)
        (cache / "x" / name).write_bytes(b"{")
        again(len(made) + 1)
    shutil.rmtree(cache / "x")
    (cache / "x").mkdir()
    again(len(made) + 1)
    shutil.rmtree(cache / "x")
    (cache / "x").write_text("a file")
    again(len(made) + 1)


def test_caches_follow_the_umask(cache):
    before = os.umask(0o022)
    try:
        stored("x", lambda: Dataset.from_dict({"a": [1]}))
        save_arrays(cache / "v.npz", {"a": np.zeros(2)})
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in cache.rglob("*") if p.is_file()} == {"0o644"}
    assert (cache / "x").stat().st_mode & 0o777 == 0o755


@pytest.fixture(scope="module")
def table():
    return TokenTable.from_tokenizer(load_base()[1])


def test_compiled_vocabularies_are_made_again(table, cache):
    expected = CompiledVocabulary(table, default_reader()).tokens.arrays
    file = next(cache.glob("vocabulary-*.npz"))
    whole, arrays = file.read_bytes(), dict(np.load(file))

    def damaged():
        yield from (whole[:n] for n in (0, 10, 1000, len(whole) // 2, len(whole) - 1))
        yield whole[:5000] + bytes(b ^ 255 for b in whole[5000:5100]) + whole[5100:]
        counts = arrays["counts of all 0"].astype(np.float64)
        for change in (
            dict(texts=None),
            dict(digest=None),
            dict(text=arrays["text"][:-1]),
            {"counts of all 0": counts},
            dict(chars=arrays["chars"][:0]),
            dict(more=np.zeros(2)),
            dict(newline=np.array({}, object)),
        ):
            kept = {k: v for k, v in (arrays | change).items() if v is not None}
            np.savez(cache / "other.npz", **kept)
            yield (cache / "other.npz").read_bytes()
        save_arrays(cache / "other.npz", {k: v for k, v in arrays.items() if k != "digest"})  # whole, of another name
        yield (cache / "other.npz").read_bytes()

    for n, content in enumerate(damaged()):
        file.write_bytes(content)
        assert load_arrays(file) is None, n
    again = CompiledVocabulary(table, default_reader()).tokens.arrays
    assert all(np.array_equal(x, y) for a, b in zip(expected, again) for x, y in zip(a, b)) and load_arrays(file)


def test_converted_weights_are_made_again(cache, tmp_path):
    path = tmp_path / "t.gguf"
    expected = write_gguf(gguf_variant("qwen2.5"), path)
    folder = convert_gguf(path)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == (folder / "config.json").stat().st_mode & 0o777
    assert is_converted(folder)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "converted_from.json"):
        for content in (None, b"", (folder / name).read_bytes()[:-7]):
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content)
            assert not is_converted(folder), (name, content)
        model, _ = load_model(str(path))  # converts it again
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    note = json.loads((folder / "converted_from.json").read_text())
    del note["checksums"]  # as earlier versions wrote it
    (folder / "converted_from.json").write_text(json.dumps(note))
    assert is_converted(folder)


def test_files_of_n_gram_models(tmp_path):
    "Not a cache: what is damaged is refused, in one line."
    path = tmp_path / "m.npz"
    KneserNey(3).fit(["落雨", "落雪", "大雨"]).save(path)
    whole, arrays = path.read_bytes(), dict(np.load(path))
    assert KneserNey.load(path).bits("落雨").sum() == KneserNey(3).fit(["落雨", "落雪", "大雨"]).bits("落雨").sum()
    for n in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n])
        refusal(lambda: KneserNey.load(path), "m.npz")
    keys, letters = arrays["keys1"], arrays["alphabet"]
    for change in (
        dict(alphabet=None),
        dict(keys1=None),
        dict(counts1=arrays["counts1"][:-1]),
        dict(keys1=keys * 0),
        dict(keys1=keys.astype(float)),
        dict(counts0=-arrays["counts0"]),
        dict(alphabet=letters[::-1]),
        dict(alphabet=np.zeros((2, 2))),
        dict(order=np.array(9)),
        dict(order=np.array("x")),
        dict(keys2=arrays["keys2"] + 10**6),
    ):
        np.savez(path, **{k: v for k, v in (arrays | change).items() if v is not None})
        refusal(lambda: KneserNey.load(path), "m.npz")
