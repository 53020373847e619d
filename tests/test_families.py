"""Lesson 33: every family's architecture and tokenizer goes the whole way, and what can't be loaded says why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoConfig

from cantolyric._exercises import families as exercises
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.errors import CantolyricError
from cantolyric.families.loading import is_unquantized, lora_targets, quantization_config, unquantized_layers
from cantolyric.families.table import (
    FAMILIES,
    Checkpoint,
    cache_numbers,
    count_parameters,
    family_config,
    family_named,
    state_numbers,
)
from cantolyric.families.tiny import family_special_tokens, small_config, tiny_tokenizer, tiny_variant
from cantolyric.formats import FORMATS
from cantolyric.models import load_model
from cantolyric.quantization import disable_cpu_packing
from cantolyric.reading import Reader
from cantolyric.template.template import ToneTemplate
from cantolyric.text_encoding import text_ids
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.run import run_finetune
from cantolyric.training.stages import save_adapter, train_stage
from cantolyric.training.validation import check_config
from cantolyric.writing.lyricist import Lyricist

ROOT = Path(__file__).parent.parent
CLASSES = {
    "qwen2.5": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3-moe": "Qwen3MoeForCausalLM",
    "qwen3.5": "Qwen3_5ForCausalLM",
    "deepseek-llm": "LlamaForCausalLM",
    "deepseek-v2": "DeepseekV2ForCausalLM",
    "deepseek-v3": "DeepseekV3ForCausalLM",
    "deepseek-v4": "DeepseekV4ForCausalLM",
    "internlm3": "LlamaForCausalLM",
    "yi": "LlamaForCausalLM",
}
EXPERTS = ("qwen3-moe", "deepseek-v2", "deepseek-v3", "deepseek-v4")
LINES = ["夜雨過去\n唔會再會", "落雨嘅夜晚\n我行過長街", "你喺邊度呀\n燈火慢慢熄", "今晚冇月光\n風吹過窗前"]


def pairs(split, n, seed=0):
    tones = Reader().tones
    return [dict(topic=x[:2], tones="/".join(map(tones, x.split("\n"))), lyrics=x) for x in LINES[:n]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Each family's tiny variant on the disk, made once."
    made = {}

    def folder(name):
        if name not in made:
            tiny_variant(name, made.setdefault(name, tmp_path_factory.mktemp(name)))
        return str(made[name])

    return folder


# the whole way


@pytest.mark.parametrize("quantization", ["none", "nf4", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_whole_way(folders, name, quantization, tmp_path):
    "Format, four steps of (Q)LoRA (the fewest that a rung takes), save, load, write: every tone right."
    config = FinetuneConfig(
        base=folders(name),
        quantization=quantization,
        format=FAMILIES[name].format,
        rank=4,
        alpha=4,
        lr=1e-2,
        batch_size=2,
        num_examples=2,
        steps=4,
        save_every=4,
    )
    check_config(config)
    context = RunContext(config, pairs)
    model = context.adapted()
    assert type(model.get_base_model()).__name__ == CLASSES[name]
    adapted = {n.split(".lora_")[0].split(".self_attn.")[-1] for n, p in model.named_parameters() if p.requires_grad}
    wanted = {t.removeprefix("self_attn.") for t in FAMILIES[name].targets}
    assert wanted == {"all-linear"} or adapted == wanted
    report = train_stage(context, "full", model)
    assert report.steps == 4 and all(0 < x < 50 for x in report.losses)
    assert all(
        p.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n
    )  # it started as zeros: every matrix learnt something
    save_adapter(model, tmp_path / "adapter", config.base)
    (tmp_path / "config.json").write_text(json.dumps(dict(format=config.format, quantization=quantization)))
    ids = torch.tensor([context.format.prompt_ids(pairs("train", 1)[0], context.tokenizer)])
    with torch.no_grad():
        want = model(input_ids=ids).logits
    lyricist = Lyricist.from_pretrained(config.base, tmp_path / "adapter")
    assert lyricist.format == FORMATS[FAMILIES[name].format] and is_quantized(lyricist.model) == quantization
    with torch.no_grad():
        got = lyricist.model(input_ids=ids).logits
    assert (got - want).abs().max() < 1e-4 * want.abs().max()
    tones = "0243324/33024"
    written = lyricist.write("夜雨", tones, n=2, seed=0)
    assert len(written) == 2
    for c in written:
        assert (
            c.report.ok
            and ToneTemplate.parse(tones).matches(c.text)
            and "/".join(map(Reader().tones, c.text.split("\n"))) == tones
        )


def is_quantized(model):
    kinds = {type(m).__name__ for m in model.modules()}
    return "nf4" if "Linear4bit" in kinds else "int8" if "Linear8bitLt" in kinds else "none"


def ladder(folders, name, quantization, tmp_path):
    "All rungs and all their gates on a quantized base."
    from test_finetune import pairs as many

    config = FinetuneConfig(
        name="x",
        base=folders(name),
        quantization=quantization,
        format=FAMILIES[name].format,
        runs_dir=str(tmp_path),
        rank=16,
        alpha=32,
        lr=1e-2,
        batch_size=8,
        num_examples=60,
        steps=24,
        pilot_fraction=0.5,
        num_held_out=12,
        save_every=12,
    )
    return config, run_finetune(config, many, lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("name, quantization", [("internlm3", "nf4"), ("qwen3.5", "nf4"), ("qwen3", "int8")])
def test_the_ladder(folders, name, quantization, tmp_path):
    config, run = ladder(folders, name, quantization, tmp_path)
    told = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert run.ok and told["quantization"] == quantization
    assert Lyricist.from_pretrained(config.base, run.adapter).write("夜雨", "0243", n=1, seed=0)[0].report.ok


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, quantization",
    [
        ("deepseek-v3", "nf4"),
        ("deepseek-v2", "int8"),
        ("qwen3-moe", "nf4"),
        ("deepseek-v4", "nf4"),
    ],
)
def test_the_ladder_stops_a_quantized_mixture(folders, name, quantization, tmp_path):
    "Its experts stay in 16 bits, and a run that hoped to save memory says so before it starts."
    with pytest.raises(CantolyricError, match="fused experts are no linear layers"):
        ladder(folders, name, quantization, tmp_path)


# loading


@pytest.mark.parametrize("name", FAMILIES)
def test_on_the_disk_as_published(folders, name):
    "Class, weights and ids come back, under the tokenizer class that the family's files name."
    f, (model, tokenizer) = FAMILIES[name], tiny_variant(name)
    again, tokenizer2 = load_model(folders(name))
    files = {p.name for p in Path(folders(name)).iterdir()}
    assert "model.safetensors" in files and not [x for x in files if x.endswith(".bin")]
    assert (
        json.loads((Path(folders(name)) / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
        == f.tokenizer_class
    )
    assert (
        AutoConfig.from_pretrained(folders(name)).model_type == f.model_type and type(again).__name__ == CLASSES[name]
    )
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    for text in ("夜雨 rain 123\n「唔該」 𠵱家é  x", f"{f.end_token}夜雨", "\n"):
        assert tokenizer(text)["input_ids"] == tokenizer2(text)["input_ids"], text
    assert [tokenizer2.convert_tokens_to_ids(t) for t in family_special_tokens(f)] == [
        tokenizer.convert_tokens_to_ids(t) for t in family_special_tokens(f)
    ]
    table = TokenTable.from_tokenizer(tokenizer2, end=f.end_token)
    ids = text_ids(tokenizer2, LINES[0], "text")
    assert b"".join(table.tokens[i] for i in ids).decode() == LINES[0]
    assert again.config.eos_token_id == tokenizer2.eos_token_id


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stays_whole(folders, name):
    "Quantized: all linear layers but the head, and some of DeepSeek-V4's; routers and fused experts never are."
    import bitsandbytes as bnb

    model, _ = load_model(folders(name), "nf4")
    linear = lambda model: {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    whole = lambda model, kind: {n for n, m in linear(model).items() if not isinstance(m, kind)}
    meant = lambda keep: {n for n in linear(model) if is_unquantized(n, keep)}
    assert whole(model, bnb.nn.Linear4bit) == meant(FAMILIES[name].unquantized)
    assert name == "deepseek-v4" or FAMILIES[name].unquantized == ("lm_head",)
    left = [n for n, p in model.named_parameters() if ".experts." in n or n.endswith("mlp.gate.weight")]
    assert bool(left) == (name in EXPERTS) == FAMILIES[name].is_moe and all(
        p.dtype == torch.float32 for n, p in model.named_parameters() if n in left
    )
    eight, _ = load_model(folders(name), "int8")
    kept = unquantized_layers(model.config, "int8")
    assert whole(eight, bnb.nn.Linear8bitLt) == meant(kept)
    assert set(kept) == {*FAMILIES[name].unquantized, *FAMILIES[name].unquantized_int8}


@pytest.mark.skipif(torch.cuda.is_available(), reason="bitsandbytes' int8 on a CPU")
def test_why_int8_leaves_out_what_reads_the_latent_cache(folders, monkeypatch):
    monkeypatch.setattr("cantolyric.families.loading.unquantized_layers", lambda *_: ["lm_head"])
    model, _ = load_model(folders("deepseek-v2"), "int8")
    with pytest.raises(RuntimeError, match="must match the size"), torch.no_grad():
        model(input_ids=torch.arange(3, 23)[None])


def test_evaluating_does_not_change_four_bits(folders):
    "bitsandbytes would repack the weights in an evaluation on some CPUs, and could not train on after it."
    model, _ = load_model(folders("qwen2.5"), "nf4")
    assert not any(m.support_avx512bf16_for_cpu for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu"))
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        a, b, c = (
            model.train()(input_ids=ids).logits,
            model.eval()(input_ids=ids).logits,
            model.train()(input_ids=ids).logits,
        )
    assert torch.equal(a, b) and torch.equal(a, c) and disable_cpu_packing(model) is model


def test_storage_has_the_dtype_of_the_rest(folders):
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = load_model(folders("qwen3"), "nf4", dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}  # or FSDP would not shard it


@pytest.mark.parametrize("name", EXPERTS)
def test_where_lora_goes(name):
    "In a mixture of experts, PEFT's all-linear means experts and router, but no dense layer of the MLP."
    from peft import LoraConfig, get_peft_model

    model, _ = tiny_variant(name)
    assert tuple(lora_targets(model)) == FAMILIES[name].targets
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    names = {n.split(".lora_A")[0].split("layers.")[-1] for n, _ in wrapped.named_parameters() if "lora_A" in n}
    if name == "deepseek-v4":  # PEFT leaves its experts alone, but takes what it should not: see the next test
        assert "1.self_attn.o_a_proj" in names and "1.mlp.experts" not in names
        return
    assert {"1.mlp.experts", "1.mlp.gate"} < names
    assert not [n for n in names if "shared_experts" in n or n.startswith("0.mlp.down_proj")]


def test_why_deepseek_v4s_grouped_layer_is_left_alone():
    "It has a weight for each group of heads: LoRA beside it, or bitsandbytes in its place, computes another shape."
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_variant("deepseek-v4")[0], LoraConfig(r=2, target_modules=["o_a_proj"]))
    with pytest.raises(RuntimeError, match="must match the size|shape"), torch.no_grad():
        model(input_ids=torch.arange(3, 23)[None])


def test_the_text_part_of_a_checkpoint_that_sees(tmp_path):
    "Qwen3.5 is published as a vision-language model; what is loaded is its text part, weight for weight."
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    text, tokenizer = tiny_variant("qwen3.5")
    sizes = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=64)
    config = Qwen3_5Config(text_config=text.config.to_dict(), vision_config=sizes | dict(num_position_embeddings=16))
    seeing = Qwen3_5ForConditionalGeneration(config)
    seeing.model.language_model.load_state_dict(text.model.state_dict())
    seeing.lm_head.load_state_dict(text.lm_head.state_dict())
    seeing.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "qwen3_5"
    again, _ = load_model(str(tmp_path))
    assert type(again).__name__ == "Qwen3_5ForCausalLM" and again.config.model_type == FAMILIES["qwen3.5"].model_type
    assert all(torch.equal(a, b) for a, b in zip(text.parameters(), again.parameters(), strict=True))


def test_a_head_with_more_rows_than_tokens(tmp_path):
    "Qwen pads its vocabulary: the last rows stand for no token, and no text may use them."
    tokens = len(tiny_tokenizer("qwen3.5"))
    tiny_variant("qwen3.5", tmp_path, vocab_size=tokens + 75)
    written = Lyricist.from_pretrained(str(tmp_path)).write("夜雨", "0243", n=2, seed=0)
    assert all(c.report.ok for c in written)


def hub(tmp_path, folder, name="someone/tiny"):
    "A cache of the Hub with two commits of a model; main is the second."
    import shutil

    home = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    commits = ["a" * 40, "b" * 40]
    for k, c in enumerate(commits):
        shutil.copytree(folder, home / "snapshots" / c)
        config = home / "snapshots" / c / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 10.0 ** -(k + 5)}))
    for ref, c in (("main", commits[1]), ("v1", commits[0])):
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / ref).write_text(c)
    return commits


def test_hub_ids_and_revisions(folders, tmp_path):
    "Offline, from a filled cache: the commit is known after loading, can be chosen, and is stored with the adapter."
    a, b = hub(tmp_path, folders("qwen3"))
    code = f"""
