"""Random input at every entry point: it works, and then some invariants hold, or it is refused in one line.

The fast tests run a few fixed examples. `make test-slow` runs fresh ones for two minutes per entry point
(CANTOLYRIC_FUZZ_SECONDS); a failure names the seed that repeats it (CANTOLYRIC_FUZZ_SEED).
"""

import csv
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from fuzz import (
    HAN,
    LINE_ENDS,
    ODD_DIGITS,
    ODD_HAN,
    Fuzz,
    Refused,
    TooSlow,
    changed,
    check_message,
    damage,
    damaged,
    json_change,
    json_values,
    mostly,
    mutated,
    odd,
    one,
    readers,
    schemes,
    signs,
    soup,
    time_limit,
    tried,
)
from hypothesis import strategies as st

from cantolyric.adapters import adapter_run_settings
from cantolyric.atomic_files import write_json
from cantolyric.characters import is_han
from cantolyric.cli.main import main as run_command
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.examples import KINDS, MAX_CHARACTERS, Examples, Source, check_mix, load_examples, load_songs
from cantolyric.data.song_files import COLUMNS, check_columns, read_songs
from cantolyric.data.splits import SPLITS
from cantolyric.data.store import stored
from cantolyric.families.tiny import tiny_variant
from cantolyric.integrity import write_base
from cantolyric.lyricfile import decode_lyrics, parse_lyrics, require_lines
from cantolyric.machine import environment_info
from cantolyric.models import load_model
from cantolyric.ngram import KneserNey
from cantolyric.options import RESERVED, Forecast, known_options, parse_setting
from cantolyric.reading import Reader, as_reader, default_reader
from cantolyric.template.template import ToneTemplate
from cantolyric.tones import SCHEMES, CantolyricError, ToneScheme
from cantolyric.training.config import STAGES, FinetuneConfig, as_json, names_in
from cantolyric.training.config_file import read_yaml, yaml_text
from cantolyric.training.report import report_text
from cantolyric.training.run import _read_report
from cantolyric.training.run_folder import (
    check_agreement,
    check_folder,
    check_manifest,
    read_config,
    read_forecast,
    read_run,
)
from cantolyric.training.stages import StageReport
from cantolyric.training.validation import check_config
from cantolyric.writing.lyricist import Lyricist

VERSE = "落緊嘅雨洗淨條街\n你冇帶遮我都冇帶"
WORDS = "月光 夜雨 天光 街 窗 雨 今晚 你 大 我哋 銀行 長大 一 唔好 香港 行".split()


# ---- templates


@st.composite
def template_lines(draw, digits: str):
    "A line of a template, as it is typed; most are right."
    digit, han = st.sampled_from(digits), st.sampled_from(HAN + HAN + ODD_HAN)
    some = st.lists(digit, min_size=1, max_size=3).map(lambda x: f"[{''.join(x)}]")
    slot = mostly(
        one(digit, digit, digit, st.sampled_from("*.-＊－"), some, han, st.tuples(han, digit | some).map("=".join)),
        signs | st.sampled_from(ODD_DIGITS),
        20,
    )
    slots = draw(st.lists(slot, min_size=1, max_size=draw(mostly(st.just(7), st.just(45)))))
    if len(slots) > 1 and draw(st.integers(0, 5)) == 0:
        slots.insert(draw(st.integers(1, len(slots) - 1)), ",")
    return "".join(slots) + draw(st.sampled_from(["", "", "", " A", "A", " B2", " A1", "X", " Ｂ"]))


@st.composite
def template_texts(draw, scheme):
    lines = draw(st.lists(template_lines("".join(ToneScheme(scheme).digits)), min_size=1, max_size=4))
    if draw(st.integers(0, 4)) == 0:
        first, last = sorted(draw(st.tuples(st.integers(0, len(lines) - 1), st.integers(0, len(lines) - 1))))
        lines[first] = "(" + lines[first]
        lines[last] += draw(st.sampled_from([")x2", ")x9", ")", " ) X 3", ")x99", ")x²", "）×２"]))
    return draw(st.sampled_from(["", "", "", "\ufeff"])) + draw(st.sampled_from(["/"] * 5 + LINE_ENDS)).join(lines)


sung = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("".join), min_size=1, max_size=3).map(
    "\n".join
)
lyrics = one(sung, mutated(sung), soup)


@st.composite
def templates(draw):
    "(text, how to parse it, lyrics)."
    scheme, text = draw(st.sampled_from(sorted(SCHEMES))), draw(lyrics)
    own = (
        [str(ToneTemplate.of(text, scheme=scheme))]
        if all(map(is_han, "".join(text.split())))
        and text.strip()
        and None not in default_reader().read("".join(text.split()))
        else []
    )
    kinds = [template_texts(scheme), mutated(template_texts(scheme)), soup]
    tones = draw(one(*kinds, *[st.sampled_from(own), mutated(own, most=2)] * len(own)))
    rhyme = mostly(st.sampled_from([None, None, None, "AA", "ABA", "--", "A-"]), odd | soup)
    how = dict(
        scheme=draw(mostly(st.just(scheme), schemes)),
        rhyme=draw(rhyme),
        grade=draw(mostly(st.sampled_from([3, 2, 1]))),
        reader=draw(readers),
    )
    return draw(mostly(st.just(tones), odd, 30)), how, text


