"""Text that comes in: line ends, compatibility forms, other languages, sizes, templates as typed, wrong types."""

import json
import math
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cantolyric.characters import (
    COMPATIBLE,
    FORMS,
    HAN,
    LINE_ENDS,
    VARIANTS,
    compatibility_forms,
    is_han,
    ordinary_forms,
    text_lines,
)
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import write_tokens
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.song_files import read_songs
from cantolyric.errors import ArgumentError, FileError, ParseError, UnsatisfiableError
from cantolyric.evaluation.metrics import reader_agreement
from cantolyric.evaluation.requests import read_jsonl
from cantolyric.generation import Sampling, generate
from cantolyric.lyricfile import MAX_BYTES, MAX_ROW, MAX_ROWS, compatibility_note, parse_lyrics, read_lyrics
from cantolyric.reading import Reader, as_reader, default_reader
from cantolyric.template.slots import MAX_TEMPLATE
from cantolyric.template.sung import lyric_lines
from cantolyric.template.template import ToneTemplate
from cantolyric.tones import CantolyricError, ToneScheme
from cantolyric.writing.lyricist import Lyricist
from cantolyric.writing.request import check_request
from cantolyric.writing.session import Session

ROOT = Path(__file__).resolve().parent.parent
ENDS = ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1d", "\x1e"]
LINES = ["落緊嘅雨", "洗淨條街"]
TONES = "2344/3203"


def shell(*args, stdin=b""):
    "Run the command in a process of its own: (exit code, stdout, stderr, seconds)."
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from cantolyric.cli.main import main; sys.exit(main())", *map(str, args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode(), time.perf_counter() - start


def refused(done, *says, seconds=60):
    "One clear line, exit code 2, and soon."
    code, out, err, took = done
    assert code == 2 and not out and err.count("\n") == 1 and err.startswith("cantolyric: "), (
        code,
        out[:300],
        err[:3000],
    )
    assert all(x in err for x in says) and len(err) < 500, err
    assert took < seconds


@pytest.fixture(scope="module")
def lyricist():
    return Lyricist.from_pretrained()


# ---- line ends


@pytest.mark.parametrize("end", ENDS)
def test_every_line_end_is_one(end, lyricist):
    text, reader = end.join(LINES), default_reader()
    assert text_lines(text) == LINES and text_lines(text + end) == [*LINES, ""]
    assert reader.tones(text) == TONES.replace("/", "\n")
    assert reader.unread(f"落K{end}{end}雨3") == [(1, 2, "K"), (3, 2, "3")]
    template = ToneTemplate.parse(TONES.replace("/", end))
    assert template == ToneTemplate.parse(TONES) == ToneTemplate.of(text)
    assert template.check(text).ok and template.matches(text) and template.automaton().accepts(text)
    assert lyric_lines(text) == LINES and reader_agreement([text])[1] == 8
    heard = []
    template.check(text, second=lambda line: heard.append(line) or [None] * len(line))
    assert heard == LINES
    song = parse_lyrics(text)
    assert [(x.text, x.number) for x in song.lines] == [(LINES[0], 1), (LINES[1], 2)]
    (song,), _ = read_songs([dict(lyrics=text)])
    assert song.stanzas[0].lines == tuple(LINES)


def test_line_ends_are_those_of_python():
    for i in range(sys.maxunicode + 1):
        if not 0xD800 <= i < 0xE000:
            assert (len(f"a{chr(i)}b".splitlines()) == 2) == (chr(i) in LINE_ENDS)


@given(st.text(st.sampled_from("雨夜3a，" + LINE_ENDS) | st.characters(), max_size=12))
def test_the_checks_agree_whatever_the_line_ends(text):
    reader = default_reader()
    assert len(text_lines(text)) == len((text + "x").splitlines())
    try:
        template = ToneTemplate.of(text)
    except CantolyricError:
        return
    same = "\n".join(text_lines(text))
    assert template == ToneTemplate.of(same) and template.matches(text) and template.automaton().accepts(text)
    assert reader.tones(text) == reader.tones(same) and reader.unread(text) == reader.unread(same)


