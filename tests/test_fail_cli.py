"""The command line's contract: exit codes, one line for an error, and no contradiction passes unnoticed.

Everything runs in processes of its own. `answers` runs many command lines in one process, so torch is imported once.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "cantolyric"]
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("CANTOLYRIC_", "PYTHON"))} | {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}
VERSE = "落緊嘅雨洗淨條街\n你冇帶遮我都冇帶\n"
TONES = "23443203/44434344"
WRITE = ["write", "--topic", "雨", "--tones", "0243/3324"]

DRIVER = """
import contextlib, io, json, sys
import cantolyric.cli.read as read
from cantolyric.cli.main import main
def run(argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main(argv)
    return code, out.getvalue(), err.getvalue()
"""


def command(*args, stdin="", **kw):
    "Run one command: (exit code, stdout, stderr)."
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        env=ENV | kw.pop("env", {}),
        timeout=120,
        **kw,
    )
    return done.returncode, done.stdout, done.stderr


def driven(script, *args, **kw):
    "Run a script that has `run(argv)`, and parse what it prints."
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + script, *map(str, args)],
        capture_output=True,
        text=True,
        env=ENV,
        timeout=300,
        **kw,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(lines, **kw):
    "Run many command lines in one process: (exit code, stdout, stderr) of each."
    return driven("print(json.dumps(list(map(run, json.loads(sys.argv[1])))))", json.dumps(lines), **kw)


def is_one_line(err, says):
    return says in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.txt"
    path.write_text(VERSE, encoding="utf-8")
    return path


# ---- contradictions

TWICE = [
    ["read", "--text", "a", "--text", "b"],
    ["check", "--tones", "2", "--tones", "3", "-"],
    [*WRITE, "--topic", "風"],
    [*WRITE, "--seed", "1", "--seed", "2"],
    [*WRITE, "--rhyme", "oeng", "--rhyme", "aa"],
    [*WRITE, "-n", "1", "-n", "2"],
    ["rewrite", "x", "--topic", "雨", "--line", "1", "--slots", "1", "--slots", "2"],
    ["evaluate", "--to", "a", "--to", "b"],
    ["export", "--to", "a", "--to", "b"],
    ["finetune", "--name", "a", "--name", "b"],
    ["finetune", "--lr", "1e-3", "--lr", "1e-4"],
    ["finetune", "--config", "a", "--config", "b"],
    ["base", "train", "--run", "a", "--run", "b"],
    ["completion", "bash", "zsh"],
]
EMPTY = [
    [*WRITE, "--base", ""],
    [*WRITE, "--rhyme", " "],
    [*WRITE, "--endpoint", ""],
    ["finetune", "--config", ""],
    ["evaluate", "--texts", ""],
    ["evaluate", "--to", ""],
    ["read", "--text", ""],
    ["rewrite", "x", "--topic", "雨", "--line", "1", "--tones", ""],
    ["check", "--tones", "2", ""],
]
IGNORED = [
    (["read", "--text", "好", "FILE"], "--text and the file"),
    (["read", "--text", "好", "-"], "--text and the file '-'"),
    ([*WRITE, "--keep", "1=****", "--keep", "1=夜***"], "--keep '1=夜***': 1 was given before"),
    ([*WRITE, "--sort-by", "rhyme=1", "--sort-by", "rhyme=2"], "--sort-by 'rhyme=2': rhyme was given before"),
    ([*WRITE, "--temperature", "0", "-n", "4"], "--temperature 0 writes one candidate"),
    ([*WRITE, "--temperature", "0", "--top-p", ".5"], "--top-p is for sampling"),
    ([*WRITE, "--temperature", "0", "--method", "best"], "--method best chooses among samples"),
    ([*WRITE, "--method", "beam", "--temperature", ".8"], "--temperature is for sampling"),
    ([*WRITE, "--method", "beam", "--top-p", ".95"], "--top-p is for sampling"),
    ([*WRITE, "--grade", "2"], "--grade is for the rhyme"),
    (
        [*WRITE, "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--rhyme", "AA"],
        "--rhyme is for a model on this machine",
    ),
    ([*WRITE, "--model", "m"], "--model is for an endpoint"),
    (["evaluate", "--texts", "x", "--seeds", "2"], "--seeds is for the benchmark"),
    (["evaluate", "--texts", "x", "--systems", "a"], "--systems is for the benchmark"),
    (["evaluate", "--requests-to", "x", "--to", "y"], "--to is for an evaluation"),
    (["evaluate", "--requests-to", "x", "--requests", "./x"], "the same file"),
    (["export", "--to", "x", "--no-check", "--gguf-base", "y", "--kind", "gguf"], "--gguf-base is for the comparison"),
    (["export", "--to", "x", "--gguf-base", "y"], "--gguf-base is for --kind gguf"),
]
FINETUNE = [
    (["--config", "x", "--resume"], "--config"),
    (["--dry-run", "--resume"], "--dry-run is for a run that has not started"),
    (["--no-mask", "--allowed-logit-bonus", "3"], "--allowed-logit-bonus is for training with the tone mask"),
    (["--no-mask", "--unmasked-fraction", ".5"], "--unmasked-fraction is for"),
    (["--no-mask", "--loss", "hook"], "--loss is for"),
    (["--launch-config", "2", "--seed", "1"], "--seed is for a finetune"),
    (["--launch-config", "2", "--dry-run"], "--dry-run is for a finetune"),
    (["--mix", "a=1,a=2"], "--mix 'a=1,a=2': 'a' is given twice"),
    (["--columns", "lyrics=a,lyrics=b"], "'lyrics' is given twice"),
    (["--set", "lr=1", "--set", "lr=2"], "given twice"),
    (["--set", "trainer.seed=1", "--seed", "2"], "--seed 2: trainer.seed=1 means the same"),
    (["--data", "verses", "--mix", "verses=1"], "--mix: data='verses' is set as well"),
    (["--public"], "--public: nothing is uploaded"),
    (["--rank", "0"], "--rank 0: expected"),
    (["--set", "max_length=1"], "--max-length 1: expected"),
    (["--from-adapter", "nowhere"], "--from-adapter 'nowhere'"),
    (["--seed", "-1"], "--seed"),
    (["--seed", str(2**70)], "--seed"),
    (["--seed", "²"], "--seed"),
    (["--name", "長" * 100], "--name"),
    (["--name", "a" * 300], "--name"),
    (["--steps", "0"], "--steps 0"),
    (["--runs-dir", "/proc/nope"], "/proc/nope"),
    (["--runs-dir", "song.txt"], "song.txt"),
    (["--runs-dir", "song.txt/x"], "song.txt"),
]


def test_contradictions_are_refused_before_anything_is_imported(tmp_path):
    lines = [*TWICE, *EMPTY, *(line for line, _ in IGNORED)]
    found, torch = driven(
        "print(json.dumps([list(map(run, json.loads(sys.argv[1]))), 'torch' in sys.modules]))",
        json.dumps(lines),
        cwd=tmp_path,
    )
    assert not torch
    says = (
        ["given twice"] * (len(TWICE) - 1)
        + ["unrecognized"]
        + ["the value is empty"] * len(EMPTY)
        + [s for _, s in IGNORED]
    )
    for (code, out, err), line, said in zip(found, lines, says):
        assert code == 2 and out == "" and is_one_line(err, said), (line, err)
    assert not list(tmp_path.iterdir())


def test_the_same_value_twice_contradicts_nothing(song):
    code, out, err = command("check", "--tones", TONES, "--tones", TONES, song)
    assert code == 0 and "16 of 16" in out and err == ""


HEAVY = """
from pathlib import Path
import cantolyric.training.run as training_run
from cantolyric.training.run_folder import run_folders
from cantolyric.errors import ArgumentError
from cantolyric.writing.request import check_unmasked
found = dict(lines=list(map(run, json.loads(sys.argv[1]))), left=sorted(p.name for p in Path().iterdir()), unmasked=[])
wishes = [dict(rhyme="AA"), dict(rhyme={"A": "oeng"}), dict(keep={1: "夜***"}), dict(words=["月光"])]
for how in [*wishes, dict(method="beam")]:
    try: check_unmasked(**dict(method="sample", rhyme=None, keep=None, words=()) | how)
    except ArgumentError as e: found["unmasked"].append(str(e))
check_unmasked("sample", rhyme=None, keep=None, words=())
sys.stdin = None # as Python has it when standard input is closed
found["price"] = run(["base", "train", "--run", "r"])
def run_finetune(config, **kw):
    _, part = run_folders(config)
    part.mkdir(parents=True)
    (part / "config.json").touch()
    raise KeyboardInterrupt
training_run.run_finetune = run_finetune
finetune_in = ["finetune", "--runs-dir", "stopped", "--name"]
found["stopped"] = [run([*finetune_in, "a"]), run([*finetune_in, "b", "--json"])]
print(json.dumps(found))"""


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    "What takes torch, in one process."
    folder = tmp_path_factory.mktemp("heavy")
    (folder / "song.txt").write_text(VERSE, encoding="utf-8")
    lines = [line for line, _ in REQUESTS] + [["finetune", *line] for line, _ in FINETUNE]
    found = driven(HEAVY, json.dumps(lines), cwd=folder)
    return found | dict(lines=dict(zip(map(tuple, lines), found["lines"])))


REWRITE = ["rewrite", "song.txt", "--topic", "雨", "--line", "1"]
REQUESTS = [
    (
        [*WRITE, "--rhyme", "AA A=up"],
        "--rhyme 'AA A=up': line 1 of the template cannot end in -up: with its slots it can end in -a -aa",
    ),
    ([*WRITE, "--rhyme", "oeng up"], "two finals for all lines, -oeng and -up"),
    ([*WRITE, "--rhyme", "AA A=oeng A=up"], "A has two finals, -oeng and -up"),
    ([*WRITE, "--rhyme", "AA AB"], "two schemes, AA and AB"),
    ([*WRITE, "--rhyme", "1=oeng 3=oeng"], "the letter or number 3"),
    ([*WRITE, "--rhyme", "AAB"], "--rhyme 'AAB': 3 letters for 2 lines"),
    ([*WRITE, "--keep", "3=夜***"], "--keep: there is no line 3"),
    ([*WRITE, "--keep", "1=夜"], "--keep: 1 characters for line 1"),
    ([*WRITE, "--word", "rain"], "--word 'rain': expected"),
    ([*WRITE, "-n", "0"], "-n 0: expected"),
    ([*WRITE, "--top-p", "3"], "--top-p 3.0: expected"),
    ([*WRITE, "--temperature", "nan"], "--temperature nan: expected"),
    ([*WRITE, "--sort-by", "luck=1"], "--sort-by: there is no criterion 'luck'"),
    ([*WRITE, "--endpoint", "127.0.0.1"], "--endpoint '127.0.0.1': not the address"),
    ([*WRITE, "--endpoint", "http://127.0.0.1:9/v1"], "--model: expected the name of a model"),
    (
        [*WRITE, "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "-n", "1", "--rounds", "-1"],
        "--rounds -1: expected",
    ),
    ([*REWRITE, "--line", "2", "--slots", "1-2"], "--slots (1, 2): expected one line"),
    ([*REWRITE, "--slots", "0-2"], "slots 1 to 8"),
    ([*REWRITE, "--slots", "5-3"], "slots 1 to 8"),
    ([*REWRITE, "--line", "9"], "--line: there is no line 9"),
]


@pytest.mark.parametrize("line, says", REQUESTS, ids=[" ".join(x[5:]) for x, _ in REQUESTS])
def test_a_request_that_cannot_be(heavy, line, says):
    code, out, err = heavy["lines"][tuple(line)]
    assert code == 2 and out == "" and is_one_line(err, says), err


@pytest.mark.parametrize("line, says", FINETUNE, ids=[" ".join(x)[:40] for x, _ in FINETUNE])
def test_a_finetune_that_cannot_be(heavy, line, says):
    code, out, err = heavy["lines"][("finetune", *line)]
    assert code == 2 and out == "" and is_one_line(err, says), err


def test_nothing_refused_leaves_a_file(heavy):
    assert heavy["left"] == ["song.txt"]


def test_wishes_contradict_the_unmasked_way(heavy):
    assert [s.partition("=")[0] for s in heavy["unmasked"]] == ["rhyme", "rhyme", "keep", "words", "method"] and all(
        "masked=False" in s for s in heavy["unmasked"]
    )


def test_a_price_is_not_agreed_to_without_an_answer(heavy):
    code, out, err = heavy["price"]
    assert code == 2 and out == "" and "minutes" in err and is_one_line(err.splitlines()[-1], "--yes")


@pytest.mark.parametrize("value", ["²", "3-", "-3", "3-²", "a", "1-2-3", ""])
def test_slots_are_numbers(song, value):
    code, out, err = command("rewrite", song, "--topic", "雨", "--line", "1", f"--slots={value}")
    assert code == 2 and out == "" and is_one_line(err, "--slots")


@pytest.mark.parametrize(
    "option, value",
    [
        ("--keep", "²=夜***"),
        ("--keep", "1="),
        ("--sort-by", "rhyme=²"),
        ("-n", "²"),
        ("--seed", "²"),
        ("--seed", "-1"),
        ("--seed", str(2**70)),
        ("--seed", "9" * 5000),
    ],
)
def test_numbers_are_numbers(option, value):
    code, out, err = command(*WRITE, option, value)
    assert code == 2 and out == "" and is_one_line(err, option) and len(err) < 2000


# ---- exit codes and the last handler

FAULTS = """
import errno, warnings
class Panic(BaseException): "As pyo3 raises it."
numbers = errno.ENOENT, errno.ENAMETOOLONG, errno.EIO, errno.ENOSPC
faults = [KeyError("x"), ValueError("two\\nlines"), AssertionError(), RecursionError("deep"), SystemExit(1),
          SystemExit("no"), Panic("core"), MemoryError(), StopIteration(), UnicodeEncodeError("utf-8", "x", 0, 1, "y"),
          *(OSError(n, "no use", "file") for n in numbers), OSError("no number"),
          ModuleNotFoundError("no torch", name="torch"), ModuleNotFoundError("no zzz", name="zzz"), KeyboardInterrupt(),
          BrokenPipeError(errno.EPIPE, "Broken pipe")]
said = []
for fault in faults:
    def broken(args): raise fault
    read.run_read = broken
    said.append((type(fault).__name__, *run(["read", "--text", "好"]), *run(["read", "--json", "--text", "好"])))
print(json.dumps(said))"""


def test_nothing_unexpected_gives_a_traceback_or_exit_code_1():
    for name, code, out, err, json_code, json_out, json_err in driven(FAULTS):
        assert code == json_code == (130 if name == "KeyboardInterrupt" else 2), name
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("cantolyric: ") and "Traceback" not in err, (
            name,
            err,
        )
        assert json_err == err and json.loads(json_out) == dict(
            error=err.strip().removeprefix("cantolyric: "), code=code
        )
        if name in ("KeyError", "Panic", "SystemExit"):
            assert name in err and "--debug" in err and "/issues" in err


def test_debug_shows_the_traceback():
    script = """
import os
def broken(args): raise KeyError("ours")
read.run_read = broken
lines = [["--debug", "read", "--text", "好"], ["read", "--text", "好", "--debug"], ["read", "--text", "好"]]
said = list(map(run, lines))
os.environ["CANTOLYRIC_DEBUG"] = "1"
print(json.dumps(said + [run(lines[2])]))"""
    for (code, out, err), has in zip(driven(script), (True, True, False, True)):
        assert (
            code == 2
            and out == ""
            and ("Traceback" in err) == has
            and err.splitlines()[-1].startswith("cantolyric: unexpected KeyError: 'ours'")
        )
    code, _, err = command("--debug", "check", "--tones", "2x", "-")
    assert code == 2 and "Traceback" in err and "ParseError" in err


def test_1_is_an_answer(song):
    assert command("check", "--tones", TONES, song)[0] == 0
    assert command("check", "--tones", TONES.replace("/44", "/42"), song)[0] == 1
    assert command("check", "--tones", "2x", song)[0] == 2


def test_warnings_are_one_line():
    script = """
import warnings
def warned(args):
    warnings.warn("careful\\nnow")
    return 0
read.run_read = warned
print(json.dumps(run(["read", "--text", "好"])))"""
    assert driven(script) == [0, "", "cantolyric: warning: careful now\n"]


# ---- --json


@pytest.mark.parametrize(
    "args",
    [
        ["check", "--tones", "2x", "-"],
        ["check", "--tones", "2", "nothing.txt"],
        ["check", "-"],
        ["read", "--text", "a", "--text", "b"],
        ["sing"],
        ["base", "train", "--steps", "x"],
        ["model", "path", "nothing"],
    ],
)
def test_with_json_an_error_is_json(args, tmp_path):
    code, out, err = command(*args, "--json", cwd=tmp_path)
    data = json.loads(out)
    assert code == 2 and data["code"] == 2 and data["error"] and is_one_line(err, data["error"])
    code, out, plain = command(*args, cwd=tmp_path)
    assert code == 2 and out == "" and is_one_line(plain, "")


def test_json_is_documented():
    code, out, _ = command("check", "--help")
    said = " ".join(out.split())
    assert (
        code == 0
        and '{"error": "what went wrong", "code": 2}' in said
        and "--debug" in said
        and "2 error" in said
        and "130 stopped" in said
    )


def test_launch_config_prints_json():
    code, out, _ = command("finetune", "--launch-config", "2", "--json")
    assert code == 0 and Path(json.loads(out)["path"]).is_file()


# ---- streams


def shell(line, **env):
    "A line of bash in which $C is the command: (exit code, stdout, stderr)."
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; C='{shlex.join(COMMAND)}'; {line}"],
        capture_output=True,
        text=True,
        env=ENV | env,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", ["$C check --tones 24 - <&-", "$C read <&-"])
def test_a_closed_standard_input(line):
    code, out, err = shell(line)
    assert code == 2 and out == "" and "Traceback" not in err and is_one_line(err, "standard input is closed")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", ["read --text 落雨", "check --help", "--version", "read --text 落雨 --json"])
def test_standard_output_that_cannot_be_written(args, unbuffered):
    for to, says in (
        (">&-", "standard output is closed"),
        (">/dev/full", "cannot write to standard output: No space left"),
    ):
        if to == ">/dev/full" and not os.path.exists("/dev/full"):
            continue
        code, out, err = shell(f"$C {args} {to}", PYTHONUNBUFFERED=unbuffered)
        assert code == 2 and is_one_line(err, says), (to, code, err)


@pytest.mark.parametrize("to", ["2>&-", "2>/dev/full"])
def test_standard_error_that_cannot_be_written(to):
    assert shell(f"$C check --tones 24 - {to} <<< 落雨") == (
        0,
        "1. 落雨  lok6 jyu5  wanted 24, got 24: right\n2 of 2 slots right\n",
        "",
    )
    assert shell(f"$C check --tones 23 - {to} <<< 落雨")[0] == 1
    assert shell(f"$C check --tones 2x - {to} <<< 落雨") == (2, "", "")
    code, out, err = shell(f"$C check --json --tones 2x - {to} <<< 落雨")
    assert code == 2 and json.loads(out)["code"] == 2 and err == ""


def test_all_streams_closed():
    assert shell("$C read --text 落雨 <&- >&- 2>&-") == (2, "", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("args", ["read song.txt", "read song.txt --json", "check --help", "sing --json"])
def test_a_closed_pipe_is_quiet(tmp_path, args, unbuffered):
    (tmp_path / "song.txt").write_text("落雨\n" * 3000, encoding="utf-8")
    code, out, err = shell(
        f"cd {shlex.quote(str(tmp_path))}; mkfifo p; (exec 3<p; exec 3<&-; touch gone) & exec 4>p; "
        f"while [ ! -e gone ]; do sleep .02; done; $C {args} >&4",
        PYTHONUNBUFFERED=unbuffered,
    )
    if args == "sing --json":
        assert code in (2, 141) and is_one_line(err, "sing") and out == ""
    else:
        assert (code, out, err) == (141, "", "")


def test_a_name_that_is_no_text_can_be_printed():
    code, out, err = shell("$C check --tones 24 $'\\xff.txt'")
    assert code == 2 and out == "" and is_one_line(err, "cannot read")
    code, out, err = shell("$C read --json --text $'落\\xff'")
    assert code in (0, 2) and json.loads(out) and "Traceback" not in err


# ---- Ctrl-C


def interrupted(args, module, text, tmp_path):
    "Press Ctrl-C while a module is being imported: (exit code, stdout, stderr)."
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, *args],
        env=ENV | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    wait_for(tmp_path / "begun", process)
    time.sleep(0.1)  # until the module sleeps: Python ignores an interrupt in some callbacks, such as of a closed file
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


SLOW = "import time\nopen('begun', 'w').close()\ntime.sleep(60)\n"
CONVERTED = """
try:
    import time
    open("begun", "w").close()
    time.sleep(60)
except KeyboardInterrupt: raise ImportError("numpy.core.multiarray failed to import") from None
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(
    "module, text",
    [("textwrap", SLOW), ("torch", SLOW), ("torch", CONVERTED)],
    ids=["before main", "in torch", "as an ImportError"],
)
def test_ctrl_c_during_imports(tmp_path, module, text):
    assert interrupted(WRITE, module, text, tmp_path) == (130, "", "cantolyric: stopped\n")


def test_ctrl_c_with_json(tmp_path):
    code, out, err = interrupted([*WRITE, "--json"], "torch", SLOW, tmp_path)
    assert code == 130 and json.loads(out) == dict(error="stopped", code=130) and err == "cantolyric: stopped\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a FIFO")
def test_ctrl_c_while_a_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = subprocess.Popen(
        [*COMMAND, "read", str(tmp_path / "fifo")], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with open(tmp_path / "fifo", "w"):  # opened as soon as the command reads
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "cantolyric: stopped\n")


def test_ctrl_c_in_a_finetune_says_how_to_resume(heavy):
    (code, out, err), (json_code, json_out, json_err) = heavy["stopped"]
    assert (
        code == json_code == 130
        and out == ""
        and is_one_line(err, "cantolyric finetune --name a --runs-dir stopped --resume")
    )
    assert is_one_line(json_err, "--name b") and json.loads(json_out)["code"] == 130
