"""What surrounds a run: its settings as YAML, its logs, the Hub, and twenty kills at random moments."""

import base64
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_finetune import LOG, ROOT, base, micro, needs_base, pairs, quiet, run, same  # noqa: F401 (fixtures)
from transformers import TrainerCallback

import cantolyric.training.run as module
from cantolyric.errors import ArgumentError, CantolyricError, FileError, MissingDependencyError
from cantolyric.machine import environment_info
from cantolyric.training import forecast, logs
from cantolyric.training.card import model_card
from cantolyric.training.config import FinetuneConfig, config_help, current_names
from cantolyric.training.config_file import read_yaml, version_note, yaml_text
from cantolyric.training.context import RunContext
from cantolyric.training.logs import SafeTracker, StageLog, check_trackers, flat
from cantolyric.training.publish import check_push, push_run
from cantolyric.training.run import run_finetune
from cantolyric.training.run_folder import read_config, read_run
from cantolyric.training.stages import run_stage, train_stage

# ---- settings as YAML


def written(folder, text):
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(),
        FinetuneConfig(
            name="no",
            base="路徑/a b: #c",
            lr=1e-7,
            revision="1e5",
            max_minutes=math.inf,
            mask=False,
            log_to="tensorboard, wandb",
            push_to="a/b",
            public=True,
            pilot_fraction=1 / 3,
            seed=2**32 - 1,
        ),
    ],
    ids=["defaults", "odd"],
)
def test_yaml_there_and_back(config, tmp_path):
    text = yaml_text(config)
    assert (
        read_yaml(written(tmp_path, text))
        == FinetuneConfig.from_yaml(tmp_path / "config.yaml", log=pytest.fail)
        == config
    )
    assert read_yaml(tmp_path / "config.yaml", name="again").name == "again"
    import yaml

    assert yaml.safe_load(text)["made_with"]["torch"]  # and any other reader takes it, too


def test_yaml_says_what_each_setting_means():
    about, text = config_help(), yaml_text(FinetuneConfig())
    assert set(about) == {f.name for f in fields(FinetuneConfig)}
    for f in fields(FinetuneConfig):
        if f.name not in ("resume", "stage"):
            assert re.search(rf"^{f.name}: .* # {re.escape(about[f.name])}$", text, re.M), f.name
    assert "cantolyric.data.lyric_pairs" in text