@pytest.mark.parametrize("end", ["\r", "\u2028"])
def test_line_ends_in_rewrite_and_session(end, lyricist):
    done = lyricist.rewrite(end.join(LINES), 2, topic="夜雨", n=1, seed=0)
    assert done.best.lines[0] == LINES[0] and len(done.best.lines) == 2 and done.best.report.ok
    at_first = lyricist.next_line(LINES[0] + end, "夜雨", TONES, n=1, seed=0)
    assert len(at_first.best.lines) == 2
    session = Session(lyricist, "夜雨", TONES, n=1)
    with pytest.raises(CantolyricError, match="one line"):
        session.edit(1, end.join(LINES))


def test_a_json_row_may_hold_line_separators(tmp_path):
    rows = [dict(id="a", text="落雨\u2028行街\x85"), dict(id="b", text="雨")]
    path = tmp_path / "texts.jsonl"
    path.write_text("\r\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    assert read_jsonl(path, ("id", "text")) == rows
    path.write_text(json.dumps(dict(lyrics="落緊嘅雨\u2028洗淨條街"), ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_songs(path)[0][0].stanzas[0].lines == tuple(LINES)


@pytest.mark.parametrize("end", ["\r", "\u2028"])
def test_line_ends_on_the_command_line(end, tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(end.join([*LINES, "の雨"]).encode())
    code, out, err, _ = shell("read", "--json", path)
    found = json.loads(out)
    assert code == 0 and found["tones"] == f"{TONES}/4" and found["unknown"] == [dict(line=3, column=1, char="の")], err
    if end == "\r":
        path.write_bytes(end.join(LINES).encode())
        code, out, err, _ = shell("check", "--tones", TONES.replace("/", end), path)
        assert code == 0 and "8 of 8" in out, err


# ---- compatibility forms


def test_every_form_of_a_character_is_read_like_it():
    reader, known = default_reader(), 0
    for block in range(0x2E80, 0x2FE0), range(0xF900, 0xFB00), range(0x2F800, 0x2FA20):
        for ch in map(chr, block):
            plain = unicodedata.normalize("NFKC", ch)
            if plain == ch:
                continue
            assert ordinary_forms(ch) == plain and is_han(ch) and reader.jyutping(ch) == reader.jyutping(plain)
            assert reader.fold(ch) == reader.fold(plain) and reader.candidates(ch) == reader.candidates(plain)
            known += 1
    assert known > 1200
    assert [reader.jyutping(c) for c in "⻑⻝⻘"] == [reader.jyutping(c) for c in "長食青"]
    assert all(
        ordinary_forms(chr(i)) == chr(i)
        for i in (0xFA0E, 0xFA0F, 0xFA11, 0xFA13, 0xFA14, 0xFA1F, 0xFA21, 0xFA23, 0xFA24, 0xFA27, 0xFA28, 0xFA29)
    )
    assert ordinary_forms("（Ａ）１①㈠ｶﾞ，") == "（Ａ）１①㈠ｶﾞ，"  # marks, letters and numbers stay


def test_the_tables_of_forms():
    assert all(len(a) == len(b) == 1 and is_han(b) for a, b in FORMS.items())
    assert not FORMS.keys() & set(FORMS.values()) and not COMPATIBLE.keys() & set(COMPATIBLE.values())
    assert not VARIANTS.keys() & COMPATIBLE.keys()
    assert not any(ch in COMPATIBLE for word in default_reader().words for ch in word)
    assert "\u2f00" not in HAN  # the fixed split of the corpora rests on what HAN is


def test_nothing_vanishes():
    reader = default_reader()
    assert reader.tones("⼀生") == "33" and reader.unread("⼀生") == []
    assert reader.unread("⺀雨") == [(1, 1, "⺀")]  # a radical that is no character
    assert compatibility_forms("⼀生\uf90a⼀") == {"⼀": "一", "\uf90a": "金"} and compatibility_forms("一生") == {}


def test_forms_in_a_check():
    template = ToneTemplate.parse("⼀生")
    assert (
        str(template) == "一生"
        and template.check("⼀生").ok
        and template.matches("⼀生")
        and template.automaton().accepts("⼀生")
    )
    assert (
        ToneTemplate.parse("33").check("⼀生").ok
        and str(ToneTemplate.of("⼀生")) == "33"
        and lyric_lines("⼀生") == ["一生"]
    )
    report = ToneTemplate.parse("33").check(
        "⼀生", second=lambda line: Reader().jyutping(line) if line == "一生" else [None] * 2
    )
    assert report.ok and not any(c.second for c in report)


def test_a_model_writes_ordinary_characters():
    "The check accepts a compatibility form; the constraint never writes one, neither as a token nor byte by byte."
    tokens = {i: bytes([i]) for i in range(256)} | {
        256: "⼀".encode(),
        257: "一".encode(),
        258: "\uf90a生".encode(),
        259: "生⼀\n".encode(),
    }
    constraint = ToneConstraint("33", TokenTable(tokens, 261, (260,)))
    first = constraint.start()
    assert {256, 257, 258, 259} & set(constraint.allowed_ids(first).tolist()) == {257}
    for i in (256, 258):
        with pytest.raises(CantolyricError, match="not allowed"):
            constraint.advance(first, i)
    for ch in ["\u2f00", "\uf90a", "\U0002f800", "⻑", "一", *list(COMPATIBLE)[::60]]:
        state = first
        try:
            for byte in (ch + "生").encode():
                allowed = byte in constraint.allowed_ids(state)
                state = constraint.advance(state, byte)
                assert allowed
            assert constraint.is_final(state) and ch not in COMPATIBLE
        except CantolyricError:
            assert not allowed and ch in COMPATIBLE


def test_songs_and_files_have_ordinary_characters():
    assert parse_lyrics("⼀生⼀世").text == "一生一世"
    assert read_songs([dict(lyrics="⼀生⼀世")])[0][0].stanzas[0].lines == ("一生一世",)
    assert "⼀→一" in compatibility_note("⼀生") and compatibility_note("一生") == ""
    many = "".join(list(COMPATIBLE)[:400])
    assert len(compatibility_note(many)) < 200 and "400 compat" in compatibility_note(many)


def test_forms_are_reported_once_on_the_command_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("⼀生⼀世\n⾦銀\n", encoding="utf-8")
    code, out, err, _ = shell("read", "--json", path)
    assert (
        code == 0
        and json.loads(out)["tones"] == "3334/30"
        and [x["text"] for x in json.loads(out)["lines"]] == ["一生一世", "金銀"]
    )
    assert err.count("\n") == 1 and "2 compatibility characters" in err and "⼀→一, ⾦→金" in err
    code, out, err, _ = shell("check", "--tones", "3334/30", path)
    assert code == 0 and "6 of 6" in out and err.count("⼀→一") == 1


# ---- text that is not Chinese


@pytest.mark.parametrize(
    "text, says",
    [
        ("hello", "no Chinese characters"),
        ("ひらがなだけ", "no Chinese characters"),
        ("사랑해요", "no Chinese characters"),
        ("12 345\n6", "no Chinese characters"),
        ("沈むように溶けてゆくように", "Japanese"),
        ("사랑해 愛", "Korean"),
        ("", "is empty or holds only"),
        (" \u3000\u200b\n", "is empty or holds only"),
        ("[Chorus]\n~~~", "is empty or holds only"),
    ],
)
def test_other_languages_in_a_file(text, says, tmp_path):
    path = tmp_path / "song.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParseError, match=says) as e:
        read_lyrics(path)
    assert repr(str(path)) in str(e.value) and "expected" in str(e.value)


def test_english_in_a_cantonese_song_is_no_other_language(tmp_path):
    path = tmp_path / "song.txt"
    path.write_text("baby I love you so much tonight 呀\n夜の雨", encoding="utf-8")
    assert len(read_lyrics(path).lines) == 2


def test_other_languages_on_the_command_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("hello world\n", encoding="utf-8")
    refused(shell("read", "--text", "hello"), "'--text' has no Chinese characters: expected Cantonese lyrics")
    refused(shell("check", "--tones", "02", path), "v.txt' has no Chinese characters")
    refused(shell("read", "-", stdin=b""), "'-' is empty")


@pytest.mark.parametrize("topic", ["", " ", "\u3000\t", "\u200b\ufeff", "\n"])
def test_a_blank_topic(topic):
    with pytest.raises(CantolyricError, match="topic"):
        check_request(topic, "02")
    if topic == "\u200b\ufeff":
        refused(shell("write", "--topic", topic, "--tones", "02"), "topic")


def test_forms_and_hidden_characters_in_a_topic():
    assert check_request("\ufeff⼀生\u200b", "02").topic == "一生"


# ---- sizes


def test_sizes_of_a_file(tmp_path):
    path = tmp_path / "v.txt"
    for text, says in (
        ("雨" * (MAX_ROW + 1), "line 1 of"),
        ("雨\n" * (MAX_ROWS + 1), f"{MAX_ROWS:,} at most"),
        ("雨" * MAX_BYTES, "more than"),
    ):
        path.write_text(text, encoding="utf-8")
        start = time.perf_counter()
        with pytest.raises(ParseError, match=says) as e:
            read_lyrics(path)
        assert time.perf_counter() - start < 5 and len(str(e.value)) < 300 + len(str(path))
    path.write_text("雨" * MAX_ROW + "\n" + "雨\n" * (MAX_ROWS - 1), encoding="utf-8")
    assert len(read_lyrics(path).lines) == MAX_ROWS


def test_a_huge_line_on_the_command_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("雨" * 1_600_000, encoding="utf-8")
    refused(shell("read", path), "more than 1,000,000 bytes", seconds=15)
    refused(shell("check", "--tones", "2", path), "more than 1,000,000 bytes", seconds=15)
    refused(shell("read", "--text", "雨" * 20_000), "line 1 of '--text' has 20,000 characters", seconds=15)
    refused(shell("check", "--tones", "0" * 110_000, path), "template has 110,000 characters", seconds=15)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless file here")
def test_an_endless_file():
    refused(shell("read", "/dev/zero"), "'/dev/zero' has more than", seconds=15)


@pytest.mark.parametrize(
    "text", ["0" * 5_000_000, "0/" * 2_500_000, "0 " * 2_500_000, "(" + "/".join("0" * 200) + ")x99"]
)
def test_huge_templates_are_refused_soon(text):
    start = time.perf_counter()
    with pytest.raises(ParseError, match="at most") as e:
        ToneTemplate.parse(text)
    assert time.perf_counter() - start < 5 and len(str(e.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "0" * 90_000,
        "[" + "0" * 90_000,
        "0 A" + "B" * 90_000,
        "0)x" + "9" * 90_000,
        "(" * 90_000,
        " " * 90_000 + "x",
        "0" + " " * 90_000 + "- x",
        "0" + " " * 45_000 + "-" + " " * 45_000 + "00",
        "0 - " * 20_000 + "00",
    ],
)
def test_messages_about_large_templates_are_short(text):
    start = time.perf_counter()
    assert len(text) <= MAX_TEMPLATE
    with pytest.raises(ParseError) as e:
        ToneTemplate.parse(text)
    assert time.perf_counter() - start < 10 and len(str(e.value)) < 500


def test_huge_arguments_are_refused_soon():
    start = time.perf_counter()
    with pytest.raises(CantolyricError):
        check_request("雨" * 1_600_000, "02")
    with pytest.raises(ArgumentError) as e:
        check_request("雨", "02", rhyme="ab-" * 1_000_000)
    assert len(str(e.value)) < 300 and time.perf_counter() - start < 5


def test_reading_is_linear_and_has_no_limit():
    start = time.perf_counter()
    assert len(default_reader().jyutping("落緊嘅雨" * 100_000)) == 400_000
    assert time.perf_counter() - start < 20


# ---- templates as typed


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff0243/3324",
        "02\u200b43/\u20603324",
        "0243\xa0/\u30003324",
        "\u202a0243\u202c/3324\ufe0f",
        "02\t43 / 33\u200924",
        "０２４３／３３２４\ufeff",
        "0243\u20283324\u2029",
    ],
)
def test_what_editors_leave_in_a_template(text):
    assert ToneTemplate.parse(text) == ToneTemplate.parse("0243/3324")


@pytest.mark.parametrize(
    "text, column, sign",
    [
        ("0243 - 3324", 6, "-"),
        ("0243 . 3324", 6, "."),
        ("0243\u3000—\u30003324", 6, "-"),
        ("0 - 24", 3, "-"),
        ("24  -  0", 5, "-"),
        ("[34]0 - 2", 7, "-"),
    ],
)
def test_a_hyphen_between_spaces_is_explained(text, column, sign):
    with pytest.raises(ParseError) as e:
        ToneTemplate.parse(text)
    assert (e.value.line, e.value.column) == (1, column)
    assert f"{sign!r} between spaces" in str(e.value)
    assert "Allowed there: * " in str(e.value) and "/ for a new line" in str(e.value)


@pytest.mark.parametrize(
    "text, same",
    [
        ("0243-3324", "0243*3324"),
        ("0243.3324", "0243*3324"),
        ("0243 -3324", "0243*3324"),
        ("0243- 3324", "0243*3324"),
        ("0 2 - 3", "02*3"),
        ("0 . 3", "0*3"),
        ("- 24", "*24"),
        ("24 -", "24*"),
        ("-", "*"),
        ("0243 * 3324", "0243*3324"),
        ("24 -/- 24", "24*/*24"),
    ],
)
def test_other_hyphens_are_slots(text, same):
    assert str(ToneTemplate.parse(text)) == same


def test_templates_on_the_command_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    code, out, err, _ = shell("check", "--tones", f"\ufeff{TONES}\u200b", path)
    assert code == 0 and "8 of 8" in out, err
    refused(shell("check", "--tones", "2344 - 3203", path), "column 6", "between spaces")
    code, out, _, _ = shell("check", "--help")
    assert code == 0 and "- and ." in " ".join(out.split()) and "0243-3324" in out


# ---- wrong types

ODD = [
    None,
    5,
    -1,
    "a",
    "0.8",
    b"02",
    True,
    1.5,
    math.nan,
    math.inf,
    2**70,
    10**400,
    [],
    [1],
    ["a"],
    {},
    {"1": "雨"},
    {1: 2},
    (),
    object(),
    torch.tensor(1.0),
    np.array([1, 2]),
]
FINE = {
    "seed": [None, 5],
    "n": [5],
    "temperature": [5, 1.5],
    "masked": [True],
    "keep": [None, {}],
    "words": [None, [], {}, (), math.nan],
    "rhyme": [None, {}, "a"],
    "sort_by": [None, {}],
    "method": [None],
    "scheme": [],
    "grade": [],
    "topic": ["a", "0.8"],
    "tones": [],
    "top_p": [],
}


@pytest.mark.parametrize("name", list(FINE))
def test_arguments_of_write(lyricist, name):
    for value in ODD:
        if any(value is x or type(value) is type(x) and value == x for x in FINE[name]):
            continue
        with pytest.raises(CantolyricError) as e:
            lyricist.write(**dict(topic="夜雨", tones="0243", n=1) | {name: value})
        if name not in ("topic", "scheme", "masked") and isinstance(e.value, ArgumentError):
            assert str(e.value).startswith(f"{name}="), str(e.value)


@pytest.mark.parametrize(
    "name", ["n", "seed", "temperature", "top_p", "scheme", "method", "rhyme", "grade", "sort_by", "words"]
)
def test_arguments_of_the_other_ways_to_write(lyricist, name):
    calls = (
        lambda **kw: lyricist.rewrite("落緊嘅雨", 1, topic="夜雨", **kw),
        lambda **kw: lyricist.next_line("", "夜雨", "02", **kw),
        lambda **kw: Session(lyricist, "夜雨", "02", **kw),
    )
    for value in (math.nan, b"x", object(), 10**400, True, [{}]):
        if name == "words" and value is not True and value != [{}]:
            continue
        for call in calls:
            with pytest.raises(ArgumentError):
                call(**{name: value})


@pytest.mark.parametrize(
    "seed, ok",
    [
        (0, True),
        (2**63 - 1, True),
        (np.int64(3), True),
        (-1, False),
        (2**63, False),
        (2**70, False),
        (1.0, False),
        ("1", False),
        (True, False),
    ],
)
def test_seeds(seed, ok):
    if ok:
        check_request("夜雨", "02", seed=seed)
    else:
        with pytest.raises(ArgumentError, match="seed=.* from 0 to"):
            check_request("夜雨", "02", seed=seed)


def test_a_session_with_the_largest_seed(lyricist):
    session = Session(lyricist, "夜雨", "02/43", n=1, seed=2**63 - 1)
    session.ask()
    session.ask()


@pytest.mark.parametrize("value", [1e-7, 1e-300, 1e7, 10**400, math.nan, -0.1])
def test_temperatures_that_no_number_survives(value):
    with pytest.raises(ArgumentError, match="temperature="):
        check_request("夜雨", "02", temperature=value)
    with pytest.raises(ArgumentError, match="temperature="):
        Sampling(do_sample=True, temperature=value)


def test_the_smallest_and_largest_temperatures_write(lyricist):
    for t in (1e-6, 1e6):
        assert lyricist.write("夜雨", "0243", n=1, seed=0, temperature=t).best.report.ok


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.rewrite("落雨", "1", topic="夜雨"),
        lambda x: x.rewrite("落雨", 1, slots="3-5", topic="夜雨"),
        lambda x: x.rewrite(None, 1, topic="夜雨"),
        lambda x: x.rewrite("落雨", 1, topic=5),
        lambda x: x.rewrite(5, 1, topic="夜雨"),
        lambda x: x.rewrite("落雨", None, topic="夜雨"),
        lambda x: x.rewrite("落雨", [[1]], topic="夜雨"),
        lambda x: x.rewrite("落雨", 1, tones=5, topic="夜雨"),
        lambda x: x.next_line(5, "夜雨", "02"),
        lambda x: x.next_line([5], "夜雨", "02"),
        lambda x: x.next_line(None, "夜雨", "02"),
        lambda x: x.bits_of(5, ["落雨"]),
        lambda x: x.bits_of("夜雨", "落雨"),
        lambda x: x.bits_of("夜雨", 5),
        lambda x: x.bits_of("夜雨", [5]),
        lambda x: x.bits_of("夜雨", ["落雨"], "02"),
        lambda x: Session(None, "夜雨", "02"),
        lambda x: Session(x, None, "02"),
        lambda x: Session(x, "夜雨", "02").undo(),
        lambda x: Session(x, "夜雨", "02").ask("1"),
        lambda x: Session(x, "夜雨", "02").ask(True),
        lambda x: Session(x, "夜雨", "02").keep(),
        lambda x: Session(x, "夜雨", "02").edit("1", "雨"),
        lambda x: Session(x, "夜雨", "02").edit([1], "雨"),
        lambda x: Session(x, "夜雨", "02").edit(1, None),
        lambda x: Session(x, "夜雨", "02").edit(1, 5),
        lambda x: x.write("夜雨", "02", keep={True: "**"}),
        lambda x: ToneConstraint("0243", None),
        lambda x: ToneConstraint(5, x.table),
        lambda x: ToneConstraint(None, x.table),
        lambda x: ToneConstraint("02", x.table, 5),
        lambda x: TokenTable.from_tokenizer(None),
        lambda x: TokenTable.from_tokenizer(5),
        lambda x: TokenTable.from_tokenizer(x.tokenizer, "8000"),
        lambda x: (c := ToneConstraint("02", x.table)).advance(c.start(), "a"),
        lambda x: (c := ToneConstraint("02", x.table)).advance(c.start(), None),
        lambda x: ToneConstraint("02", x.table).advance(5, 3),
        lambda x: write_tokens(x.model, None, ToneConstraint("02", x.table)),
        lambda x: write_tokens(x.model, [[1]], ToneConstraint("02", x.table)),
        lambda x: write_tokens(x.model, torch.tensor([[1]]), None),
        lambda x: write_tokens(x.model, torch.tensor([[1]]), "02"),
        lambda x: write_tokens(x.model, torch.tensor([[1]]), ToneConstraint("02", x.table), num_return_sequences="4"),
        lambda x: write_tokens(x.model, torch.tensor([[1]]), ToneConstraint("02", x.table), strategy=5),
        lambda x: write_tokens(x.model, torch.tensor([[1]]), ToneConstraint("02", x.table), attention_mask=5),
        lambda x: generate(x.model, None),
        lambda x: generate(x.model, torch.tensor([[1]]), max_new_tokens="5"),
        lambda x: generate(x.model, torch.tensor([[1]]), temperature=None),
        lambda x: generate(x.model, torch.tensor([[1]]), attention_mask=5),
        lambda x: generate(x.model, torch.tensor([[1]]), eos="a"),
        lambda x: generate(x.model, torch.tensor([[1]]), processors=5),
    ],
)
def test_wrong_types_where_a_model_writes(lyricist, call):
    with pytest.raises(CantolyricError):
        call(lyricist)


