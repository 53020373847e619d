"""What surrounds a run: its settings as YAML, its logs, the Hub, and twenty kills at random moments."""

import base64
import json
import math
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

import cantolyric.finetune as module
from cantolyric.finetune import (
    FinetuneConfig,
    RunLog,
    check_loggers,
    check_push,
    climb,
    finetune,
    flat,
    meanings,
    model_card,
    push_run,
    read_config,
    read_run,
    read_yaml,
    version_note,
    yaml_text,
)
from cantolyric.tones import CantolyricError
from test_finetune import LOG, ROOT, base, micro, needs_base, pairs, quiet, run, same  # noqa: F401 (fixtures)


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
            pilot=1 / 3,
            seed=2**40,
        ),
    ],
    ids=["defaults", "odd"],
)
def test_yaml_there_and_back(config, tmp_path):
    text = yaml_text(config)
    assert (
        read_yaml(written(tmp_path, text))
        == FinetuneConfig.from_yaml(tmp_path / "config.yaml", say=pytest.fail)
        == config
    )
    assert read_yaml(tmp_path / "config.yaml", name="again").name == "again"
    import yaml

    assert yaml.safe_load(text)["made_with"]["torch"]  # and any other reader takes it, too


def test_yaml_says_what_each_setting_means():
    about, text = meanings(), yaml_text(FinetuneConfig())
    assert set(about) == {f.name for f in fields(FinetuneConfig)}
    for f in fields(FinetuneConfig):
        if f.name not in ("resume", "rung"):
            assert re.search(rf"^{f.name}: .* # {re.escape(about[f.name])}$", text, re.M), f.name
    assert "cantolyric.data.lyric_pairs" in text


