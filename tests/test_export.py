"""cantolyric.export: merged folders and LoRA files say the same as the adapter on its base."""

import json
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import gguf_variant, write_gguf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cantolyric.errors import CantolyricError
from cantolyric.export import (
    GGUF_FILE,
    Agreement,
    adapter_to_gguf,
    agreement,
    base_gguf,
    compare_export,
    export_adapter,
    llama_logits,
    merge_adapter,
    model_logits,
    modelfile,
    writes_as_taught,
)
from cantolyric.families.tiny import tiny_variant
from cantolyric.formats import FORMATS, token_id, user_text

FAMILIES = ["qwen2.5", "qwen3", "deepseek-llm"]  # architectures qwen2, qwen3 and llama
needs_llama = pytest.mark.skipif(not find_spec("llama_cpp"), reason="needs llama-cpp-python")


def save_base(family, folder, **changes):
    "A tiny base as a folder of safetensors -> (model, tokenizer)."
    model, tokenizer = gguf_variant(family, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def save_adapter(model, folder, seed=0, **changes):
    "A random adapter with an effect that can be seen, as `cantolyric finetune` saves it."
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes}
    config = LoraConfig(**settings)
    config.init_lora_weights = False  # B is random too
    get_peft_model(model, config).save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    "(base folder, adapter folder) of each architecture, as in the folder of a run."
    place = tmp_path_factory.mktemp(request.param)
    model, _ = save_base(request.param, place / "base")
    format = "deepseek-llm" if request.param == "deepseek-llm" else "chatml"
    (place / "config.json").write_text(json.dumps({"format": format}))
    return place / "base", save_adapter(model, place / "adapter")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    "(base folder, adapter folder, model) of a Qwen2."
    place = tmp_path_factory.mktemp("qwen")
    (place / "config.json").write_text(json.dumps({"format": "chatml"}))
    model, _ = save_base("qwen2.5", place / "base")
    fresh = AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.float32)
    return place / "base", save_adapter(model, place / "adapter"), fresh


def edited(adapter, to, tensors=None, **changes):
    "A copy of an adapter with other settings or tensors."
    to.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (to / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    save_file(tensors or load_file(adapter / "adapter_model.safetensors"), to / "adapter_model.safetensors")
    return to


# merged


def test_the_merged_folder_says_what_the_adapter_says(trained, tmp_path):
    base, adapter = trained
    with_effect = compare_export(str(base), adapter, base)  # the base itself, taken for an export: the adapter matters
    got = compare_export(str(base), adapter, merge_adapter(str(base), adapter, tmp_path / "merged"))
    assert got.max_difference < 1e-4 and got.mean_kl < 1e-9 and got.top1 == 1 and got.positions > 50
    assert with_effect.mean_kl > 1e-2 and with_effect.max_difference > 1


def test_a_merged_folder_is_whole(qwen, tmp_path):
    base, adapter, _ = qwen
    merged = merge_adapter(str(base), adapter, tmp_path / "merged", dtype="bfloat16")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(merged), AutoTokenizer.from_pretrained(merged)
    assert model.dtype == torch.bfloat16 and not any("lora" in name for name in model.state_dict())
    original = AutoTokenizer.from_pretrained(base)
    assert tokenizer.chat_template == original.chat_template and tokenizer.get_vocab() == original.get_vocab()
    assert token_id(tokenizer, "<|im_end|>") in model.generation_config.eos_token_id
    assert model.config.eos_token_id in model.generation_config.eos_token_id
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]
    rounded = compare_export(str(base), adapter, merged)
    assert 0 < rounded.mean_kl < 1e-2 and rounded.max_difference > 1e-4


def test_what_a_lora_file_cannot_hold_can_be_merged(qwen, tmp_path):
    base, _, model = qwen
    settings = {"use_dora": True, "rank_pattern": {"q_proj": 2}, "target_modules": ["q_proj", "up_proj"]}
    adapter = save_adapter(model, tmp_path / "dora", **settings)
    got = compare_export(str(base), adapter, merge_adapter(str(base), adapter, tmp_path / "merged"))
    assert got.mean_kl < 1e-9 and got.top1 == 1


