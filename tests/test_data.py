"""The split stays where it is, keeps clusters together, and the examples are what they say."""
import hashlib
import json
from collections import Counter, defaultdict

import pytest

from cantolyric import data
from cantolyric.data import (SPLITS, clean, closest, han_only, is_telling, load_corpus, load_verses, lyric_pairs, lyric_pieces, near_duplicates, split_of,
    topic_of, without_leaks)
from cantolyric.reading import default_reader
from cantolyric.template import ToneTemplate
from cantolyric.tones import CantolyricError


@pytest.fixture(scope="module")
def corpus(): return load_corpus().to_dict() # lists, quicker to go through


def test_split_has_not_moved(corpus):
    "PyCantonese 5.0.0's corpora, cleaned and split: base model, judge and pairs rely on it."
    rows = "\n".join(f"{s}\t{t}" for t, s in zip(corpus["text"], corpus["split"]))
    assert Counter(corpus["split"]) == {"train": 137_900, "validation": 2_730, "test": 2_696, "excluded": 209}
    assert hashlib.sha256(rows.encode()).hexdigest() == "2b2bb1cfaa7d4ad060de64ee31d4fa4a1af428933d7a227c0b17c95f2bb6001d"


def test_no_cluster_crosses(corpus):
    found = defaultdict(set)
    for c, s in zip(data._clusters()[2], corpus["split"]): found[c] |= {s} - {"excluded"}
    assert max(map(len, found.values())) == 1


def test_equal_lines_never_cross(corpus):
    found = defaultdict(set)
    for t, s in zip(corpus["text"], corpus["split"]): found[han_only(t) or t] |= {s} - {"excluded"}
    assert max(map(len, found.values())) == 1


def test_held_out_lines_are_new(corpus):
    "By an exact count, which the clusters' hashing is not: what it let through is known and stays small."
    by_split = defaultdict(list)
    for t, s in zip(map(han_only, corpus["text"]), corpus["split"]):
        if len(t) > 3: by_split[s].append(t)
    near = closest((by_split["validation"] + by_split["test"])[::3], by_split["train"])
    assert max(near) < .9
    assert sum(x >= .8 for x in near) <= 2 and sum(x >= .6 for x in near) / len(near) < .02


def test_no_lyric_is_in_two_splits():
    of = {s: set(lyric_pairs(s)["lyrics"]) for s in ("train", "validation", "test")}
    assert not of["train"] & (of["validation"] | of["test"]) and not of["validation"] & of["test"]


def test_no_long_stretch_is_shared(corpus):
    runs = lambda t: (t[k:k + 10] for k in range(len(t) - 9))
    texts = [(han_only(t), s) for t, s in zip(corpus["text"], corpus["split"])]
    held = {r for t, s in texts if s in ("validation", "test") for r in runs(t)}
    assert not any(r in held for t, s in texts if s == "train" for r in runs(t))


def test_load_corpus(corpus):
    assert set(load_corpus("test")["split"]) == {"test"}
    assert set(load_corpus("validation", ("hkcancor",))["source"]) == {"hkcancor"}
    assert load_corpus(sources=()).num_rows == 0
    with pytest.raises(CantolyricError, match="no split named 'tests'"): load_corpus("tests")
    with pytest.raises(CantolyricError, match="no corpus named"): load_corpus(sources=("cantomap",))


def test_cleaning_twice_changes_nothing(corpus):
    assert all(clean(t) == t for t in corpus["text"][::20])


def test_near_duplicates():
    assert near_duplicates([]) == [] and near_duplicates(["好"]) == [0]
    assert near_duplicates(["落雨", "落雨！", "a", "a"]) == [0, 0, 2, 2]
    assert without_leaks(["落雨"], ["test"]) == ["test"]


@pytest.fixture(scope="module")
def pairs(): return {s: lyric_pairs(s) for s in SPLITS}


def test_pairs_are_right(pairs):
    reader = default_reader()
    for s, p in pairs.items():
        assert p.column_names == ["topic", "tones", "lyrics", "source", "split"] and set(p["split"]) == {s}
        p = p.to_dict()
        lyrics = p["lyrics"]
        assert len(set(lyrics)) == len(lyrics) or s == "train" # two verses' windows could be equal, corpus pieces never
        for topic, tones, text in zip(p["topic"], p["tones"], lyrics):
            lines = text.split("\n")
            assert 1 <= len(lines) <= 4 and all(3 <= len(x) <= 12 for x in lines) and "".join(lines) == han_only(text)
            assert "/".join(map(reader.tones, lines)) == tones and topic
    for r in lyric_pairs("validation", n=200): assert ToneTemplate.parse(r["tones"]).matches(r["lyrics"]) and str(ToneTemplate.of(r["lyrics"])) == r["tones"]


