"""Lesson 20: checkpoints that are whole or not there, figures that do not hang on batches, and folders that hold no base."""
import math
import os
import shutil

import pytest

torch = pytest.importorskip("torch")
from transformers import Qwen3ForCausalLM  # noqa: E402

from cantolyric import base  # noqa: E402
from cantolyric.base import (BaseConfig, bits_per_character, bits_per_text, find_checkpoint, load_base, load_checkpoint, make_optimizers, same_config,  # noqa: E402
                             next_token_loss, save_checkpoint, tiny_config, train_step)
from cantolyric.data import asset_path  # noqa: E402
from cantolyric.tones import CantolyricError  # noqa: E402

SMALL = BaseConfig(vocab_size=50, hidden=16, layers=1, heads=2, kv_heads=1, mlp=16, length=8, rows=2)


def begin(seed=0):
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(tiny_config(SMALL)).train()
    return model, make_optimizers(model, SMALL)


@pytest.fixture
def run(tmp_path):
    "A run with a checkpoint of step 1, and its model one step further."
    model, optimizers = begin()
    step = lambda: train_step(next_token_loss(model), optimizers, torch.arange(18).view(2, 9), 1e-2)
    step()
    save_checkpoint(tmp_path / "checkpoint", model, optimizers, dict(step=1))
    saved = {n: p.detach().clone() for n, p in model.named_parameters()}
    step()
    return tmp_path, model, optimizers, saved


def comes_back(run, saved):
    model, optimizers = begin(1)
    state = load_checkpoint(find_checkpoint(run), model, optimizers)
    return state == dict(step=1) and all(torch.equal(p, saved[n]) for n, p in model.named_parameters())


def test_killed_between_the_two_renames(run, monkeypatch):
    folder, model, optimizers, saved = run
    calls, replace = [], os.replace
    def killed(a, b):
        calls.append(1)
        if len(calls) == 2: raise KeyboardInterrupt
        replace(a, b)
    monkeypatch.setattr(base.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt): save_checkpoint(folder / "checkpoint", model, optimizers, dict(step=2))
    monkeypatch.undo()
    assert not (folder / "checkpoint").exists()
    assert comes_back(folder, saved)


def test_full_disk_leaves_the_old_one_whole(run, monkeypatch):
    folder, model, optimizers, saved = run
    def full(tensors, path): raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr(base, "save_file", full)
    with pytest.raises(OSError): save_checkpoint(folder / "checkpoint", model, optimizers, dict(step=2))
    assert comes_back(folder, saved)
    monkeypatch.undo()
    save_checkpoint(folder / "checkpoint", model, optimizers, dict(step=2)) # what was left half-written is no hindrance
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint"] and not comes_back(folder, saved)


def test_settings_are_remembered(tmp_path):
    same_config(tmp_path / "run", SMALL)
    same_config(tmp_path / "run", SMALL)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]
    with pytest.raises(CantolyricError, match="started with layers=1, not 2"): same_config(tmp_path / "run", BaseConfig(**vars(SMALL) | dict(layers=2)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CantolyricError, match="is a file"): same_config(tmp_path / "file", SMALL)


def test_bits_do_not_hang_on_the_batch():
    model, tokenizer = load_base()
    texts = ["夜雨", "", "我哋今晚去邊度食飯？", "落雨"]
    together = bits_per_text(model, tokenizer, texts)
    for text, bits in zip(texts, together):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad(): p = model(ids).logits[0, :-1].double().log_softmax(-1)
        assert bits == pytest.approx(float(-p.gather(1, ids[0, 1:, None]).sum()) / math.log(2), rel=1e-4)
    assert bits_per_character(model, tokenizer, texts) == pytest.approx(together.sum() / (sum(map(len, texts)) + len(texts)))
    for wrong, says in (("夜雨", r"write \[text\]"), ([], "texts is empty"), ([1], "text 1 is 1")):
        with pytest.raises(CantolyricError, match=says): bits_per_character(model, tokenizer, wrong)


def test_folders_that_hold_no_base(tmp_path):
    with pytest.raises(CantolyricError, match="config.json, model.safetensors, tokenizer.json missing"): load_base(tmp_path)
    shutil.copytree(asset_path("base"), tmp_path / "base")
    (tmp_path / "base/tokenizer.json").rename(tmp_path / "away")
    with pytest.raises(CantolyricError, match=r"\(tokenizer.json missing\)"): load_base(tmp_path / "base")
    (tmp_path / "away").rename(tmp_path / "base/tokenizer.json")
    weights = tmp_path / "base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(CantolyricError, match="cut short"): load_base(tmp_path / "base")