@pytest.mark.parametrize(
    "text, says",
    [
        ("steps: 10\nstpes: 500", "line 2: there is no setting 'stpes'; is 'steps' meant?"),
        ("xyzzy: 1", "there are name, base"),
        ("steps: 500\nrank: 4\nsteps: 10", "line 3: steps is there a second time"),
        ("name: no", "line 1: name is False, wanted is text: put it in quotes"),
        ("\nsteps: 1.5", "line 2: steps is 1.5, wanted is a whole number"),
        ("steps: true", "steps is True, wanted is a whole number"),
        ("mask: 1", "mask is 1, wanted is true or false"),
        ("lr: fast", "lr is 'fast', wanted is a number"),
        ("pairs:", "pairs is None, wanted is a whole number"),
        ("log_to: [3]", "line 1: log_to is [3], wanted are names"),
        ("steps: [1", "line 1: this cannot be read as YAML"),
        ("a: b: c", "this cannot be read as YAML"),
        ("[" * 5000, "this cannot be read as YAML"),
        ("a sentence", "holds no settings"),
        ("", "holds no settings"),
        ("- 1", "holds no settings"),
        ("\0", "is not UTF-8 text"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("seed: !!python/object/apply:os.system ['touch hacked']", "could not determine a constructor"),
        ("made_with: {}\nseed: 2026-13-45", "this cannot be read"),
    ],
)
def test_yaml_mistakes_are_told(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CantolyricError) as said:
        read_yaml(written(tmp_path, text))
    assert says in str(said.value) and "config.yaml" in str(said.value)
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_yaml_of_other_places(tmp_path):
    with pytest.raises(CantolyricError, match="cannot read.*No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(CantolyricError, match="cannot read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(CantolyricError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")
    told = []
    other = re.sub(r"(?m)^  torch: .*", "  torch: 1.13.1", yaml_text(FinetuneConfig()))
    assert read_yaml(written(tmp_path, other), told.append) == FinetuneConfig()
    assert (
        len(told) == 1
        and told[0].startswith("these settings were made with torch 1.13.1; here: torch ")
        and told[0].endswith("losses can differ in their last digits")
    )
    assert version_note(dict(gpu="H100")) and not version_note(module.machine())


@needs_base
def test_a_run_made_again_from_its_yaml(run, tmp_path):  # noqa: F811
    "Not the settings of the test, but the file alone."
    text = (run.folder / "config.yaml").read_text(encoding="utf-8")
    assert "test_finetune.pairs" in text and "made_with:" in text
    config = read_yaml(run.folder / "config.yaml", pytest.fail, runs_dir=str(tmp_path), log_to=())
    again = climb(config, pairs, quiet)
    same(run, again)
    assert climb(replace(config, resume=True), pairs, quiet).metrics == again.metrics
    (tmp_path / "micro.part").mkdir()  # killed after the folder was written, before the rest was taken away
    assert (
        climb(replace(config, resume=True), pairs, quiet).metrics == again.metrics
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
    for rung, r in run.metrics["rungs"].items():
        got, events = losses_in(run.folder / "logs" / rung)
        assert [s for s, _ in got] == list(range(1, r["steps"] + 1)) and np.array_equal(
            np.float32([v for _, v in got]), np.float32(r["losses"])
        )
        want = flat(r["held_out"], "held_out")
        assert want or rung == "smoke"
        for k, v in want.items():
            assert events.Scalars(k)[0].value == pytest.approx(v, rel=1e-6)


@needs_base
@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed")
def test_wandb_offline(base, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WANDB_MODE", "offline")
    report = finetune(micro(base, tmp_path, rung="smoke", log_to="wandb"), pairs, folder=tmp_path / "x")
    kept = list((tmp_path / "x/logs/smoke/wandb").glob("offline-run-*/*.wandb"))
    assert len(kept) == 1 and kept[0].stat().st_size > 1000 and report.ok
    raw = kept[0].read_bytes()
    assert raw.count(b"train/loss") >= 30 and repr(report.losses[7])[:12].encode() in raw
    assert (tmp_path / "x/logs/wandb-id").read_text()


def test_a_missing_package_or_key_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr(module, "Workshop", lambda *a: pytest.fail("something was loaded"))
    for name, extra in (("tensorboard", "log"), ("wandb", "wandb")):
        with pytest.raises(
            CantolyricError, match=rf"needs the package {name}: type  pip install 'cantolyric\[{extra}\]'"
        ):
            climb(FinetuneConfig(runs_dir=str(tmp_path), log_to=name))
    with pytest.raises(CantolyricError, match="expected 'tensorboard' or 'wandb'"):
        climb(FinetuneConfig(runs_dir=str(tmp_path), log_to="mlflow"))
    monkeypatch.setattr(module, "find_spec", lambda name: True)
    for k in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(k, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(CantolyricError, match="wandb login , or set WANDB_MODE=offline"):
        check_loggers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_loggers(["tensorboard", "wandb"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(CantolyricError, match="expected names such as"):
        FinetuneConfig(log_to=[3])


def test_a_log_that_fails_does_not_stop_a_run(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *a):
            pass

        def write(self, *a):
            raise ConnectionError("the network is gone")

        def close(self):
            raise ConnectionError("the network is gone")

    monkeypatch.setattr(module, "_TensorBoard", Broken)
    log = RunLog(FinetuneConfig(log_to="tensorboard"), tmp_path)
    with pytest.warns(UserWarning, match="the network is gone.*the run goes on"):
        log.begin([dict(step=1, loss=2.0)])
        log.close()


def test_figures_are_flattened():
    assert flat(dict(loss=2.5, step=3, epoch=0.1, seconds=1.0, a=dict(b=1, c="x")), "g") == {"g/loss": 2.5, "g/a/b": 1}


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
    kept = push_run(own, "poet/rain", say=told.append)
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
    with pytest.raises(CantolyricError, match="is there already and public"):
        push_run(own, "poet/open")
    assert not hub.repos["poet/open"]["files"]
    push_run(own, "poet/open", public=True, say=quiet)
    assert hub.repos["poet/open"]["files"]


@needs_base
def test_a_push_that_fails_loses_nothing(own, hub, base, monkeypatch):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda s: None)
    hub.down = True
    config = read_config("micro", str(own.folder.parent), push_to="poet/rain")
    with pytest.raises(CantolyricError) as said:
        climb(config, pairs, quiet)
    for part in (
        "is finished and whole in",
        "could not be pushed to 'poet/rain'",
        "cantolyric finetune --name micro --resume",
        "push_run(read_run(",
    ):
        assert part in str(said.value)
    assert read_run(own.folder).metrics == own.metrics and not (own.folder / "pushed.json").exists()
    hub.down = False
    assert (
        climb(config, pairs, quiet).metrics == own.metrics and hub.repos["poet/rain"]["files"]
    )  # the same call tries again


def test_a_push_that_cannot_be_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Workshop", lambda *a: pytest.fail("something was loaded"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for repo, says in (
        ("rain", "expected user/name"),
        ("a/b/c", "not a valid repository name"),
        ("a b/c", "not a valid repository name"),
        ("", "push_to=''"),
    ):
        with pytest.raises(CantolyricError, match=says):
            climb(FinetuneConfig(runs_dir=str(tmp_path), push_to=repo))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(CantolyricError, match="needs a token.*hf auth login"):
        climb(FinetuneConfig(runs_dir=str(tmp_path), push_to="a/b"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CantolyricError, match="HF_HUB_OFFLINE is set"):
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
    if event == "open" and isinstance(args[0], str) and args[1] in ("r", "rb", None) and ".part" in args[0]: opened.append(args[0])
sys.addaudithook(looked)
import cantolyric.finetune as F
from test_finetune import climb, micro, pairs, quiet
from cantolyric.finetune import read_config
from transformers import TrainerCallback
class Tell(TrainerCallback):
    def on_step_begin(self, args, state, control, **kw): print("step", rung[0], state.global_step + 1, flush=True)
rung, was_train, was_trainer, was_save, was_write, was_gates = ["smoke"], F.train_rung, F.make_trainer, F.ToneTrainer._save_checkpoint, F.write_run, F.preflight
def gates(*a, **k): print("gates", rung[0], flush=True); return was_gates(*a, **k)
def train(shop, name, *a): print("rung", name, flush=True); return was_train(shop, name, *a)
def trainer(*a): t = was_trainer(*a); t.add_callback(Tell()); return t
def save(self, model, trial): print("saving", rung[0], flush=True); was_save(self, model, trial); print("saved", rung[0], self.state.global_step, flush=True)
def write(*a): print("writing", flush=True); was_write(*a)
def climbed(config, **k): rung[0] = config.rung; return was_finetune(config, **k)
was_finetune = F.finetune
F.train_rung, F.make_trainer, F.ToneTrainer._save_checkpoint, F.write_run, F.preflight, F.finetune = train, trainer, save, write, gates, climbed
resume = {resume!r}
climb(read_config("micro", {folder!r}) if resume else micro({base!r}, {folder!r}, log_to={log!r}), pairs, quiet)
print("read", sum(".tmp" in p for p in opened), len(opened), flush=True)
"""
# where the kills fall: the process has begun, gates, a step, a checkpoint half written, the end; the moment after that mark is drawn
MOMENTS = [
    ("begun", 4.0),
    ("gates smoke", 0.5),
    ("gates smoke", 2.0),
    ("step smoke 3", 0.3),
    ("step smoke 20", 0.5),
    ("rung pilot", 0.2),
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


def last_step(said, rung):
    return max([int(x.split()[2]) for x in said if x.startswith(f"step {rung} ")], default=0)


def first_step(said, rung):
    return min([int(x.split()[2]) for x in said if x.startswith(f"step {rung} ")], default=None)


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
        for rung in ("pilot", "full"):  # no more than save_every steps are done again
            if rung in reached and (start := first_step(said, rung)):
                assert start > reached[rung] - 4, (mark, rung, start, reached)
            reached[rung] = max(reached.get(rung, 0), last_step(said, rung))
        if any(x.startswith("step full") for x in said):
            assert "rung pilot" not in said  # a finished rung stays finished
    said, dead = attempt(base, tmp_path)
    assert not dead and killed == len(MOMENTS) == 20 and halves >= 3
    read = [x.split() for x in said if x.startswith("read")][0]
    assert read[1] == "0" and int(read[2]) > 0  # no half-written file is ever read
    same(run, read_run(tmp_path / "micro"))
    assert [p.name for p in tmp_path.iterdir()] == ["micro"]
    if LOG:
        got, _ = losses_in(tmp_path / "micro/logs/full")
        assert [s for s, _ in got] == list(range(1, 25)) and np.array_equal(
            np.float32([v for _, v in got]), np.float32(run.metrics["rungs"]["full"]["losses"])
        )


# ---- several processes


def test_whoever_writes_afterwards_is_told_what_it_takes(monkeypatch):
    from torch import nn

    model = nn.Linear(2**14, 2**14, bias=False, device="meta")  # 1 GiB in fp32, none of it here
    shop = type("Shop", (), dict(strategy="fsdp2", config=FinetuneConfig(batch_size=32), model=model))()
    monkeypatch.setattr(module, "world", lambda: (0, 4))
    assert (
        module.told_strategy(shop)
        == "4 processes, the base in pieces (fsdp2), 8 rows of each batch for each; whoever writes lyrics with the adapter holds the whole base, 1.0 GiB, in one process"
    )
    shop.strategy = "ddp"
    assert "GiB" not in module.told_strategy(shop)
