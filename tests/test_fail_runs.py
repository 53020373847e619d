"""One run owns its folder, its files agree, and whatever is wrong with a run is said in one sentence.

Training is replaced by a function that writes what a training would leave behind, so a whole run takes a second.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_finetune import ROOT, base, needs_base  # noqa: F401 (a fixture)

import cantolyric.training.run as module
from cantolyric.atomic_files import atomic_dir, write_text
from cantolyric.distributed import launch
from cantolyric.errors import ArgumentError, CantolyricError, FileError, GateError
from cantolyric.files import check_not_locked
from cantolyric.options import Forecast
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.config_file import read_yaml, version_note, yaml_text
from cantolyric.training.publish import push_run
from cantolyric.training.report import current_metrics, report_text
from cantolyric.training.run import run_finetune
from cantolyric.training.run_folder import check_agreement, check_manifest, read_config, read_forecast, read_run
from cantolyric.training.stages import StageReport, check_checkpoint
from cantolyric.training.validation import check_config

BITS = dict(masked=2.0, free=3.0)
HELD_OUT = dict(
    num_examples=12,
    split="test",
    after=dict(masked=1.0, free=3.0),
    before=dict(with_prompt=BITS, without=BITS, best=BITS),
)


def examples(split, n, seed=0):
    "What a run trains on; nothing looks at it here."
    return []


def quiet(*_):
    pass


def trained(config, context=None, folder=None, **_):
    "The report of a stage, and for the last one an adapter with the permissions that safetensors gives it."
    if config.stage == "full":
        (folder / "adapter").mkdir()
        save_file({"a": torch.ones(2)}, folder / "adapter/adapter_model.safetensors")
        (folder / "adapter/adapter_config.json").write_text("{}")
    gates = [dict(name="learnt", ok=True, message="it learnt", seconds=0.0)]
    return StageReport(config.stage, 8, 4, [3.0, 2.0, 1.5, 1.0], 1.0, gates=gates, held_out=HELD_OUT)


@pytest.fixture
def fast(monkeypatch):
    "Runs without a model."

    class Context:
        large, forecast = False, None

        def __init__(self, config, data):
            self.config = config

    monkeypatch.setattr(module, "RunContext", Context)
    monkeypatch.setattr(module, "describe_strategy", lambda context: "one process")
    monkeypatch.setattr(module, "make_forecast", lambda context: Forecast(4, 0.1, 1.0, 1.0, 1.0, 1.0, 0.5))
    monkeypatch.setattr(module, "run_stage", trained)


def config_in(folder, **changes):
    return FinetuneConfig(**dict(name="same", runs_dir=str(folder)) | changes)


def interrupted(folder, monkeypatch, **changes):
    "A run that stopped after its first stage: the folder that it left."

    def half(config, **given):
        if config.stage == "pilot":
            raise KeyboardInterrupt
        return trained(config, **given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_stage", half)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(config_in(folder, **changes), examples, quiet)
    return folder / "same.part"


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def is_damaged(error, name, *parts):
    "The error is about a damaged file of this name, in one line."
    assert isinstance(error.value, FileError) and "damaged" in error.value.problem
    assert error.value.path.endswith(name)
    one_line(error, *parts)


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in parts), text


# ---- one run owns its folder

HOLD = """
import sys
from pathlib import Path
from cantolyric.files import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    "Another process that holds the lock of the run 'same'."
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "same")],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_second_run_is_refused_and_changes_nothing(fast, holder, tmp_path):
    part = tmp_path / "same.part"
    part.mkdir()
    (part / "config.json").write_text(json.dumps(dict(name="same", seed=1)))
    for resume in (False, True):
        with pytest.raises(CantolyricError) as said:
            run_finetune(config_in(tmp_path, seed=2, resume=resume), examples, quiet)
        one_line(said, f"{str(tmp_path / 'same')!r} is in use by process {holder.pid} on host ", "since 20", "--name")
    assert names(part) == ["config.json"] and json.loads((part / "config.json").read_text())["seed"] == 1
    assert run_finetune(config_in(tmp_path, name="other"), examples, quiet).ok  # another name is free