def test_candidates_are_kept_by_number(lyricist):
    session = Session(lyricist, "夜雨", "02", n=1, seed=0)
    session.ask()
    for number in ("1", None, 1.5, True, 0, 2, [1]):
        with pytest.raises(CantolyricError, match="no candidate"):
            session.keep(number)
    assert session.keep(1).done


TEMPLATE = ToneTemplate.parse("02")


@pytest.mark.parametrize(
    "call",
    [
        ToneTemplate.parse,
        ToneTemplate.of,
        TEMPLATE.check,
        TEMPLATE.matches,
        lyric_lines,
        parse_lyrics,
        read_lyrics,
        default_reader().jyutping,
        default_reader().read,
        default_reader().tones,
        default_reader().unread,
        default_reader().candidates,
        ToneScheme,
        lambda v: ToneTemplate.parse("02", v),
        lambda v: ToneTemplate.parse("02", rhyme=v) if v is not None else ToneTemplate.parse(v),
        lambda v: ToneTemplate.parse("02", grade=v),
        lambda v: ToneTemplate.of("落雨", scheme=v),
        lambda v: default_reader().tones("雨", v),
    ],
    ids=lambda f: f.__name__.strip("<>"),
)
def test_what_is_no_text(call):
    for value in (None, 5, 1.5, True, b"02", [], ["雨"], {}, object()):
        with pytest.raises(ArgumentError):
            call(value)


