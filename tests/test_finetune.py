"""Finetuning: the stages, what a run writes and refuses, and what a kill or a full disk leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cantolyric.constraint.mask_store import MaskStore
from cantolyric.constraint.scoring import ToneCollator, answer_bits, encode_pairs, per_character
from cantolyric.errors import ArgumentError, CantolyricError, FileError, GateError
from cantolyric.models import load_model
from cantolyric.paths import asset_path
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.run import run_finetune
from cantolyric.training.run_folder import check_folder, read_config, read_run, run_folders
from cantolyric.training.stages import StageReport, gate_learnt, gate_limits, gate_lower, run_stage
from cantolyric.training.trainer import batch_order
from cantolyric.training.validation import check_config

ROOT = Path(__file__).resolve().parent.parent
LINES = (
    "落雨嘅夜晚 我行過長街 你喺邊度呀 燈火慢慢熄 今晚冇月光 風吹過窗前 天光就會走 講聲好掛住 嗰年嘅夏天 一個人飲酒"
).split()
LOG = ("tensorboard",) if find_spec("tensorboard") else ()
needs_base = pytest.mark.skipif(
    not asset_path("base", "tokenizer.json").exists(), reason="the tiny base is not in assets"
)


def pairs(split, n, seed=0):
    "Two lines of ten, in every combination: enough to learn something that holds on pairs not seen."
    from cantolyric.reading import default_reader

    every = [(a, b) for a in LINES for b in LINES if a != b]
    order = np.random.default_rng(0).permutation(len(every))
    at = dict(train=order[:60], validation=order[60:75], test=order[75:])[split][:n]
    tones = default_reader().tones
    return [
        dict(topic=every[i][0][-2:], tones=f"{tones(every[i][0])}/{tones(every[i][1])}", lyrics="\n".join(every[i]))
        for i in at
    ]


MADE = {}  # another file that imports these fixtures shares what they made


def once(name, make):
    if name not in MADE:
        MADE[name] = make()
    return MADE[name]


def make_base(factory):
    "A Qwen3 of two narrow layers and random weights, with the tokenizer of the tiny base."
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    folder = factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(asset_path("base"))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        intermediate_size=128,
        initializer_range=0.1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return once("base", lambda: make_base(tmp_path_factory))


def micro(base, folder, **changes):
    given = dict(
        name="micro",
        base=base,
        runs_dir=str(folder),
        rank=16,
        alpha=32,
        lr=1e-2,
        batch_size=8,
        num_examples=60,
        steps=24,
        pilot_fraction=0.5,
        num_held_out=12,
        save_every=4,
    )
    return FinetuneConfig(**given | changes)


def quiet(*_):
    pass


@pytest.fixture(scope="session")
def run(base, tmp_path_factory):
    "One complete run, for all tests that only look."
    return once("run", lambda: run_finetune(micro(base, tmp_path_factory.mktemp("runs"), log_to=LOG), pairs, quiet))


def adapter(run):
    from safetensors.torch import load_file

    return load_file(run.adapter / "adapter_model.safetensors")


def same(a, b):
    "The same losses, figures, gates and adapter."
    for stage in ("smoke", "pilot", "full"):
        x, y = a.metrics["stages"][stage], b.metrics["stages"][stage]
        assert x["losses"] == y["losses"]
        assert x["held_out"] == y["held_out"]
        assert [g["name"] for g in x["gates"]] == [g["name"] for g in y["gates"]]
    x, y = adapter(a), adapter(b)
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


@needs_base
def test_what_a_run_writes(run, base):
    names = sorted(str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if p.is_file())
    assert [n for n in names if not n.startswith("logs/")] == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/base.json",
        "config.json",
        "config.yaml",
        "metrics.json",
        "plots/held_out.png",
        "plots/loss.png",
        "report.md",
    ]
    assert run.ok and not run_folders(micro(base, run.folder.parent))[1].exists()
    full = run.metrics["stages"]["full"]
    assert len(full["losses"]) == full["steps"] == 24 and full["held_out"]["num_examples"] == 12
    assert full["held_out"]["after"]["masked"] < full["held_out"]["before"]["best"]["masked"]
    assert [g["name"] for g in run.metrics["stages"]["smoke"]["gates"]][-2:] == ["learnt", "saved"]
    text = (run.folder / "report.md").read_text(encoding="utf-8")
    for shown in (f"{full['held_out']['after']['masked']:.3f}", "plots/loss.png", "12 examples"):
        assert shown in text
    assert str(ROOT) not in json.dumps(json.loads((run.folder / "adapter/adapter_config.json").read_text()))


@needs_base
def test_adapter_loads_and_only_lora_was_trained(run, base):
    from peft import PeftModel

    model, tokenizer = load_model(base)
    tuned = PeftModel.from_pretrained(model, str(run.adapter)).eval()
    assert all("lora_" in k for k in adapter(run))
    held = pairs("test", 12)
    from cantolyric.formats import ChatML

    assert per_character(answer_bits(tuned, tokenizer, held, ChatML()), held) == pytest.approx(
        run.held_out["after"]["masked"], abs=1e-4
    )


@needs_base
def test_existing_run_is_refused(run, base):
    config = micro(base, run.folder.parent)
    with pytest.raises(ArgumentError, match="exists already: choose another name"):
        run_finetune(config, pairs, quiet)
    with pytest.raises(CantolyricError, match="rank=16, not 4"):
        run_finetune(replace(config, rank=4, resume=True), pairs, quiet)


def test_interrupted_run_is_refused_and_nothing_to_resume_is_said(tmp_path):
    config = FinetuneConfig(runs_dir=str(tmp_path))
    with pytest.raises(CantolyricError, match="no run to resume"):
        run_finetune(replace(config, resume=True), pairs, quiet)
    with pytest.raises(CantolyricError, match="no run to resume"):
        read_config(runs_dir=str(tmp_path))
    (tmp_path / "tiny.part").mkdir()
    for resume in (False, True):  # neither call recommends the other
        with pytest.raises(FileError, match="holds no run that could be resumed"):
            run_finetune(replace(config, resume=resume), pairs, quiet)
    (tmp_path / "tiny.part/config.json").write_text("{}")
    with pytest.raises(ArgumentError, match="continue it .--resume"):
        run_finetune(config, pairs, quiet)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(FileError, match="is not a run"):
        run_finetune(replace(config, resume=True), pairs, quiet)
    with pytest.raises(FileError, match="no finished run|metrics.json"):
        read_run(tmp_path / "tiny")


def test_resume_takes_the_settings_of_the_run(tmp_path):
    part = tmp_path / "x.part"
    part.mkdir()
    (part / "config.json").write_text(json.dumps(dict(name="x", rank=5, steps=7)))
    config = read_config("x", str(tmp_path))
    assert (config.rank, config.steps, config.resume) == (5, 7, True) and not check_folder(config)


@pytest.mark.parametrize(
    "base, match",
    [
        ("no/such/folder", "there is no base model"),
        ("/nowhere", "there is no base model"),
        (".", "no config.json"),
        ("a/b/c", "there is no base model"),
    ],
)
def test_bad_base(base, match, tmp_path):
    with pytest.raises(CantolyricError, match=match):
        run_finetune(FinetuneConfig(base=base, runs_dir=str(tmp_path / "runs")), pairs, quiet)
    assert not (tmp_path / "runs").exists()


def test_hub_id_without_network(tmp_path):
    code = (
        "from cantolyric.errors import CantolyricError\n"
        "from cantolyric.training.config import FinetuneConfig\nfrom cantolyric.training.run import run_finetune\n"
        f"try: run_finetune(FinetuneConfig(base='nobody/nothing-{os.getpid()}', runs_dir={str(tmp_path / 'runs')!r}))\n"
        "except CantolyricError as e: print('SAID', e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)),
    )
    assert "SAID cannot load the base model" in done.stdout, done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        dict(rank=0),
        dict(lr=0.0),
        dict(lr=float("nan")),
        dict(name=""),
        dict(name="a/b"),
        dict(name=".."),
        dict(name="a.part"),
        dict(stage="x"),
        dict(format="x"),
        dict(steps=1.5),
        dict(dropout=1.0),
        dict(pilot_fraction=0.0),
        dict(max_gib=0),
    ],
)
def test_bad_settings(changes):
    with pytest.raises(CantolyricError):
        check_config(FinetuneConfig(**changes))


@needs_base
def test_a_gate_stops_the_run_with_a_reason(base, tmp_path):
    with pytest.raises(GateError, match=r"stopped before the smoke stage: \[overfit\]"):
        run_finetune(micro(base, tmp_path, lr=1e-6), pairs, quiet)
    assert not list(tmp_path.iterdir())
    with pytest.raises(GateError, match=r"\[forecast\].*the limit is"):
        run_finetune(micro(base, tmp_path, max_minutes=1e-3), pairs, quiet)
    assert not list(tmp_path.iterdir())
    wrong = lambda *a: [dict(e, tones=e["tones"].translate(str.maketrans("24", "42"))) for e in pairs(*a)]
    with pytest.raises(CantolyricError):
        run_finetune(micro(base, tmp_path), wrong, quiet)
    assert not list(tmp_path.iterdir())


def test_gates_after_a_stage():
    assert (
        gate_learnt([6.0] * 10 + [1.0] * 3)
        and not gate_learnt([6.0] * 10 + [3.1] * 3)
        and not gate_learnt([6.0, 6.0, 6.0, float("nan")])
    )
    assert gate_lower(5.0, 4.9, "x") and not gate_lower(5.0, 5.0, "x") and not gate_lower(5.0, float("nan"), "x")
    slow = StageReport("pilot", 10, 10, [1.0] * 10, 60.0)
    assert gate_limits(slow, FinetuneConfig(steps=100, max_minutes=11, max_gib=1000))
    assert "the limit is 9 minutes" in gate_limits(slow, FinetuneConfig(steps=100, max_minutes=9, max_gib=1000)).message
    assert "the limit is 0.01 GiB" in gate_limits(slow, FinetuneConfig(steps=100, max_minutes=11, max_gib=0.01)).message


@needs_base
def test_base_is_left_as_it_was(base):
    context = RunContext(micro(base, "runs", stage="smoke"), pairs)
    was = {k: v.clone() for k, v in context.model.state_dict().items()}
    report = run_stage(context.config, context=context)
    assert report.stage == "smoke" and report.ok and len(report.losses) == 30
    now = context.model.state_dict()
    assert was.keys() == now.keys() and all(torch.equal(was[k], now[k]) for k in was)
    assert not [m for m in context.model.modules() if m._forward_hooks]


KILLED = """
import sys; sys.path.insert(0, {tests!r})
from test_finetune import run_finetune, micro, pairs, quiet
from cantolyric.training.trainer import ToneTrainer
import cantolyric.training.run as F, os, signal
at, kind = {at}, {kind!r}
was = ToneTrainer._save_checkpoint
def save(self, model, trial):
    if self.state.max_steps == 24 and self.state.global_step == at:
        if kind == "inside": # while the checkpoint is being written
            from transformers import Trainer
            Trainer._save_rng_state = lambda self, folder: os.kill(os.getpid(), signal.SIGKILL)
        else:
            was(self, model, trial)
            os.kill(os.getpid(), signal.SIGKILL)
    was(self, model, trial)