def test_a_killed_process_blocks_nobody(fast, holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".same.lock").exists()
    check_not_locked(tmp_path / "same")
    assert run_finetune(config_in(tmp_path), examples, quiet).ok
    assert names(tmp_path) == ["same"]  # the lock is gone, too


def test_a_lock_of_another_host_says_how_to_remove_it(holder, tmp_path):
    (tmp_path / ".same.lock.json").write_text(json.dumps(dict(pid=7, host="far-away", since="2026-01-01 00:00:00")))
    with pytest.raises(CantolyricError) as said:
        check_not_locked(tmp_path / "same")
    one_line(
        said, "process 7 on host far-away since 2026-01-01", "if that process no longer exists, delete", ".same.lock'"
    )
    (tmp_path / ".same.lock.json").write_text("{")
    with pytest.raises(CantolyricError, match="in use by another process"):
        check_not_locked(tmp_path / "same")


def test_the_lock_lasts_until_the_push(fast, tmp_path, monkeypatch):
    def pushed(run, *_):
        with pytest.raises(CantolyricError, match=f"in use by process {os.getpid()} "):
            check_not_locked(run.folder)

    monkeypatch.setattr(module, "push_run", pushed)
    monkeypatch.setattr(module, "check_push", quiet)
    run_finetune(config_in(tmp_path, push_to="a/b"), examples, quiet)
    assert names(tmp_path) == ["same"]


def test_a_dry_run_takes_no_lock_and_writes_nothing(fast, tmp_path, holder):
    away = tmp_path / "new/runs"
    assert run_finetune(config_in(away), examples, quiet, dry_run=True).steps == 4 and not away.parent.exists()
    with pytest.raises(CantolyricError, match="is in use by process"):
        run_finetune(config_in(tmp_path), examples, quiet, dry_run=True)
    assert names(tmp_path) == [".same.lock", ".same.lock.json"]


def test_a_dry_run_of_a_finished_run_does_not_push(fast, tmp_path, monkeypatch):
    run_finetune(config_in(tmp_path), examples, quiet)
    monkeypatch.setattr(module, "push_run", lambda *_: pytest.fail("pushed"))
    monkeypatch.setattr(module, "check_push", quiet)
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("name", "same")):
        run_finetune(read_config("same", str(tmp_path), push_to="a/b"), examples, quiet, dry_run=True)


def test_a_failed_start_leaves_no_folder(fast, tmp_path, monkeypatch):
    def broken(*_):
        raise CantolyricError("no model")

    monkeypatch.setattr(module, "RunContext", broken)
    with pytest.raises(CantolyricError, match="no model"):
        run_finetune(config_in(tmp_path / "a/b"), examples, quiet)
    assert not names(tmp_path)


RANKS = """
from cantolyric.distributed import init_distributed, launch_args, send_result
from cantolyric.distributed_files import distributed_locked_run
from cantolyric.errors import CantolyricError
init_distributed()
said = []
for folder in launch_args()["folders"]:
    try:
        with distributed_locked_run(folder): said.append("went on")
    except CantolyricError as e: said.append(str(e))
send_result(said=said)
"""


def test_all_processes_of_a_run_learn_that_it_is_in_use(holder, tmp_path):
    done = launch(RANKS, 2, 120.0, folders=[str(tmp_path / "same"), str(tmp_path / "other")])
    for rank in done.results:  # neither waits for the other
        assert f"in use by process {holder.pid} " in rank["said"][0] and rank["said"][1] == "went on"
    assert len(done.results) == 2 and names(tmp_path) == [".same.lock", ".same.lock.json"]


# ---- what is deleted, and what is left behind