def test_no_lyric_crosses(pairs):
    sets = {s: set(p["lyrics"][:]) for s, p in pairs.items()}
    assert len(pairs["train"]) > 40_000 and len(pairs["validation"]) > 900 and len(pairs["test"]) > 900
    assert len(sets["train"] & sets["test"]) + len(sets["train"] & sets["validation"]) <= 12 # short clauses that anybody says


def test_subsets():
    a, b = lyric_pairs("test", n=30, seed=4), lyric_pairs("test", n=10, seed=4)
    assert a["lyrics"][:10] == b["lyrics"][:] != lyric_pairs("test", n=10, seed=5)["lyrics"][:]
    everything = lyric_pairs("train", verses=False)
    several = lambda p: sum("\n" in x for x in p["lyrics"][:]) / len(p)
    assert several(lyric_pairs("train", n=2_000)) > several(everything) + .05
    assert "verses" not in everything["source"][:]


def test_topics(pairs):
    assert not [t for t in set(pairs["train"]["topic"][:]) if not is_telling(t) and t not in load_verses()["topic"][:]]
    assert topic_of(["今日落雨", "我唔想出街"]) == "落雨" and topic_of(["係啊"]) is None


def test_avoid(pairs):
    assert not [x for x in pairs["train"]["lyrics"][:] if any(a in x for a in data.AVOID)]
    assert not any("食飯" in x for x in lyric_pairs("test", avoid=("食飯",))["lyrics"])


def test_pieces():
    assert lyric_pieces("今日落雨，我唔想出街") == [["今日落雨", "我唔想出街"]]
    assert lyric_pieces("佢話：「我唔想出街。」") == [["我唔想出街"]]
    for text in ("", "係", "我去KTV", "三點3個字", "ひらがなです", "（笑聲）"): assert lyric_pieces(text) == []


def write(path, *rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def test_verses():
    v = load_verses()
    assert len(set(v["id"])) == len(v) >= 30 and set(v["split"]) <= set(SPLITS)
    assert all(x == han_only(x) for lines in v["lines"] for x in lines)


def test_verse_follows_the_corpus(tmp_path, corpus):
    "A verse that repeats a line of the test split is test data; two that share a line go together."
    line = next(t for t in map(han_only, load_corpus("test")["text"]) if 8 <= len(t) <= 12)
    path = write(tmp_path / "v.jsonl", {"topic": "甲", "lines": ["海風吹過舊碼頭嘅燈", line]}, {"topic": "乙", "lines": ["海風吹過舊碼頭嘅燈", "一隻船都冇返嚟過夜"]}, {"topic": "丙", "lines": ["樓上琴聲斷斷續續"]})
    v = load_verses(path)
    assert v["split"][:] == ["test", "test", split_of("樓上琴聲斷斷續續")]
    assert len(load_verses(path, "test")) >= 2


@pytest.mark.parametrize("row, message", [("{", "row 2: no JSON"), ('{"lines": ["夜雨"]}', "row 2: a verse needs a topic"), ('{"topic": "雨", "lines": "夜雨"}', "row 2: \"lines\" must be a list"), ('{"topic": "雨", "lines": ["rain"]}', "Chinese characters"), ("[]", "needs a topic")])
def test_bad_verses(tmp_path, row, message):
    with pytest.raises(CantolyricError, match=message): load_verses(write(tmp_path / "v.jsonl", {"topic": "雨", "lines": ["夜雨"]}, row))


def test_missing_or_strange_verses(tmp_path):
    with pytest.raises(CantolyricError, match="cannot read the verses"): load_verses(tmp_path / "none.jsonl")
    (tmp_path / "big5.jsonl").write_bytes("夜雨".encode("big5"))
    with pytest.raises(CantolyricError, match="not UTF-8"): load_verses(tmp_path / "big5.jsonl")
    assert len(load_verses(write(tmp_path / "empty.jsonl", ""))) == 0
