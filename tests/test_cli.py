"""The command line: exit codes, one line for a mistake, no traceback."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cantolyric.cli.read as read_command
from cantolyric.cli.finetune import UNSEEN, finetune_config
from cantolyric.cli.main import ISSUES, main, make_parser

ROOT = Path(__file__).resolve().parent.parent
VERSE = "落緊嘅雨洗淨條街\n你冇帶遮我都冇帶\n"
TONES = "23443203/44434344"


@pytest.fixture
def run(capsys):
    "Run a command in this process: (exit code, stdout, stderr)."

    def run(*args):
        capsys.readouterr()
        return main(list(args)), *capsys.readouterr()

    return run


@pytest.fixture
def verse(tmp_path):
    path = tmp_path / "verse.txt"
    path.write_text(VERSE, encoding="utf-8")
    return path


def shell(*args, stdin=b"", **env):
    "Run the command in a process of its own."
    return subprocess.run(
        [sys.executable, "-c", "import sys; from cantolyric.cli.main import main; sys.exit(main())", *map(str, args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        timeout=300,
    )


def test_check(run, verse):
    code, out, _ = run("check", "--tones", TONES, verse)
    assert code == 0 and "16 of 16" in out
    code, out, _ = run("check", "--tones", TONES.replace("/44", "/42"), verse)
    assert code == 1 and "15 of 16" in out and "wanted 2" in out
    code, out, _ = run("check", "--json", "--tones", TONES, verse)
    data = json.loads(out)
    assert code == 0 and data["ok"] and data["rhymes"] == []
    first = dict(char="落", jyutping="lok6", wanted="2", got="2", right=True, others=[])
    assert data["lines"][0][0] == first | dict(confidence="agreed", alternatives=[])
    code, out, _ = run("check", "--json", "--tones", TONES.replace("/", " A/") + " A", verse)
    assert code == 0 and [r["wanted"] for r in json.loads(out)["rhymes"]] == ["aai", "aai"]  # gaai1, daai3


def test_check_has_marks_and_byte_order_marks_and_windows_lines(run, tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "落緊嘅雨，洗淨條街。\r\n你冇帶遮 我都冇帶！\r\n".encode())
    code, out, _ = run("check", "--tones", TONES, path)
    assert code == 0, out


def test_read(run, verse):
    code, out, _ = run("read", verse)
    assert code == 0 and out.splitlines()[-1] == TONES and "lok6 gan2" in out
    code, out, _ = run("read", "--text", "行の", "--json")
    assert code == 0 and json.loads(out)["unknown"] == [dict(line=1, column=2, char="の")]
    assert run("read", "--scheme", "jyutping", "--text", "銀行")[1].split()[-1] == "44"


def test_own_readings(run, tmp_path):
    "Every command that reads lyrics takes a file of readings, and says which line of it is wrong."
    song, mine = tmp_path / "v.txt", tmp_path / "mine.tsv"
    song.write_text("開番個會先", encoding="utf-8")
    mine.write_text("開番個會\thoi1 faan1 go3 wui2\n", encoding="utf-8")
    assert run("read", song, "--readings", mine)[1] == "開番個會先  hoi1 faan1 go3 wui2 sin1  33433\n"
    assert run("check", "--tones", "33433", song, "--readings", mine)[0] == 0
    assert (
        run("check", "--tones", "開番個會=33", song, "--readings", mine)[0] == 0
    )  # the template is read with them, too
    mine.write_text("會\twui2\n開 hoi1\n", encoding="utf-8")
    for command in (
        ["read", song],
        ["check", "--tones", "33433", song],
        ["rewrite", song, "--line", "1", "--topic", "夜雨"],
        ["write", "--topic", "夜雨", "--tones", "33"],
    ):
        code, _, err = run(*command, "--readings", mine)
        assert code == 2 and "line 2 of the readings in" in err and "mine.tsv" in err
        code, _, err = run(*command, "--readings", tmp_path / "nothing.tsv")
        assert code == 2 and "nothing.tsv" in err


def test_rewriting_refuses_fixed_english_words(run, tmp_path):
    "Before a model is loaded, and with a remedy."
    song = tmp_path / "v.txt"
    song.write_text("baby我好", encoding="utf-8")
    code, _, err = run("rewrite", song, "--line", "1", "--topic", "夜雨", "--tones", "{baby}43", "--base", "nowhere")
    assert code == 2 and "does not support fixed English words" in err and "write * for each" in err


def test_uncertain_readings_are_marked(run, tmp_path):
    code, out, err = run("read", "--text", "我到呀")
    assert code == 0 and out == "我到呀  ngo5 dou3? aa4~  440\n"
    assert "~ the sources differ; ? guessed" in err and "--readings" in err
    code, out, err = run("read", "--json", "--text", "我到呀")
    assert json.loads(out)["lines"][0]["confidence"] == ["agreed", "guessed", "differ"]
    assert run("read", "--text", "銀行")[2] == ""
    path = tmp_path / "v.txt"
    path.write_text("我到呀", encoding="utf-8")
    code, out, _ = run("check", "--tones", "430", path)
    assert code == 1 and "ngo5 dou3? aa4~" in out and "~ the sources differ; ? guessed" in out
    assert "到 dou3 is 4, wanted 3 (an uncertain reading; it is also read dou2; as dou2 it would fit)" in out
    path.write_text("銀行", encoding="utf-8")
    assert "--readings" not in run("check", "--tones", "00", path)[1]


@pytest.mark.parametrize(
    "args, says",
    [
        (["check", "--tones", "02x", "FILE"], "column 3"),
        (["check", "--tones", "05", "FILE"], "column 2"),
        (["check", "--tones", "02//3", "FILE"], "line 2"),
        (["check", "--tones", "3" * 41, "FILE"], "40"),
        (["check", "FILE"], "--tones"),
        (["check", "--tones", "02", "--scheme", "1", "FILE"], "--scheme"),
        (["check", "--tones", "02", "nothing.txt"], "nothing.txt"),
        (["check", "--tones", "02", "."], "'.'"),
        (["read", "nothing.txt"], "nothing.txt"),
        (["write", "--topic", "雨", "--tones", "0q"], "column 2"),
        (["write", "--topic", "", "--tones", "02"], "empty"),
        (["write", "--topic", "雨" * 10_000, "--tones", "02"], "10,000"),
        (["write", "--topic", "雨", "--tones", "02", "-n", "0"], "-n 0: expected a whole number"),
        (["write", "--topic", "雨", "--tones", "02", "-n", "x"], "-n"),
        (["write", "--topic", "雨", "--tones", "02", "--temperature", "-1"], "temperature"),
        (["write", "--topic", "雨", "--tones", "02", "--base", "no/such/base"], "no/such/base"),
        (["write", "--topic", "雨", "--tones", "02", "--adapter", "nowhere"], "nowhere"),
        (["sing"], "sing"),
        ([], "COMMAND"),
        (["base"], "train"),
        (["finetune", "--seed", "x"], "--seed"),
    ],
)
def test_a_mistake_is_one_line(run, verse, args, says):
    code, out, err = run(*[verse if a == "FILE" else a for a in args])
    assert code == 2 and out == "" and says in err
    assert len(err.strip().split("\n")) == 1 and "Traceback" not in err


def test_files_that_are_no_text(run, tmp_path):
    for content, says in [(b"", "empty"), (b"\n \n", "empty"), ("落雨".encode("big5"), "UTF-8")]:
        (tmp_path / "v.txt").write_bytes(content)
        code, _, err = run("check", "--tones", "24", tmp_path / "v.txt")
        assert code == 2 and says in err


def test_write(run):
    code, out, _ = run(
        "write", "--topic", "夜雨", "--tones", "0243/33", "-n", "2", "--seed", "0", "--adapter", "none", "--json"
    )
    data = json.loads(out)
    assert (
        code == 0
        and len(data["candidates"]) == 2
        and all(c["ok"] and c["got"] == ["0243", "33"] for c in data["candidates"])
    )


def test_base_train_says_its_price_and_wants_a_yes(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    code, _, err = run("base", "train", "--run", tmp_path / "run")
    assert code == 2 and "minutes" in err and "GB" in err and "--yes" in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small(monkeypatch):
    "A base so small, and so little text, that it is pretrained in seconds."
    from cantolyric import base, pretraining

    made = base.BaseConfig
    texts = [f"今日{a}好{b}。" for a in "天氣心情生意功課" for b in "靚多平難大"]
    monkeypatch.setattr(pretraining, "load_corpus", lambda split: dict(text=texts if split == "train" else texts[:4]))
    monkeypatch.setattr(pretraining, "can_compile", lambda: False)
    monkeypatch.setattr(
        base,
        "BaseConfig",
        lambda **kw: made(
            **dict(vocab_size=280, hidden=16, layers=1, heads=2, kv_heads=1, mlp=16, length=16, rows=2, warmup=2) | kw
        ),
    )


def test_base_train_makes_a_base_and_goes_on_where_it_was_stopped(run, small, tmp_path, monkeypatch):
    from cantolyric import base, pretraining

    train = lambda folder: run("base", "train", "--run", tmp_path / folder, "--steps", "6", "--yes", "--json")
    code, out, err = train("straight")
    assert code == 0, err
    data = json.loads(out)
    model, tokenizer = base.load_base(data["folder"])
    assert (
        data["steps"] == 6
        and model.config.vocab_size == 280
        and tokenizer.decode(tokenizer("今日")["input_ids"]) == "今日"
    )

    step = pretraining.pretraining_step  # now the same, with Ctrl-C in the fourth step
    calls = []

    def stopped(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*args)

    pretrain = pretraining.pretrain
    monkeypatch.setattr(pretraining, "pretrain", lambda run, config: pretrain(run, config, save_every=1))
    monkeypatch.setattr(pretraining, "pretraining_step", stopped)
    code, _, err = train("stopped")
    assert code == 130 and "stopped" in err
    monkeypatch.setattr(pretraining, "pretraining_step", step)
    code, out, err = train("stopped")
    assert code == 0 and "step 3 of 6" in err
    one, two = (
        pretraining.load_file(tmp_path / f / "checkpoint" / "model.safetensors") for f in ("straight", "stopped")
    )
    assert all((one[k] == two[k]).all() for k in one)


def test_a_run_with_other_settings_is_refused(run, small, tmp_path):
    assert run("base", "train", "--run", tmp_path / "r", "--steps", "2", "--yes")[0] == 0
    code, _, err = run("base", "train", "--run", tmp_path / "r", "--steps", "3", "--yes")
    assert code == 2 and "steps=2" in err


def test_a_full_disk_is_one_line(run, small, tmp_path, monkeypatch):
    import errno

    from cantolyric import pretraining

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")

    monkeypatch.setattr(pretraining, "save_file", full)
    code, _, err = run("base", "train", "--run", tmp_path / "r", "--steps", "2", "--yes")
    assert code == 2 and "No space left" in err.strip().split("\n")[-1] and "Traceback" not in err
    assert not (tmp_path / "r" / "checkpoint").exists()


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cantolyric.lyricist", None)

    def missing(args):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(read_command, "run_read", missing)
    code, _, err = run("read", "--text", "好")
    assert code == 2 and "pip install 'cantolyric[train]'" in err


def test_a_mistake_of_our_own_is_one_line_and_shows_its_traceback_on_request(run, monkeypatch):
    def broken(args):
        raise KeyError("ours")

    monkeypatch.setattr(read_command, "run_read", broken)
    code, out, err = run("read", "--text", "好")
    assert (
        (code, out) == (2, "")
        and "unexpected KeyError: 'ours'" in err
        and "--debug" in err
        and ISSUES in err
        and len(err.splitlines()) == 1
    )
    assert (
        "Traceback" in run("read", "--text", "好", "--debug")[2]
        and "Traceback" in run("--debug", "read", "--text", "好")[2]
    )
    monkeypatch.setenv("CANTOLYRIC_DEBUG", "1")
    assert "Traceback" in run("read", "--text", "好")[2]


def test_in_a_process_of_its_own_without_torch_and_in_any_locale(verse):
    done = shell(
        "check", "--tones", TONES, "-", stdin=VERSE.encode(), PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0"
    )
    assert done.returncode == 0 and "16 of 16" in done.stdout.decode()
    code = (
        "import sys; from cantolyric.cli.main import main; "
        f"main(['check', '--tones', '{TONES}', {str(verse)!r}]); assert 'torch' not in sys.modules"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
        ).returncode
        == 0
    )


@pytest.fixture
def climbed(tmp_path, monkeypatch):
    "A run that takes no time: a folder with an untrained adapter."
    from cantolyric.base import load_base
    from cantolyric.training.run_folder import Run

    def run_finetune(config, log=print, dry_run=False):
        from peft import LoraConfig, get_peft_model

        folder = tmp_path / config.name
        get_peft_model(load_base()[0], LoraConfig(r=2, target_modules="all-linear")).save_pretrained(folder / "adapter")
        log("smoke: passed")
        bits = dict(masked=3.0, free=6.0)
        full = dict(
            seconds=1.0,
            gates=[dict(name="lower", ok=config.seed == 0, message="")],
            held_out=dict(num_examples=2, before=dict(best=bits), after=dict(masked=2.5, free=5.0)),
        )
        return Run(folder, dict(stages=dict(full=full), seconds=1.0, peak_gib=1.0))

    monkeypatch.setattr("cantolyric.training.run.run_finetune", run_finetune)
    monkeypatch.setattr("cantolyric.evaluation.requests.check_unseen", lambda requests: None)
    monkeypatch.setattr("cantolyric.evaluation.summary.human_agreement", lambda **kw: (0.97, 1000))


def test_finetune_ends_with_lyrics_and_one_table(run, climbed, tmp_path):
    code, out, _ = run("finetune", "--name", "a")
    assert code == 0 and "100.00 %" in out and "97.00 % of 1,000" in out and "2.500" in out
    for topic, tones in UNSEEN:
        assert f"{topic}  {tones}" in out
        for line in tones.split("/"):
            assert f"wanted {line} got {line}" in out
    assert UNSEEN[0][0] in (tmp_path / "a" / "lyrics.md").read_text(encoding="utf-8")
    code, out, err = run("finetune", "--name", "b", "--seed", "1", "--json")
    assert code == 1 and "smoke" in err and not json.loads(out)["ok"]  # a last gate failed


@pytest.mark.parametrize(
    "args, says",
    [
        (["--rank", "0"], "--rank 0: expected"),
        (["--name", "a/b"], "cannot be the name of a run"),
        (["--format", "x"], "format"),
        (["--resume", "--name", "nothing"], "no run to resume"),
        (["--base", "no/such/base"], "no base model"),
        (["--name", "there"], "exists already"),
        (["--public"], "--public: nothing is uploaded"),
    ],
)
def test_a_finetune_that_cannot_be(run, tmp_path, args, says):
    (tmp_path / "there").mkdir()
    code, out, err = run("finetune", "--runs-dir", tmp_path, *args)
    assert code == 2 and says in err and len(err.strip().split("\n")) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


def test_switches_of_the_loss():
    config = lambda *args: finetune_config(make_parser().parse_args(["finetune", *args]))
    assert (config().loss, config().mask, config().on_mismatch) == ("sliced", True, "stop")
    changed = config("--loss", "hook", "--on-mismatch", "skip", "--allowed-logit-bonus", "3")
    assert (changed.loss, changed.on_mismatch, changed.allowed_logit_bonus) == ("hook", "skip", 3.0) and not config(
        "--no-mask"
    ).mask


def commands(parser=None):
    "Name and parser of each command."
    parser = parser or make_parser()
    for a in parser._actions:
        for name, p in a.choices.items() if isinstance(a, argparse._SubParsersAction) else ():
            yield from commands(p) if name in ("base", "model") else [(name, p)]


def test_each_help_teaches():
    found = dict(commands())
    assert set(found) == {
        "read",
        "check",
        "write",
        "rewrite",
        "finetune",
        "evaluate",
        "train",
        "list",
        "get",
        "path",
        "remove",
        "export",
        "completion",
    }
    for name, p in found.items():
        text = p.format_help()
        assert "examples:" in text and "exit codes: 0 success" in text, name
        assert all(a.help for a in p._actions if a.option_strings), name
    assert "exit codes: 0 success; 1 the tones differ, or fight the melody; 2" in found["check"].format_help()
    assert "3 is a high tone" in make_parser().format_help()


EXAMPLES = [line for _, p in commands() for line, _ in p.get_default("examples_shown")]


@pytest.mark.parametrize("line", EXAMPLES)
def test_each_example_of_a_help_is_understood(line):
    words = shlex.split(line.partition(" >")[0].partition(" <")[0])
    args = make_parser().parse_args(words[1:])
    if tones := getattr(args, "tones", None):
        from cantolyric.template.template import ToneTemplate

        template = ToneTemplate.parse(tones, args.scheme)
        if getattr(args, "word", None):
            from cantolyric.reading import Reader
            from cantolyric.template.song import with_words
            from cantolyric.writing.request import check_request

            assert with_words(check_request("x", template, rhyme=args.rhyme).template, args.word, Reader(), most=1)
    if words[1] == "finetune":
        finetune_config(args) if not (getattr(args, "resume", False) or args.config) else None


@pytest.mark.parametrize(
    "line", [x for x in EXAMPLES if x.split()[1] in ("read", "check", "completion") or "model list" in x]
)
def test_each_example_without_a_model_runs(line, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    (tmp_path / "my_lyrics.txt").write_text(VERSE, encoding="utf-8")
    (tmp_path / "my_readings.tsv").write_text("單先生\tsin6 sin1 saang1\n", encoding="utf-8")
    (tmp_path / "my_tune.abc").write_text("X:1\nL:1/4\nK:C\nDGEE GDCG|EEEG EGEE|]\n")
    for folder in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cantolyric").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c "
        "'import sys; from cantolyric.cli.main import main; sys.exit(main())' \"$@\"\n"
    )
    (tmp_path / "cantolyric").chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)
    notes = done.stderr.splitlines()  # of uncertain readings
    assert done.returncode == 0 and all(note.startswith("cantolyric: note:") for note in notes), done
    assert done.stdout or ">" in line


def completed(line, tmp_path):
    "What bash offers at the Tab key behind `line`."
    script = tmp_path / "cantolyric.bash"
    if not script.exists():
        script.write_bytes(shell("completion", "bash").stdout)
    words = line.split(" ")
    ask = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        "_shtab_cantolyric 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path).stdout.split()


def test_the_tab_key(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    assert completed("cantolyric wr", tmp_path) == ["write"]
    assert completed("cantolyric write --met", tmp_path) == ["--method"]
    assert completed("cantolyric write --method be", tmp_path) == ["best", "beam"]
    assert completed("cantolyric read --scheme 0", tmp_path) == ["0243", "02493"]
    (tmp_path / "my_lyrics.txt").touch()
    assert completed("cantolyric check my", tmp_path) == ["my_lyrics.txt"]
    for other in ("zsh", "fish", "tcsh", "powershell"):
        assert b"--quantize" in shell("completion", other).stdout or other == "fish"


@pytest.mark.parametrize(
    "args, says",
    [
        (["--rounds", "2"], "--rounds is for an endpoint"),
        (["--budget", "0"], "--budget is for an endpoint"),
        (
            ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--method", "beam"],
            "--method is for a model on this machine",
        ),
        (["--endpoint", "http://127.0.0.1:9/v1", "--base", "tiny"], "--base is for a model"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--word", "雨"], "--word is for a model"),
        (["--endpoint", "127.0.0.1"], "not the address"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "name of a model"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "-n", "1"], "cannot be reached"),
    ],
)
def test_what_belongs_to_an_endpoint_and_what_to_a_model(run, args, says):
    code, out, err = run("write", "--topic", "雨", "--tones", "02", *args)
    assert code == 2 and out == "" and says in err and len(err.strip().split("\n")) == 1


def test_deepseek_wants_its_key(run, monkeypatch):
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    code, _, err = run("write", "--topic", "雨", "--tones", "02", "-n", "1", "--endpoint")
    assert code == 2 and "DEEPSEEK_API_KEY" in err


def test_wishes_are_kept(run):
    code, out, err = run(
        "write",
        "--topic",
        "夜雨",
        "--tones",
        "0243324/3324043",
        "--word",
        "天光",
        "--keep",
        "2=今朝*****",
        "--rhyme",
        "oeng",
        "--sort-by",
        "rhyme=2",
        "-n",
        "2",
        "--seed",
        "1",
        "--json",
    )
    assert code == 0, err
    for c in json.loads(out)["candidates"]:
        assert (
            c["ok"]
            and "天光" in c["text"]
            and c["text"].split("\n")[1].startswith("今朝")
            and all(line.endswith(("oeng1", "oeng2", "oeng3", "oeng5")) for line in c["jyutping"])
        )


def test_a_line_is_rewritten_and_the_other_stays(run, verse):
    code, out, err = run(
        "rewrite", verse, "--line", "2", "--slots", "4-8", "--topic", "夜雨", "-n", "2", "--seed", "0", "--json"
    )
    assert code == 0, err
    found = [c["text"].split("\n") for c in json.loads(out)["candidates"]]
    assert found and all(a == "落緊嘅雨洗淨條街" and b[:3] == "你冇帶" and b != "你冇帶遮我都冇帶" for a, b in found)


@pytest.mark.parametrize(
    "args, says",
    [
        (["write", "--topic", "雨", "--tones", "0243", "--keep", "2"], "--keep '2'"),
        (["write", "--topic", "雨", "--tones", "0243", "--keep", "x=夜***"], "--keep 'x=夜***'"),
        (["write", "--topic", "雨", "--tones", "0243", "--keep", "2=夜***"], "line 2"),
        (["write", "--topic", "雨", "--tones", "0243", "--word", "月光"], "which is 23"),
        (["write", "--topic", "雨", "--tones", "0243", "--sort-by", "luck=1"], "luck"),
        (["write", "--topic", "雨", "--tones", "0243", "--sort-by", "rhyme=x"], "--sort-by 'rhyme=x'"),
        (["write", "--topic", "雨", "--tones", "0243", "--rhyme", "zzz"], "3 letters for 1 lines"),
        (["rewrite", "FILE", "--topic", "雨"], "--line"),
        (["rewrite", "FILE", "--topic", "雨", "--line", "1", "--slots", "a"], "--slots 'a'"),
        (["rewrite", "nothing.txt", "--topic", "雨", "--line", "1"], "nothing.txt"),
    ],
)
def test_wishes_that_cannot_be(run, verse, args, says):
    code, out, err = run(*[verse if a == "FILE" else a for a in args])
    assert code == 2 and out == "" and says in err and len(err.strip().split("\n")) == 1


def test_a_finetune_without_lyrics(run, climbed, tmp_path):
    code, out, _ = run("finetune", "--name", "a", "--no-lyrics", "--json")
    assert (
        code == 0
        and json.loads(out) == dict(run=str(tmp_path / "a"), ok=True)
        and not (tmp_path / "a" / "lyrics.md").exists()
    )


def test_settings_from_a_file(run, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("rank: 8\nmask: true\nbase: tiny\n", encoding="utf-8")
    config = lambda *args: finetune_config(make_parser().parse_args(["finetune", *map(str, args)]))
    made = config("--config", path, "--steps", 12, "--no-mask", "--log-to", "tensorboard,wandb", "--name", "again")
    assert (made.rank, made.steps, made.mask, made.log_to, made.name) == (
        8,
        12,
        False,
        ("tensorboard", "wandb"),
        "again",
    )
    path.write_text("rnk: 8\n", encoding="utf-8")
    for args, says in [
        (("--config", path), "rank"),
        (("--config", tmp_path / "no.yaml"), "no.yaml"),
        (("--config", path, "--resume"), "remove --config"),
        (("--log-to", "paper"), "--log-to 'paper'"),
    ]:
        code, out, err = run("finetune", *args)
        assert code == 2 and out == "" and says in err and len(err.strip().split("\n")) == 1, err


def test_the_benchmark_without_a_model(run, tmp_path):
    asked, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    code, out, _ = run("evaluate", "--requests-to", asked, "-n", "3", "--json")
    requests = [json.loads(line) for line in asked.read_text(encoding="utf-8").splitlines()]
    assert code == 0 and json.loads(out)["requests"] == len(requests) == 3 and not any("lyrics" in r for r in requests)
    answers.write_text("".join(json.dumps(dict(id=r["id"], text="落雨")) + "\n" for r in requests), encoding="utf-8")
    code, out, err = run(
        "evaluate", "--texts", answers, "-n", "3", "--to", tmp_path / "report", "--seeds", "1", "--json"
    )
    data = json.loads(out)
    assert code == 0 and data["requests"] == 3 and data["systems"]["answers"]["figures"]["whole %"]["value"] == 0, err
    assert "human lines" in data["systems"] and (tmp_path / "report" / "report.md").exists()


@pytest.mark.parametrize(
    "args, says",
    [
        (["--seeds", "2"], "--seeds is for the benchmark"),
        (["--seeds", "0", "--to", "x"], "--seeds 0: expected a whole number"),
        (["-n", "0"], "-n 0: expected a whole number"),
        (["--texts", "nothing.jsonl"], "nothing.jsonl"),
        (["--to", "x", "--seed", "1"], "--seed is for the quick evaluation"),
        (["--texts", "x", "--adapter", "none"], "--adapter is for a model"),
        (["--requests", "nothing.jsonl", "--requests-to", "x"], "nothing.jsonl"),
    ],
)
def test_an_evaluation_that_cannot_be(run, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("evaluate", *args)
    assert (
        code == 2 and out == "" and says in err and len(err.strip().split("\n")) == 1 and not list(tmp_path.iterdir())
    )


def test_what_is_changed_at_a_resume_is_refused(run, tmp_path):
    (tmp_path / "a.part").mkdir()
    from dataclasses import asdict

    from cantolyric.training.config import FinetuneConfig

    (tmp_path / "a.part" / "config.json").write_text(
        json.dumps(asdict(FinetuneConfig(name="a", runs_dir=str(tmp_path))))
    )
    code, _, err = run("finetune", "--name", "a", "--runs-dir", tmp_path, "--resume", "--no-mask")
    assert code == 2 and "mask=True, not False" in err
