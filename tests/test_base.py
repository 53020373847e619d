"""Lesson 20: handwritten layers, checkpoints that are complete or absent, figures that don't depend on batches."""

import math
import os
import shutil

import pytest

torch = pytest.importorskip("torch")
from transformers import Qwen3Config, Qwen3ForCausalLM

from cantolyric import base, pretraining
from cantolyric._exercises import base as exercises
from cantolyric.base import BaseConfig, bits_per_character, bits_per_text, forward_by_hand, load_base, tiny_config
from cantolyric.bpe import ByteLevelBPE
from cantolyric.errors import ArgumentError, FileError
from cantolyric.paths import asset_path
from cantolyric.pretraining import (
    add_dropout,
    check_run_config,
    checkpoint_of,
    is_evaluated,
    load_pretraining,
    make_optimizers,
    next_token_loss,
    pretrain,
    pretraining_step,
    sample_texts,
    save_pretraining,
)

SMALL = BaseConfig(vocab_size=50, hidden=16, layers=1, heads=2, kv_heads=1, mlp=16, length=8, rows=2)


def begin(seed=0):
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(tiny_config(SMALL)).train()
    return model, make_optimizers(model, SMALL)


@pytest.fixture
def run(tmp_path):
    "A run with a checkpoint of step 1, and its model one step further."
    model, optimizers = begin()
    step = lambda: pretraining_step(next_token_loss(model), optimizers, torch.arange(18).view(2, 9), 1e-2)
    step()
    save_pretraining(tmp_path / "checkpoint", model, optimizers, dict(step=1))
    saved = {n: p.detach().clone() for n, p in model.named_parameters()}
    step()
    return tmp_path, model, optimizers, saved


def comes_back(run, saved):
    model, optimizers = begin(1)
    state = load_pretraining(checkpoint_of(run), model, optimizers)
    return state == dict(step=1) and all(torch.equal(p, saved[n]) for n, p in model.named_parameters())


def test_killed_between_the_two_renames(run, monkeypatch):
    folder, model, optimizers, saved = run
    calls, replace = [], os.replace

    def killed(a, b):
        calls.append(1)
        if len(calls) >= 2:  # and nothing is done any more
            raise KeyboardInterrupt
        replace(a, b)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_pretraining(folder / "checkpoint", model, optimizers, dict(step=2))
    monkeypatch.undo()
    assert not (folder / "checkpoint").exists()
    assert comes_back(folder, saved)


def test_full_disk_leaves_the_old_one_whole(run, monkeypatch):
    folder, model, optimizers, saved = run

    def full(tensors, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pretraining, "save_file", full)
    with pytest.raises(OSError):
        save_pretraining(folder / "checkpoint", model, optimizers, dict(step=2))
    assert comes_back(folder, saved)
    monkeypatch.undo()
    save_pretraining(
        folder / "checkpoint", model, optimizers, dict(step=2)
    )  # what was left half-written is no hindrance
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint"] and not comes_back(folder, saved)