def check_template(case):
    tones, how, text = case
    template = tried(ToneTemplate.parse, tones, **how)
    reader, grade = how["reader"], how["grade"]
    assert tried(ToneTemplate.parse, str(template), template.scheme, grade=grade, reader=reader) == template
    assert template._repr_html_().count("<tr>") == len(template.lines)
    report = template.check(text, reader)
    assert report.ok == template.matches(text, reader) and str(report) and report._repr_html_()
    for export in template.to_regex, template.to_gbnf:
        try:
            language = tried(export)
        except Refused:
            continue
        if export == template.to_regex:
            re.compile(language)
    assert tried(template.automaton, reader).accepts(text) == report.ok


# ---- lyric files

ROWS = [
    "[Verse 1]",
    "[Chorus]",
    "副歌：",
    "Chorus x2",
    "(合) 夜雨",
    "男：落緊雨",
    "# 夜雨",
    "《夜雨》",
    "作曲：陳大文",
    "Words & Music by A",
    "[00:12.34]落雨",
    "[ti:夜雨]",
    "[offset:-500]",
    "[00:01.00][00:09.00]月光<00:10.00>光",
    "(x2)",
    "Repeat *",
    "♪",
    "",
    "落緊嘅雨洗淨條街",
    "你冇帶遮，我都冇帶！",
    "la la la",
    "*",
    "[",
    "詞：A 曲：B / 編：C",
    "Copyright © 2020",
    "雨 雨 x3",
    "[99:99:999]",
]
rows = st.lists(mutated(ROWS, most=2), max_size=8)


@st.composite
def lyric_texts(draw):
    return draw(st.sampled_from(LINE_ENDS)).join(draw(rows))


texts = one(lyric_texts(), mutated(lyric_texts()), soup, lyrics)
CODECS = ["utf-8"] * 20 + [
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "big5hkscs",
    "gbk",
    "gb18030",
    "latin-1",
]


@st.composite
def contents(draw, text=texts):
    "The bytes of a text file."
    raw = draw(text).encode(draw(st.sampled_from(CODECS)), draw(st.sampled_from(["ignore", "replace"])))
    return damaged(raw, draw(damage)) if draw(st.integers(0, 5)) == 0 else raw


def check_lyrics(raw):
    text = tried(decode_lyrics, raw, "song.txt")
    found = parse_lyrics(text)
    for line in found.lines:
        assert line.text.strip() == line.text != "" and len(line.text.splitlines()) == 1 and line.number >= 1
        assert line.seconds is None or 0 <= line.seconds < math.inf
    assert all(section.lines for section in found.sections)
    reader, sung = default_reader(), tried(require_lines, found, "song.txt").text
    for x in found.lines:
        assert len(reader.jyutping(x.text)) == len(x.text) == len(reader.read(x.text))
        assert reader.tones(x.text, "jyutping").isdigit() or not any(reader.jyutping(x.text))
    assert all(1 <= row <= len(found.lines) for row, _, _ in reader.unread(sung))
    given = ToneTemplate.parse("23443203/44434344")
    assert given.check(sung).ok == given.matches(sung)
    own = tried(ToneTemplate.of, sung)
    assert own.matches(sung) and own.check(sung).ok


def check_reading(case):
    text, name = case
    reader = tried(as_reader, name)
    found = tried(reader.jyutping, text)
    assert len(found) == len(text)


# ---- songs

CELLS = one(lyrics, lyric_texts(), st.sampled_from(["夜雨/月光/大窗", "", "落雨\n天光", "la la", "雨" * 40]))
good = st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=4).map("".join), min_size=2, max_size=4).map(
    "\n".join
)
cells = mostly(one(good, good, good, CELLS), one(json_values, st.lists(CELLS, max_size=3)), 12)
HEADERS = ["lyrics", "歌詞", "topic", "title", "Text", "words", " lyrics ", "a", ""]
song_rows = st.lists(
    mostly(st.sampled_from(["lyrics", "topic", "title"]), st.sampled_from(HEADERS), 5), min_size=1, max_size=3
).flatmap(
    lambda names: st.lists(
        st.fixed_dictionaries({n: cells for n in {"lyrics", *names[1:]} | {names[0]}}), min_size=2, max_size=6
    )
)
columns = mostly(
    st.sampled_from([None] * 9 + [dict(lyrics="words"), dict(topic="a"), "lyrics=Text,topic=a"]),
    odd | mutated(["lyrics=words,topic=theme"]),
)