@pytest.mark.parametrize("value", [5, 1.5, b"x", object(), ["a"], True])
def test_what_is_no_reader(value):
    for call in (
        lambda: Reader(value),
        lambda: Reader(extra=value),
        lambda: TEMPLATE.check("落雨", value),
        lambda: TEMPLATE.matches("落雨", value),
        lambda: ToneTemplate.parse("02", reader=value),
        lambda: TEMPLATE.check("落雨", second=value),
        lambda: TEMPLATE.automaton(value),
        lambda: TEMPLATE.to_regex(value),
    ):
        with pytest.raises(ArgumentError):
            call()


@pytest.mark.parametrize(
    "extra", [{5: "ngo5"}, {"我": 5}, {"我": None}, {"我": b"ngo5"}, {"我": ""}, {"我": [5]}, "\0", "/nope", ROOT]
)
def test_readings_of_the_wrong_type(extra):
    with pytest.raises(CantolyricError):
        Reader({"雨": ("jyu5",)}, extra)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample"])
def test_sampling_of_the_wrong_type(name):
    for value in (None, "0.8", b"x", math.nan, [], {}, -(10**400), object()):
        with pytest.raises(ArgumentError, match=f"{name}="):
            Sampling(**{name: value})


def test_a_second_reader_that_gives_no_list():
    for said in (None, 5, "ab"):
        with pytest.raises(ArgumentError, match="second="):
            TEMPLATE.check("落雨", second=lambda line: said)


@pytest.mark.parametrize("path", ["\0", "x" * 300, "", "/"])
def test_paths_that_cannot_be_read(path):
    with pytest.raises(FileError, match="cannot read"):
        read_lyrics(path)


# ---- found by fuzzing


def test_a_long_message_is_shortened():
    with pytest.raises(ArgumentError) as said:
        as_reader("a" * 5000)
    assert len(str(said.value)) < 1000 and said.value.name == "reader" and "'unambiguous'" in str(said.value)
    assert len(str(ArgumentError("seed", 10**5000, "expected less"))) < 100
    assert len(ArgumentError("topic", "x", "y" * 5000).as_option()) < 1000


def test_a_reader_is_checked_with_the_template():
    for reader in ("", "x", 5, b"unambiguous"):
        with pytest.raises(ArgumentError, match="reader"):
            ToneTemplate.parse("02", reader=reader)


def test_a_character_without_a_reading_is_refused_before_a_search():
    with pytest.raises(UnsatisfiableError, match="line 1, slot 3 .* no reading of 𠻺"):
        ToneTemplate.parse("0*𠻺[52][2]3月", "394052").automaton("unambiguous")