def test_settings_are_remembered(tmp_path):
    check_run_config(tmp_path / "run", SMALL)
    check_run_config(tmp_path / "run", SMALL)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]
    with pytest.raises(FileError, match="started with layers=1, not 2"):
        check_run_config(tmp_path / "run", BaseConfig(**vars(SMALL) | dict(layers=2)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="got a file"):
        check_run_config(tmp_path / "file", SMALL)


def test_bits_do_not_hang_on_the_batch():
    model, tokenizer = load_base()
    texts = ["夜雨", "", "我哋今晚去邊度食飯？", "落雨"]
    together = bits_per_text(model, tokenizer, texts)
    for text, bits in zip(texts, together):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            p = model(ids).logits[0, :-1].double().log_softmax(-1)
        assert bits == pytest.approx(float(-p.gather(1, ids[0, 1:, None]).sum()) / math.log(2), rel=1e-4)
    assert bits_per_character(model, tokenizer, texts) == pytest.approx(
        together.sum() / (sum(map(len, texts)) + len(texts))
    )
    for wrong, value in (("夜雨", "夜雨"), ([], []), ([1], 1)):
        with pytest.raises(ArgumentError) as e:
            bits_per_character(model, tokenizer, wrong)
        assert (e.value.name, e.value.value) == ("texts", value)


def test_folders_that_hold_no_base(tmp_path):
    with pytest.raises(FileError, match="config.json, model.safetensors, tokenizer.json missing"):
        load_base(tmp_path)
    shutil.copytree(asset_path("base"), tmp_path / "base")
    (tmp_path / "base/tokenizer.json").rename(tmp_path / "away")
    with pytest.raises(FileError, match="base model: tokenizer.json missing"):
        load_base(tmp_path / "base")
    (tmp_path / "away").rename(tmp_path / "base/tokenizer.json")
    weights = tmp_path / "base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(FileError, match="cut short"):
        load_base(tmp_path / "base")


def both(model, ids, mask=None, positions=None):
    "The residual stream before and after each layer, after the norm, and the logits: by hand and by transformers."
    after = []
    hooks = [layer.register_forward_hook(lambda module, args, out: after.append(out)) for layer in model.model.layers]
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    for h in hooks:
        h.remove()
    streams, logits = forward_by_hand(model.state_dict(), model.config, ids, mask, positions)
    normed = base.rms_norm(streams[-1], model.state_dict()["model.norm.weight"], model.config.rms_norm_eps)
    return [*streams, normed, logits], [theirs.hidden_states[0], *after, theirs.hidden_states[-1], theirs.logits]


def agree(model, ids, mask=None, positions=None):
    "Equal to 1e-5, of the largest number where that is above 1; at places that are left out nothing is compared."
    real = torch.ones_like(ids).bool() if mask is None else mask.bool()
    ours, theirs = both(model, ids, mask, positions)
    assert len(ours) == len(theirs) == model.config.num_hidden_layers + 3
    for k, (a, b) in enumerate(zip(ours, theirs)):
        assert (a - b)[real].abs().max() <= 1e-5 * max(1.0, float(b[real].abs().max())), k


def random_qwen3(**sizes):
    torch.manual_seed(0)
    config = Qwen3Config(
        **dict(
            vocab_size=97,
            hidden_size=48,
            num_hidden_layers=3,
            intermediate_size=80,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=10,
            max_position_embeddings=256,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
        | sizes
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for (
            p
        ) in model.parameters():  # norms are ones and matrices tiny at the start: a model in which every part counts
            p.copy_(torch.rand_like(p) + 0.5 if p.ndim == 1 else torch.randn_like(p) * p.shape[1] ** -0.5)
    return model


MODELS = {
    "shipped": lambda: load_base()[0],
    "one key head for eight": random_qwen3,
    "a head of its own": lambda: random_qwen3(tie_word_embeddings=False),
    "as many key heads": lambda: random_qwen3(num_attention_heads=3, num_key_value_heads=3, head_dim=16),
    "other constants": lambda: random_qwen3(
        rms_norm_eps=1e-3, rope_parameters=dict(rope_type="default", rope_theta=1e6)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_by_hand(name):
    model, rng = MODELS[name](), torch.Generator().manual_seed(1)
    ids = torch.randint(0, 97, (3, 12), generator=rng)
    agree(model, ids[:1])
    agree(model, ids)
    left_out = torch.ones_like(ids)
    left_out[0, :4], left_out[1, 5:7], left_out[2, 9:] = 0, 0, 0  # padding on the left, a hole, padding on the right
    agree(model, ids, left_out)
    agree(
        model, ids, positions=torch.tensor([0, 1, 5, 6, 7, 20, 21, 50, 51, 52, 100, 101]).expand_as(ids)
    )  # some are skipped
    agree(model, ids, left_out, (left_out.cumsum(1) - 1).clamp(min=0))  # as generation counts them


def test_nobody_looks_ahead():
    model = random_qwen3()
    ids = torch.arange(1, 13)[None]
    other = ids.clone()
    other[0, 8:] = 90
    one, two = (forward_by_hand(model.state_dict(), model.config, x) for x in (ids, other))
    for a, b in zip((*one[0], one[1]), (*two[0], two[1])):
        assert torch.allclose(a[:, :8], b[:, :8], atol=1e-6) and not torch.allclose(a[:, 8:], b[:, 8:], atol=1e-2)


def test_looking_at_a_run_does_not_disturb_it():
    model, tokenizer = load_base()
    add_dropout(model.train(), 0.1)
    torch.manual_seed(3)
    was = torch.get_rng_state()
    texts = sample_texts(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), was) and model.training
    assert len(texts) == len(set(texts)) == 3 and all(len(tokenizer(t)["input_ids"]) <= 26 for t in texts)
    assert sample_texts(model.eval(), tokenizer) == texts and not model.training
    assert sample_texts(model, tokenizer, n=2, seed=1) != texts[:2]
    assert [s for s in range(1, 501) if is_evaluated(s, 500, 200)] == [10, 25, 50, 100, 200, 400, 500]
    assert [s for s in range(1, 8) if is_evaluated(s, 7, 3)] == [3, 6, 7]


def test_evaluations_are_in_the_log(tmp_path, monkeypatch):
    texts = [f"今日{a}好{b}。" for a in "天氣心情" for b in "靚多平難"]
    monkeypatch.setattr(pretraining, "load_corpus", lambda split: dict(text=texts))
    config = BaseConfig(**vars(SMALL) | dict(vocab_size=280, steps=12, warmup=2))
    _, _, straight = pretrain(tmp_path / "run", config, eval_every=5, compile=False)
    looked = [x for x in straight["log"] if "bits" in x]
    assert [x["step"] for x in looked] == [5, 10, 12] and all(len(x["samples"]) == 3 for x in looked)
    assert [x["step"] for x in pretraining.short_log(tmp_path / "run")["log"]] == [1, 5, 10, 11, 12]
    _, _, seldom = pretrain(tmp_path / "other", config, eval_every=100, compile=False)
    assert [x["loss"] for x in seldom["log"]] == [x["loss"] for x in straight["log"]]  # a look changes nothing


def test_too_little_text_for_one_batch():
    bpe = ByteLevelBPE.train(["好"], 260, base.SPECIAL)
    with pytest.raises(ArgumentError, match="2 documents.*one batch of 4 rows of 512 tokens, not 0 rows"):
        next(pretraining.batches(bpe, ["今日", "天氣"], BaseConfig(rows=4, length=512)))


CHECKERS = [getattr(exercises, n) for n in dir(exercises) if n.startswith("check_")]


@pytest.mark.parametrize("check", CHECKERS, ids=lambda c: c.__name__)
def test_unfinished_answers_are_told_so(check):
    for answer in (lambda *a: ..., lambda *a: None, lambda *a: "x", lambda: 1):
        assert check(answer).startswith("Not yet: ")


def test_heads_are_told_apart():
    right = lambda mixed, o_proj, head: mixed[head] @ o_proj.unflatten(1, (len(mixed), -1))[:, head].T
    assert exercises.check_head_adds(right) == exercises.RIGHT
    assert "head 0" in exercises.check_head_adds(
        lambda mixed, o_proj, head: mixed[head] @ o_proj.unflatten(1, (-1, len(mixed)))[:, :, head].T
    )  # every fourth column
    assert "head 1" in exercises.check_head_adds(
        lambda mixed, o_proj, head: right(mixed, o_proj, 0)
    )  # always the first
    assert "(5, 12)" in exercises.check_head_adds(
        lambda mixed, o_proj, head: mixed.transpose(0, 1).flatten(1)
    )  # never multiplied