@pytest.mark.parametrize(
    "text, says",
    [
        ("steps: 10\nstpes: 500", "line 2: there is no setting 'stpes'; did you mean 'steps'?"),
        ("xyzzy: 1", "expected one of name, base"),
        ("steps: 500\nrank: 4\nsteps: 10", "line 3: steps is given a second time"),
        ("batch: 8\nbatch_size: 8", "batch_size=: it is given twice, also by its old name batch"),
        ("name: no", "line 1: name=False: expected text; put it in quotes"),
        ("\nsteps: 1.5", "line 2: steps=1.5: expected a whole number"),
        ("steps: true", "steps=True: expected a whole number"),
        ("steps: 0", "line 1: steps=0: expected a whole number of at least 1"),
        ("mask: 1", "mask=1: expected true or false"),
        ("lr: fast", "lr='fast': expected a number"),
        ("num_examples:", "num_examples=None: expected a whole number"),
        ("log_to: [3]", "line 1: log_to=[3]: expected names"),
        ("\nmix: {a: 0}", "line 2: mix="),
        ("steps: [1", "line 1: it cannot be read as YAML"),
        ("a: b: c", "it cannot be read as YAML"),
        ("[" * 5000, "it cannot be read as YAML"),
        ("a sentence", "it contains no settings"),
        ("", "it contains no settings"),
        ("- 1", "it contains no settings"),
        ("\0", "is not UTF-8 text"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("seed: !!python/object/apply:os.system ['touch hacked']", "could not determine a constructor"),
        ("made_with: {}\nseed: 2026-13-45", "it cannot be read"),
    ],
)
def test_yaml_mistakes_are_told(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as said:
        read_yaml(written(tmp_path, text))
    assert says in str(said.value) and said.value.path.endswith("config.yaml")
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_yaml_of_earlier_versions(tmp_path):
    "Old names are read with one warning each, and a commit that looks like a number stays text."
    old = (
        "pairs: 64\nfree: 0.5\nbonus: 1.0\nmisfits: skip\nheld_out: 9\neval_pairs: 8\nheld_out_share: 0.2\npilot: 0.5\n"
    )
    with pytest.warns(FutureWarning, match="is now called") as said:
        config = read_yaml(written(tmp_path, old + "revision: 12e45\nlr: 1e-6"))
    assert len(said) == 8 and (config.num_examples, config.on_mismatch, config.num_held_out) == (64, "skip", 9)
    assert (config.revision, config.lr, config.held_out_fraction) == ("12e45", 1e-6, 0.2)
    assert current_names({"pairs": 1, "rung": "full"}, warn=False) == {"num_examples": 1, "stage": "full"}


def test_yaml_of_other_places(tmp_path):
    with pytest.raises(FileError, match="cannot read it: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(FileError, match="cannot read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(FileError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")
    told = []
    other = re.sub(r"(?m)^  torch: .*", "  torch: 1.13.1", yaml_text(FinetuneConfig()))
    assert read_yaml(written(tmp_path, other), told.append) == FinetuneConfig()
    assert (
        len(told) == 1
        and told[0].startswith("these settings were made with torch 1.13.1; here: torch ")
        and told[0].endswith("losses can differ in their last digits")
    )
    assert version_note(dict(gpu="H100")) and not version_note(environment_info())


@needs_base
def test_a_run_made_again_from_its_yaml(run, tmp_path):  # noqa: F811
    "Not the settings of the test, but the file alone."
    text = (run.folder / "config.yaml").read_text(encoding="utf-8")
    assert "test_finetune.pairs" in text and "made_with:" in text
    config = read_yaml(run.folder / "config.yaml", pytest.fail, runs_dir=str(tmp_path), log_to=())
    again = run_finetune(config, pairs, quiet)
    same(run, again)
    assert run_finetune(replace(config, resume=True), pairs, quiet).metrics == again.metrics
    (tmp_path / "micro.part").mkdir()  # killed after the folder was written, before the rest was taken away
    assert (
        run_finetune(replace(config, resume=True), pairs, quiet).metrics == again.metrics
        and not (tmp_path / "micro.part").exists()
    )


# ---- logs


def losses_in(folder):
    "Step and loss of each event, as TensorBoard itself reads them."
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars("train/loss")], events


@needs_base
@pytest.mark.skipif(not LOG, reason="tensorboard is not installed")
def test_tensorboard_has_what_metrics_json_has(run):  # noqa: F811
    for stage, r in run.metrics["stages"].items():
        got, events = losses_in(run.folder / "logs" / stage)
        assert [s for s, _ in got] == list(range(1, r["steps"] + 1)) and np.array_equal(
            np.float32([v for _, v in got]), np.float32(r["losses"])
        )
        want = flat(r["held_out"], "eval/held_out")
        assert want or stage == "smoke"
        for k, v in want.items():
            assert events.Scalars(k)[0].value == pytest.approx(v, rel=1e-6)


@needs_base
@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed")
def test_wandb_offline(base, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "offline")
    report = run_stage(micro(base, tmp_path, stage="smoke", log_to="wandb"), pairs, folder=tmp_path / "x")
    kept = list((tmp_path / "x/logs/smoke/wandb").glob("offline-run-*/*.wandb"))
    assert len(kept) == 1 and kept[0].stat().st_size > 1000 and report.ok
    raw = kept[0].read_bytes()
    assert raw.count(b"train/loss") >= 30 and repr(report.losses[7])[:12].encode() in raw
    assert (tmp_path / "x/logs/wandb-id").read_text()


def test_a_missing_package_or_key_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(module, "RunContext", lambda *a: pytest.fail("something was loaded"))
    for name, extra in (("tensorboard", "log"), ("wandb", "wandb")):
        with pytest.raises(MissingDependencyError) as said:
            run_finetune(FinetuneConfig(runs_dir=str(tmp_path), log_to=name))
        assert (said.value.package, said.value.extra) == (name, extra)
        assert f"log_to='{name}'" in str(said.value) and f"pip install 'cantolyric[{extra}]'" in str(said.value)
    monkeypatch.setattr(logs, "get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(MissingDependencyError, match="pip install mlflow"):  # another tracker of transformers
        run_finetune(FinetuneConfig(runs_dir=str(tmp_path), trainer=dict(report_to="mlflow")))
    with pytest.raises(ArgumentError, match="expected one of .*tensorboard.*wandb") as said:
        run_finetune(FinetuneConfig(runs_dir=str(tmp_path), log_to="paper"))
    assert (said.value.name, said.value.value) == ("log_to", "paper")
    monkeypatch.setattr(logs, "find_spec", lambda name: True)
    for k in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(k, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(ArgumentError, match="wandb login , or set WANDB_MODE=offline"):
        check_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["tensorboard", "wandb"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match="expected names such as"):
        FinetuneConfig(log_to=[3])


def test_a_log_that_fails_does_not_stop_a_run(recwarn):
    calls = []

    class Broken(TrainerCallback):
        def on_log(self, *a, **k):
            calls.append(k)
            raise ConnectionError("the network is gone")

    tracker = SafeTracker(Broken())
    with pytest.warns(UserWarning, match="Broken failed .the network is gone.; the run continues without it"):
        tracker.on_log(None, None, None, logs=dict(loss=1.0))
    recwarn.clear()
    tracker.on_log(None, None, None, logs=dict(loss=1.0))
    tracker.close()
    assert len(calls) == 1 and not recwarn.list  # it is left alone from then on


@needs_base
@pytest.mark.skipif(not LOG, reason="tensorboard is not installed")
def test_training_goes_on_when_the_disk_of_a_log_is_full(base, tmp_path, monkeypatch):  # noqa: F811
    from torch.utils.tensorboard import SummaryWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    config = micro(base, tmp_path, stage="pilot", log_to=LOG)
    context = RunContext(config, pairs)
    with StageLog(config, tmp_path, "pilot") as context.stage_log:
        with pytest.warns(UserWarning, match="TensorBoardCallback failed .*No space left"):
            report = train_stage(context, "pilot", context.adapted())
        context.stage_log.write(dict(after=1.0), "held_out")
    assert report.steps == len(report.losses) == 12


@pytest.mark.skipif(not LOG, reason="tensorboard is not installed")
def test_a_resumed_log_has_each_step_once(tmp_path, monkeypatch):
    "Killed after step 4, the run continues from its checkpoint after step 2."
    from transformers import TrainerState, TrainingArguments
    from transformers.integrations import TensorBoardCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    for start, end in ((0, 4), (2, 6)):
        tracker, state = SafeTracker(TensorBoardCallback()), TrainerState(global_step=start)
        tracker.on_train_begin(args, state, None)
        for step in range(start + 1, end + 1):
            state.global_step = step
            tracker.on_log(args, state, None, logs=dict(loss=10.0 * end + step))
        if end == 6:
            tracker.on_train_end(args, state, None)
    got, _ = losses_in(tmp_path)
    assert got == [(1, 41.0), (2, 42.0), (3, 63.0), (4, 64.0), (5, 65.0), (6, 66.0)]


def test_environment_is_restored_after_a_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    before = dict(os.environ)
    with pytest.raises(KeyError):
        with StageLog(FinetuneConfig(log_to=("tensorboard", "wandb")), tmp_path, "pilot"):
            assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "logs/pilot")
            assert os.environ["WANDB_PROJECT"] == "mine" and os.environ["WANDB_RUN_GROUP"] == "tiny"
            first = os.environ["WANDB_RUN_ID"]
            raise KeyError
    assert dict(os.environ) == before
    with StageLog(FinetuneConfig(log_to="wandb"), tmp_path, "pilot"):  # the same run after a resume
        assert os.environ["WANDB_RUN_ID"] == first and first.endswith("-pilot")


def test_figures_are_flattened():
    assert flat(dict(loss=2.5, a=dict(b=1, c="x")), "g") == {"g/loss": 2.5, "g/a/b": 1}


# ---- the Hub


class Hub(BaseHTTPRequestHandler):
    "What the Hub's API does for a push, in memory: repositories, large files, commits."

    repos, blobs, calls, down = {}, {}, [], False

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def log_message(self, *_):
        pass

    def answer(self):
        body, (path, hub) = (
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            (self.path.partition("?")[0], type(self)),
        )
        hub.calls.append((self.command, path, self.headers.get("Authorization")))
        status, out = (503, dict(error="down for repair")) if hub.down else self.route(path, body)
        raw = json.dumps(out).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def route(self, path, body):
        hub, at = type(self), f"http://127.0.0.1:{self.server.server_port}"
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in hub.repos:
                return 409, dict(error="You already created this model repo", url=f"{at}/{name}")
            hub.repos[name] = dict(private=asked.get("private", asked.get("visibility") == "private"), files={})
            return 200, dict(url=f"{at}/{name}")
        if path == "/api/validate-yaml":
            return 200, dict(errors=[], warnings=[])
        if path.startswith("/blob/"):
            hub.blobs[path[6:]] = body
            return 200, {}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, dict(
                transfer="basic",
                objects=[
                    dict(oid=o["oid"], size=o["size"], actions=dict(upload=dict(href=f"{at}/blob/{o['oid']}")))
                    for o in json.loads(body)["objects"]
                ],
            )
        name, _, rest = (
            path.removeprefix("/api/models/").partition("/preupload/")
            if "/preupload/" in path
            else path.removeprefix("/api/models/").partition("/commit/")
        )
        if name not in hub.repos:
            return 404, dict(error="Repository not found")
        if "/preupload/" in path:
            return 200, dict(
                files=[
                    dict(
                        path=f["path"],
                        uploadMode="lfs" if f["path"].endswith(".safetensors") else "regular",
                        shouldIgnore=False,
                    )
                    for f in json.loads(body)["files"]
                ]
            )
        if "/commit/" in path:
            return 200, self.commit(name, body, at)
        return 200, dict(
            id=name, private=hub.repos[name]["private"], siblings=[], sha="0" * 40, tags=[], downloads=0, likes=0
        )

    def commit(self, name, body, at):
        files = type(self).repos[name]["files"]
        for line in map(json.loads, body.splitlines()):
            v = line["value"]
            if line["key"] == "file":
                files[v["path"]] = base64.b64decode(v["content"])
            if line["key"] == "lfsFile":
                files[v["path"]] = type(self).blobs[v["oid"]]
        return dict(success=True, commitOid="c" * 40, commitUrl=f"{at}/{name}/commit/{'c' * 40}")


@pytest.fixture
def hub(monkeypatch):
    "A Hub on this machine, which huggingface_hub takes for the real one."
    from huggingface_hub import constants

    class Own(Hub):
        repos, blobs, calls, down = {}, {}, [], False

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for k, v in (
        ("ENDPOINT", f"http://127.0.0.1:{server.server_port}"),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
    ):
        monkeypatch.setattr(constants, k, v)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield Own
    server.shutdown()


@pytest.fixture
def own(run, tmp_path):  # noqa: F811
    "A copy of the finished run, to write in."
    import shutil

    shutil.copytree(run.folder, tmp_path / "micro")
    return read_run(tmp_path / "micro")


@needs_base
def test_push(own, hub, base):  # noqa: F811
    told = []
    kept = push_run(own, "poet/rain", log=told.append)
    repo = hub.repos["poet/rain"]
    assert repo["private"] and set(repo["files"]) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "config.yaml",
    }
    assert repo["files"]["adapter_model.safetensors"] == (own.adapter / "adapter_model.safetensors").read_bytes()
    assert all(auth == "Bearer hf_secret" for _, path, auth in hub.calls if "/commit/" in path or "/create" in path)
    everything = b"".join(repo["files"].values())
    assert (
        str(Path(base).parent).encode() not in everything and b"hf_secret" not in everything
    )  # nothing of this machine
    assert (
        kept == json.loads((own.folder / "pushed.json").read_text())
        and kept["commit"] == "c" * 40
        and told == [f"pushed: {kept['url']}"]
    )
    n = len(hub.calls)
    assert push_run(own, "poet/rain") == kept and len(hub.calls) == n  # once
    from peft import LoraConfig

    assert LoraConfig.from_pretrained(own.adapter).r == 16


@needs_base
def test_push_keeps_private_what_was_not_called_public(own, hub):
    hub.repos["poet/open"] = dict(private=False, files={})
    with pytest.raises(CantolyricError, match="exists and is public"):
        push_run(own, "poet/open")
    assert not hub.repos["poet/open"]["files"]
    push_run(own, "poet/open", public=True, log=quiet)
    assert hub.repos["poet/open"]["files"]


@needs_base
def test_a_push_that_fails_loses_nothing(own, hub, base, monkeypatch):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: None)
    hub.down = True
    config = read_config("micro", str(own.folder.parent), push_to="poet/rain")
    with pytest.raises(CantolyricError) as said:
        run_finetune(config, pairs, quiet)
    for part in (
        "is finished and complete in",
        "could not be pushed to 'poet/rain'",
        "cantolyric finetune --name micro --resume",
        "push_run(read_run(",
    ):
        assert part in str(said.value)
    assert read_run(own.folder).metrics == own.metrics and not (own.folder / "pushed.json").exists()
    hub.down = False
    assert (
        run_finetune(config, pairs, quiet).metrics == own.metrics and hub.repos["poet/rain"]["files"]
    )  # the same call tries again


def test_a_push_that_cannot_be_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RunContext", lambda *a: pytest.fail("something was loaded"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for repo, says in (
        ("rain", "expected user/name"),
        ("a/b/c", "not a valid repository name"),
        ("a b/c", "not a valid repository name"),
        ("", "push_to=''"),
    ):
        with pytest.raises(ArgumentError, match=says):
            run_finetune(FinetuneConfig(runs_dir=str(tmp_path), push_to=repo))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ArgumentError, match="needs a Hub token.*hf auth login"):
        run_finetune(FinetuneConfig(runs_dir=str(tmp_path), push_to="a/b"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArgumentError, match="HF_HUB_OFFLINE is set"):
        check_push("a/b")


@needs_base
def test_model_card(own, tmp_path):
    import yaml

    text = model_card(own, "poet/rain")
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "peft" and "base_model" not in head  # the base is a folder of this machine
    held = own.held_out["after"]
    for part in (
        "# rain",
        f"{held['masked']:.3f}",
        "test_finetune.pairs",
        "their licence is not known here",
        "## Limits",
        'snapshot_download("poet/rain")',
        "config.yaml",
    ):
        assert part in text, part
    assert "format_named" not in text  # it follows from the base
    own.metrics["config"].update(base="Qwen/Qwen2.5-1.5B-Instruct", quantization="nf4", format="alpaca")
    settings = own.folder / "config.yaml"
    settings.write_text(
        settings.read_text(encoding="utf-8").replace("test_finetune.pairs", "cantolyric.data.lyric_pairs"),
        encoding="utf-8",
    )
    text = model_card(own, "poet/rain")
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "Qwen/Qwen2.5-1.5B-Instruct"
    for part in (
        "CTCPC (CC0 1.0)",
        "MPL 2.0",
        "CC BY",
        'quantization="nf4"',
        'format=format_named("alpaca")',
        "import format_named",
    ):
        assert part in text, part


# ---- twenty kills

CHILD = """
import sys; sys.path.insert(0, {tests!r})
print("begun", flush=True)
opened = []
def looked(event, args):
    if event == "open" and isinstance(args[0], str) and args[1] in ("r", "rb", None) and ".part" in args[0]:
        opened.append(args[0])
sys.addaudithook(looked)
from cantolyric.training import run, stages
from cantolyric.training.trainer import ToneTrainer
from test_finetune import run_finetune, micro, pairs, quiet
from cantolyric.training.run_folder import read_config
from transformers import TrainerCallback
class Tell(TrainerCallback):
    def on_step_begin(self, args, state, control, **kw): print("step", stage[0], state.global_step + 1, flush=True)
stage, was_train, was_trainer = ["smoke"], stages.train_stage, stages.make_trainer
was_save, was_write, was_gates = ToneTrainer._save_checkpoint, run.write_run, stages.preflight
def gates(*a, **k): print("gates", stage[0], flush=True); return was_gates(*a, **k)
def train(context, name, *a): print("stage", name, flush=True); return was_train(context, name, *a)
def trainer(*a): t = was_trainer(*a); t.add_callback(Tell()); return t
def save(self, model, trial):
    print("saving", stage[0], flush=True)
    was_save(self, model, trial)
    print("saved", stage[0], self.state.global_step, flush=True)
def write(*a): print("writing", flush=True); was_write(*a)
def in_stage(config, **k): stage[0] = config.stage; return was_run_stage(config, **k)
was_run_stage = run.run_stage
stages.train_stage, stages.make_trainer, stages.preflight = train, trainer, gates
ToneTrainer._save_checkpoint, run.write_run, run.run_stage = save, write, in_stage
resume = {resume!r}
run_finetune(read_config("micro", {folder!r}) if resume else micro({base!r}, {folder!r}, log_to={log!r}), pairs, quiet)
print("read", sum(".tmp" in p for p in opened), len(opened), flush=True)
"""
# The marks after which the process is killed (start, gates, a step, a half-written checkpoint, the end), and the most
# seconds that pass until then; the moment is drawn.
MOMENTS = [
    ("begun", 4.0),
    ("gates smoke", 0.5),
    ("gates smoke", 2.0),
    ("step smoke 3", 0.3),
    ("step smoke 20", 0.5),
    ("stage pilot", 0.2),
    ("saving pilot", 0.03),
    ("step pilot 7", 0.2),
    ("saving pilot", 0.03),
    ("gates full", 0.5),
    ("step full 3", 0.1),
    ("saving full", 0.03),
    ("step full 7", 0.1),
    ("saving full", 0.03),
    ("step full 11", 0.1),
    ("step full 15", 0.1),
    ("saving full", 0.03),
    ("step full 22", 0.1),
    ("writing", 0.3),
    ("writing", 0.6),
]


def attempt(base, folder, mark=None, wait=0.0):  # noqa: F811
    "One process, killed `wait` seconds after it said `mark`: (all that it said, was it killed)."
    code = CHILD.format(
        tests=str(ROOT / "tests"),
        base=base,
        folder=str(folder),
        log=LOG,
        resume=any(Path(folder).glob("micro*/config.json")),
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    said = []
    for line in child.stdout:
        said.append(line.strip())
        if mark and said[-1] == mark:
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
            break
    rest = child.stdout.read().split("\n")
    return said + [x for x in rest if x], child.wait() == -signal.SIGKILL


def last_step(said, stage):
    return max([int(x.split()[2]) for x in said if x.startswith(f"step {stage} ")], default=0)


def first_step(said, stage):
    return min([int(x.split()[2]) for x in said if x.startswith(f"step {stage} ")], default=None)


@needs_base
@pytest.mark.slow
def test_killed_twenty_times_at_random_and_none_lost(run, base, tmp_path):  # noqa: F811
    rng, reached, killed, halves = random.Random(41), {}, 0, 0
    for mark, most in MOMENTS:
        said, dead = attempt(base, tmp_path, mark, rng.random() * most)
        killed += dead
        part = tmp_path / "micro.part"
        halves += any(p.name.endswith(".tmp") for p in [*tmp_path.iterdir(), *part.rglob("*")])
        for p in part.rglob("*.json"):
            json.loads(p.read_text(encoding="utf-8"))  # whole, whatever happened
        for stage in ("pilot", "full"):  # no more than save_every steps are done again
            if stage in reached and (start := first_step(said, stage)):
                assert start > reached[stage] - 4, (mark, stage, start, reached)
            reached[stage] = max(reached.get(stage, 0), last_step(said, stage))
        if any(x.startswith("step full") for x in said):
            assert "stage pilot" not in said  # a finished stage stays finished
    said, dead = attempt(base, tmp_path)
    assert not dead and killed == len(MOMENTS) == 20 and halves >= 3
    read = [x.split() for x in said if x.startswith("read")][0]
    assert read[1] == "0" and int(read[2]) > 0  # no half-written file is ever read
    same(run, read_run(tmp_path / "micro"))
    assert [p.name for p in tmp_path.iterdir()] == ["micro"]
    if LOG:
        got, _ = losses_in(tmp_path / "micro/logs/full")
        assert [s for s, _ in got] == list(range(1, 25)) and np.array_equal(
            np.float32([v for _, v in got]), np.float32(run.metrics["stages"]["full"]["losses"])
        )


# ---- several processes


def test_whoever_writes_afterwards_is_told_what_it_takes(monkeypatch):
    from torch import nn

    model = nn.Linear(2**14, 2**14, bias=False, device="meta")  # 1 GiB in fp32, none of it here
    context = type("Context", (), dict(strategy="fsdp2", config=FinetuneConfig(batch_size=32), model=model))()
    monkeypatch.setattr(forecast, "world_size", lambda: 4)
    said = forecast.describe_strategy(context)
    for part in ("4 processes", "fsdp2", "8 rows", "writing lyrics", "1.0 GiB, in one process"):
        assert part in said, (part, said)
    context.strategy = "ddp"
    assert "GiB" not in forecast.describe_strategy(context)