def test_a_chat_template_that_does_not_fit_is_reported(qwen, tmp_path):
    base, adapter, _ = qwen
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert writes_as_taught(tokenizer, FORMATS["chatml"]) and not writes_as_taught(tokenizer, FORMATS["qwen2.5"])
    run = tmp_path / "run"
    run.mkdir()
    edited(adapter, run / "adapter")
    (run / "config.json").write_text(json.dumps({"format": "qwen2.5"}))
    with pytest.warns(UserWarning, match="writes other prompts"):
        merge_adapter(str(base), run, tmp_path / "merged")
    tokenizer.chat_template = None
    assert not writes_as_taught(tokenizer, FORMATS["chatml"])


# where an export goes


@pytest.mark.parametrize("kind", ["merged", "gguf"])
def test_an_export_never_touches_what_is_there(qwen, kind, tmp_path):
    base, adapter, _ = qwen
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, words in (("full", "has files in it"), ("file", "is a file")):
        with pytest.raises(CantolyricError, match=words):
            export_adapter(str(base), adapter, tmp_path / name, kind)
    assert (tmp_path / "full" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert any(export_adapter(str(base), adapter, tmp_path / "empty", kind).iterdir())


def test_a_failed_export_leaves_nothing(qwen, tmp_path, monkeypatch):
    base, adapter, _ = qwen
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge_adapter(str(base), adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_are_refused_on_one_line(qwen, tmp_path):
    base, adapter, _ = qwen
    cases = [
        (lambda: export_adapter(str(base), adapter, tmp_path / "x", "onnx"), "merged, gguf"),
        (lambda: merge_adapter(str(base), adapter, tmp_path / "x", dtype="int4"), "float32, bfloat16, float16"),
        (lambda: merge_adapter(str(base), None, tmp_path / "x"), "no adapter to export"),
        (lambda: adapter_to_gguf(str(base), tmp_path, tmp_path / "x"), "adapter_config.json"),
        (lambda: compare_export(str(base), adapter, tmp_path), "no export in"),
        (lambda: base_gguf("missing.gguf"), "there is no GGUF file"),
    ]
    for request, words in cases:
        with pytest.raises(CantolyricError, match=words) as e:
            request()
        assert "\n" not in str(e.value) and not (tmp_path / "x").exists()


# LoRA files


def test_the_lora_file_adds_up_to_the_merged_weights(trained, tmp_path):
    "Base in GGUF order + alpha / rank · B · A = merged model in GGUF order, tensor by tensor."
    base, adapter = trained
    lora = adapter_to_gguf(str(base), adapter, tmp_path / "lora")
    write_gguf(base, tmp_path / "base.gguf")
    write_gguf(merge_adapter(str(base), adapter, tmp_path / "merged"), tmp_path / "merged.gguf")
    files = {"base": tmp_path / "base.gguf", "merged": tmp_path / "merged.gguf", "lora": lora / GGUF_FILE}
    read = {n: gguf.GGUFReader(path) for n, path in files.items()}
    tensors = {n: {t.name: np.array(t.data) for t in r.tensors} for n, r in read.items()}
    alpha = read["lora"].get_field("adapter.lora.alpha").contents()
    changed = {name.rpartition(".lora_")[0] for name in tensors["lora"]}
    assert len(tensors["lora"]) == 2 * len(changed) == 2 * 2 * 7  # two layers of seven linear ones
    for name, merged in tensors["merged"].items():
        expected = tensors["base"][name]
        if name in changed:
            a, b = tensors["lora"][f"{name}.lora_a"], tensors["lora"][f"{name}.lora_b"]
            assert a.shape == (4, merged.shape[1]) and b.shape == (merged.shape[0], 4)
            expected = expected + alpha / b.shape[1] * b @ a
        assert np.allclose(expected, merged, atol=1e-5), name


def test_the_metadata_are_what_llama_cpp_asks_for(trained, tmp_path):
    base, adapter = trained
    reader = gguf.GGUFReader(adapter_to_gguf(str(base), adapter, tmp_path / "lora") / GGUF_FILE)
    got = {key: reader.get_field(key).contents() for key in reader.fields if not key.startswith("GGUF.")}
    architecture = json.loads((base / "config.json").read_text())["model_type"]
    expected = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    assert got == {"general.architecture": architecture, **expected}


def test_rslora_keeps_its_scale(qwen, tmp_path):
    base, adapter, _ = qwen
    lora = adapter_to_gguf(str(base), edited(adapter, tmp_path / "rs", use_rslora=True), tmp_path / "lora")
    alpha = gguf.GGUFReader(lora / GGUF_FILE).get_field("adapter.lora.alpha").contents()
    assert alpha / 4 == 8 / 4**0.5


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
        ({"trainable_token_indices": [1, 2]}, "rows of the embedding"),
        ({"rank_pattern": {"q_proj": 2}}, "different ranks"),
        ({"alpha_pattern": {"q_proj": 2}}, "different alphas"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"peft_type": "IA3"}, "'IA3', not LORA"),
        ({"arrow_config": {"top_k": 2}}, "it sets arrow_config"),
    ],
)
def test_more_than_lora_is_refused_with_the_reason(qwen, changes, words, tmp_path):
    base, adapter, _ = qwen
    with pytest.raises(CantolyricError, match=f"{words}.*kind='merged'") as e:
        adapter_to_gguf(str(base), edited(adapter, tmp_path / "odd", **changes), tmp_path / "lora")
    assert "\n" not in str(e.value) and not (tmp_path / "lora").exists()


