"""Options for PEFT and the Trainer, settings that depend on the data, the forecast, and adapters trained further."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_finetune import ROOT, adapter, base, micro, needs_base, pairs, quiet, run, same  # noqa: F401 (fixtures)

from cantolyric.constraint.scoring import ToneCollator, answer_bits, row_bits
from cantolyric.data.examples import load_examples
from cantolyric.errors import ArgumentError, CantolyricError, FileError
from cantolyric.options import (
    REAL,
    RESERVED,
    SHORTHANDS,
    TINY,
    batch_tokens,
    default_pilot,
    default_steps,
    fit_seconds,
    known_options,
    machine_gib,
    parse_setting,
    spread_over,
)
from cantolyric.training.arguments import training_arguments
from cantolyric.training.card import model_card
from cantolyric.training.config import FinetuneConfig, Plan, adapter_folder, as_json
from cantolyric.training.config_file import read_yaml, yaml_text
from cantolyric.training.context import RunContext, examples_of, resolve_config
from cantolyric.training.publish import write_public_settings
from cantolyric.training.report import loss_plot, report_text, smoothed
from cantolyric.training.run import run_finetune
from cantolyric.training.stages import gate_lower, train_stage
from cantolyric.training.validation import check_config

MINE = Path(__file__).parent / "data/my_songs"


# ---- names and shorthands


def test_every_option_we_name_exists():
    for group, shorts in SHORTHANDS.items():
        assert set(shorts) <= known_options(group), group
    gone = {"group_by_length", "fsdp_config", "deepspeed"}  # of earlier versions of transformers, or of other ones
    for group, names in RESERVED.items():
        assert set(names) - gone <= known_options(group), group
    for short in {s for shorts in SHORTHANDS.values() for s in shorts.values()}:
        assert short in FinetuneConfig.__dataclass_fields__


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(trainer=dict(gradient_acumulation_steps=2)), "did you mean trainer.gradient_accumulation_steps"),
        (dict(lora=dict(rnk=2)), "there is no option lora.rnk"),
        (dict(trainer=dict(output_dir="x")), "trainer.output_dir cannot be set: the run's folder"),
        (dict(lr=1e-3, trainer=dict(learning_rate=1e-4)), "lr=0.001: trainer.learning_rate=0.0001 means the same"),
        (dict(rank=8, lora=dict(r=4)), "rank=8: lora.r=4 means the same"),
        (dict(steps=10, trainer=dict(max_steps=20)), "steps=10: trainer.max_steps=20"),
        (
            dict(steps=10, trainer=dict(num_train_epochs=2)),
            "steps=10: trainer.num_train_epochs=2 is set as well; set only one",
        ),
        (
            dict(batch_size=8, trainer=dict(per_device_train_batch_size=4)),
            "batch_size=8: trainer.per_device_train_batch_size=4",
        ),
        (
            dict(batch_size=8, trainer=dict(gradient_accumulation_steps=3)),
            "cannot be split into trainer.gradient_accumulation_steps=3",
        ),
        (dict(trainer=dict(lr_scheduler_type="cosin")), "trainer: .*cosin"),
        (dict(trainer=dict(gradient_accumulation_steps=0)), "gradient_accumulation_steps=0: expected a whole number"),
        (dict(log_to="wandb", trainer=dict(report_to="tensorboard")), "log_to=.*means the same"),
        (dict(examples="halves"), "examples='halves': expected 'verses' or 'windows' or 'both'"),
        (dict(early_stopping=-1), "early_stopping=-1"),
        (dict(data="a.csv", mix="b.csv=1"), "mix=: data='a.csv' is set as well; set only one of them"),
        (dict(held_out_fraction=0.5), "held_out_fraction=0.5"),
        (dict(from_adapter="nowhere"), "there is no adapter_config.json"),
        (dict(num_eval_examples=0), "num_eval_examples=0"),
    ],
)
def test_options_that_cannot_be(given, says):
    with pytest.raises(CantolyricError, match=says):
        check_config(FinetuneConfig(**given))


def test_long_forms_become_shorthands():
    c = FinetuneConfig(
        lora=dict(r=4, lora_alpha=9, lora_dropout=0.1, use_rslora=True),
        trainer=dict(
            learning_rate=1e-4,
            max_steps=7,
            save_steps=3,
            report_to=["tensorboard", "mlflow"],
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            weight_decay=0.1,
        ),
    )
    assert (c.rank, c.alpha, c.dropout, c.lr, c.steps, c.save_every, c.batch_size, c.log_to) == (
        4,
        9,
        0.1,
        1e-4,
        7,
        3,
        8,
        ("tensorboard", "mlflow"),
    )
    assert c.lora == dict(use_rslora=True) and c.trainer == dict(gradient_accumulation_steps=4, weight_decay=0.1)
    assert replace(c, name="again") == replace(c, name="again") and FinetuneConfig(**as_json(c)) == c


def test_defaults_depend_on_the_base_and_the_data():
    tiny, real, own = FinetuneConfig(), FinetuneConfig(base="qwen2.5-coder-0.5b"), FinetuneConfig(data="songs.csv")
    for c, want in ((tiny, TINY), (real, REAL), (own, TINY | dict(batch_size=8))):
        assert {k: getattr(c, k) for k in want} == want
    assert (tiny.steps, tiny.max_gib, tiny.max_minutes, tiny.own, own.own) == (None, None, None, False, True)
    assert FinetuneConfig(base="qwen2.5-coder-0.5b", rank=4, lr=1e-5).rank == 4
    assert (
        default_steps("tiny", False, 10, 8) == 256
        and default_steps("tiny", True, 40, 8) == 15
        and default_steps("q", False, 10**6, 8) == 200
        and default_steps("q", True, 8, 8) == 4
    )
    assert (
        default_pilot(False, 10) == 1 / 16 and default_pilot(True, 27) == 0.5 and default_pilot(True, 10**5) == 1 / 16
    )
    done = resolve_config(own, load_examples(MINE))
    assert done.steps and done.pilot_fraction and done.data_hash == load_examples(MINE).hash
    assert (
        resolve_config(FinetuneConfig(), pairs).steps == 256
        and resolve_config(FinetuneConfig(trainer=dict(num_train_epochs=2), num_examples=320), pairs).steps == 20
    )


def test_set_on_the_command_line():
    from cantolyric.cli.finetune import finetune_config
    from cantolyric.cli.main import make_parser

    config = lambda *args: finetune_config(make_parser().parse_args(["finetune", *map(str, args)]))
    c = config(
        "--set",
        "trainer.gradient_accumulation_steps=8",
        "--set",
        "lora.use_rslora=true",
        "--set",
        "on_mismatch=skip",
        "--mix",
        "a.csv=0.7,verses=0.3",
        "--columns",
        "lyrics=words",
    )
    assert (c.trainer, c.lora, c.on_mismatch, c.mix, c.columns) == (
        dict(gradient_accumulation_steps=8),
        dict(use_rslora=True),
        "skip",
        {"a.csv": 0.7, "verses": 0.3},
        dict(lyrics="words"),
    )
    for bad, says in (
        (("--set", "x"), "expected GROUP.NAME=VALUE"),
        (("--set", "lr=1", "--lr", "0.5"), "given twice"),
        (("--set", "trainer.lr_schedule_type=x"), "did you mean trainer.lr_scheduler_type"),
        (("--set", "warmup=3"), "there is no setting 'warmup'.*trainer.warmup"),
        (("--set", "trainer.seed=1", "--seed", "2"), "means the same"),
        (("--set", "trainer.warmup_steps=[1"), "cannot be read as a YAML value"),
    ):
        with pytest.raises(CantolyricError, match=says):
            config(*bad)
    assert parse_setting("trainer.learning_rate=1e-4") == ("trainer", "learning_rate", 1e-4)


def test_yaml_with_options_and_data(tmp_path):
    c = FinetuneConfig(
        data="歌/a b.csv",
        columns=dict(lyrics="詞"),
        lora=dict(use_rslora=True),
        trainer=dict(gradient_accumulation_steps=2, lr_scheduler_type="linear"),
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml_text(c), encoding="utf-8")
    assert read_yaml(file) == c
    assert read_yaml(file, trainer=dict(gradient_accumulation_steps=4)).trainer == dict(
        gradient_accumulation_steps=4, lr_scheduler_type="linear"
    )
    file.write_text("batch_size: 4\ntrainer: 3", encoding="utf-8")
    with pytest.raises(FileError, match="line 2: trainer=3: expected a dictionary"):
        read_yaml(file)
    file.write_text("batch: 4", encoding="utf-8")
    with pytest.warns(FutureWarning, match="batch is now called batch_size"):
        assert read_yaml(file).batch_size == 4


def test_training_arguments():
    c = FinetuneConfig(
        batch_size=8,
        trainer=dict(gradient_accumulation_steps=4, lr_scheduler_type="linear", warmup_ratio=0.1)
        if "warmup_ratio" in known_options("trainer")
        else dict(gradient_accumulation_steps=4, lr_scheduler_type="linear"),
    )
    full = training_arguments(c, Plan(64, 60, 8, 0), "x", evaluate=True)
    assert (
        full.per_device_train_batch_size,
        full.gradient_accumulation_steps,
        full.max_steps,
        full.lr_scheduler_type,
        full.eval_steps,
    ) == (2, 4, 60, "linear", 10)
    smoke = training_arguments(c, Plan(2, 30, 2, 0))
    assert (
        smoke.per_device_train_batch_size,
        smoke.gradient_accumulation_steps,
        smoke.eval_strategy,
        smoke.save_strategy,
    ) == (1, 2, "no", "no")
    assert (
        training_arguments(
            replace(c, trainer=dict(eval_strategy="no")), Plan(64, 60, 8, 0), "x", evaluate=True
        ).eval_strategy
        == "no"
    )
    best = training_arguments(replace(c, early_stopping=2), Plan(64, 60, 8, 0), "x", evaluate=True)
    assert best.load_best_model_at_end and best.save_steps == best.eval_steps == 10


# ---- the Trainer does what the options say


def trained(base, tmp_path, folder=True, data=pairs, **changes):  # noqa: F811
    "Full stage alone; returns its report and the adapter's tensors."
    context = RunContext(micro(base, tmp_path, stage="full", **changes), data)
    model = context.adapted()
    report = train_stage(context, "full", model, tmp_path / "ck" if folder else None)
    return report, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@needs_base
def test_accumulation_and_checkpointing_change_nothing_but_memory(base, tmp_path):  # noqa: F811
    # Rounding differs, and AdamW turns the sign of a tiny gradient into a whole step, so single weights may differ.
    one, a = trained(base, tmp_path / "1", folder=False, steps=3)
    for k, options in enumerate(
        (dict(gradient_accumulation_steps=4), dict(gradient_checkpointing=True, gradient_accumulation_steps=2))
    ):
        two, b = trained(base, tmp_path / str(k + 2), folder=False, steps=3, trainer=options)
        assert np.allclose(one.losses[:2], two.losses[:2], atol=1e-4), (options, one.losses, two.losses)
        assert np.allclose(one.losses, two.losses, atol=5e-3), (options, one.losses, two.losses)
        moved = sum(float((a[n] - b[n]).square().sum()) for n in a) / sum(float(a[n].square().sum()) for n in a)
        assert moved**0.5 < 0.02, (options, moved**0.5)


@needs_base
def test_lora_options_reach_peft(base, tmp_path):  # noqa: F811
    context = RunContext(micro(base, tmp_path, lora=dict(target_modules=["q_proj"], use_rslora=True)), pairs)
    config = context.adapted().peft_config["default"]
    assert config.use_rslora and set(config.target_modules) == {"q_proj"}
    with pytest.raises(CantolyricError, match="lora does not fit the base"):
        RunContext(micro(base, tmp_path, lora=dict(target_modules=["nowhere"])), pairs).adapted()


@needs_base
def test_held_out_loss_is_per_token_over_all_rows(base, tmp_path):  # noqa: F811
    "Equal to row_bits, whatever the batches of the evaluation are."
    report, _ = trained(base, tmp_path, steps=6)
    assert [step for step, _ in report.evals] == [0, *range(1, 7)]
    context = RunContext(micro(base, tmp_path, stage="full"), pairs)
    rows = context.eval_rows()
    tokens = sum(sum(x != -100 for x in r["labels"]) for r in rows)
    want = (
        row_bits(context.adapted(), rows, ToneCollator(context.tokenizer.pad_token_id, context.store)).sum()
        * np.log(2)
        / tokens
    )
    assert report.evals[0][1] == pytest.approx(want, rel=1e-4) and report.evals[-1][1] < want
    unseen, _ = trained(base, tmp_path / "n", steps=6, trainer=dict(eval_strategy="no"))
    assert not unseen.evals and np.allclose(unseen.losses, report.losses, atol=1e-6)  # evaluating changes nothing


@needs_base
def test_early_stopping_keeps_the_best(base, tmp_path):  # noqa: F811
    "Four lyrics over and over are learnt by heart: the run ends early, with the adapter of its best step."
    from safetensors.torch import load_file

    few = lambda split, n, seed=0: (pairs(split, 4) * 15)[:n] if split == "train" else pairs(split, n)
    report, got = trained(
        base, tmp_path, data=few, steps=60, early_stopping=2, trainer=dict(eval_steps=2, lr_scheduler_type="constant")
    )
    losses = dict(map(tuple, report.evals))
    assert report.best_step == min((v, k) for k, v in losses.items() if k)[1] < len(
        report.losses
    ) < 60 and report.steps == len(report.losses)
    kept = load_file(tmp_path / f"ck/checkpoint-{report.best_step}/adapter_model.safetensors")
    assert all(torch.equal(v, kept[n.replace(".default", "")]) for n, v in got.items())
    state = json.loads((tmp_path / f"ck/checkpoint-{max(losses)}/trainer_state.json").read_text(encoding="utf-8"))
    assert Path(state["best_model_checkpoint"]).is_dir() and len(list((tmp_path / "ck").glob("checkpoint-*"))) <= 2


@needs_base
def test_row_bits_gives_both_from_one_forward(base):  # noqa: F811
    context = RunContext(micro(base, "runs"), pairs)
    data = pairs("test", 12)
    both = context.bits(data, None, context.format)
    for masked in (True, False):
        want = answer_bits(context.model, context.tokenizer, data, context.format, masked, store=context.store)
        assert np.allclose(both["masked" if masked else "free"], want, rtol=1e-5)


@needs_base
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_all_of_them_together_on_a_small_variant(family, tmp_path):
    "One run with a mixture, accumulation, checkpointing, schedule, evaluation, early stopping, tracker, LoRA options."
    from importlib.util import find_spec

    from cantolyric.families.tiny import tiny_variant

    tiny_variant(family, tmp_path / "base")
    trainer = dict(
        gradient_accumulation_steps=2,
        activation_checkpointing=True,
        lr_scheduler_type="linear",
        warmup_steps=2,
        eval_steps=2,
        weight_decay=0.01,
        load_best_model_at_end=True,
        **(dict(report_to="tensorboard") if find_spec("tensorboard") else {}),
    )
    config = FinetuneConfig(
        name="all",
        base=str(tmp_path / "base"),
        runs_dir=str(tmp_path / "runs"),
        mix={str(MINE): 0.7, "verses": 0.3},
        examples="windows",
        rank=16,
        alpha=8,
        lr=1e-2,
        steps=8,
        num_examples=64,
        pilot_fraction=0.5,
        num_held_out=12,
        num_eval_examples=12,
        early_stopping=3,
        trainer=trainer,
        lora=dict(use_rslora=True, lora_dropout=0.05),
    )
    done = run_finetune(config, log=quiet)
    told, full = (
        json.loads((done.adapter / "adapter_config.json").read_text(encoding="utf-8")),
        done.metrics["stages"]["full"],
    )
    assert (
        told["use_rslora"]
        and told["lora_dropout"] == 0.05
        and full["best_step"] in [s for s, _ in full["evals"]]
        and len(full["evals"]) >= 2
    )
    assert not find_spec("tensorboard") or (done.folder / "logs/full").is_dir()
    assert (
        done.metrics["config"]["trainer"]["lr_scheduler_type"] == "linear" and "(70%)" in done.metrics["data"]["source"]
    )
    on = run_finetune(
        replace(config, name="on", from_adapter=str(done.folder), lora={}, lr=5e-3, early_stopping=0, trainer={}),
        log=quiet,
    )
    assert on.metrics["stages"]["full"]["held_out"]["before"]["adapter"]["masked"] == pytest.approx(
        done.held_out["after"]["masked"], rel=1e-3
    )


# ---- data of one's own, through the whole climb


@pytest.fixture(scope="module")
def mine(base, tmp_path_factory):  # noqa: F811
    "A climb on the ten songs, with a small base."
    folder = tmp_path_factory.mktemp("mine")
    told = []
    config = micro(
        base, folder, name="mine", data=str(MINE), examples="both", steps=8, pilot_fraction=None, num_eval_examples=9
    )
    return run_finetune(config, log=lambda x: told.append(str(x))), told


@needs_base
def test_a_run_on_ones_own_songs(mine):
    run, told = mine  # noqa: F811
    text = "\n".join(told)
    assert (
        "2 lines: Latin letters" in text
        and "forecast: 8 steps of" in text
        and "not which of two settings is better" in text
    )
    m = run.metrics
    assert m["data"]["hash"] == m["config"]["data_hash"] == load_examples(MINE, kind="both").hash and set(
        m["forecast"]
    ) >= {"training", "smoke", "pilot", "peak_gib"}
    assert m["stages"]["full"]["evals"][0][0] == 0 and (run.folder / "data.json").exists()
    yaml = (run.folder / "config.yaml").read_text(encoding="utf-8")
    assert f"data_hash: {m['data']['hash']}" in yaml or f"data_hash: '{m['data']['hash']}'" in yaml
    report = report_text(m)
    assert "## Data" in report and m["data"]["hash"] in report and "Forecast before the first step" in report
    card = model_card(run, "you/mine")
    assert m["data"]["hash"] in card and "licence is not known" in card and str(MINE.parent) not in card
    import shutil

    shared = run.folder / "shared"  # what a push would upload
    shutil.copytree(run.adapter, shared)
    write_public_settings(run, shared)
    assert str(MINE.parent) not in (shared / "config.yaml").read_text(encoding="utf-8")
    shutil.rmtree(shared)
    fig = loss_plot(m)
    assert {line.get_label() for line in fig.axes[0].get_lines()} == {
        "training, each step",
        "training, smoothed",
        "held out",
    }


@needs_base
def test_config_reproduces_the_run_or_says_what_is_missing(mine, tmp_path, monkeypatch):
    run = mine[0]  # noqa: F811
    again = read_yaml(run.folder / "config.yaml", pytest.fail, runs_dir=str(tmp_path), name="again")
    assert resolve_config(again, examples_of(again)) == again
    other = tmp_path / "songs"
    import shutil

    shutil.copytree(MINE, other)
    (other / "tram.txt").write_text("落雨嘅夜晚\n我冇帶遮", encoding="utf-8")
    with pytest.raises(ArgumentError, match="has changed since these settings were written.*data_hash"):
        run_finetune(replace(again, data=str(other)), log=quiet)
    shutil.rmtree(other)
    with pytest.raises(CantolyricError, match="there is no file or folder"):
        run_finetune(replace(again, data=str(other)), log=quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == []
    from datasets import Dataset

    config = FinetuneConfig(data=Dataset.from_list([dict(lyrics="落雨\n天晴")]))
    (tmp_path / "c.yaml").write_text(yaml_text(config), encoding="utf-8")
    with pytest.raises(ArgumentError) as e:
        examples_of(read_yaml(tmp_path / "c.yaml", quiet))
    assert (e.value.name, e.value.value) == ("data", "a Dataset in memory") and "data=dataset" in e.value.problem


@needs_base
def test_resume_refuses_other_data_and_says_what_changed(base, tmp_path):  # noqa: F811
    "After Ctrl-C in the full stage, the same command line continues the run, but not if a song has changed."
    import shutil

    songs = tmp_path / "songs"
    shutil.copytree(MINE, songs)
    code = (
        "import sys, os, signal; sys.path.insert(0, {tests!r})\n"
        "from cantolyric.cli.main import main\nfrom cantolyric.training.trainer import ToneTrainer\n"
        "was = ToneTrainer._save_checkpoint\n"
        "def save(self, *a):\n"
        "    was(self, *a)\n"
        "    if self.state.max_steps == 8: os.kill(os.getpid(), signal.SIGINT)\n"
        "ToneTrainer._save_checkpoint = save\n"
        "sys.exit(main(['finetune', '--base', {base!r}, '--data', {songs!r}, '--runs-dir', {runs!r}, '--name', 'm',"
        " '--examples', 'both', '--rank', '16', '--lr', '0.01', '--steps', '8',"
        " '--save-every', '4', '--num-held-out', '9', '--num-eval-examples', '9', '--no-lyrics']))"
    ).format(tests=str(ROOT / "tests"), base=base, songs=str(songs), runs=str(tmp_path / "runs"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (
        done.returncode == 130
        and "continue from the last checkpoint with cantolyric finetune --name m" in done.stderr
        and done.stderr.count("Traceback") == 0
    ), done.stderr
    part = tmp_path / "runs/m.part"
    assert part.is_dir() and not (tmp_path / "runs/m").exists()
    text = (songs / "tram.txt").read_text(encoding="utf-8")
    (songs / "tram.txt").write_text(text + "\n落雨嘅夜晚我冇帶遮", encoding="utf-8")
    (songs / "new.txt").write_text("今晚月光好大\n照住條舊街", encoding="utf-8")
    resume = [sys.executable, "-c", "import sys; from cantolyric.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    line = [*resume, "finetune", "--runs-dir", str(tmp_path / "runs"), "--name", "m", "--resume", "--no-lyrics"]
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2 and "changed: 1 (tram.txt), new: 1 (new.txt)" in done.stderr, done.stderr
    done = subprocess.run(
        [*line, "--data", str(MINE)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and "data=" in done.stderr, done.stderr
    (songs / "tram.txt").write_text(text, encoding="utf-8")
    (songs / "new.txt").unlink()
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode in (0, 1) and (tmp_path / "runs/m/adapter").is_dir() and not part.exists(), done.stderr


@needs_base
def test_a_dry_run_writes_nothing(base, tmp_path):  # noqa: F811
    told = []
    forecast = run_finetune(micro(base, tmp_path), pairs, lambda x: told.append(str(x)), dry_run=True)
    assert (
        forecast.steps == 24
        and forecast.total > forecast.training > 0
        and forecast.peak_gib > 0
        and any("forecast: 24 steps" in x for x in told)
    )
    assert not list(tmp_path.iterdir())


@needs_base
def test_a_dry_run_on_the_command_line(base, tmp_path, capsys):  # noqa: F811
    from cantolyric.cli.main import main

    assert (
        main(["finetune", "--base", base, "--data", str(MINE), "--runs-dir", str(tmp_path), "--dry-run", "--json"]) == 0
    )
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["total"] > found["training"] > 0 and "2 lines: Latin letters" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args, says",
    [
        (["--data", "nowhere.csv"], "there is no file or folder 'nowhere.csv'"),
        (["--set", "trainer.lerning_rate=1"], "did you mean trainer.learning_rate"),
        (["--mix", "verses"], "mix: expected sources with weights"),
        (["--from-adapter", "nowhere"], "there is no adapter_config.json"),
        (["--data", "verses", "--mix", "verses=1"], "set only one of them"),
        (["--columns", "lyric=a", "--data", "x.csv"], "'lyric' is not a column that can be mapped"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(tmp_path, args, says):
    line = [
        sys.executable,
        "-c",
        "import sys; from cantolyric.cli.main import main; sys.exit(main(sys.argv[1:]))",
        "finetune",
        "--runs-dir",
        "runs",
        *args,
    ]
    done = subprocess.run(
        line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_forecast_arithmetic():
    assert batch_tokens([5, 9, 3, 2], 2, 4).tolist() == [24, 8] and spread_over(list(range(100)), 3) == [99, 16, 50, 82]
    line = fit_seconds([100, 200, 300], [2.0, 3.0, 4.0])
    assert np.allclose(line([0, 400]), [1.0, 5.0])
    assert np.allclose(fit_seconds([100, 200], [4.0, 2.0])([50]), [1.0])  # no negative slope
    assert 0.5 < machine_gib() < 1e5
    assert np.allclose(smoothed([2.0] * 5), 2.0) and smoothed([1.0, 0.0])[1] == pytest.approx(0.9 * 0.1 / 0.19)


def test_few_held_out_examples_stop_nothing():
    assert (
        gate_lower(5.0, 5.2, "x", 4)
        and not gate_lower(5.0, 5.6, "x", 4)
        and not gate_lower(5.0, 5.2, "x", 60)
        and not gate_lower(5.0, float("nan"), "x", 4)
    )


# ---- an adapter that goes on learning


@needs_base
def test_continue_from_an_adapter(base, run, tmp_path):  # noqa: F811
    "It starts where the adapter ended, brings its shape along, and is compared with it."
    config = micro(base, tmp_path, name="on", from_adapter=str(run.folder), rank=None, alpha=None, lr=1e-3, steps=6)
    assert (config.rank, config.alpha) == (16, 32)
    context = RunContext(config, pairs)
    model = context.adapted()
    want, got = adapter(run), {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    assert want.keys() == got.keys() and all(torch.equal(v, got[k]) for k, v in want.items())
    context.model = model.unload()
    on = run_finetune(config, pairs, quiet)
    before = on.held_out["before"]
    assert (
        before["adapter"]["masked"] == pytest.approx(run.held_out["after"]["masked"], rel=1e-3)
        and before["best"]["masked"] <= before["adapter"]["masked"]
    )
    assert "the adapter that training continues from" in report_text(on.metrics)


def test_adapters_that_cannot_be_continued(tmp_path):
    with pytest.raises(ArgumentError, match="rank=4: the adapter 'shipped' has rank 32"):
        check_config(FinetuneConfig(rank=4, from_adapter="shipped"))
    with pytest.raises(CantolyricError, match="lora.use_rslora.*leave out"):
        check_config(FinetuneConfig(lora=dict(use_rslora=True), from_adapter="shipped"))
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(FileError, match="not valid JSON"):
        FinetuneConfig(from_adapter=str(tmp_path))
    assert adapter_folder("shipped").is_dir()


@needs_base
def test_an_adapter_of_another_base_is_refused(base, tmp_path):  # noqa: F811
    of_tiny = str(adapter_folder("shipped"))
    with pytest.raises(CantolyricError, match="the adapter .* was trained on another base"):
        RunContext(micro(base, tmp_path, from_adapter=of_tiny, rank=None, alpha=None), pairs).adapted()


@needs_base
def test_the_shipped_adapter_is_that_of_the_base(base, tmp_path):  # noqa: F811
    assert adapter_folder("shipped", "qwen2.5-coder-0.5b").name == "qwen2.5-coder-0.5b"
    with pytest.raises(ArgumentError, match="from_adapter='shipped': there is none for the base"):
        micro(base, tmp_path, from_adapter="shipped", rank=None, alpha=None)


@pytest.mark.parametrize(
    "text",
    [
        5,
        None,
        b"lr=1",
        "lr=!!float x",
        "mask=!!bool x",
        "steps=!!int ''",
        "name=!!timestamp x",
        "lr=2026-13-45",
        "trainer.a\nb=1",
        "trainer." + "x" * 5000 + "=1",
        "x" * 5000,
    ],
)
def test_an_odd_setting_is_one_sentence(text):
    with pytest.raises(CantolyricError) as e:
        parse_setting(text)
    assert len(str(e.value)) < 1000 and "\n" not in str(e.value)


@pytest.mark.parametrize("value", [0, 1, True, False, 1.5, [1]])
def test_no_option_is_opened_as_a_file_descriptor(value):
    "transformers opened trainer.accelerator_config=1, that is standard output, and closed it."
    with pytest.raises(CantolyricError, match="accelerator_config"):
        FinetuneConfig(trainer=dict(accelerator_config=value))