def table_text(rows, delimiter) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(k for row in rows for k in row)) or ["lyrics"]
    table = csv.DictWriter(out, names, delimiter=delimiter)
    table.writeheader()
    table.writerows({k: v.replace("\0", "") if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def parquet_bytes(rows) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowException, UnicodeEncodeError):
        table = pa.table({"lyrics": [str(len(rows)), "夜雨\n月光大窗"]})
    out = io.BytesIO()
    try:
        parquet.write_table(table, out)
    except pa.ArrowException:
        return b"PAR1PAR1"  # such as a struct without fields
    return out.getvalue()


def jsonl(rows):
    return "\n".join(map(json.dumps, rows))


@st.composite
def song_files(draw):
    "(suffix, bytes)."
    kind = draw(
        st.sampled_from(".csv .tsv .json .jsonl .parquet .csv .tsv .json .jsonl .parquet .txt .lrc .CSV .md".split())
    )
    if kind in (".txt", ".lrc", ".md"):
        return kind, draw(one(contents(), good.map(str.encode)))
    found = draw(song_rows)
    if kind == ".parquet":
        raw = parquet_bytes(found)
    else:
        write = {
            ".csv": lambda x: table_text(x, ","),
            ".CSV": lambda x: table_text(x, ","),
            ".tsv": lambda x: table_text(x, "\t"),
            ".json": json.dumps,
            ".jsonl": jsonl,
        }[kind]
        text = write(found if draw(st.integers(0, 7)) else draw(st.lists(json_values)) if "json" in kind else found)
        if draw(st.integers(0, 2)) == 0:
            text = draw(mutated([text], signs | st.sampled_from(["1" * 5000, "[" * 99999, '"', "\\ud800"])))
        raw = draw(contents(st.just(text)))
    return kind, damaged(raw, draw(damage)) if draw(mostly(st.just(0), st.just(1), 3)) else raw


@st.composite
def song_data(draw):
    "(what to read: [(suffix, bytes)] of one file or of a folder, or an object; columns; kind; share)."
    single, several = (st.lists(song_files(), min_size=n, max_size=4 * n - 3) for n in (1, 2))
    data = draw(
        one(
            single,
            single,
            single,
            several,
            song_rows,
            odd.filter(lambda x: not (isinstance(x, str) and x[:1] in ("/", "~", "."))),
        )
    )
    return data, draw(columns), draw(mostly(st.sampled_from(KINDS))), draw(mostly(st.sampled_from([0.1, 0.3])))


def songs_place(data, folder: Path):
    "What to give `load_songs` for drawn data."
    if not isinstance(data, list) or not data or not isinstance(data[0], tuple) or not isinstance(data[0][1], bytes):
        return data
    for n, (suffix, raw) in enumerate(data):
        (folder / f"{n}{suffix}").write_bytes(raw)
    return folder if len(data) > 1 else folder / f"0{data[0][0]}"


def check_songs(case):
    data, columns, kind, share = case
    with tempfile.TemporaryDirectory() as folder:
        place = songs_place(data, Path(folder))
        tried(read_songs, place, columns)
        found = tried(load_songs, place, columns)
        for line in (x for song in found.songs for stanza in song.stanzas for x in stanza.lines):
            assert (
                all(map(is_han, line)) and 0 < len(line) <= MAX_CHARACTERS and None not in default_reader().read(line)
            )
        assert found.songs and len(found.manifest) <= len(found.songs) and str(found.left_out) is not None
        examples = tried(load_examples, place, None, columns, kind, share)
        for row in (row for split in SPLITS for row in examples(split)):
            assert ToneTemplate.parse(row["tones"]).matches(row["lyrics"]) and row["topic"]


# ---- settings

SETTINGS = [
    "trainer.warmup_steps=10",
    "lora.use_rslora=true",
    "rank=16",
    "trainer.lr_scheduler_type=linear",
    "name=x",
    "mix=a",
    "lora.target_modules=[q_proj, v_proj]",
    "trainer.weight_decay=1e-2",
    "lr=.1",
    "trainer.optim: adafactor",
]
SOURCES = ["songs.csv=0.7,verses=0.3", "verses=1", "a=1,b=2,c=3"]
YAML_VALUES = [
    "null",
    "true",
    "no",
    "1e-3",
    ".inf",
    ".nan",
    "-1",
    "0x1F",
    "1_000",
    "[a, b]",
    "{a: 1}",
    "'夜'",
    "&a [*a]",
    "*a",
    "2026-13-45",
    "2026-12-01",
    "!!binary aGk=",
    "!!python/name:os.system",
    "? x",
    "|",
    ">-",
    "12:30:45",
    "~",
    "{a: {b: [c]}}",
    "9" * 5000,
    "[" * 2000,
    "!!set {a, b}",
    "!!float x",
    "!!int ''",
    "2" + "0" * 400,
    "<<: 1",
    '"\\ud800"',
    "[[a, 1]]",
    "{[a]: 1}",
]


@st.composite
def yaml_texts(draw):
    "A run's config.yaml with some values and characters changed."
    lines = yaml_text(FinetuneConfig()).splitlines()
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        at, value = (
            draw(st.integers(0, len(lines) - 1)),
            draw(one(st.sampled_from(YAML_VALUES), json_values.map(json.dumps), soup)),
        )
        lines[at] = draw(st.sampled_from([f"{lines[at].partition(':')[0]}: {value}", value, lines[at] + " " + value]))
    text = (
        "\n".join(lines) if draw(st.booleans()) else "\n".join(x for x in lines if not x.startswith(("#", "made", " ")))
    )
    return draw(mostly(st.just(text), mutated([text], most=2), 2))


def check_yaml(raw):
    told = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_bytes(raw)
        config = tried(read_yaml, file, told.append, runs_dir=folder)
        tried(check_config, config)
        file.write_text(yaml_text(config), encoding="utf-8")
        assert same_settings(read_yaml(file, told.append), config)
    for note in told:
        check_message(note)


def same_settings(a, b) -> bool:
    return repr(as_json(a)) == repr(as_json(b))  # nan is not equal to itself


def check_setting(case):
    kind, text = case
    found = tried({"set": parse_setting, "mix": check_mix, "columns": check_columns, "log_to": names_in}[kind], text)
    if kind == "set":
        assert found[0] in ("", "lora", "trainer") and found[1]
    elif kind == "mix":
        assert all(0 < w < math.inf for w in found.values())
    elif kind == "columns":
        assert set(found) <= set(COLUMNS)
    else:
        assert isinstance(found, tuple)


settings = one(
    st.tuples(st.just("set"), mostly(mutated(SETTINGS, signs | st.sampled_from(YAML_VALUES)))),
    st.tuples(st.just("mix"), mostly(mutated(SOURCES), odd | st.dictionaries(soup, odd, max_size=2), 4)),
    st.tuples(
        st.just("columns"),
        mostly(mutated(["lyrics=words,topic=theme"]), odd | st.dictionaries(soup, odd, max_size=2), 4),
    ),
    st.tuples(st.just("log_to"), mostly(mutated(["tensorboard, wandb"]), odd, 4)),
)


@st.composite
def configs(draw):
    "Keyword arguments of `FinetuneConfig`."
    right = dict(
        name="x",
        base="tiny",
        quantization="nf4",
        examples="both",
        rank=8,
        alpha=16,
        dropout=0.1,
        lr=1e-3,
        batch_size=8,
        num_examples=64,
        steps=9,
        pilot_fraction=0.5,
        num_held_out=9,
        num_eval_examples=9,
        early_stopping=2,
        max_minutes=3.0,
        max_gib=9.0,
        log_to="tensorboard",
        seed=1,
        from_adapter="shipped",
        format="chatml",
        mix={"verses": 1},
        lora=dict(use_rslora=True),
        trainer=dict(warmup_steps=2),
        unmasked_fraction=0.5,
        allowed_logit_bonus=1.0,
        loss="hook",
    )
    names = draw(st.lists(st.sampled_from([f.name for f in fields(FinetuneConfig)]), max_size=4, unique=True))
    out = {k: draw(odd) if k not in right or draw(st.integers(0, 2)) else right[k] for k in names}
    for group in ("lora", "trainer"):
        if draw(st.integers(0, 3)) == 0:
            known = sorted(known_options(group) - set(RESERVED[group]))
            out[group] = draw(st.dictionaries(st.sampled_from(known), odd | json_values, min_size=1, max_size=2))
    return out


def check_settings(given):
    config = tried(FinetuneConfig, **given)
    tried(check_config, config)
    assert yaml_text(config) and as_json(config)


# ---- writing

LOAD = Lyricist.from_pretrained


@lru_cache(None)
def lyricist() -> Lyricist:
    return LOAD()


short = st.lists(st.lists(st.sampled_from("0243*"), min_size=1, max_size=5).map("".join), min_size=1, max_size=3)
RHYMES = [
    "AA",
    "AAA",
    "oeng",
    "光",
    "gwong1",
    "AA A=oeng",
    "A=oeng",
    "aa",
    "ABA",
    "2=光",
    {"A": "光"},
    {1: "oeng"},
    {2: "光"},
    "",
]


@st.composite
def how_to_write(draw):
    "Some arguments that `write`, `rewrite` and `next_line` share, most of them right."
    right = dict(
        n=st.integers(1, 3),
        seed=st.integers(0, 9),
        temperature=st.sampled_from([0, 0.8, 2.0]),
        top_p=st.sampled_from([0.5, 1]),
        scheme=st.just("0243"),
        method=st.sampled_from(["sample", "best", "beam"]),
        rhyme=st.sampled_from([None, *RHYMES]),
        grade=st.integers(1, 3),
        sort_by=st.sampled_from([None, dict(rhyme=1), dict(topic=2.0), dict(ambiguous=0.5, bits=0)]),
        words=one(st.lists(st.sampled_from(WORDS), max_size=2), st.sampled_from(["月光", "月光 雨", "", "天,街"])),
    )
    names = draw(st.lists(st.sampled_from(sorted(right)), max_size=4, unique=True))
    return {"seed": 1, "n": 2} | {k: draw(mostly(right[k], odd | soup)) for k in names}


@st.composite
def writings(draw):
    "(method of `Lyricist`, its arguments)."
    lines, how = draw(short), draw(how_to_write())
    tones = draw(mostly(st.just("/".join(lines)), template_texts("0243") | odd, 8))
    if draw(st.integers(0, 9)) == 0:
        lines = [x + " A" for x in lines]
    how |= dict(topic=draw(mostly(st.sampled_from(["夜雨", "月光"]), odd | soup)), tones=tones)
    kind = draw(st.sampled_from(["write", "write", "rewrite", "next_line"]))
    if kind == "write":
        n = draw(st.integers(1, len(lines)))
        kept = "".join(
            draw(st.lists(st.sampled_from("****" + HAN), min_size=len(lines[n - 1]), max_size=len(lines[n - 1])))
        )
        if draw(st.booleans()):
            how["keep"] = draw(mostly(st.just({n: kept}), odd | st.dictionaries(st.integers(0, 4), soup)))
        if draw(st.integers(0, 9)) == 0:
            how["masked"] = draw(st.booleans() | odd)
        return kind, how
    text = draw(mostly(sung, soup | odd, 8))
    if kind == "next_line":
        return kind, how | dict(text=draw(st.sampled_from([text, "", []])))
    if draw(st.booleans()):
        del how["tones"]
    slots = st.sampled_from([None, None, (1, 1), (1, 2), [2, 3], (0, 1), (3, 1)])
    return kind, how | dict(
        text=text, line=draw(mostly(st.integers(1, 2) | st.lists(st.integers(1, 3)))), slots=draw(mostly(slots))
    )


def check_writing(case):
    kind, how = case
    found = tried(getattr(lyricist(), kind), **how)
    assert (
        1 <= len(found) <= how["n"]
        and len({c.text for c in found}) == len(found)
        and str(found)
        and json.dumps(found.to_dict())
    )
    for c in found:
        assert c.report.ok == found.template.matches(c.text)
        if kind == "write" and how.get("masked", True) or kind == "next_line" and not how["text"]:
            assert c.report.ok, c
        if kind == "rewrite":
            lines, chosen = how["text"].split("\n"), how["line"] if isinstance(how["line"], list) else [how["line"]]
            assert [x for k, x in enumerate(c.lines, 1) if k not in chosen] == [
                x for k, x in enumerate(lines, 1) if k not in chosen
            ]
        for word in how.get("words", ()) if kind == "write" and isinstance(how.get("words"), list) else ():
            assert word in c.text
        for n, text in (how.get("keep") or {}).items():
            signs = [x for x in text if is_han(x) or x in "*＊"]
            assert all(
                x in "*＊" or default_reader().fold(x) == default_reader().fold(y)
                for x, y in zip(signs, c.lines[n - 1])
            )


# ---- the command line

numerals = st.sampled_from(
    [
        "0",
        "1",
        "1",
        "1",
        "2",
        "2",
        "-1",
        "1e3",
        "x",
        "²",
        "",
        "1" * 30,
        "nan",
        "inf",
        "0x1",
        " 3",
        "1_0",
        "½",
        "1-2",
        "3-1",
        "1-",
    ]
)
FILES = [*["song.txt"] * 9, "-", "empty.txt", "folder", "missing.txt", "", "config.yaml", "a" * 300, "song.txt\0"]
OPTIONS = {
    "--text": lyrics,
    "--scheme": st.sampled_from([*SCHEMES, *SCHEMES, "x"]),
    "--tones": one(short.map("/".join), template_texts("0243")),
    "--reader": st.sampled_from(["characters"] * 5 + ["x"]),
    "--topic": st.sampled_from(["夜雨"] * 9 + ["", " ", "雨" * 300]),
    "--word": st.sampled_from(WORDS),
    "--keep": st.sampled_from(["1=**", "1=夜*", "2=", "x=夜", "=", "1=**,2"]),
    "--rhyme": st.sampled_from([x for x in RHYMES if isinstance(x, str)]),
    "--grade": numerals,
    "-n": numerals,
    "--seed": numerals,
    "--temperature": numerals,
    "--top-p": numerals,
    "--line": numerals,
    "--slots": numerals,
    "--method": st.sampled_from(["sample", "best", "beam", "x"]),
    "--sort-by": st.sampled_from(["rhyme=1", "bits=x", "rhyme", "=", "topic=nan"]),
    "--base": st.sampled_from(["tiny", "folder", "/no/such", "song.txt", "a/b/c"]),
    "--adapter": st.sampled_from(["none", "folder", "missing", ""]),
    "--quantize": st.sampled_from(["none", "x"]),
    "--revision": st.just("main"),
    "--rounds": numerals,
    "--budget": numerals,
    "--set": mutated(SETTINGS),
    "--mix": mutated(SOURCES),
    "--columns": mutated(["lyrics=words,topic=theme"]),
    "--name": st.sampled_from(["x", "a/b", "..", "", "名" * 200]),
    "--runs-dir": st.sampled_from(["folder", "song.txt", "/proc/nope", ""]),
    "--config": st.sampled_from(FILES),
    "--data": st.sampled_from(FILES),
    "--steps": numerals,
    "--rank": numerals,
    "--lr": numerals,
    "--batch-size": numerals,
    "--max-gib": numerals,
    "--log-to": st.sampled_from(["tensorboard", "x", ","]),
    "--from-adapter": st.sampled_from(["shipped", "folder", ""]),
    "--format": st.sampled_from(["chatml", "x"]),
    "--launch-config": numerals,
    "--key-env": st.just("X"),
}
SWITCHES = [
    "--json",
    "--ambiguous",
    "--endpoint",
    "--resume",
    "--dry-run",
    "--no-mask",
    "--hook",
    "--public",
    "--help",
    "--version",
    "--",
]
CHOOSING = [
    "-n",
    "--seed",
    "--temperature",
    "--top-p",
    "--method",
    "--sort-by",
    "--word",
    "--rhyme",
    "--grade",
    "--base",
    "--adapter",
    "--quantize",
    "--scheme",
]
TAKES = {
    "read": ["--text", "--scheme"],
    "check": ["--tones", "--scheme", "--reader"],
    "write": ["--topic", "--tones", "--keep", *CHOOSING],
    "rewrite": ["--topic", "--tones", "--line", "--slots", *CHOOSING],
    "finetune": [
        "--set",
        "--mix",
        "--columns",
        "--name",
        "--runs-dir",
        "--config",
        "--data",
        "--steps",
        "--rank",
        "--lr",
        "--batch-size",
        "--seed",
        "--max-gib",
        "--log-to",
        "--from-adapter",
        "--format",
        "--launch-config",
        "--base",
        "--revision",
    ],
}
NEEDED = {
    "check": ["--tones"],
    "write": ["--topic", "--tones"],
    "rewrite": ["--topic", "--line"],
    "read": [],
    "finetune": [],
}


@st.composite
def command_lines(draw):
    "(arguments, content of song.txt, standard input)."
    command = draw(st.sampled_from(["read", "check", "check", "write", "rewrite", "finetune"]))
    more = st.lists(
        mostly(st.sampled_from(TAKES[command]), st.sampled_from(sorted(OPTIONS)), 30), max_size=2, unique=True
    )
    names = NEEDED[command] + [n for n in draw(more) if n not in NEEDED[command]]
    parts = [[n, draw(mostly(OPTIONS[n], soup, 20))] for n in names]
    parts += [
        [x] for x in draw(st.lists(mostly(st.sampled_from(["--json"]), st.sampled_from(SWITCHES), 6), max_size=1))
    ]
    if command in ("read", "check", "rewrite") and draw(st.integers(0, 9)):
        parts.append([draw(st.sampled_from(FILES))])
    argv = [command, *(x for part in draw(st.permutations(parts)) for x in part)]
    if draw(st.integers(0, 29)) == 0:
        del argv[draw(st.integers(0, len(argv) - 1))]
    if draw(st.integers(0, 29)) == 0:
        argv.insert(draw(st.integers(0, len(argv))), draw(soup))
    text = one(sung.map(str.encode), contents())
    return [x.replace("\0", "") for x in argv], draw(text), draw(text)


def ran(argv, stdin) -> tuple:  # (exit code, stdout, stderr)
    "Run a command in this process."
    streams = [io.TextIOWrapper(io.BytesIO(x), encoding="utf-8") for x in (stdin, b"", b"")]
    with patch.multiple(sys, stdin=streams[0], stdout=streams[1], stderr=streams[2]):
        try:
            code = run_command(argv)
        except SystemExit as e:
            code = e.code
    for stream in streams[1:]:
        stream.flush()
    return code, *(stream.buffer.getvalue().decode() for stream in streams[1:])


def check_command(case):
    argv, song, stdin = case
    for name, raw in ("song.txt", song), ("empty.txt", b""), ("config.yaml", b"name: x\nsteps: 2\n"):
        Path(name).write_bytes(raw)
    Path("folder").mkdir(exist_ok=True)
    code, out, err = ran(argv, stdin)
    said = [x for x in err.splitlines() if not x.startswith(("cantolyric: warning: ", "cantolyric: note: "))]
    assert code in (0, 1, 2) and "Traceback" not in err and "This is a bug" not in err, (code, err)
    if code == 1:
        assert argv[0] == "check", (code, err)
    if code == 2:
        assert len(said) == 1 and said[0].strip() and len(said[0]) <= 1300, err
        if "--json" in argv:
            assert json.loads(out).keys() == {"error", "code"}, out
        else:
            assert out == ""
        raise Refused
    if "--json" in argv and not {"--help", "-h", "--version"} & set(argv):
        assert isinstance(json.loads(out), dict)


def no_training(config, **_):
    "In place of `run_finetune`: what it checks, and no more."
    check_config(config)
    raise CantolyricError("stopped by the test")


def no_loading(base="tiny", adapter=None, **settings):
    "In place of `Lyricist.from_pretrained`: the tiny base is loaded only once."
    usual = dict(reader=default_reader(), unambiguous_only=True, quantization="none")
    if base == "tiny" and adapter is None and all(v in (None, usual.get(k)) for k, v in settings.items()):
        return lyricist()
    return LOAD(base, adapter, **settings)


# ---- files that the library wrote itself, damaged since


@lru_cache(None)
def workplace(name: str) -> Path:
    "A folder for the files of an entry point; gone when Python ends."
    folder = tempfile.TemporaryDirectory()
    KEPT.append(folder)
    return Path(folder.name) / name


KEPT: list = []
file_change = damage | st.tuples(st.just("json"), json_change) | st.sampled_from([("gone", None), ("empty", None)])


def change_file(file: Path, how: tuple):
    "Damage a file; what is no JSON is cut in the middle instead of being edited."
    kind, what = how
    if kind == "gone":
        file.unlink(missing_ok=True)
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "json" and file.suffix == ".json":
        file.write_text(json.dumps(changed(json.loads(file.read_text()), what)))
    else:
        file.write_bytes(damaged(file.read_bytes(), how if kind != "json" else ("cut", file.stat().st_size // 2)))


array_change = st.tuples(
    st.just("arrays"), st.tuples(st.integers(0, 30), st.sampled_from(["drop", "empty", "float", "text", "object"]))
)


def change_arrays(file: Path, how: tuple):
    "Replace or drop one array of an .npz file, which stays whole."
    if how[0] != "arrays":
        return change_file(file, how)
    with np.load(file) as f:
        arrays = dict(f)
    key, what = sorted(arrays)[how[1][0] % len(arrays)], how[1][1]
    put = dict(
        empty=np.zeros(0, np.int64), float=np.full(3, np.nan), text=np.array(["夜雨"]), object=np.array([{}], object)
    )
    if what == "drop":
        del arrays[key]
    else:
        arrays[key] = put[what]
    np.savez(file, **arrays)


def small_mask() -> bytes:
    "The first mask of a constraint with a lexicon and a vocabulary of a few characters."
    words = {
        "一": ("jat1",),
        "丁": ("ding1",),
        "七": ("cat1",),
        "人": ("jan4",),
        "一人": ("jat1", "jan4"),
        "大": ("daai6",),
    }
    tokens = dict(
        enumerate([bytes([b]) for b in range(256)] + [w.encode() for w in words] + ["大一".encode(), "人\n".encode()])
    )
    table = TokenTable(tokens, len(tokens) + 1, (len(tokens),))
    c = ToneConstraint("3*/02", table, Reader(words))
    return b"".join(c.mask(s).tobytes() for s in (c.start(), c.advance(c.start(), 256)))


def check_vocabulary(how):
    folder = workplace("vocabulary")
    with patch.dict(os.environ, CANTOLYRIC_CACHE=str(folder)):
        wanted = small_mask()
        (file,) = folder.glob("vocabulary-*.npz")
        change_arrays(file, how)
        assert small_mask() == wanted
        assert len(list(folder.iterdir())) == 1
        file.unlink()


def check_dataset(case):
    from datasets import Dataset

    at, how = case
    folder, rows = workplace("dataset"), dict(text=["夜雨", "月光"] * 9, n=list(range(18)))
    with patch.dict(os.environ, CANTOLYRIC_CACHE=str(folder)):
        build = lambda: Dataset.from_dict(rows)
        assert stored("x-1", build).to_dict() == rows
        files = sorted(p for p in (folder / "x-1").rglob("*") if p.is_file())
        change_file(files[at % len(files)], how)
        assert stored("x-1", build).to_dict() == rows and stored("x-1", lambda: 1 / 0).to_dict() == rows


@lru_cache(None)
def small_ngram() -> KneserNey:
    return KneserNey(3).fit(["夜雨落緊", "月光照住", "今晚嘅月光", "落雨"])


def check_ngram(how):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.npz")
        small_ngram().save(file)
        change_arrays(file, how)
        found = tried(KneserNey.load, file)
        bits = found.bits("月光落雨A")
        assert np.isfinite(bits).all() and (how[0] == "arrays" or np.allclose(bits, small_ngram().bits("月光落雨A")))


@lru_cache(None)
def small_base() -> Path:
    "A base with random weights, beside it an adapter of it in a run's folder."
    from peft import LoraConfig, get_peft_model

    folder = workplace("models")
    tiny_variant(
        "qwen3",
        folder / "base",
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    model, _ = load_model(str(folder / "base"))
    tuned = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    )
    tuned.peft_config["default"].base_model_name_or_path = "base"
    tuned.save_pretrained(str(folder / "run/adapter"), save_embedding_layers=False)
    (folder / "run/adapter/README.md").unlink(missing_ok=True)
    write_base(folder / "base", folder / "run/adapter")
    (folder / "run/config.json").write_text(json.dumps(as_json(FinetuneConfig(base="base"))))
    return folder


def check_models(case):
    "A damaged base, or a damaged adapter: refused, or it still writes to the tones."
    part, at, how = case
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(small_base(), place, dirs_exist_ok=True)
        files = sorted(p for p in (place / part).rglob("*") if p.is_file())
        change_file(files[at % len(files)], how)
        found = tried(LOAD, str(place / "base"), "none" if part == "base" else str(place / "run"))
        for candidate in tried(found.write, "夜雨", "02", n=1, seed=1):
            assert candidate.report.ok


OWN = Examples([Source("songs", dict(train=[], validation=[], test=[]), lambda: {"a.txt": "1"})], [1.0])


@lru_cache(None)
def finished_run() -> Path:
    "The folders of a run that is finished and of one that was interrupted, as far as files other than weights go."
    folder, config = workplace("runs"), FinetuneConfig(name="done", steps=9, pilot_fraction=0.5, data_hash=OWN.hash)
    gates, bits = [dict(name="data", ok=True, message="fine", seconds=0.1)], dict(masked=2.0, free=3.0)
    held_out = dict(
        before=dict(best=bits, with_prompt=bits, without=bits),
        after=dict(masked=1.5, free=2.5),
        num_examples=9,
        split="test",
    )
    reports = {stage: StageReport(stage, 9, 9, [3.0, 2.0], 1.0, gates=gates) for stage in STAGES}
    reports["full"].held_out, reports["full"].evals = held_out, [[0, 3.0], [9, 2.0]]
    data = dict(source="songs", hash=OWN.hash, notes=["x"], manifest={"a.txt": "1"})
    forecast = asdict(Forecast(9, 1.0, 9.0, 1.0, 1.0, 1.0, 0.5))
    metrics = dict(
        config=as_json(config),
        data=data,
        forecast=forecast,
        stages={k: asdict(r) for k, r in reports.items()},
        seconds=9.0,
        peak_gib=0.5,
        machine=environment_info(),
    )
    for name in "done", "part.part":
        (folder / name).mkdir(parents=True)
        own = replace(config, name=name.removesuffix(".part"))
        for file, content in {"config": as_json(own), "data": data, "forecast": forecast}.items():
            write_json(folder / name / f"{file}.json", content)
        (folder / name / "config.yaml").write_text(yaml_text(own), encoding="utf-8")
    write_json(folder / "done/metrics.json", metrics)
    for stage in STAGES:
        write_json(folder / f"part.part/{stage}.json", asdict(reports[stage]))
    return folder


def check_run(case):
    name, at, how = case
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(finished_run(), folder, dirs_exist_ok=True)
        files = sorted(Path(folder, name).iterdir())
        file = files[at % len(files)]
        change_file(file, how)
        config = tried(read_config, name.removesuffix(".part"), folder)
        tried(check_config, config)
        tried(check_folder, config)
        if (Path(folder) / name / "config.json").exists():
            tried(check_agreement, Path(folder) / name)
        if name == "done":
            run = tried(read_run, Path(folder) / name)
            assert (
                str(run)
                and run.ok in (True, False)
                and tried(report_text, run.metrics)
                and isinstance(adapter_run_settings(run.adapter), dict)
            )
        else:
            tried(read_forecast, Path(folder) / name)
            for stage in STAGES:
                found = tried(_read_report, Path(folder) / name / f"{stage}.json", stage)
                assert found is None or str(StageReport(**found))
        tried(check_manifest, Path(folder) / name, OWN)


# ---- the tests

ENTRIES = dict(
    template=(templates(), check_template),
    lyric_file=(one(contents(), contents(), sung.map(str.encode)), check_lyrics),
    reading=(st.tuples(mostly(texts), readers), check_reading),
    songs=(song_data(), check_songs),
    yaml=(contents(mostly(yaml_texts(), soup | st.sampled_from(YAML_VALUES))), check_yaml),
    setting=(settings, check_setting),
    config=(configs(), check_settings),
    writing=(writings(), check_writing),
    command=(command_lines(), check_command),
    vocabulary=(damage | array_change, check_vocabulary),
    ngram=(damage | array_change, check_ngram),
    dataset=(st.tuples(st.integers(0, 9), file_change), check_dataset),
    model=(st.tuples(st.sampled_from(["base", "run"]), st.integers(0, 9), file_change), check_models),
    run=(st.tuples(st.sampled_from(["done", "part.part"]), st.integers(0, 9), file_change), check_run),
)
SONG = dict(lyrics="今晚月光\n照住條街", topic="夜雨")
FIRST = dict(  # what fills the caches of each
    template=[
        ("24雨 A/3* A", dict(scheme="0243", rhyme=None, grade=3, reader=reader), VERSE)
        for reader in (None, "characters", "unambiguous")
    ],
    reading=[(VERSE, "unambiguous")],
    lyric_file=[VERSE.encode()],
    songs=[([SONG, SONG | dict(lyrics="落雨落雨"), SONG | dict(lyrics="天光大天光")], None, "both", 0.1)],
    writing=[("write", dict(topic="夜雨", tones="02/43", n=1, rhyme="AA"))],
    command=[(["write", "--topic", "夜雨", "--tones", "02"], b"", b"")],
    config=[{}],
    model=[("run", 0, ("fill", (0, b"\0")))],
)
SLOW = dict(writing=[("write", dict(topic="夜雨", tones="02/43", n=1, sort_by=dict(topic=1, ambiguous=1)))])
FEWER = dict(
    writing=10, model=20, template=30, dataset=20
)  # examples that the fast tests run, where 40 would take too long
ALWAYS_WORK = ("vocabulary", "dataset")  # caches, which rebuild themselves


@pytest.fixture
def fuzz(request, tmp_path, monkeypatch):
    "A `Fuzz` for the test's entry point, in an empty folder."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cantolyric.training.run.run_finetune", no_training)
    monkeypatch.setattr(Lyricist, "from_pretrained", no_loading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT and transformers, about options
        yield Fuzz(*ENTRIES[request.param], FIRST.get(request.param, ()))


@pytest.mark.parametrize("fuzz", ENTRIES, indirect=True)
def test_some_fixed_examples(fuzz, request):
    name = request.node.callspec.params["fuzz"]
    fuzz.round(1, FEWER.get(name, 40))
    assert fuzz.refused < fuzz.examples >= 10
    assert bool(fuzz.refused) == (name not in ALWAYS_WORK)


@pytest.mark.slow
@pytest.mark.parametrize("fuzz", ENTRIES, indirect=True)
def test_fresh_examples(fuzz, request, record_property):
    for example in SLOW.get(request.node.callspec.params["fuzz"], ()):
        fuzz.check(example)
    try:
        fuzz.run()
    finally:
        print(fuzz)
        record_property("examples", fuzz.examples)


def test_the_driver_shows_the_smallest_failure_and_its_seed():
    def check(n):
        assert n < 1000

    with pytest.raises(AssertionError) as e:
        Fuzz(st.integers(), check).round(7)
    notes = "\n".join(e.value.__notes__)
    assert "example=1000" in notes and "CANTOLYRIC_FUZZ_SEED=7" in notes


def test_the_driver_ends_a_loop():
    with pytest.raises(TooSlow), time_limit(0.05):
        while True:
            pass


def test_the_driver_sees_that_a_slow_example_was_refused():
    "An alarm that was swallowed, and a refusal after it, hid an example of 157 seconds once."

    def check(_):
        try:
            while True:
                pass
        except TooSlow:
            raise Refused from None

    with patch("fuzz.LIMIT", 0.05), pytest.raises(TooSlow):
        Fuzz(st.just(0), check).round(1)


def test_the_driver_refuses_long_messages():
    for message in "", "two\nlines", "x" * 2000:
        with pytest.raises(AssertionError):
            check_message(message)