def test_other_tensors_are_refused(qwen, tmp_path):
    base, adapter, _ = qwen
    tensors = load_file(adapter / "adapter_model.safetensors")
    first = sorted(tensors)[0]
    wide = {k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in tensors.items()}
    stem = "base_model.model.model."
    cases = {
        "embedding": ({**tensors, f"{stem}embed_tokens.lora_embedding_A": torch.zeros(4, 8)}, "part of the embedding"),
        "norm": ({**tensors, f"{stem}norm.weight": torch.zeros(8)}, "more than low-rank"),
        "half": ({k: v for k, v in tensors.items() if k != first}, "only one of its two matrices"),
        "deep": ({k.replace("layers.1", "layers.9"): v for k, v in tensors.items()}, "made for another base.*layers.9"),
        "wide": (wide, "made for another base"),
    }
    for name, (changed, words) in cases.items():
        with pytest.raises(CantolyricError, match=words):
            adapter_to_gguf(str(base), edited(adapter, tmp_path / name, changed), tmp_path / "lora")


def test_an_adapter_of_the_head_needs_a_head_of_its_own(tmp_path):
    for tied in (False, True):
        place = tmp_path / str(tied)
        model, _ = save_base("qwen2.5", place / "base", tied=tied)
        save_adapter(model, place / "adapter", target_modules=["lm_head"])
        if tied:
            with pytest.raises(CantolyricError, match="no separate head"):
                adapter_to_gguf(str(place / "base"), place / "adapter", place / "lora")
            with pytest.raises(CantolyricError, match="one matrix"):
                merge_adapter(str(place / "base"), place / "adapter", place / "merged")
        else:
            lora = adapter_to_gguf(str(place / "base"), place / "adapter", place / "lora")
            names = [t.name for t in gguf.GGUFReader(lora / GGUF_FILE).tensors]
            assert names == ["output.weight.lora_a", "output.weight.lora_b"]
            merged = merge_adapter(str(place / "base"), place / "adapter", place / "merged")
            assert compare_export(str(place / "base"), place / "adapter", merged).mean_kl < 1e-9


def test_other_architectures_are_refused(tmp_path):
    model, _ = tiny_variant("qwen3-moe", tmp_path / "base")
    save_adapter(model, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(CantolyricError, match="'qwen3_moe', expected one of qwen2, qwen3, llama"):
        adapter_to_gguf(str(tmp_path / "base"), tmp_path / "adapter", tmp_path / "lora")


# Ollama


def test_the_modelfile_writes_prompts_as_taught(qwen, tmp_path):
    base, adapter, _ = qwen
    text = (adapter_to_gguf(str(base), adapter, tmp_path / "lora") / "Modelfile").read_text(encoding="utf-8")
    assert text.splitlines()[-1] == 'PARAMETER stop "<|im_end|>"' and "FROM ./base.gguf" in text
    turns = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}<|im_end|>"
    assert f'TEMPLATE """{turns}"""\n' in text
    named = modelfile(FORMATS["qwen2.5"], Path("/models/base file.gguf"))
    assert "FROM /models/base file.gguf\nADAPTER ./adapter.gguf\n" in named and "You are Qwen" in named


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_template_of_one_turn(name):
    template = modelfile(FORMATS[name]).split('"""')[1]
    assert template.count("{{ .Prompt }}") == template.count("{{ .Response }}") == 1
    example = {"topic": "地鐵", "tones": "0243", "lyrics": "落車行返屋企"}
    text = template.replace("{{ .Prompt }}", user_text(example)).replace("{{ .Response }}", example["lyrics"])
    bos = getattr(FORMATS[name], "bos", None) or ""  # llama.cpp adds it
    assert bos + text == FORMATS[name].render(example)


