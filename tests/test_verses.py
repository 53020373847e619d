"""The verse collection passes its checks, the checks find what they should, and every verse reaches training."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import opencc
import pytest
import ToJyutping

from cantolyric.data.pairs import lyric_pairs, windows
from cantolyric.data.splits import SPLITS
from cantolyric.data.text import han_only
from cantolyric.data.verse_file import load_verses, verse_splits
from cantolyric.formats import ChatML
from cantolyric.paths import asset_path
from cantolyric.template.template import ToneTemplate
from cantolyric.verses import REGISTERS, SECTIONS, check_verses, richness, richness_curve, stock_phrases, verse_requests

ROOT = Path(__file__).resolve().parent.parent
HONG_KONG = opencc.OpenCC("t2hk").convert


def by_tojyutping(text):
    return [j and j.split()[0] for _, j in ToJyutping.get_jyutping_list(text)]


@pytest.fixture(scope="module")
def verses():
    return load_verses().to_list()


# The collection


def test_collection_is_large_varied_and_sound(verses):
    assert len({v["id"] for v in verses}) == len(verses) >= 1_600 and {v["split"] for v in verses} == set(SPLITS)
    # Both readers agreed on every verse when it was accepted. Since then ours has learned split compounds (開緊會,
    # 排晒隊) and double readings (悄悄, 表弟).
    problems = check_verses(verses, by_tojyutping, HONG_KONG)
    assert len(problems) < 20 and all("readers differ" in problem for problem in problems), problems
    assert len({v["topic"] for v in verses}) >= 800
    assert all(x == han_only(x) for v in verses for x in v["lines"])
    assert all(str(ToneTemplate.of("\n".join(v["lines"]))) == v["tones"] for v in verses)


def test_registers_and_sections_are_balanced(verses):
    register, section = Counter(v["register"] for v in verses), Counter(v["section"] for v in verses)
    assert set(register) == set(REGISTERS) and min(register["口語"], register["書面語"]) > 0.4 * len(verses)
    assert set(section) == set(SECTIONS) and min(section.values()) >= 40
    assert sum(bool(v["hook"]) for v in verses) >= 200


def test_every_topic_comes_from_the_list(verses):
    with asset_path("verse_topics.tsv").open(encoding="utf-8", newline="") as f:
        topics = [row["topic"] for row in csv.DictReader(f, delimiter="\t")]
    assert len(set(topics)) == len(topics) and {v["topic"] for v in verses} <= set(topics)


def test_stock_phrases():
    assert len(stock_phrases()) == len(set(stock_phrases())) >= 100


def test_first_verses_have_not_moved(verses):
    "Adapters were trained on the first 354 verses and requests drawn from them, so their text and split stay."
    rows = ["\t".join([v["id"], v["topic"], v["register"], v["rhyme"], v["split"], *v["lines"]]) for v in verses[:354]]
    assert (
        hashlib.sha256("\n".join(rows).encode()).hexdigest()
        == "dd26ebbb2893185ae777baacc9a11b8d3ee6de85ccf70dd6fa46e8ad327f1019"
    )


def test_splits_follow_the_rule(verses):
    "The splits in the file are those that the hash of each cluster gives: 90/5/5 for the verses after the first 354."
    asked = [v if k < 354 else v | {"split": ""} for k, v in enumerate(verses)]
    assert verse_splits(asked, percent=5) == [v["split"] for v in verses]


# From verses to examples


def test_no_verse_is_lost(verses):
    "Each verse is one whole example of its split, and each of its lines is in a window too."
    for split in SPLITS:
        own = [v for v in verses if v["split"] == split]
        pairs = {(r["topic"], r["lyrics"]) for r in lyric_pairs(split) if r["source"] == "verses"}
        asked = {(v["topic"], "\n".join(x)) for v in own for x in (v["lines"], *windows(v["lines"]))}
        assert pairs == asked and {(v["topic"], "\n".join(v["lines"])) for v in own} <= pairs


def test_no_verse_is_too_long_for_training(verses):
    from cantolyric.base import load_base
    from cantolyric.constraint.scoring import encode_pairs
    from cantolyric.training.config import FinetuneConfig

    _, tokenizer = load_base()
    pairs = [dict(topic=v["topic"], tones=v["tones"], lyrics="\n".join(v["lines"])) for v in verses]
    assert len(encode_pairs(pairs, ChatML(), tokenizer, max_length=FinetuneConfig().max_length)) == len(verses)


@pytest.mark.parametrize("n", range(1, 17))
def test_windows(n):
    lines = [str(k) for k in range(n)]
    parts = windows(lines)
    assert sum(parts, []) == (lines if n >= 4 else []) and all(2 <= len(x) <= 4 for x in parts)


# Requests from held-out verses, the card


def test_requests_from_test_verses(verses):
    requests = [
        json.loads(x) for x in (ROOT / "benchmarks/requests-verses.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    held_out = [v for v in verses if v["split"] == "test"]
    assert requests == verse_requests(held_out) and len(requests) >= 64
    assert len({r["id"] for r in requests}) == len(requests) and {r["kind"] for r in requests} == {"tones", "rhyme"}
    assert {r["verse"] for r in requests} == {v["id"] for v in held_out} and len({r["group"] for r in requests}) == len(
        held_out
    )
    assert all(ToneTemplate.parse(r["tones"], scheme=r["scheme"]).matches(r["lyrics"]) for r in requests)
    train = set(lyric_pairs("train")["tones"])
    assert not [r for r in requests if str(ToneTemplate.of(r["lyrics"])) in train]


def test_card_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/verses.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# The checks

VERSE = dict(
    id="1",
    topic="雨",
    section="verse",
    register="口語",
    person="second",
    rhyme="AAXA",
    hook="",
    stanzas=[],
    split="train",
    lines=["便利店簷下一排鞋", "落緊嘅雨洗淨條街", "你同我都冇遮", "大家影貼住招牌"],
    gloss="A row of shoes waits under the awning while the rain washes the street.",
)
FIRST = VERSE["lines"][:3]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(lines=FIRST[:1], rhyme="A"), "1 lines, expected 2 to 16"),
        (dict(register="白話"), "register is '白話', expected one of"),
        (dict(section="outro"), "section is 'outro'"),
        (dict(person="you"), "person is 'you'"),
        (dict(section="song"), "a song needs two stanzas"),
        (dict(stanzas=[2, 3]), "have 5 lines, expected 4"),
        (dict(gloss="Rain."), "the gloss has 5 characters"),
        (dict(gloss="A row of shoes waits, 一排鞋, under the awning."), "English only"),
        (dict(rhyme="AAAA"), "A does not hold"),
        (dict(rhyme="XXXX"), "nothing rhymes"),
        (dict(rhyme="AABA"), "the letter B is used only once"),
        (dict(rhyme="AABB", lines=["一排鞋", "洗淨條街", "快啲買", "好靚嘅招牌"]), "two letters rhyme on -aai"),
        (dict(lines=[*FIRST, "仆街"]), "has 仆街"),
        (dict(lines=[*FIRST, "街"]), "1 characters, expected 3 to 14"),
        (dict(lines=[*FIRST, "海枯石爛"]), "stock phrase 海枯石爛"),
        (dict(lines=["行過條街", "又返條街", "唔識行", "仲係條街"]), "ends in the same character, 街"),
        (dict(lines=[*FIRST, FIRST[1]]), "repeats but does not contain the hook"),
        (dict(hook="招牌"), "appears in fewer than two lines"),
        (dict(lines=[*FIRST, "佢坐喺度踩"]), "readers differ (坐"),
        (dict(lines=[*FIRST, "佢企喺床邊踩"]), "床 is not the Hong Kong form, 牀"),
        (dict(lines=[*FIRST, "佢讲畀你聽快啲買"]), "讲 is not in Big5"),
    ],
)
def test_what_a_verse_may_not_be(change, message):
    assert check_verses([VERSE], by_tojyutping, HONG_KONG, least=0) == []
    found = check_verses([VERSE | change], by_tojyutping, HONG_KONG, least=0)
    assert any(message in x for x in found), found


def test_a_hook_may_return():
    chorus = VERSE | dict(
        lines=["你冇遮我都冇遮", "落緊嘅雨洗淨條街", "你冇遮我都冇遮", "大家影貼住招牌"],
        rhyme="XAXA",
        hook="你冇遮我都冇遮",
    )
    assert check_verses([chorus], by_tojyutping, HONG_KONG, least=0) == []
    assert any(
        "nearly the same line" in x for x in check_verses([chorus, chorus | {"id": "2", "topic": "遮"}], least=0)
    )


def test_what_a_collection_may_not_be():
    other = VERSE | dict(id="2", topic="鞋", lines=["企喺便利店簷下嗌", "街市有得擺", "今晚落雨洗淨地", "唔准再嚟踩"])
    assert any("share 便利店簷下" in x for x in check_verses([VERSE, other], by_tojyutping, least=0))
    five = [other | {"id": str(k), "topic": "鞋"} for k in range(5)]
    found = check_verses(five, least=0)
    assert any("the topic 鞋 has 5 verses" in x for x in found) and any("5 verses open with 企喺便" in x for x in found)
    narrow = [
        VERSE | {"id": str(k), "topic": str(k), "lines": [x[k % 3 :] + x[: k % 3] for x in VERSE["lines"]]}
        for k in range(60)
    ]
    found = [x for x in check_verses(narrow) if "corpus pieces of its size" in x or "verses rhyme AAXA" in x]
    assert len(found) == 3


def test_richness():
    assert richness(["我去街", "我去街"]) == (3, 2)
    assert richness_curve(["我去街", "我去街", "落大雨"], [3, 6, 9]) == [(3, 2), (3, 2), (6, 4)]
