"""A user's own songs: every format, what is left out and why, splits, mixtures, and bad input."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cantolyric.data.examples import (
    BUILTIN,
    KINDS,
    check_mix,
    even_pieces,
    interleave,
    line_problem,
    load_examples,
    load_songs,
    mixed,
    pieces_of,
    song_source,
    split_songs,
)
from cantolyric.data.pairs import lyric_pairs
from cantolyric.data.song_files import Song, Stanza, read_songs
from cantolyric.data.splits import SPLITS
from cantolyric.data.verse_file import load_verses
from cantolyric.errors import ArgumentError, CantolyricError, FileError, MissingDependencyError
from cantolyric.reading import default_reader

ROOT = Path(__file__).resolve().parent.parent
MINE = Path(__file__).parent / "data/my_songs"
LINES = ["落緊雨嘅夜晚", "我企喺巴士站", "巴士站得我一個", "夜車走咗兩架"]
ROWS = [
    dict(topic="夜雨", lyrics="\n".join(LINES[:2])),
    dict(topic="", lyrics="/".join(LINES[2:])),
    dict(topic="月光", lyrics="今晚月光好大/照住條舊街"),
]


def stanzas(data, **how):
    return [[s.lines for s in song.stanzas] for song in read_songs(data, **how)[0]]


WANT = [[tuple(LINES[:2])], [tuple(LINES[2:])], [("今晚月光好大", "照住條舊街")]]


def written(folder, kind):
    "The same three songs in one file of some kind."
    import csv

    import pyarrow as pa
    from pyarrow import parquet

    path = folder / f"songs.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")
    elif kind == "txt":
        path.write_text(
            "\n\n".join(f"# {r['topic'] or '等車'}\n" + r["lyrics"].replace("/", "\n") for r in ROWS), encoding="utf-8"
        )
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as f:
            rows = csv.DictWriter(f, ["topic", "lyrics"], delimiter="," if kind == "csv" else "\t")
            rows.writeheader()
            rows.writerows(ROWS)
    return path


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_songs(tmp_path, kind):
    assert stanzas(written(tmp_path, kind)) == WANT
    assert stanzas(str(tmp_path)) == WANT  # and so does the folder


def test_data_in_memory():
    from datasets import Dataset, DatasetDict

    for data in (ROWS, Dataset.from_list(ROWS), DatasetDict(train=Dataset.from_list(ROWS))):
        assert stanzas(data) == WANT
    lists = [dict(title="x", lines=r["lyrics"].replace("/", "\n").split("\n")) for r in ROWS]
    assert stanzas(Dataset.from_list(lists)) == WANT
    assert (
        stanzas([dict(words=r["lyrics"], theme=r["topic"]) for r in ROWS], columns=dict(lyrics="words", topic="theme"))
        == WANT
    )
    assert stanzas([dict(words=r["lyrics"]) for r in ROWS], columns="lyrics=words") == WANT


def test_a_dataset_of_the_hub(monkeypatch, tmp_path):
    "The name goes to load_dataset, and what it cannot load is one sentence."
    import datasets

    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name: asked.append(name) or datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
    )
    assert stanzas("somebody/songs") == WANT and asked == ["somebody/songs"]

    def gone(name):
        raise FileNotFoundError(f"Couldn't find {name}\nmore")

    monkeypatch.setattr(datasets, "load_dataset", gone)
    with pytest.raises(
        CantolyricError, match="neither a file or folder here nor a dataset .* Couldn't find somebody/songs$"
    ):
        read_songs("somebody/songs")


def test_the_ten_songs_of_the_repository():
    c = load_songs(MINE)
    assert {s.place.partition(",")[0] for s in c.songs} == {p.name for p in MINE.iterdir()}
    reasons = {reason: n for (_, reason), n in c.left_out.counts.items()}
    assert reasons["Latin letters"] == 2 and reasons["digits"] == 1 and reasons["longer than 16 characters"] == 2
    told = str(c.left_out)
    assert "2 lines: Latin letters (the first: ferry.txt, 'Oh, wait for me')" in told and "1 line: digits" in told
    every = [x for s in c.songs for st in s.stanzas for x in st.lines]
    assert not [x for x in every if line_problem(x)] and not [
        x for x in every if re.search("[:：【】\\[\\]男女合]：", x)
    ]
    assert {st.topic for s in c.songs if s.place.startswith("two_topics") for st in s.stanzas} == {"借遮", "收音機"}


def test_no_example_joins_lines_that_were_not_neighbours():
    song = dict(lyrics="落緊嘅雨\n我冇帶遮\nOh no no\n車嚟咗又走咗\n等多一架")
    c = load_songs([song])
    assert [s.lines for s in c.songs[0].stanzas] == [("落緊嘅雨", "我冇帶遮"), ("車嚟咗又走咗", "等多一架")]


def test_long_stanzas_are_cut_evenly():
    for n in range(1, 50):
        parts = even_pieces([str(k) for k in range(n)])
        assert (
            [x for p in parts for x in p] == [str(k) for k in range(n)]
            and max(map(len, parts)) <= 12
            and max(map(len, parts)) - min(map(len, parts)) <= 1
        )
    assert all("".join(pieces_of(list("abcdefgh"), "windows")[k]) == w for k, w in enumerate(["abc", "de", "fgh"]))
    assert pieces_of(["a", "b"], "windows") == [("a", "b")] and len(pieces_of(list("abcdefgh"), "both")) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_examples_have_their_tones_and_a_topic(kind):
    examples, tones = load_examples(MINE, kind=kind), default_reader().tones
    rows = [r for split in SPLITS for r in examples(split)]
    assert rows and all(r["topic"] and r["tones"] == "/".join(map(tones, r["lyrics"].split("\n"))) for r in rows)
    assert set(rows[0]) == set(lyric_pairs("test")[0])  # the columns of the package's own
    assert any(r["topic"] == "父親" for r in rows)  # given in the CSV file
    if kind == "verses":
        assert len(rows) == load_songs(MINE).num_stanzas


def song(n, *lines):
    return Song(f"{n}.txt", "", (Stanza(tuple(lines)),))


def test_splits_are_by_song_by_ratio_and_at_least_one():
    from cantolyric.paths import content_key

    chars = [chr(0x4E00 + 7 * k) for k in range(600)]
    for n in (3, 4, 9, 10, 57, 200):
        songs = [
            song(
                k,
                "".join(chars[(3 * k + j) % 600] for j in range(6)),
                "".join(chars[(5 * k + j * j) % 600] for j in range(6)),
            )
            for k in range(n)
        ]
        splits = split_songs(songs, 0.1)
        count = Counter(splits)
        assert min(count.values()) >= 1 and set(count) == set(SPLITS), n
        if n >= 50:
            assert abs(count["test"] - n / 10) <= 1 and abs(count["validation"] - n / 10) <= 1
        shuffled = songs[::-1]
        assert split_songs(shuffled, 0.1) == splits[::-1]  # the order of the files decides nothing
    assert content_key("a") != content_key("b")


def test_songs_that_are_nearly_the_same_stay_together():
    live = [song(9, *LINES[:3], "夜車走咗兩部")]
    songs = [
        song(0, *LINES),
        song(1, "今晚月光好大", "照住條舊街"),
        song(2, "天光就會走", "講聲好掛住"),
        song(3, "一個人飲酒", "嗰年嘅夏天"),
        *live,
    ]
    splits = split_songs(songs)
    assert splits[0] == splits[-1]


def test_nothing_held_out_is_trained_on(tmp_path):
    "Not even where a mixture brings the same verse from two sides."
    held = load_verses(split="test")[0]
    rows = [dict(lyrics="\n".join(held["lines"]), topic=held["topic"]), *ROWS]
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    examples = load_examples(mix={str(own): 0.5, "verses": 0.5}, kind="verses")
    train = {"".join(r["lyrics"].split()) for r in examples("train")}
    for split in SPLITS[1:]:
        assert not train & {"".join(r["lyrics"].split()) for r in examples(split)}
    if "".join(held["lines"]) in {"".join(r["lyrics"].split()) for s in examples.sources for r in s.rows["train"]}:
        assert any("held out" in note for note in examples.notes)


def test_a_mixture_keeps_its_shares_in_every_prefix():
    examples = load_examples(mix={str(MINE): 0.7, "verses": 0.3}, kind="verses")
    rows = examples("train")
    for n in (10, 64, 200, len(rows)):
        share = sum(r["source"] != "verses" for r in rows[:n]) / n
        assert abs(share - 0.7) < 0.06, (n, share)
    assert rows[:64] == examples("train", 64) and rows[:64] != examples("train", 64, seed=1)
    assert {r["lyrics"] for r in rows if r["source"] == "verses"} == {
        r["lyrics"] for r in load_examples("verses", kind="verses")("train")
    }  # all of each source
    held = examples("test")
    assert len(held) == len({r["lyrics"] for r in held})  # nothing is measured twice
    assert interleave([0.5, 0.25, 0.25], 8).count(0) == 4 and "".join(mixed(["ab", ""], [0.9, 0.1], True)) == "ab"


def test_the_packages_own_data_are_as_they_were():
    examples = load_examples()
    assert examples("train", 50, 3) == list(lyric_pairs("train", 50, 3)) and examples.everything and not examples.notes
    whole = load_examples("verses", kind="verses")
    for split in SPLITS:
        assert {r["lyrics"] for r in whole(split)} <= {"\n".join(v["lines"]) for v in load_verses(split=split)}
    assert {r["source"] for r in load_examples("corpora", kind="verses")("test")}.isdisjoint({"verses"})
    assert len({load_examples(name, kind="verses").hash for name in BUILTIN}) == 3


def test_the_hash_is_of_the_content(tmp_path):
    a = written(tmp_path, "jsonl")
    first = load_examples(a).hash
    b = a.rename(tmp_path / "other.jsonl")
    assert load_examples(b).hash == first  # not of the file's name
    b.write_text(b.read_text(encoding="utf-8").replace("夜雨", "落雨"), encoding="utf-8")
    assert load_examples(b).hash != first


def test_files_of_the_same_name_both_count(tmp_path):
    for n, line in enumerate(("落雨嘅夜晚", "月光照住街")):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "a.jsonl").write_text(
            "\n".join(
                json.dumps(dict(lyrics=f"{line}\n{x}"), ensure_ascii=False)
                for x in ("車站冇人等", "我行過長街", "風吹過窗前")
            ),
            encoding="utf-8",
        )
    mix = {str(tmp_path / str(n) / "a.jsonl"): 1.0 for n in (0, 1)}
    first = load_examples(mix=mix)
    assert len(first.manifest) == 6
    changed = tmp_path / "0/a.jsonl"
    changed.write_text(changed.read_text(encoding="utf-8").replace("車站", "碼頭"), encoding="utf-8")
    assert load_examples(mix=mix).hash != first.hash


def test_few_songs_are_said_to_measure_little():
    notes = load_examples(MINE).notes
    assert any("not which of two settings is better" in n for n in notes)
    alone = song_source([ROWS[0]], alone=False)
    assert not alone.rows["test"] and "too few songs to hold any out" in alone.notes[-1]


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.csv", "title,words\nx,落雨", "has no lyrics column: it has title, words; expected one of lyrics, lines"),
        ("a.csv", "", "has no lyrics column|nothing in .* can be used"),
        ("a.jsonl", '{"lyrics": "落雨"', "row 1: not JSON"),
        ("a.jsonl", "[1]", "row 1: expected an object with lyrics"),
        ("a.json", '{"a": 1}', "expected a JSON list"),
        ("a.txt", "Oh baby\nyeah yeah", "nothing in .* can be used: .*2 lines: Latin letters"),
        ("a.docx", "落雨", "songs are read from .txt"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
        ("a.jsonl", '{"lyrics": ""}', "1 song: no lyrics"),
        ("a.txt", "落雨嘅夜晚", r"a.txt' has 1 song \(1 distinct\): at least 3 are needed"),
        ("a.txt", "下雨的夜晚\n我没有带伞".encode("gbk"), "not UTF-8 text.*iconv -f GB"),
        ("a.csv", "title,lyrics\n夜,落雨夜晚".encode("big5"), "not UTF-8 text.*iconv -f BIG5"),
    ],
)
def test_bad_files_are_told(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CantolyricError, match=says) as e:
        load_examples(path)
    assert "\n" not in str(e.value) and "a." in str(e.value)


def test_bad_places_are_told(tmp_path):
    for data, says in (
        (tmp_path, "holds no files"),
        (tmp_path / "none.csv", "there is no file or folder"),
        ("nowhere", "a dataset on the Hub is written user/name"),
    ):
        with pytest.raises(CantolyricError, match=says):
            read_songs(data)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(FileError, match=r"holds only files of other types \(1\)"):
        read_songs(tmp_path)
    (tmp_path / "b.txt").write_text(
        "\n\n".join(f"# {r['topic'] or '等車'}\n" + r["lyrics"].replace("/", "\n") for r in ROWS), encoding="utf-8"
    )
    assert "1 file: unsupported type (the first: .pdf)" in load_examples(tmp_path).notes[1]
    for mix in ("songs.csv", {"a": 0}, {"a": "x"}, "a=-1"):
        with pytest.raises(ArgumentError, match="expected sources with weights"):
            check_mix(mix)
    with pytest.raises(ArgumentError, match="'lyric' is not a column that can be mapped"):
        load_songs(ROWS, columns=dict(lyric="words"))
    with pytest.raises(ArgumentError, match="names no column"):
        load_songs(ROWS, columns="lyrics")
    with pytest.raises(CantolyricError, match="has no column 'words': it has topic, lyrics"):
        load_songs(ROWS, columns=dict(lyrics="words"))
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("examples", "x")):
        load_examples(ROWS, kind="x")


def test_no_torch_to_read_songs():
    code = (
        f"from cantolyric.data.examples import load_songs; load_songs({str(MINE)!r}); "
        "import sys; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "data", [5, None, {"a": 1}, b"x", "", " ", "a" * 5000, "~nobody-of-this-name", [{1: "夜雨"}], [5]]
)
def test_data_of_the_wrong_type_or_that_does_not_exist_is_one_sentence(data, tmp_path, monkeypatch):
    "Found by fuzzing; an empty path read every file under the current folder."
    (tmp_path / "songs.txt").write_text("落緊雨嘅夜晚\n我企喺巴士站", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CantolyricError) as e:
        load_songs(data)
    assert len(str(e.value)) < 1000 and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name, raw", [("a.json", b"[" + b"1" * 5000 + b"]"), ("a.jsonl", b"1" * 5000), ("a.jsonl", b"[" * 99999)]
)
def test_odd_json_is_refused(name, raw, tmp_path):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(CantolyricError, match="not JSON"):
        load_songs(tmp_path / name)


def test_parquet_with_text_that_is_not_utf8_is_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"lyrics": pa.array(["夜雨落緊街頭"], pa.string())}),
        tmp_path / "a.parquet",
        compression="none",
        use_dictionary=False,
    )
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw.replace("夜".encode(), b"\xff\xfe\xfd"))
    with pytest.raises(CantolyricError, match="cannot be read as Parquet"):
        load_songs(tmp_path / "a.parquet")


@pytest.mark.parametrize("share", [None, "x", float("nan"), 2, 0, True])
def test_a_share_that_cannot_be_held_out_is_refused(share):
    with pytest.raises(ArgumentError, match="share="):
        load_examples(MINE, share=share)


def test_simplified_songs_are_converted_and_reported(tmp_path, monkeypatch):
    lines = ["我听医生讲/今晚落大雨", "佢個心好痛/行到呢度停", "風吹過海面/山頭有月光", "雲散晒天光/人去咗他方"]
    data = [dict(lyrics=text) for text in lines]
    path = tmp_path / "songs.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in data), encoding="utf-8")
    songs = load_songs(path)
    assert songs.songs[0].stanzas[0].lines == ("我聽醫生講", "今晚落大雨") and songs.left_out.counts == {}
    assert any("simplified characters were converted: 听→聽, 医→醫, 讲→講" in x for x in song_source(path).notes)

    def missing(row):
        raise MissingDependencyError("reading simplified characters", "opencc")

    monkeypatch.setattr("cantolyric.data.examples.traditional_row", missing)
    songs = load_songs(path)
    assert songs.converted == () and "simplified characters that could not be converted" in str(songs.left_out)
    assert not [x for song in songs.songs for s in song.stanzas for x in s.lines if "听" in x]