@pytest.mark.parametrize(
    "error, kept",
    [(GateError("a gate failed"), False), (CantolyricError("3 processes"), True), (KeyboardInterrupt(), True)],
)
def test_only_a_failed_gate_deletes_finished_work(fast, tmp_path, monkeypatch, error, kept):
    neighbour = tmp_path / "same2.part"
    neighbour.mkdir()

    def stops(config, **given):
        if config.stage == "pilot":
            raise error
        return trained(config, **given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_stage", stops)
        with pytest.raises(type(error)):
            run_finetune(config_in(tmp_path), examples, quiet)
    assert names(tmp_path) == ["same.part", "same2.part"][not kept :]
    if kept:
        assert run_finetune(read_config("same", str(tmp_path)), examples, quiet).ok


@pytest.mark.parametrize("nth", range(1, 6))
def test_an_interrupt_while_a_run_begins_leaves_nothing_or_a_run(fast, tmp_path, monkeypatch, nth):
    calls, real = [], os.replace

    def interrupt(a, b):
        calls.append(b)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(config_in(tmp_path), examples, quiet)
    part = tmp_path / "same.part"
    if part.exists():
        assert run_finetune(read_config("same", str(tmp_path)), examples, quiet).ok
    else:
        assert run_finetune(config_in(tmp_path), examples, quiet).ok
    assert names(tmp_path) == ["same"]


def test_an_interrupt_while_a_file_is_written(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "x"

    def write(text):
        with atomic_dir(folder) as f:
            (f / "a").write_text(text)

    write("1")
    write("2")
    assert names(tmp_path) == ["x"] and (folder / "a").read_text() == "2"


# ---- permissions


def test_what_a_run_publishes_follows_the_umask(fast, tmp_path):
    for mask in (0o022, 0o002, 0o077):
        was = os.umask(mask)
        try:
            run = run_finetune(config_in(tmp_path / str(mask)), examples, quiet)
        finally:
            os.umask(was)
        files = [p for p in run.folder.rglob("*") if p.is_file()]
        assert {p.name for p in files} > {
            "adapter_model.safetensors",
            "config.json",
            "config.yaml",
            "metrics.json",
            "loss.png",
        }
        assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o666 & ~mask}
        assert {stat.S_IMODE(p.stat().st_mode) for p in [run.folder, run.adapter]} == {0o777 & ~mask}


def test_other_adapters_follow_the_umask(tmp_path):
    from torch import nn

    from cantolyric.adapter_files import save_lora
    from cantolyric.lora import add_lora
    from cantolyric.pretraining import save_pretraining

    model = nn.Sequential(nn.Linear(4, 4))
    add_lora(model, ["0"], rank=2)
    save_lora(model, tmp_path / "adapter")
    save_pretraining(tmp_path / "checkpoint", nn.Linear(2, 2), [], dict(step=1))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    was = os.umask(0)
    os.umask(was)
    assert len(files) >= 5 and {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o666 & ~was}


# ---- the files of a run agree


def test_all_settings_come_from_one_config(fast, tmp_path, monkeypatch):
    import yaml

    part = interrupted(tmp_path, monkeypatch, save_every=7)
    made = yaml.safe_load((part / "config.yaml").read_text(encoding="utf-8"))["made_with"]
    text = (part / "config.yaml").read_text(encoding="utf-8")
    (part / "config.yaml").write_text(re.sub(r"(?m)^  torch: .*", "  torch: 1.13.1", text), encoding="utf-8")
    run = run_finetune(read_config("same", str(tmp_path), save_every=9, max_minutes=3), examples, quiet)
    said = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    stored = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(run.metrics["config"]))
    assert {k: v for k, v in stored.items() if k not in ("resume", "stage")} == {
        k: v for k, v in said.items() if k != "made_with"
    }
    assert (said["save_every"], said["max_minutes"]) == (9, 3) and said["made_with"] == made | {
        "torch": "1.13.1"
    }  # as it began
    assert "# The examples came from test_fail_runs.examples." in (run.folder / "config.yaml").read_text(
        encoding="utf-8"
    )
    check_agreement(run.folder)


@pytest.mark.parametrize(
    "finished, name",
    [
        (False, "config.json"),
        (False, "config.yaml"),
        (True, "config.json"),
        (True, "config.yaml"),
        (True, "metrics.json"),
    ],
)
def test_an_edited_setting_is_refused(fast, tmp_path, monkeypatch, finished, name):
    folder = (
        run_finetune(config_in(tmp_path, seed=5), examples, quiet).folder
        if finished
        else interrupted(tmp_path, monkeypatch, seed=5)
    )
    text = (folder / name).read_text(encoding="utf-8")
    assert len(found := re.findall(r'(?m)^( *"?seed"?: )5\b', text)) == 1
    (folder / name).write_text(text.replace(found[0] + "5", found[0] + "6"), encoding="utf-8")
    with pytest.raises(FileError) as said:
        run_finetune(read_config("same", str(tmp_path)), examples, quiet)
    one_line(said, "seed=6", "seed=5", "one of them was edited", "restore the value")
    if finished:
        with pytest.raises(FileError, match="one of them was edited"):
            push_run(read_run(folder), "a/b", log=quiet)