ToneTrainer._save_checkpoint = save
if kind == "writing": # while the finished run is put into its folder
    ToneTrainer._save_checkpoint = was
    F.write_plots = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
run_finetune(micro({base!r}, {folder!r}), pairs, quiet)
"""


@needs_base
@pytest.mark.parametrize(
    "at, kind", [pytest.param(12, "after", marks=pytest.mark.slow), (16, "inside"), (0, "writing")]
)
def test_killed_and_resumed(run, base, tmp_path, at, kind):
    code = KILLED.format(tests=str(ROOT / "tests"), at=at, kind=kind, base=base, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "micro").exists() and (tmp_path / "micro.part/config.json").exists()
    assert (tmp_path / "micro.part/smoke.json").exists()  # a finished stage is not run again
    resumed = run_finetune(read_config("micro", str(tmp_path)), pairs, quiet)
    same(run, resumed)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".tmp")) == ["micro"]


@needs_base
def test_full_disk(base, tmp_path):
    "A limit on the size of a file stands for a disk without space: every writer meets an error in the middle."
    code = (
        "import sys, resource, signal; sys.path.insert(0, {tests!r})\n"
        "from test_finetune import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import cantolyric.training.stages as F\n"
        "was = F.train_stage\n"
        "def limited(context, stage, *a, **k):\n"
        "    if stage == 'full': resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    return was(context, stage, *a, **k)\n"
        "F.train_stage = limited\n"
        "try: run_finetune(micro({base!r}, {folder!r}), pairs, quiet)\n"
        "except CantolyricError as e: print('SAID', e)\n"
    ).format(tests=str(ROOT / "tests"), base=base, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "SAID" in done.stdout and "the disk is full" in done.stdout, done.stdout + done.stderr
    part = tmp_path / "micro.part"
    assert not (tmp_path / "micro").exists() and not list(part.rglob("*.tmp"))
    assert run_finetune(read_config("micro", str(tmp_path)), pairs, quiet).ok


@needs_base
def test_masks_are_those_of_the_constraint():
    from transformers import AutoTokenizer

    from cantolyric.constraint.automaton import ToneConstraint
    from cantolyric.constraint.bits import unpack_mask
    from cantolyric.constraint.vocabulary import TokenTable
    from cantolyric.formats import ChatML
    from cantolyric.rows import answer_ids

    tokenizer = AutoTokenizer.from_pretrained(asset_path("base"))
    table = TokenTable.from_tokenizer(tokenizer, end="<|im_end|>")
    store, data = MaskStore(table), pairs("train", 12)
    rows = encode_pairs(data, ChatML(), tokenizer, store)
    for e, row in zip(data, rows):
        ids = answer_ids(row)
        want = unpack_mask(ToneConstraint(e["tones"], table).masks_along(ids), table.vocab_size)
        got = store.tensor([n for n in row["mask_ids"] if n])
        assert np.array_equal(want, got.numpy())
    batch = ToneCollator(0, store)(rows)
    for b, row in enumerate(rows):  # the small table of a batch says the same as the store
        n = len(row["input_ids"])
        assert torch.equal(batch["mask_table"][batch["mask_ids"][b, :n]], store.tensor(row["mask_ids"]))
        assert (
            not batch["attention_mask"][b, n:].any()
            and (batch["labels"][b, n:] == -100).all()
            and not batch["mask_ids"][b, n:].any()
        )


@needs_base
@pytest.mark.parametrize("accumulate, free", [(1, 0.0), (3, 0.0), (2, 0.5)])
def test_sliced_and_hooked_train_the_same(base, tmp_path, monkeypatch, accumulate, free):
    "The same losses and adapter, through the Trainer, with accumulated gradients and with steps without a mask."
    import cantolyric.training.arguments as module
    from cantolyric.training.stages import train_stage

    monkeypatch.setattr(module, "bf16_is_fast", lambda: False)
    out = {}
    for loss in ("sliced", "hook"):
        context = RunContext(
            micro(
                base,
                tmp_path,
                loss=loss,
                unmasked_fraction=free,
                steps=6,
                batch_size=4 * accumulate,
                trainer=dict(gradient_accumulation_steps=accumulate),
            ),
            pairs,
        )
        model = context.adapted()
        report = train_stage(context, "full", model)
        out[loss] = report.losses, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    (a, x), (b, y) = out.values()
    assert len(a) == 6 and np.allclose(a, b, atol=1e-4), (a, b)
    for n in x:
        assert float((x[n] - y[n]).abs().max()) < 1e-3, n  # Adam divides small gradients by small ones


def one_mismatch(n):
    "Pairs of which one has two tones swapped."

    def data(split, k, seed=0):
        out = pairs(split, k, seed)
        if n < len(out):
            out[n] = dict(out[n], tones=out[n]["tones"].translate(str.maketrans("24", "42")))
        return out

    return data


@needs_base
def test_a_mismatch_is_named_or_skipped(base, tmp_path):
    config = micro(base, tmp_path, steps=6, stage="full")
    with pytest.raises(CantolyricError) as said:
        run_stage(config, one_mismatch(3))
    for part in (
        r"example 3 \(",
        r"position \d+",
        r"token \d+, '",
        r"line \d, slot \d, which asks for [0234],",
        "on_mismatch='skip'",
    ):
        assert re.search(part, str(said.value)), (part, str(said.value))
    report = run_stage(replace(config, on_mismatch="skip"), one_mismatch(3))
    assert (
        report.num_examples == 59
        and report.num_mismatches == 1 + 2
        and report.mismatches[0].startswith("train: example 3 (")
        and "test: example 3 (" in report.mismatches[-1]
    )  # validation and test have one each
    assert "59 examples (" in str(report) and "left out" in str(report)
    with pytest.raises(ArgumentError, match="on_mismatch='leave'.*'stop' or 'skip'"):
        check_config(replace(config, on_mismatch="leave"))
    with pytest.raises(ArgumentError, match="loss='fused'.*'sliced' or 'hook'"):
        check_config(replace(config, loss="fused"))


@needs_base
def test_an_answer_of_the_wrong_length_names_the_line(base, tmp_path):
    from transformers import AutoTokenizer

    from cantolyric.constraint.vocabulary import TokenTable
    from cantolyric.formats import ChatML

    tokenizer = AutoTokenizer.from_pretrained(asset_path("base"))
    store, e = MaskStore(TokenTable.from_tokenizer(tokenizer, end="<|im_end|>")), pairs("train", 1)[0]
    with pytest.raises(CantolyricError, match=r"the end, is forbidden at line 2, slot \d, which asks for"):
        encode_pairs([dict(e, tones=e["tones"] + "3")], ChatML(), tokenizer, store)
    told = []
    longer = dict(e, lyrics=e["lyrics"] + "呀")
    assert encode_pairs([e, longer, e], ChatML(), tokenizer, store, on_mismatch=told.append)[1]["pair"] is e
    assert len(told) == 1 and "example 1 (" in str(told[0]) and "line 2" in str(told[0])


def test_batches_cover_each_epoch():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 80, 100)
    order = batch_order(lengths, 30, 10, seed=3)
    for epoch in order.reshape(3, 100):
        assert sorted(epoch) == list(range(100))
    assert np.array_equal(order, batch_order(lengths, 30, 10, seed=3)) and not np.array_equal(
        order, batch_order(lengths, 30, 10, seed=4)
    )
    assert np.array_equal(order[:100], batch_order(lengths, 10, 10, seed=3))  # a shorter run begins like a longer one
    assert len(batch_order([5, 6, 7], 4, 8)) == 32  # fewer rows than a batch holds
    # The order decides the result of a run, so it stays the same from version to version.
    wanted = [106, 406, 299, 421, 66, 466, 616, 352, 979, 222, 522, 8]
    assert batch_order([7 * k % 50 for k in range(1000)], 3, 4).tolist() == wanted


@needs_base
@pytest.mark.slow
def test_main_job(tmp_path):
    "The shipped base on real pairs, in less than ten minutes and 4 GiB; held-out lyrics get cheaper."
    start = time.time()
    run = run_finetune(FinetuneConfig(name="main", runs_dir=str(tmp_path)))
    assert run.ok and run.held_out["num_examples"] >= 300
    assert run.held_out["after"]["masked"] < run.held_out["before"]["best"]["masked"]
    assert time.time() - start < 600 and run.metrics["peak_gib"] < 4