def test_the_modelfile_names_a_base_that_is_a_gguf_file(qwen, tmp_path):
    base, adapter, _ = qwen
    write_gguf(base, tmp_path / "base.gguf")
    lora = adapter_to_gguf(str(tmp_path / "base.gguf"), adapter, tmp_path / "lora")
    assert f"FROM {tmp_path / 'base.gguf'}\n" in (lora / "Modelfile").read_text(encoding="utf-8")


# comparing


def test_agreement_is_the_divergence_of_two_distributions():
    p, q = np.log(np.array([[0.5, 0.25, 0.25]])), np.log(np.array([[0.25, 0.5, 0.25]]))
    got = agreement([p, p], [q + 3, p])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    assert got.positions == 2 and np.isclose(got.mean_kl, expected / 2) and got.top1 == 0.5
    assert np.isclose(got.max_difference, 3 + np.log(2))
    assert agreement([p], [p]) == Agreement(1, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("other", [[], [np.zeros((2, 4))]])
def test_agreement_of_other_shapes_is_refused(other):
    with pytest.raises(CantolyricError, match="same shapes"):
        agreement([np.zeros((2, 3))], other)


def test_a_lora_file_needs_its_base_in_gguf(qwen, tmp_path):
    base, adapter, _ = qwen
    with pytest.raises(CantolyricError, match="give gguf_path"):
        compare_export(str(base), adapter, adapter_to_gguf(str(base), adapter, tmp_path / "lora"))


# llama.cpp


@needs_llama
def test_llama_cpp_and_transformers_agree_on_a_file(tmp_path):
    kinds = {"ffn": "Q4_K", "attn_v": "Q6_K", "attn_k": "Q5_0"}
    model = write_gguf(gguf_variant("qwen2.5", wide=True), tmp_path / "m.gguf", kinds, head="Q8_0")
    ids = [list(range(3, 60)), list(range(300, 320))]
    got = agreement(model_logits(model, ids), llama_logits(tmp_path / "m.gguf", ids))
    assert got.positions == 77 and got.mean_kl < 0.01  # llama.cpp rounds activations to 8 bits


@needs_llama
def test_llama_cpp_says_what_the_adapter_says(trained, tmp_path):
    base, adapter = trained
    write_gguf(base, tmp_path / "base.gguf")
    lora = adapter_to_gguf(str(base), adapter, tmp_path / "lora")
    got = compare_export(str(base), adapter, lora, gguf_path=tmp_path / "base.gguf")
    assert got.max_difference < 1e-2 and got.mean_kl < 1e-6 and got.top1 > 0.98
    ids = [list(range(3, 60))]
    plain, adapted = (llama_logits(tmp_path / "base.gguf", ids, file) for file in (None, lora / GGUF_FILE))
    assert agreement(plain, adapted).mean_kl > 1e-2  # the adapter was really applied


@needs_llama
def test_llama_cpp_refuses_an_adapter_of_another_base(qwen, tmp_path):
    base, adapter, _ = qwen
    lora = adapter_to_gguf(str(base), adapter, tmp_path / "lora")
    others = {"wide": {"hidden_size": 128}, "short": {"num_hidden_layers": 1}, "next": {"family": "qwen3"}}
    for name, changes in others.items():
        write_gguf(gguf_variant(**changes), tmp_path / f"{name}.gguf")
        with pytest.raises(CantolyricError, match="made for another base"):
            llama_logits(tmp_path / f"{name}.gguf", [[1, 2, 3]], lora / GGUF_FILE)
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "wide.gguf").read_bytes()[:5000])
    with pytest.raises(CantolyricError, match="llama.cpp cannot load"):
        llama_logits(tmp_path / "cut.gguf", [[1, 2, 3]])


@pytest.mark.qwen
@needs_llama
def test_a_lora_file_on_a_real_base(tmp_path):
    from cantolyric.models import load_model, model_path

    try:
        path = model_path("qwen2.5-coder-0.5b")
    except CantolyricError as e:
        pytest.skip(f"needs the real model: {e}")
    model, _ = load_model("qwen2.5-coder-0.5b", dtype=torch.float32, device="cpu")
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.01)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    del model, adapted
    lora = adapter_to_gguf("qwen2.5-coder-0.5b", tmp_path / "adapter", tmp_path / "lora")
    assert f"FROM {path}" in (lora / "Modelfile").read_text(encoding="utf-8")
    got = compare_export("qwen2.5-coder-0.5b", tmp_path / "adapter", lora)
    assert got.mean_kl < 0.02
