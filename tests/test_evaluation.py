"""Evaluation on texts whose figures are known; the benchmark, its files and reports; rating sheets filled by rule."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cantolyric.errors import ArgumentError, CantolyricError, FileError, MissingDependencyError
from cantolyric.evaluation.bootstrap import draw_weights, interval, resampled
from cantolyric.evaluation.compare import evaluate_texts
from cantolyric.evaluation.counts import COUNTS, FIGURES, Measures, count_texts
from cantolyric.evaluation.decoding import METHODS, Decoding, write_random
from cantolyric.evaluation.measure import COLUMNS, measure
from cantolyric.evaluation.metrics import (
    distinct_share,
    fluency,
    rarefied_distinct,
    reader_agreement,
    request_template,
    rhyme_grades,
    rhyme_share,
    slot_report,
    spoken_share,
    topic_share,
)
from cantolyric.evaluation.ratings import QUESTIONS, krippendorff_alpha, rating_sheet, read_ratings
from cantolyric.evaluation.report import REPORT_FILES, evaluate_to, read_report, report_markdown, report_tables
from cantolyric.evaluation.requests import (
    benchmark_id,
    benchmark_requests,
    check_unseen,
    read_requests,
    read_texts,
    write_jsonl,
)
from cantolyric.evaluation.summary import run_summary
from cantolyric.evaluation.systems import (
    HUMAN_LINES,
    RANDOM_BASELINE,
    System,
    as_system,
    choose_systems,
    given_systems,
    model_systems,
    writer_system,
)
from cantolyric.evaluation.table import Table
from cantolyric.ngram import KneserNey
from cantolyric.overlap import NgramOverlap
from cantolyric.paths import asset_path
from cantolyric.second_reader import SecondReader, second_reading
from cantolyric.template.template import ToneTemplate
from cantolyric.writing.prompts import prompt_tones

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def small():
    "Measures that take no time."
    second = pytest.importorskip("ToJyutping") and SecondReader()
    return Measures(
        KneserNey(3).fit(["落雨，行街", "落雨，返屋企"] * 5),
        NgramOverlap(["我今日行過條街", "落雨落到天光"]),
        None,
        second,
    )


@pytest.mark.filterwarnings("error")
def test_simplified_characters_of_a_model_are_not_reported(small):
    text, request = "医生听歌", dict(topic="夜雨", tones="3333")
    assert slot_report([text], ["3333"]).slots == 4
    assert count_texts([text], [request], small)[0].shape == (1, len(COUNTS))
    rhyme_share([text])


def test_slots_and_lengths():
    human = "落緊嘅雨\n洗淨條街"
    t = ToneTemplate.of(human)
    r = slot_report([human], [t])
    assert (r.slots, r.right, r.lines, r.length, r.texts, r.whole) == (8, 8, 2, 2, 1, 1) and r.tones == r.lengths == 1
    short = slot_report(["落緊嘅雨"], [t])  # a line is missing
    assert (short.slots, short.right, short.lines, short.length, short.whole) == (8, 4, 2, 1, 0)
    long = slot_report([human + "呀"], [t])  # a character too many: its line is too long, its slots are right
    assert (long.slots, long.right, long.length, long.whole) == (8, 8, 1, 0)
    more = slot_report([human + "\n落雨"], [t])  # a line too many does not change the lines that were asked for
    assert (more.slots, more.right, more.lines, more.length, more.whole) == (8, 8, 2, 2, 0)
    empty = slot_report([""], [t])
    assert (empty.slots, empty.right, empty.length) == (8, 0, 0)
    assert math.isnan(slot_report([], []).tones)
    with pytest.raises(ValueError):
        slot_report([human], [])


def test_second_reader():
    pytest.importorskip("ToJyutping")
    assert second_reading("銀行a，囉") == ["ngan4", "hong4", None, None, "lo1"]
    assert second_reading("") == []
    share, n = reader_agreement(["銀行\n落雨"])
    assert n == 4 and share == 1
    assert math.isnan(reader_agreement(["abc"])[0])


def test_a_second_reader_agrees_with_certain_words():
    "With random decoding, which no model makes easier: a slip of a reader shows."
    pytest.importorskip("ToJyutping")
    from cantolyric.base import load_base
    from cantolyric.constraint.vocabulary import TokenTable

    table, rng = TokenTable.from_tokenizer(load_base()[1]), np.random.default_rng(0)
    requests = [dict(tones="".join(rng.choice(list("0243"), 9))) for _ in range(150)]
    sure, every = (write_random(requests, table, unambiguous_only=c) for c in (True, False))
    assert slot_report(sure, [r["tones"] for r in requests]).tones == 1
    assert reader_agreement(sure)[0] >= 0.985 > 0.97 > reader_agreement(every)[0]


def test_missing_second_reader_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ToJyutping", None)
    with pytest.raises(MissingDependencyError) as error:
        second_reading("落雨")
    assert error.value.package == "ToJyutping" and error.value.command in str(error.value)
    row = measure("x", ["落雨"], [dict(topic="雨", tones="24")])
    assert (
        len(row) == len(COLUMNS)
        and math.isnan(row[COLUMNS.index("2nd reader %")])
        and row[COLUMNS.index("tones %")] == 100
    )
    assert "not measured" in str(run_summary(["落雨"], ["24"]))


def test_topic_rhyme_distinct():
    assert topic_share(["夜雨", "天光"], ["雨水", "夜晚"]) == 0.5 and math.isnan(topic_share([], []))
    assert (
        rhyme_share(["落條街\n有招牌"]) == 1 and rhyme_share(["落雨\n行路"]) == 0 and math.isnan(rhyme_share(["一句"]))
    )
    assert distinct_share(["落雨落雨"]) == 2 / 3 and math.isnan(distinct_share([""]))


def test_copies_by_a_slow_oracle():
    rng = np.random.default_rng(0)
    word = lambda n: "".join(rng.choice(list("落雨夜行街天光人我你"), n))
    train, texts = [word(40) for _ in range(60)], [word(12) for _ in range(60)]

    def slow(line, n=6):
        covered = set()
        for k in range(len(line) - n + 1):
            if any(line[k : k + n] in t for t in train):
                covered |= set(range(k, k + n))
        return len(covered)

    want = sum(map(slow, texts)) / sum(map(len, texts))
    assert NgramOverlap(train).copied_share(texts) == pytest.approx(want)
    assert (
        NgramOverlap(train[:1]).copied_share([train[0]]) == 1 and NgramOverlap([""]).copied_share(["落雨落雨落雨"]) == 0
    )


def test_fluency_prefers_what_the_judge_has_read():
    judge = KneserNey(3).fit(["落雨，行街", "落雨，返屋企"] * 5)
    assert fluency(["落雨\n行街"], judge) < fluency(["街行\n雨落"], judge) and math.isnan(fluency([""], judge))


def test_table_shows_itself():
    t = Table(["system", "tones %"], [["a|b 夜雨", 50.0], ["<i>", float("nan")]], "c")
    assert "a\\|b 夜雨 | 50.00" in t.markdown() and "| – |" in t.markdown()
    assert "&lt;i&gt;" in t._repr_html_() and t["a|b 夜雨", "tones %"] == 50
    assert t.to_dict()["rows"][1][1] is None and str(t).startswith("c\n")


def test_seen_template_is_refused():
    pairs = {"tones": ["0243/33"]}
    check_unseen([("雨", "0243/34")], pairs)
    with pytest.raises(CantolyricError, match="0243/33"):
        check_unseen([("雨", "0243/33")], pairs)


REQUESTS = [
    dict(id="a", topic="雨", tones="24/02", lyrics="落雨\n行路"),
    dict(id="b", topic="街", tones="033 A/300 A", lyrics="落條街\n有招牌"),
    dict(id="c", topic="夜", tones="20", lyrics=None),
]
RIGHT = [
    "落雨\n行路",
    "落條街\n有招牌",
    "夜行",
]  # as they read; the second one's lines are 233 and 402, so its template is wrong on purpose


@pytest.fixture
def requests():
    return [
        dict(r, tones=str(ToneTemplate.of(r["lyrics"], grade=3)) if r["lyrics"] else "20", group=k)
        for k, r in enumerate(REQUESTS)
    ]


# The benchmark


def test_the_benchmark_is_fixed_held_out_and_varied():
    rs = benchmark_requests()
    assert rs == read_requests(asset_path("requests.jsonl")), (
        "the list has changed: results of different lists do not compare"
    )
    assert (
        len(rs) == len({r["id"] for r in rs}) == 320
        and len({r["group"] for r in rs}) == 240
        and len({r["topic"] for r in rs}) > 200
    )
    check_unseen([(r["topic"], request_template(r)) for r in rs])
    from cantolyric.data.pairs import lyric_pairs

    train = set(lyric_pairs("train")["lyrics"])
    own = [r for r in rs if r["lyrics"]]
    assert len(own) == 240 and not [r for r in own if r["lyrics"] in train]
    # The list stays as it is when the reader improves: 師傅, 參與 and 瘌痢 were read differently when it was made.
    assert sum(not request_template(r).matches(r["lyrics"]) for r in own) == 3
    sizes = [[len(line) for line in request_template(r).lines] for r in rs]
    assert {len(x) for x in sizes} >= {1, 2, 3, 4, 5, 6, 7, 8} and {n for x in sizes for n in x} == set(range(3, 13))
    assert {r["kind"] for r in rs} == {"tones", "rhyme", "loose", "six tones"} and min(
        sum(r["kind"] == k for r in rs) for k in ("rhyme", "loose", "six tones")
    ) >= 24
    shared = [r for r in rs if not r["lyrics"]]
    assert len(shared) == 80 and all(
        any(o["group"] == r["group"] and o["tones"] == r["tones"] and o["topic"] != r["topic"] for o in own)
        for r in shared
    )


def test_a_part_of_the_benchmark_and_its_name():
    rs = benchmark_requests(20)
    assert (
        rs == benchmark_requests()[:20]
        and benchmark_id(rs).startswith("20-")
        and benchmark_id(rs) != benchmark_id(benchmark_requests(20, seed=1))
    )
    rs[0]["topic"] = "x"  # a copy: the list itself stays
    assert benchmark_requests(1)[0]["topic"] != "x"
    for n in (0, 321, 2.5, "5"):
        with pytest.raises(ArgumentError, match="from 1 to 320") as error:
            benchmark_requests(n)
        assert (error.value.name, error.value.value) == ("n", n)


def test_what_the_model_is_asked():
    assert prompt_tones(ToneTemplate.parse("02[43]*/落3 A/03 A")) == "02**/23/03"  # 落 lok6
    assert prompt_tones(ToneTemplate.parse("5394", scheme="394052")) == "4334"


def test_requests_of_ones_own(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(
        '\ufeff{"topic": "夜雨", "tones": "0243"}\n\n'
        '{"topic": "街", "tones": "1265", "scheme": "jyutping", "id": "x"}\n',
        encoding="utf-8",
    )
    a, b = read_requests(path)
    assert a["scheme"] == "0243" and len(a["id"]) == 10 and b["id"] == "x" and a["lyrics"] is None
    write_jsonl(path, [a, b])
    assert read_requests(path) == [a, b]
    for text, says in [
        ("", "holds no request"),
        ("{", "row 1: not valid JSON"),
        ('{"topic": "x", "tones": "0"}\n{"topic": 5, "tones": "0"}', "row 2.*topic"),
        ('{"topic": "x"}', 'row 1.* string under "tones"'),
        ('{"topic": "x", "tones": "07"}', "request 1.*column 2"),
        (
            '{"topic": "x", "tones": "0", "id": "1"}\n{"topic": "y", "tones": "0", "id": "1"}',
            "request 2: request 1 has the id 1",
        ),
        ("[1]", "row 1"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CantolyricError, match=says):
            read_requests(path)
    path.write_bytes("夜".encode("big5"))
    for wrong, says in [(path, "UTF-8"), (tmp_path / "none", "cannot read")]:
        with pytest.raises(FileError, match=says) as error:
            read_requests(wrong)
        assert error.value.path == str(wrong)


def test_texts_of_another_program(tmp_path, requests):
    path = tmp_path / "mine.jsonl"
    rows = [dict(id=r["id"], text=t) for r, t in zip(requests, RIGHT)]
    write_jsonl(path, rows[::-1])
    assert read_texts(path, requests) == {"mine": [RIGHT]}
    write_jsonl(path, [dict(r, system="s", seed=k) for k in (1, 0) for r in rows])
    assert read_texts(path, requests) == {"s": [RIGHT, RIGHT]}
    for bad, says in [
        (rows[:2], "no text for 1 requests, the first is c"),
        (rows + rows[:1], "row 4: a second text for the request a"),
        ([dict(id="z", text="")], "no request has the id 'z'"),
        ([dict(id="a", text=7)], "row 1"),
        ([], "holds no text"),
    ]:
        write_jsonl(path, bad)
        with pytest.raises(CantolyricError, match=says):
            read_texts(path, requests)
    write_jsonl(path, rows[:2])
    assert read_texts(path, requests, partial=True) == {"mine": [[*RIGHT[:2], None]]}


# Figures


def test_counts_of_known_texts(requests, small):
    column = lambda c, name: c[:, COUNTS.index(name)].tolist()
    c, parted = count_texts(RIGHT, requests, small)
    assert (
        column(c, "ours") == column(c, "slots") == [4, 6, 2]
        and column(c, "whole_ours") == column(c, "whole_both") == [1, 1, 1]
        and not parted
    )
    assert (
        column(c, "asked") == [0, 1, 0]
        and column(c, "asked3") == [0, 1, 0]
        and column(c, "ends") == [1, 0, 0]
        and column(c, "topic") == [1, 1, 1]
    )
    c, _ = count_texts(["落雨", "", None], requests, small)
    assert (
        column(c, "texts") == [1, 1, 0]
        and column(c, "ours") == [2, 0, 0]
        and column(c, "slots") == [4, 6, 0]
        and column(c, "whole_ours") == [0, 0, 0]
    )
    assert column(c, "kept") == [0, 0, 0] and column(c, "asked0") == [0, 1, 0] and column(c, "cost") == [3, 0, 0]
    c, parted = count_texts(["落雨\n行咩", "落條街\n有招牌", "夜囉"], requests, small)
    assert sum(column(c, "differ")) == sum(parted.values()) and all(a != b for _, a, b in parted)


def test_without_a_second_reader_its_figures_stay_empty(requests, small):
    e = evaluate_texts(requests, RIGHT, measures=Measures(small.reference_model, small.overlap), rounds=50)
    f = e.figures["texts"]
    assert (
        f["slots %"]["value"] == 100
        and math.isnan(f["slots %, 2nd reader"]["value"])
        and "–" in report_tables(e.to_dict())[0].markdown()
    )


def test_register_rhymes_and_variety():
    assert spoken_share(["佢喺屋企", "他在家"]) == 0.5 and math.isnan(spoken_share(["天"]))
    t = ToneTemplate.parse("033 A/300 A/00")
    assert (
        rhyme_grades("落條街\n有招牌\n行", t) == [(3, 3)]
        and rhyme_grades("落條街", t) == [(0, 3)]
        and rhyme_grades("", ToneTemplate.parse("0")) == []
    )
    assert rhyme_grades("落條街\n有招牌", ToneTemplate.parse("033/300")) == [(3, None)]
    rng, text = np.random.default_rng(0), "天" * 5 + "光" * 3 + "雨" * 2 + "行街夜晚"
    drawn = np.mean([len(set(rng.choice(list(text), 6, replace=False))) for _ in range(4000)]) / 6
    assert (
        rarefied_distinct([text], 1, 6) == pytest.approx(drawn, abs=0.01)
        and rarefied_distinct([text], 1, len(text)) == pytest.approx(7 / 14)
        and math.isnan(rarefied_distinct([text], 1, 15))
    )


def test_the_longest_copy_by_a_slow_oracle():
    rng = np.random.default_rng(1)
    word = lambda n: "".join(rng.choice(list("落雨夜行街天光"), n))
    train = [word(30) for _ in range(40)]
    for line in (word(12) for _ in range(40)):
        want = max(
            (j - i for i in range(12) for j in range(i + 1, 13) if any(line[i:j] in t for t in train)), default=0
        )
        assert NgramOverlap(train).longest_copy(f"{line}\n天") == want
    assert (
        NgramOverlap(train).longest_copy(train[0], limit=24) == 24
        and NgramOverlap([""]).longest_copy("天") == 0
        and NgramOverlap(["天光"]).longest_copy("") == 0
    )


def test_the_bootstrap_by_formulas():
    "A mean's spread, a cluster's, and that of two runs: against closed forms (and scipy's bootstrap once, by hand)."
    rng, n, k = np.random.default_rng(0), 400, COUNTS.index
    c = np.zeros((1, n, len(COUNTS)))
    c[0, :, k("bits")], c[0, :, k("cost")] = rng.normal(5, 2, n), 1
    at = lambda counts, groups: resampled(
        counts, *(lambda w: (w[0], w[1][0]))(draw_weights(groups, [len(counts)], 6000))
    )[:, list(FIGURES).index("bits per character")]
    assert at(c, np.arange(n)).std() == pytest.approx(c[0, :, k("bits")].std() / math.sqrt(n), rel=0.04)
    twins = np.repeat(c[:, :200], 2, 1)  # each text twice: no more is known than from one
    assert at(twins, np.repeat(np.arange(200), 2)).std() == pytest.approx(
        c[0, :200, k("bits")].std() / math.sqrt(200), rel=0.04
    )
    two = np.concatenate([c, c])
    two[0, :, k("bits")], two[1, :, k("bits")] = 4, 6
    assert at(two, np.arange(n)).std() == pytest.approx(1 / math.sqrt(2), rel=0.04)  # means of two draws from 4 and 6
    low, high = interval(at(c, np.arange(n)))
    assert (
        low < c[0, :, k("bits")].mean() < high
        and interval(np.array([math.nan, 1.0]))[0] != interval(np.array([math.nan, 1.0]))[0]
    )
    assert (draw_weights(np.arange(9), [3], 5)[0] == draw_weights(np.arange(9), [3], 5)[0]).all() and (
        draw_weights(np.arange(9), [3], 5)[0].sum(1) == 9
    ).all()


def test_differences_are_paired(requests, small):
    wrong = ["行行\n雨雨", "街街街\n街街街", "行夜"]
    e = evaluate_texts(
        requests,
        dict(good=[RIGHT, RIGHT], bad=[wrong], part=[[None, *RIGHT[1:]]]),
        [("good", "bad"), ("good", "part"), ("no", "bad")],
        small,
        200,
    )
    d, p = e.differences
    assert (
        d["n"] == 3
        and d["figures"]["slots %"]["low"] > 0
        and p["n"] == 2
        and p["figures"]["slots %"] == dict(value=0, low=0, high=0)
    )
    assert (
        e.details["part"]["n"] == 2
        and e.details["good"]["runs"] == 2
        and e.figures["good"]["slots %"]["seeds"] == [100, 100]
    )
    for bad, says in [(dict(x=[["a"]]), "x has 1 texts for 3"), (dict(x=[[None] * 3]), "x has no text")]:
        with pytest.raises(ArgumentError, match=says) as error:
            evaluate_texts(requests, bad, measures=small)
        assert error.value.name == "texts"


# One call, one folder


def systems(log, fail=None):
    def write(name):
        def f(requests, seed):
            if name == fail:
                raise KeyboardInterrupt
            log.append((name, seed))
            return [f"{t[:-1]}{'街' if seed else t[-1]}" for t in RIGHT]

        return f

    return {"one": System(write("one"), None, "x"), "a|b two": System(write("a|b two"), 1, "y")}


def test_a_report_and_its_resumption(tmp_path, requests, small):
    log, call = (
        [],
        lambda s, **kw: evaluate_to(tmp_path, s, requests, 2, [("one", "a|b two")], small, lambda _: None, **kw),
    )
    with pytest.raises(KeyboardInterrupt):
        call(systems(log, fail="a|b two"))
    assert log == [("one", 0), ("one", 1)] and not [
        p for p in REPORT_FILES if (tmp_path / p).exists()
    ]  # nothing looks finished
    e = call(systems(log))
    assert log == [("one", 0), ("one", 1), ("a|b two", 0)] and all((tmp_path / p).stat().st_size for p in REPORT_FILES)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (
        report == json.loads(json.dumps(e.to_dict()))
        and report["benchmark"] == benchmark_id(requests)
        and report["systems"]["one"]["runs"] == 2
    )
    assert report_markdown(report, [("figures.png", "x")]).startswith("# Benchmark 3-") and "a\\|b two" in (
        tmp_path / "samples.md"
    ).read_text(encoding="utf-8")
    again = call(systems(log)).to_dict()
    assert len(log) == 3 and again == e.to_dict()  # nothing was written anew, and the draws are the same
    call(systems(log) | given_systems({"theirs": [RIGHT]}))
    assert "theirs" in (tmp_path / "report.md").read_text(encoding="utf-8") and len(log) == 3
    with pytest.raises(CantolyricError, match="other requests, or by another model"):
        call({"one": System(lambda r, s: RIGHT, None, "another")})
    assert not (tmp_path / "report.json").exists()  # the old report is not that of this call
    with pytest.raises(CantolyricError, match="another folder"):
        evaluate_to(tmp_path, systems(log), requests[:2], measures=small)
    with pytest.raises(CantolyricError, match="short returned 2 texts for 3"):
        call({"short": System(lambda r, s: RIGHT[:2])})
    with pytest.raises(ArgumentError) as error:
        choose_systems(systems(log), ["three"])
    assert (error.value.name, error.value.value) == ("systems", "three") and "a|b two" in str(error.value)
    for kw, name in [(dict(systems={}), "systems"), (dict(systems=systems(log), seeds=0), "seeds")]:
        with pytest.raises(ArgumentError) as error:
            evaluate_to(tmp_path / "x", requests=requests, measures=small, **kw)
        assert error.value.name == name and not (tmp_path / "x").exists()


def test_a_model_by_every_method(requests):
    from cantolyric.base import load_base

    model, tokenizer = load_base()
    found = model_systems(model, tokenizer)
    assert list(found) == [
        HUMAN_LINES,
        RANDOM_BASELINE,
        "model unconstrained",
        "model constrained",
        *(f"model constrained {m}" for m in METHODS[1:]),
    ]
    texts = {name: s.write(requests, 0) for name, s in found.items()}
    constrained = [t for name, t in texts.items() if " constrained" in name or name == RANDOM_BASELINE]
    assert (
        all(request_template(r).matches(t) for one in constrained for r, t in zip(requests, one))
        and texts[HUMAN_LINES][2] is None
    )
    greedy = found["model constrained greedy"].write(requests, 5)
    assert texts["model constrained greedy"] == greedy != texts["model constrained"]
    with pytest.raises(ArgumentError) as error:
        Decoding("beam", constrained=False)
    assert (error.value.name, error.value.value) == ("method", "beam")


def test_any_writer_is_a_system(tmp_path, requests, small):
    "An object with `write` takes part; a seed is passed on if it is accepted, and everything as asked by the request."
    asked = []

    class Plain:
        def write(self, topic, tones, n):
            asked.append((topic, str(tones), n))
            return [RIGHT[len(asked) % 3 - 1]]

    class Candidate:
        text = "夜行"

    class Seeded:
        seeds: list = []

        def write(self, *, topic, tones, n, seed, rounds=4):
            self.seeds.append((seed, rounds))
            return [] if topic == "雨" else [Candidate()]

    assert writer_system(Plain()).write(requests, 7) == RIGHT and [x[0] for x in asked] == ["雨", "街", "夜"]
    assert [x[1:] for x in asked] == [(str(request_template(r)), 1) for r in requests]
    assert writer_system(Seeded(), rounds=2).write(requests, 1) == [None, "夜行", "夜行"]
    assert Seeded.seeds == [(1, 2), (1001, 2), (2001, 2)]
    e = evaluate_to(
        tmp_path, dict(plain=Plain(), one=as_system(Plain())), requests, 1, measures=small, log=lambda _: None
    )
    assert e.figures["plain"]["whole %"]["value"] == 100 and e.details["plain"]["n"] == 3
    with pytest.raises(ArgumentError) as error:
        as_system(3)
    assert (error.value.name, error.value.value) == ("system", 3)


def test_a_lyricist_is_a_system(requests):
    from cantolyric.writing.lyricist import Lyricist

    system = as_system(Lyricist.from_pretrained())
    texts = system.write(requests[::2], 0)
    assert texts == system.write(requests[::2], 0)  # the seed is passed on
    assert all(request_template(r).matches(t) for r, t in zip(requests[::2], texts))


def test_requests_from_a_file_and_figures_in_pandas(tmp_path, requests, small):
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, requests)
    by_path, by_list = (evaluate_texts(r, dict(good=RIGHT, bad=["", "", ""]), measures=small) for r in (path, requests))
    assert by_path.to_dict()["systems"] == by_list.to_dict()["systems"]
    pytest.importorskip("pandas")
    frame = by_list.to_pandas()
    assert list(frame.index) == ["good", "bad"] and frame.loc["good", ("slots %", "value")] == 100
    assert set(frame.columns.get_level_values(0)) == set(FIGURES) and frame.loc["bad", ("slots %", "high")] == 0
    for wrong in ([], [dict(topic="雨")], ["02"]):
        with pytest.raises(ArgumentError) as error:
            evaluate_texts(wrong, [])
        assert error.value.name == "requests"


def test_pandas_is_optional(requests, small, monkeypatch):
    import sys

    e = evaluate_texts(requests, RIGHT, measures=small, rounds=20)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError) as error:
        e.to_pandas()
    assert error.value.package == "pandas"


def test_reports_of_earlier_versions_have_current_names(tmp_path):
    old = ROOT / "benchmarks" / "results" / "evaluation.json"
    report, raw = read_report(old), json.loads(old.read_text(encoding="utf-8"))
    assert (
        raw["systems"]["base free"]["figures"]["judge bits"]
        == (report["systems"]["base unconstrained"]["figures"]["bits per character"])
    )
    assert len(report["systems"]) == len(raw["systems"]) and RANDOM_BASELINE in report["systems"]
    assert "mask-finetuned constrained beam of 4" in report["systems"]
    assert all(set(s["figures"]) == set(FIGURES) for s in report["systems"].values())
    assert {d[k] for d in report["differences"] for k in "ab"} <= set(report["systems"])
    assert read_report(report) == report
    for wrong in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileError):
            read_report(wrong)


# Rating sheets; all ratings here are made up by these tests


@pytest.fixture
def sheet(tmp_path):
    "A sheet of two systems for three requests, and a function that fills it in by a rule."
    samples = [
        dict(system=s, request=r["id"], topic=r["topic"], tones=r["tones"], text=f"{s[0]}{t}")
        for s in ("=good", "bad")
        for r, t in zip(REQUESTS, RIGHT)
    ]
    key = rating_sheet(tmp_path, samples)
    items = json.loads(key.read_text(encoding="utf-8"))["items"]

    def fill(name, rule, delimiter=",", encoding="utf-8-sig", change=lambda text: text):
        rows = list(csv.DictReader(io.StringIO((tmp_path / "sheets" / "sheet.csv").read_text(encoding="utf-8-sig"))))
        for r in rows:
            r.update(rater=name, **{q: rule(items[r["item"]]["system"], q) for q in QUESTIONS})
        out = io.StringIO()
        w = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        w.writeheader()
        w.writerows(rows)
        (tmp_path / f"{name}.csv").write_bytes(change(out.getvalue()).encode(encoding, "replace"))
        return tmp_path / f"{name}.csv"

    return key, fill, tmp_path / "sheets"


def test_a_sheet_is_blind_and_whole(sheet):
    key, fill, folder = sheet
    page, table = ((folder / f"sheet.{x}").read_text(encoding="utf-8-sig") for x in ("html", "csv"))
    assert "good" not in page + table and "bad" not in page + table  # no system by name
    assert (
        "http://" not in page and "https://" not in page and "src=" not in page
    )  # nothing from elsewhere, nothing to elsewhere
    assert (folder / "sheet.csv").read_bytes().startswith(
        b"\xef\xbb\xbf"
    ) and "'=" in table  # for a spreadsheet, and no formula
    rows = list(csv.DictReader(io.StringIO(table)))
    assert (
        len(rows) == 6
        and [r["item"] for r in rows] == sorted(r["item"] for r in rows)
        and not any(r["item"].isdigit() for r in rows)
    )
    data = json.loads(page.split("const SHEET = ")[1].split(";\nconst main")[0])
    assert {i["item"] for i in data["items"]} == {r["item"] for r in rows} and [
        q["name"] for q in data["questions"]
    ] == list(QUESTIONS)
    with pytest.raises(FileError, match="choose another folder"):
        rating_sheet(folder.parent, [dict(system="s", request="r", topic="", tones="0", text="")])
    with pytest.raises(ArgumentError, match="samples=.*at least one"):
        rating_sheet(folder / "x", [])


def test_a_text_cannot_break_out_of_the_page(tmp_path):
    rating_sheet(tmp_path, [dict(system="s", request="r", topic="</script>", tones="0", text="<b>&\u2028")])
    page = (tmp_path / "sheets" / "sheet.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "<b>" not in page


def test_synthetic_ratings_come_back(sheet):
    key, fill, _ = sheet
    files = [
        fill("r1", lambda s, q: 5 if s == "=good" else 2),
        fill("r2", lambda s, q: "4,0" if s == "=good" else "1,0", ";"),
        fill("r3", lambda s, q: " ４ " if s == "=good" else "2.", "\t", "utf-16"),
        fill("r4", lambda s, q: 5 if s == "=good" else 1, ",", "big5hkscs"),
    ]
    t = read_ratings(key, files, rounds=300)
    assert (
        t["=good", "sense"] == "4.50 [4.00, 5.00]"
        and t["bad", "singable"].startswith("1.50 [1.00")
        and t["bad", "texts"] == 3
        and "4 raters, 6 items" in t.caption
    )
    x = np.array([[5, 5, 5, 2, 2, 2], [4, 4, 4, 1, 1, 1], [4, 4, 4, 2, 2, 2], [5, 5, 5, 1, 1, 1]])
    assert t["agreement of raters (alpha)", "sense"] == f"{krippendorff_alpha(x):.2f}"


@pytest.mark.parametrize(
    "rule, change, says",
    [
        (lambda s, q: 6, str, "row 2, sense: '6' is not a rating"),
        (lambda s, q: "3,5", str, "'3,5' is not a rating"),
        (lambda s, q: "" if q == "topical" else 3, str, "left 6 of 6 items unanswered"),
        (lambda s, q: 3, lambda t: t.replace("singable", "x"), "no column singable"),
        (
            lambda s, q: 3,
            lambda t: "\r\n".join([*t.split("\r\n")[:3], t.split("\r\n")[2], ""]),
            "a second rating of the item",
        ),
        (lambda s, q: 3, lambda t: "\r\n".join([*t.split("\r\n")[:3], ""]), "left 4 of 6"),
        (lambda s, q: 3, lambda t: t.replace("\ns", "\nq"), "the key is for"),
        (lambda s, q: 3, lambda t: t.replace(",i", ",j").replace(",jtem", ",item"), "no item"),
    ],
)
def test_what_is_wrong_with_a_sheet_is_said(sheet, rule, change, says):
    key, fill, _ = sheet
    with pytest.raises(CantolyricError, match=says):
        read_ratings(key, fill("r", rule, change=change))


def test_parts_of_sheets_and_wrong_files(sheet, tmp_path):
    key, fill, _ = sheet
    half = fill("r1", lambda s, q: "" if q == "topical" else 3)
    t = read_ratings(key, [half], partial=True, rounds=50)
    assert (
        t["bad", "topical"] == "–"
        and t["bad", "sense"] == "3.00 [3.00, 3.00]"
        and t["agreement of raters (alpha)", "sense"] == "–"
    )
    with pytest.raises(CantolyricError, match="another file"):
        read_ratings(key, [half, half], partial=True)
    for k, f, says in [
        (key, [], "no file with ratings"),
        (key, tmp_path / "none.csv", "none.csv.*cannot read the ratings"),
        (tmp_path / "none", half, "cannot read the key"),
        (half, half, "cannot read the key"),
    ]:
        with pytest.raises(CantolyricError, match=says):
            read_ratings(k, f)


def test_alpha_as_published():
    """The example in Krippendorff (2011), with the values printed there.

    The package `krippendorff` gave the same for 600 random tables.
    """
    n = math.nan
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert [round(krippendorff_alpha(four, k), 3) for k in ("nominal", "ordinal", "interval")] == [0.743, 0.815, 0.849]
    assert (
        krippendorff_alpha([[1, 2, 3], [1, 2, 3]]) == 1
        and math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
        and math.isnan(krippendorff_alpha([[1, n], [n, 1]]))
    )
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("level", "x")):
        krippendorff_alpha(four, "x")


def test_the_committed_report_is_about_these_requests():
    report = read_report(ROOT / "benchmarks" / "results" / "evaluation.json")
    assert report["benchmark"] == benchmark_id(benchmark_requests()) and report["requests"] == 320
    for name, s in report["systems"].items():
        if name.endswith(" unconstrained") or name == "finetuned endpoint":
            continue
        if " constrained" in name or name in (HUMAN_LINES, RANDOM_BASELINE):
            assert s["figures"]["whole %"]["value"] == 100, name
    assert len(report_tables(report)) == 3