def test_the_command_that_is_recommended_works(fast, tmp_path):
    (tmp_path / "same.part").mkdir()
    for resume in (False, True):
        with pytest.raises(FileError) as said:
            run_finetune(config_in(tmp_path, resume=resume), examples, quiet)
        one_line(said, "holds no run that could be resumed", "no config.json", "delete the folder")
    with pytest.raises(FileError, match="holds no run"):
        read_config("same", str(tmp_path))


# ---- runs of earlier versions

OLD_KEYS = {"stage": "rung", "num_examples": "pairs", "num_mismatches": "misfits", "mismatches": "notes"}


def in_old_words(report):
    "The report of a stage as earlier versions wrote it."
    held_out = {OLD_KEYS.get(k, k): v for k, v in report["held_out"].items()}
    return {OLD_KEYS.get(k, k): v for k, v in (report | dict(held_out=held_out)).items()}


def test_a_run_of_an_earlier_version_is_resumed_and_read(fast, tmp_path, monkeypatch):
    part = interrupted(tmp_path, monkeypatch)
    report = json.loads((part / "smoke.json").read_text())
    (part / "smoke.json").write_text(json.dumps(in_old_words(report)))
    run = run_finetune(read_config("same", str(tmp_path)), examples, quiet)
    assert run.metrics["stages"]["smoke"] == report  # it was read, not run again
    metrics = json.loads((run.folder / "metrics.json").read_text())
    metrics["rungs"] = {name: in_old_words(r) for name, r in metrics.pop("stages").items()}
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    assert "rungs" not in read_run(run.folder).metrics and read_run(run.folder).metrics == run.metrics
    assert run_finetune(read_config("same", str(tmp_path)), examples, quiet).ok


def test_the_metrics_of_the_first_published_run_are_read():
    old = json.loads((ROOT / "benchmarks/results/finetune.json").read_text(encoding="utf-8"))
    metrics = current_metrics(old)
    report = report_text(metrics)
    assert metrics["config"]["num_examples"] == 8192 and len(metrics["stages"]["full"]["losses"]) == 256
    assert "320 examples of the test split" in report and "| smoke | 8 | 30 |" in report


# ---- damaged files

BROKEN = ["", "{", "[]", "null", '{"seed": 1}', "\0", "[" * 5000]


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "smoke.json", "forecast.json"])
@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_file_of_an_interrupted_run_is_one_sentence(fast, tmp_path, monkeypatch, name, text):
    part = interrupted(tmp_path, monkeypatch)
    if (name, text) in (("config.json", '{"seed": 1}'), ("config.yaml", '{"seed": 1}')):
        text = '{"seed": "many"}'
    (part / name).write_text(text)
    before = {p: p.read_bytes() for p in part.rglob("*") if p.is_file()}
    with pytest.raises(FileError) as said:
        run_finetune(read_config("same", str(tmp_path)), examples, quiet)
    one_line(said, name)
    assert {"smoke.json", name} <= set(names(part)) and (part / name).read_bytes() == before[
        part / name
    ]  # nothing is lost
    assert names(tmp_path) == ["same.part"]


@pytest.mark.parametrize(
    "change",
    [
        dict(losses=[]),
        dict(losses=["a"]),
        dict(stage="full"),
        dict(gates=[1]),
        dict(steps="4"),
        dict(gates=[dict(name="x", ok="no", message="")]),
        dict(new=1),
        dict(num_examples=True),
    ],
)
def test_an_edited_report_of_a_stage(fast, tmp_path, monkeypatch, change):
    part = interrupted(tmp_path, monkeypatch)
    report = json.loads((part / "smoke.json").read_text())
    (part / "smoke.json").write_text(json.dumps(report | change))
    with pytest.raises(FileError) as said:
        run_finetune(read_config("same", str(tmp_path)), examples, quiet)
    is_damaged(said, "smoke.json", "delete it")
    (part / "smoke.json").unlink()
    assert run_finetune(read_config("same", str(tmp_path)), examples, quiet).ok  # the remedy works