import torch
from cantolyric.models import load_model
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import save_adapter
from cantolyric.writing.lyricist import Lyricist
from cantolyric.adapters import adapter_revision
from cantolyric.errors import CantolyricError
seen = lambda m: (m.commit, m.config.rms_norm_eps)
assert seen(load_model("someone/tiny")[0]) == ({b!r}, 1e-6)
for revision in ({a!r}, "v1"): assert seen(load_model("someone/tiny", "nf4", revision=revision)[0]) == ({a!r}, 1e-5)
context = RunContext(FinetuneConfig(base="someone/tiny", revision="v1", format="qwen3", rank=2), lambda *_: [])
save_adapter(context.adapted(), {str(tmp_path / "run/adapter")!r}, "someone/tiny")
assert adapter_revision({str(tmp_path / "run/adapter")!r}, "someone/tiny") == {a!r}
assert adapter_revision({str(tmp_path / "run/adapter")!r}, "someone/else") is None
assert seen(Lyricist.from_pretrained("someone/tiny", {str(tmp_path / "run/adapter")!r}).model) == ({a!r}, 1e-5)
for revision in ("v9", "c" * 40):
    try: load_model("someone/tiny", revision=revision)
    except CantolyricError as e: print("SAID", e)
try: load_model("someone/absent")
except CantolyricError as e: print("SAID", e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub")),
    )
    assert done.returncode == 0, done.stderr
    said = [x for x in done.stdout.splitlines() if x.startswith("SAID")]
    assert len(said) == 3 and all("cannot load the base model 'someone/" in x and "network" in x for x in said), said


