"""Figures of evaluation on texts whose figures are known."""
import math

import numpy as np
import pytest

from cantolyric.evaluation import COLUMNS, Seen, Table, agreement, check_unseen, closing_table, distinct_share, fluency, measure, rhyme_share, second_reading, slot_report, topic_share, write_random
from cantolyric.ngram import KneserNey
from cantolyric.template import ToneTemplate
from cantolyric.tones import CantolyricError


def test_slots_and_lengths():
    human = "落緊嘅雨\n洗淨條街"
    t = ToneTemplate.of(human)
    r = slot_report([human], [t])
    assert (r.slots, r.right, r.lines, r.length, r.texts, r.whole) == (8, 8, 2, 2, 1, 1) and r.tones == r.lengths == 1
    short = slot_report(["落緊嘅雨"], [t]) # a line is missing
    assert (short.slots, short.right, short.lines, short.length, short.whole) == (8, 4, 2, 1, 0)
    long = slot_report([human + "呀"], [t]) # a character too many: its line is too long, its slots are right
    assert (long.slots, long.right, long.length, long.whole) == (8, 8, 1, 0)
    more = slot_report([human + "\n落雨"], [t]) # a line too many does not change the lines that were asked for
    assert (more.slots, more.right, more.lines, more.length, more.whole) == (8, 8, 2, 2, 0)
    empty = slot_report([""], [t])
    assert (empty.slots, empty.right, empty.length) == (8, 0, 0)
    assert math.isnan(slot_report([], []).tones)
    with pytest.raises(ValueError): slot_report([human], [])


def test_second_reader():
    pytest.importorskip("ToJyutping")
    assert second_reading("銀行a，囉") == ["ngan4", "hong4", None, None, "lo1"]
    assert second_reading("") == []
    share, n = agreement(["銀行\n落雨"])
    assert n == 4 and share == 1
    assert math.isnan(agreement(["abc"])[0])


def test_a_second_reader_agrees_with_certain_words():
    "With random decoding, which no model makes easier: a slip of a reader shows."
    pytest.importorskip("ToJyutping")
    from cantolyric.base import load_base
    from cantolyric.constraint import TokenTable
    table, rng = TokenTable.from_tokenizer(load_base()[1]), np.random.default_rng(0)
    requests = [dict(tones="".join(rng.choice(list("0243"), 9))) for _ in range(150)]
    sure, every = (write_random(requests, table, certain=c) for c in (True, False))
    assert slot_report(sure, [r["tones"] for r in requests]).tones == 1
    assert agreement(sure)[0] >= .985 > .97 > agreement(every)[0]


def test_missing_second_reader_is_said(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "ToJyutping", None)
    with pytest.raises(CantolyricError, match="pip install ToJyutping"): second_reading("落雨")
    row = measure("x", ["落雨"], [dict(topic="雨", tones="24")])
    assert len(row) == len(COLUMNS) and math.isnan(row[COLUMNS.index("2nd reader %")]) and row[COLUMNS.index("tones %")] == 100
    assert "not measured" in str(closing_table(["落雨"], ["24"]))


def test_topic_rhyme_distinct():
    assert topic_share(["夜雨", "天光"], ["雨水", "夜晚"]) == .5 and math.isnan(topic_share([], []))
    assert rhyme_share(["落條街\n有招牌"]) == 1 and rhyme_share(["落雨\n行路"]) == 0 and math.isnan(rhyme_share(["一句"]))
    assert distinct_share(["落雨落雨"]) == 2 / 3 and math.isnan(distinct_share([""]))


def test_copies_by_a_slow_oracle():
    rng = np.random.default_rng(0)
    word = lambda n: "".join(rng.choice(list("落雨夜行街天光人我你"), n))
    train, texts = [word(40) for _ in range(60)], [word(12) for _ in range(60)]
    def slow(line, n=6):
        covered = set()
        for k in range(len(line) - n + 1):
            if any(line[k:k + n] in t for t in train): covered |= set(range(k, k + n))
        return len(covered)
    want = sum(map(slow, texts)) / sum(map(len, texts))
    assert Seen(train).share(texts) == pytest.approx(want)
    assert Seen(train[:1]).share([train[0]]) == 1 and Seen([""]).share(["落雨落雨落雨"]) == 0


def test_fluency_prefers_what_the_judge_has_read():
    judge = KneserNey(3).fit(["落雨，行街", "落雨，返屋企"] * 5)
    assert fluency(["落雨\n行街"], judge) < fluency(["街行\n雨落"], judge) and math.isnan(fluency([""], judge))


def test_table_shows_itself():
    t = Table(["system", "tones %"], [["a|b 夜雨", 50.], ["<i>", float("nan")]], "c")
    assert "a\\|b 夜雨 | 50.00" in t.markdown() and "| – |" in t.markdown()
    assert "&lt;i&gt;" in t._repr_html_() and t["a|b 夜雨", "tones %"] == 50
    assert t.to_dict()["rows"][1][1] is None and str(t).startswith("c\n")


def test_seen_template_is_refused():
    pairs = {"tones": ["0243/33"]}
    check_unseen([("雨", "0243/34")], pairs)
    with pytest.raises(CantolyricError, match="0243/33"): check_unseen([("雨", "0243/33")], pairs)