@pytest.mark.parametrize(
    "text", [*BROKEN, '{"stages": {"full": {"held_out": 3}}}', '{"rungs": {"full": {"held_out": 3}}}']
)
def test_damaged_metrics(fast, tmp_path, text):
    folder = run_finetune(config_in(tmp_path), examples, quiet).folder
    (folder / "metrics.json").write_text(text)
    for look in (lambda: read_run(folder), lambda: run_finetune(read_config("same", str(tmp_path)), examples, quiet)):
        with pytest.raises(FileError) as said:
            look()
        is_damaged(said, "metrics.json")


def test_damaged_data_and_forecast(tmp_path):
    from cantolyric.data.examples import Examples

    class Some(Examples):
        def __init__(self):
            pass

        hash, manifest = "b", {}

    for text in BROKEN:
        (tmp_path / "data.json").write_text(text)
        with pytest.raises(FileError) as said:
            check_manifest(tmp_path, Some())
        is_damaged(said, "data.json", "delete")
        (tmp_path / "forecast.json").write_text(text)
        with pytest.raises(FileError) as said:
            read_forecast(tmp_path)
        is_damaged(said, "forecast.json", "a new forecast is made")


def checkpoint(folder):
    "A checkpoint as the Trainer writes it."
    folder.mkdir()
    save_file({"a": torch.ones(64)}, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(dict(a=torch.ones(64)), folder / name)
    state = dict(
        global_step=4, max_steps=8, log_history=[dict(step=1, loss=2.0, seconds=0.1), dict(step=1, eval_loss=2.0)]
    )
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_broken_checkpoint_is_one_sentence(tmp_path, name):
    folder = checkpoint(tmp_path / "checkpoint-4")
    check_checkpoint(folder)
    whole = (folder / name).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:size])
        with pytest.raises(FileError) as said:
            check_checkpoint(folder)
        is_damaged(said, name, "delete the folder", "checkpoint-4'")
    (folder / name).unlink()
    if name == "rng_state.pth":
        return  # another number of processes writes others
    with pytest.raises(FileError, match=f"incomplete: there is no {name} in it"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        dict(global_step=8),
        dict(log_history=[3]),
        dict(log_history=[dict(step=1, loss=1.0)]),
        dict(new=1),
        dict(global_step="4"),
    ],
)
def test_an_edited_state_of_the_trainer(tmp_path, change):
    folder = checkpoint(tmp_path / "checkpoint-4")
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | change))
    with pytest.raises(FileError) as said:
        check_checkpoint(folder)
    is_damaged(said, "trainer_state.json")


# ---- settings that can't work


@pytest.mark.parametrize(
    "given, name",
    [
        (dict(seed=-1), "seed"),
        (dict(seed=2**32), "seed"),
        (dict(seed=2**70), "seed"),
        (dict(rank=2**70), "rank"),
        (dict(alpha=2**70), "alpha"),
        (dict(batch_size=2**70), "batch_size"),
        (dict(num_examples=2**70), "num_examples"),
        (dict(steps=2**70), "steps"),
        (dict(steps=10**7, batch_size=2**20), "steps"),
        (dict(num_held_out=2**70), "num_held_out"),
        (dict(num_eval_examples=2**70), "num_eval_examples"),
        (dict(max_length=2**70), "max_length"),
        (dict(save_every=2**70), "save_every"),
        (dict(early_stopping=2**70), "early_stopping"),
        (dict(lr=10**400), "lr"),
        (dict(lr=float("nan")), "lr"),
        (dict(quantization="8"), "quantization"),
        (dict(loss="x"), "loss"),
        (dict(stage="x"), "stage"),
        (dict(runs_dir="~nobody-of-this-name/x"), "runs_dir"),
        (dict(runs_dir="a\0"), "runs_dir"),
        *(
            (dict(name=n), "name")
            for n in (
                "",
                " ",
                ".",
                "..",
                "a/b",
                "a\\b",
                "a\nb",
                "a\x1bb",
                "a\u200bb",
                "a\u2028",
                "a.",
                "a ",
                " a",
                ".a",
                "a.part",
                "a.tmp",
                "a.old",
                "x" * 300,
                "歌" * 100,
                "\udcff",
            )
        ),
    ],
)
def test_values_that_cannot_work(given, name):
    with pytest.raises(ArgumentError) as said:
        check_config(FinetuneConfig(**given))
    one_line(said, f"{name}=")
    assert said.value.name == name and said.value.as_option().startswith("--" + name.replace("_", "-"))