def broken(folders, tmp_path, kind):
    "A folder in which one thing is wrong."
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders("qwen3"), folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if kind == "no config":
        path.unlink()
    if kind == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    if kind == "no weights":
        (folder / "model.safetensors").unlink()
    if kind == "cut short":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:2000])
    if kind == "not JSON":
        path.write_text("{")
    if kind == "own code":
        path.write_text(
            json.dumps(
                config
                | {
                    "model_type": "internlm2",
                    "auto_map": {
                        "AutoConfig": "configuration_internlm2.InternLM2Config",
                        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
                    },
                }
            )
        )
    if kind == "unknown":
        path.write_text(json.dumps(config | {"model_type": "qwen99"}))
    if kind == "quantized already":
        path.write_text(
            json.dumps(config | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
        )
    return str(folder)


@pytest.mark.parametrize(
    "kind, says",
    [
        ("no config", "there is no config.json"),
        ("pickle", r"no weights as safetensors \(only pytorch_model.bin; a file of that kind may run code"),
        ("no weights", r"safetensors \(none at all\)"),
        ("cut short", "damaged or cut short"),
        ("not JSON", "config.json.*damaged"),
        ("own code", "needs code of its own.*trust_remote_code=True"),
        ("unknown", r"transformers 5\.\d+\.\d+ does not know its architecture"),
        ("quantized already", r"stored quantized already \(fp8\)"),
    ],
)
def test_what_cannot_be_loaded(folders, tmp_path, kind, says):
    with pytest.raises(CantolyricError, match=says) as e:
        load_model(broken(folders, tmp_path, kind), "nf4")
    assert "\n" not in str(e.value)


def test_no_code_of_a_model_runs_unless_asked(folders, tmp_path):
    "Files that name own code beside an architecture that transformers has: its own is taken, theirs is not run."
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders("internlm3"), folder)
    for file, key, cls in (
        ("config.json", "AutoModelForCausalLM", "modeling_x.Model"),
        ("tokenizer_config.json", "AutoTokenizer", ["tokenization_x.Tokenizer", None]),
    ):
        told = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(told | {"auto_map": {key: cls}}), encoding="utf-8")
    for module in ("modeling_x", "tokenization_x"):
        (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    model, tokenizer = load_model(str(folder))
    assert (
        type(model).__name__ == "LlamaForCausalLM"
        and tokenizer("夜雨")["input_ids"]
        and not (tmp_path / "ran").exists()
    )


def test_gated(monkeypatch, folders):
    def refuse(*a, **kw):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it")

    monkeypatch.setattr("cantolyric.families.loading.cached_file", refuse)
    with pytest.raises(CantolyricError, match="gated: accept its terms"):
        load_model("someone/gated")


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: load_model("nothing"), "there is no base model 'nothing'"),
        (lambda: load_model("/no/such"), "no base model"),
        (lambda: family_named("llama"), "family='llama': expected one of qwen2.5"),
        (
            lambda: quantization_config(family_config("yi"), "nf3", torch.float32),
            "quantization='nf3': expected one of none, nf4, int8",
        ),
        (lambda: tiny_variant("internlm2"), "family='internlm2'"),
        (lambda: check_config(FinetuneConfig(quantization="4bit")), "quantization='4bit'"),
        (lambda: load_model("tiny", revision="v1"), "only Hub ids have revisions"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(CantolyricError, match=says):
        call()


def test_the_tiny_base_in_four_bits():
    model, tokenizer = load_model("tiny", "nf4")
    assert (
        is_quantized(model) == "nf4"
        and is_quantized(load_model("tiny")[0]) == "none"
        and tokenizer.pad_token_id is not None
    )


# facts


def test_shapes_come_to_what_the_makers_say():
    "Counted on the meta device; names round: InternLM3's 8.8 billion are called 8."
    for name, f in FAMILIES.items():
        total, active = count_parameters(family_config(name))
        c = f.checkpoints[0]
        assert abs(total / 1e9 - c.billions) <= max(0.25, 0.11 * c.billions), name  # InternLM3 is called 8B
        embedding = family_config(name).vocab_size * family_config(name).hidden_size  # some makers leave it out
        counts = [active / 1e9, (active - embedding) / 1e9]
        if c.active:
            assert min(abs(x - c.active) for x in counts) <= max(0.3, 0.02 * c.active), name
        assert (active < total) == f.is_moe == bool(c.active)
    assert count_parameters(family_config("qwen2.5"))[0] == 7_615_616_512  # as published with the weights


def numbers_in(cache):
    "All numbers that a cache holds; DeepSeek-V4 keeps one tensor under two names."
    kept = [v for layer in cache.layers for v in vars(layer).values()]
    flat = [t for v in kept for t in (v.values() if isinstance(v, dict) else [v])]
    return sum({t.data_ptr(): t.numel() for t in flat if isinstance(t, torch.Tensor) and t.ndim}.values())


@torch.no_grad()
def numbers_after(model, tokens):
    "What the cache holds after reading some tokens."
    return numbers_in(model(input_ids=torch.arange(3, 3 + tokens)[None], use_cache=True).past_key_values)


def test_cache_is_what_transformers_keeps():
    "What a text adds to, and what is there once; both lengths are whole windows of DeepSeek-V4's compression."
    for name in FAMILIES:
        model, _ = tiny_variant(name)
        each, once = cache_numbers(model.config), state_numbers(model.config)
        assert [numbers_after(model, n) for n in (16, 48)] == [16 * each + once, 48 * each + once], name
    assert (
        cache_numbers(family_config("deepseek-v3")) == 61 * (512 + 64)
        and cache_numbers(family_config("qwen2.5")) == 28 * 2 * 4 * 128
    )
    assert cache_numbers(family_config("qwen3.5")) == 8 * 2 * 4 * 256 and state_numbers(family_config("qwen2.5")) == 0


def test_every_family_is_told():
    for f in FAMILIES.values():
        assert (
            f.format in FORMATS
            and f.end_token == FORMATS[f.format].end_token
            and f.source
            and f.licence
            and f.context >= 4096
            and f.released[:2] == "20"
        )
        assert all(isinstance(c, Checkpoint) and c.id.count("/") == 1 for c in f.checkpoints)
        assert set(family_special_tokens(f)) <= {t.content for t in tiny_tokenizer(f).added_tokens_decoder.values()}
        assert (
            small_config(f, 500).vocab_size == 500 and small_config(f, 500, num_hidden_layers=3).num_hidden_layers == 3
        )


def test_formats_of_the_newest():
    "Both are told not to think."
    example = pairs("train", 1)[0]
    prompt = lambda name: "".join(text for text, *_ in FORMATS[FAMILIES[name].format].prompt_pieces(example))
    assert prompt("qwen3.5").endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert prompt("deepseek-v4").startswith("<｜begin▁of▁sentence｜><｜User｜>")
    assert prompt("deepseek-v4").endswith("<｜Assistant｜></think>")


def test_qwen35_cuts_text_as_its_tokenizer_does():
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX

    from cantolyric.families.tiny import split_patterns

    assert split_patterns("qwen3.5") == PRETOKENIZE_REGEX != split_patterns("qwen3")


def test_results_agree_with_the_shapes():
    "The committed figures are of these shapes."
    result = json.loads((ROOT / "benchmarks/results/families.json").read_text(encoding="utf-8"))
    assert {k: v["cache_numbers"] for k, v in result["sizes"].items()} == {
        k: cache_numbers(family_config(k)) for k in FAMILIES
    }
    assert {k: v["said"] for k, v in result["sizes"].items()} == {
        k: f.checkpoints[0].billions for k, f in FAMILIES.items()
    }


def test_command_line(folders, tmp_path, capsys):
    from cantolyric.cli.finetune import finetune_config
    from cantolyric.cli.main import main, make_parser

    args = make_parser().parse_args(["finetune", "--base", "a/b", "--quantize", "nf4", "--revision", "v1"])
    config = finetune_config(args)
    assert (config.base, config.quantization, config.revision) == ("a/b", "nf4", "v1")
    assert (
        main(
            [
                "write",
                "--base",
                folders("qwen3"),
                "--quantize",
                "int8",
                "--topic",
                "夜雨",
                "--tones",
                "0243",
                "-n",
                "1",
                "--seed",
                "0",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["candidates"][0]["ok"]
    assert main(["write", "--base", folders("qwen3"), "--revision", "v1", "--topic", "夜雨", "--tones", "0243"]) == 2
    assert "only Hub ids have revisions" in capsys.readouterr().err


# exercises


def test_checkers_know_wrong():
    for check in (exercises.check_tokens_that_fit, exercises.check_linear_names, exercises.check_smollm2):
        assert check(lambda *a: ...).startswith("Not yet")
    assert "one byte short" in exercises.check_tokens_that_fit(
        lambda c, room, each: round(room / (cache_numbers(c) * each))
    )
    assert "with 1 byte" in exercises.check_tokens_that_fit(lambda c, room, each: room // (cache_numbers(c) * 2))
    assert "latent attention" in exercises.check_tokens_that_fit(
        lambda c, room, each: (
            room // (c.num_hidden_layers * 2 * c.num_key_value_heads * (c.hidden_size // c.num_attention_heads) * each)
        )
    )
    linear = lambda model: [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert "'lm_head' does not belong" in exercises.check_linear_names(linear)
    assert "'output' does not belong" in exercises.check_linear_names(
        lambda m: sorted(n for n in linear(m) if n != "lm_head")
    )
    assert "'model.layers.1.mlp.experts.0' does not belong" in exercises.check_linear_names(
        lambda m: sorted(n for n in linear(m) if n not in ("lm_head", "output"))
    )
    assert "is missing" in exercises.check_linear_names(lambda m: sorted(n for n in linear(m) if "attn" in n))
    assert "not sorted" in exercises.check_linear_names(
        lambda m: [n for n in linear(m) if n not in ("lm_head", "output")][::-1]
    )
    yi = FAMILIES["yi"]
    assert "attention: expected 'MHA', got 'GQA'" in exercises.check_smollm2(lambda: yi)
    from dataclasses import replace

    almost = replace(
        yi,
        attention="MHA",
        format="chatml",
        tokenizer="byte-level",
        tokenizer_class="GPT2Tokenizer",
        eos="<|im_end|>",
        context=8192,
    )
    assert "got 8,829,407,232" in exercises.check_smollm2(lambda: almost)