@pytest.mark.parametrize(
    "given",
    [
        dict(seed="a"),
        dict(seed=1.5),
        dict(steps=True),
        dict(lr="fast"),
        dict(lr=True),
        dict(mask="yes"),
        dict(mask=1),
        dict(lora=3),
        dict(lora={1: 2}),
        dict(trainer="x"),
        dict(trainer=[1]),
        dict(columns=[1]),
        dict(columns={1: "a"}),
        dict(columns=3),
        dict(mix="x"),
        dict(mix=3),
        dict(mix={1: 1}),
        dict(mix={"a": "b"}),
        dict(name=None),
        dict(name=3),
        dict(base=3),
        dict(base=None),
        dict(runs_dir=3),
        dict(from_adapter=3),
        dict(format=3),
        dict(revision=3),
        dict(log_to=3),
        dict(log_to=[1]),
        dict(num_examples=None),
        dict(rank="8"),
        dict(pilot_fraction="half"),
        dict(max_gib=[1]),
        dict(push_to=3),
        dict(resume="no"),
        dict(quantization=4),
        dict(data_hash=1),
        dict(trainer=dict(per_device_train_batch_size="a")),
        dict(trainer=dict(per_device_train_batch_size=8, gradient_accumulation_steps="2")),
        dict(trainer=dict(gradient_accumulation_steps=True)),
        dict(trainer=dict(num_train_epochs="x")),
        dict(trainer=dict(num_train_epochs=-1)),
        dict(trainer=dict(optim=3)),
    ],
)
def test_values_of_another_type(given):
    with pytest.raises(CantolyricError) as said:
        check_config(FinetuneConfig(**given))
    one_line(said, next(iter(given)))


@pytest.mark.parametrize(
    "given, name",
    [
        (dict(trainer=dict(learning_rate="fast")), "lr"),
        (dict(trainer=dict(seed=-1)), "seed"),
        (dict(lora=dict(lora_alpha="x")), "alpha"),
    ],
)
def test_values_under_their_long_names(given, name):
    with pytest.raises(ArgumentError, match=f"^{name}="):
        check_config(FinetuneConfig(**given))


def test_numbers_and_paths_of_other_libraries(fast, tmp_path):
    config = FinetuneConfig(
        name="same",
        runs_dir=tmp_path,
        seed=np.int64(3),
        lr=np.float32(0.25),
        mask=np.bool_(True),
        max_minutes=5,
        lora=None,
    )
    assert config == FinetuneConfig(name="same", runs_dir=str(tmp_path), seed=3, lr=0.25, max_minutes=5.0)
    assert run_finetune(config, examples, quiet).metrics["config"]["seed"] == 3


def test_a_folder_that_cannot_be_written(fast, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("/proc/nope", tmp_path / "file", tmp_path / "file/x", tmp_path / ("x" * 300)):
        with pytest.raises(ArgumentError) as said:
            run_finetune(config_in(folder), examples, quiet)
        one_line(said, "runs_dir=", "choose another folder")
    with pytest.raises(ArgumentError):
        read_config("x" * 300, str(tmp_path))
    with pytest.raises(CantolyricError):
        read_config("a", str(tmp_path / ("x" * 300)))


def test_a_batch_that_cannot_be_shared_out_deletes_nothing(fast, tmp_path, monkeypatch):
    part = interrupted(tmp_path, monkeypatch, batch_size=8)
    before = names(part)
    monkeypatch.setattr("cantolyric.distributed.rank_and_world_size", lambda: (0, 3))  # three processes now
    with pytest.raises(CantolyricError, match="8 rows .* 3 processes"):
        run_finetune(read_config("same", str(tmp_path)), examples, quiet)
    assert names(part) == before


COMMANDS = [
    ["--seed", "-1"],
    ["--seed", str(2**70)],
    ["--name", "x" * 300],
    ["--runs-dir", "/proc/nope"],
    ["--name", "a\nb"],
    ["--name", "a. "],
    ["--steps", str(2**70)],
    ["--name", "same", "--runs-dir", "."],
    ["--name", "same", "--runs-dir", ".", "--dry-run"],
    ["--set", "rank=many"],
    ["--resume", "--name", "x" * 300],
    ["--resume", "--runs-dir", "x" * 300],
]
CALLS = """
import sys, json
from cantolyric.cli.main import main
for args in json.loads(sys.argv[1]):
    print("RC", main(["finetune", *args]), file=sys.stderr, flush=True)
"""


def test_the_command_line_says_it_in_one_line(tmp_path, holder):
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(COMMANDS)],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0 and done.stderr.count("RC 2") == len(COMMANDS), done.stderr
    assert "Traceback" not in done.stderr and names(tmp_path) == [".same.lock", ".same.lock.json"]
    assert len(done.stderr.splitlines()) == 2 * len(COMMANDS), done.stderr  # one line for each, and its exit code
    assert done.stderr.count(f"is in use by process {holder.pid} on host") == 2


# ---- a real run

REAL = """
import sys; sys.path.insert(0, sys.argv[1])
from test_finetune import run_finetune, micro, pairs, quiet
run_finetune(micro(sys.argv[2], sys.argv[3], seed=int(sys.argv[4])), pairs, quiet)
"""


@needs_base
@pytest.mark.slow
def test_two_real_runs_of_one_name(base, tmp_path):  # noqa: F811
    "One of two processes trains, the other is refused; what is published is the first one's."
    both = {}
    for seed in ("1", "2"):
        args = [sys.executable, "-c", REAL, str(ROOT / "tests"), base, str(tmp_path), seed]
        both[seed] = subprocess.Popen(args, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = {seed: p.communicate()[1] for seed, p in both.items()}
    refused = [seed for seed, text in said.items() if "is in use by process" in text]
    assert len(refused) == 1, said
    winner = "21"[int(refused[0]) - 1]
    assert both[winner].returncode == 0, said
    assert f"is in use by process {both[winner].pid} " in said[refused[0]]
    assert read_run(tmp_path / "micro").metrics["config"]["seed"] == int(winner)
    assert names(tmp_path) == ["micro"]
    check_agreement(tmp_path / "micro")


# ---- found by fuzzing


@pytest.mark.parametrize(
    "given, name",
    [
        (dict(trainer=dict(use_cache=object())), "trainer"),
        (dict(lora=dict(bias=int)), "lora"),
        (dict(mask=False, unmasked_fraction=0.1), "unmasked_fraction"),
        (dict(mask=False, allowed_logit_bonus=2.0), "allowed_logit_bonus"),
    ],
)
def test_what_no_config_file_can_hold_or_no_run_can_do(given, name):
    with pytest.raises(ArgumentError) as said:
        check_config(FinetuneConfig(**given))
    assert said.value.name == name


@pytest.mark.parametrize("line", ["steps: !!int ''", "mask: !!bool x", "name: !!timestamp x", "lr: !!float x"])
def test_values_that_yaml_cannot_construct(tmp_path, line):
    (tmp_path / "x.yaml").write_text(line, encoding="utf-8")
    with pytest.raises(FileError) as said:
        read_yaml(tmp_path / "x.yaml")
    one_line(said, "x.yaml")


def test_a_value_of_odd_spaces_is_written_as_it_was(tmp_path):
    config = FinetuneConfig(base="\u3000", revision=" a ")
    (tmp_path / "x.yaml").write_text(yaml_text(config), encoding="utf-8")
    again = read_yaml(tmp_path / "x.yaml", quiet)
    assert (again.base, again.revision) == (config.base, config.revision)


def test_a_very_long_note_is_shortened():
    assert len(version_note(dict(cpu="x" * 5000))) < 1000


def test_metrics_without_an_entry_of_the_report(fast, tmp_path):
    folder = run_finetune(config_in(tmp_path), examples, quiet).folder
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["config"]["base"]
    file.write_text(json.dumps(metrics))
    with pytest.raises(FileError) as said:
        read_run(folder)
    is_damaged(said, "metrics.json", "base")
