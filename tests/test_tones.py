"""Tones: strict parsing against every syllable that can be and every one that is attested; schemes, tunes, rhymes."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cantolyric.errors import ArgumentError, CantolyricError, ParseError
from cantolyric.tones import (
    CODAS,
    FINALS,
    INITIALS,
    NUCLEI,
    SCHEMES,
    Syllable,
    ToneScheme,
    pitch_level,
    rhyme,
    rhyme_key,
    tone_melody_conflicts,
)

DATA = Path(find_spec("pycantonese").submodule_search_locations[0]) / "data"
SCHEME = {f"{i}{f}" for i, f in product(["", *INITIALS], FINALS - {"m", "ng"})} | {"m", "ng", "hm", "hng"}


def refused(syllables):
    "Those that do not parse, or that print themselves back differently."

    def right(s):
        try:
            return str(Syllable.parse(s)) == s
        except CantolyricError:
            return False

    return {s for s in syllables if not right(s)}


def test_the_whole_scheme_and_nothing_else():
    "Every initial with every final and tone; of all other strings of up to three letters, none."
    assert not refused(f"{s}{t}" for s in SCHEME for t in range(1, 7))
    letters = "abcdefghijklmnopqrstuvwxyz"
    strings = {"".join(s) + "1" for n in range(4) for s in product(letters, repeat=n)}
    assert strings - refused(strings) == {f"{s}1" for s in SCHEME if len(s) < 4}


def test_parts_add_up():
    for s in SCHEME:
        x = Syllable.parse(s + "3")
        assert x.initial + x.nucleus + x.coda == s and x.final == x.nucleus + x.coda
        assert x.initial in ("", *INITIALS) and x.nucleus in (*NUCLEI, "m", "ng") and x.coda in ("", *CODAS)
    assert Syllable.parse("ngo5").initial == "ng" and Syllable.parse("ng5").initial == ""


def test_every_attested_syllable_of_the_table():
    "Only English words that are spelt as they sound, and one left in English, are not in the scheme."
    table = json.loads((DATA / "rime_cantonese/chars_to_jyutping.json").read_text(encoding="utf-8"))
    syllables = {s for j in table.values() for s in j.split()}
    assert len(syllables) > 2500
    assert refused(syllables) == {"vi1", "fom1", "cop1", "kop1", "top1", "zop1", "feel"}


def test_every_attested_syllable_of_the_corpus():
    "Whatever has a tone; English words carry a 0 there."
    text = "".join(p.read_text(encoding="utf-8").replace("\n\t", " ") for p in DATA.glob("hkcancor/*.cha"))
    pieces = re.findall(
        "[A-Za-z]+[0-9]*",
        " ".join(m for tier in re.findall(r"^%mor:\t(.*)", text, re.M) for m in re.findall(r"\|(\S*)", tier)),
    )
    syllables = {s for s in pieces if re.fullmatch("[a-z]+[1-9]", s)}
    assert len(syllables) > 1400
    assert refused(syllables) == {"klak4"}  # a sound, with two consonants at its start


def test_every_attested_syllable_outside():
    if "CANTOLYRIC_DATA" not in os.environ:
        pytest.skip("CANTOLYRIC_DATA is not set")
    syllables = set()
    for path in Path(os.environ["CANTOLYRIC_DATA"], "pronunciation").glob("*.csv"):
        with open(path, encoding="utf-8") as f:
            for row in csv.DictReader(f):
                syllables |= set(re.findall("[A-Za-z]+[0-9]*", row.get("jyutping") or ""))
    assert len(syllables) > 2400 and not refused(syllables)


WRONG = {
    "": "empty",
    "ngan": "no tone",
    "m": "no tone",
    "ng": "no tone",
    "ngan0": "tone 0",
    "ngan7": "7, 8 and 9 as 1, 3 and 6",
    "4": "no final in '4'",
    "xan4": "no initial 'x'",
    "van1": "no initial 'v'",
    "zhong1": "no initial 'zh' in 'zhong1'; Jyutping writes 'z'",
    "chan4": "writes 'c'",
    "shan1": "writes 's'",
    "yan4": "no final 'yan'",
    "b1": "no final in 'b1'",
    "gw1": "no final in 'gw1'",
    "dom2": "no final 'om' in 'dom2'; the finals are: o oe oek",
    "ngxn4": "no final 'xn'",
    "bm4": "no final 'm' after 'b'",
    "kng4": "no final 'ng' after 'k'",
    "Ngan4": "'N' at character 1",
    "ngAn4": "'A' at character 3",
    "ngan４": "'４' at character 5",
    "ngan44": "'4' at character 6",
    "ngan4 ": "' ' at character 6",
    " ngan4": "' ' at character 1",
    "ngan4\n": r"'\n' at character 6",
    "ngan4hong4": "'h' at character 6",
    "ng-an4": "'-' at character 3",
    "ngan²": "'²' at character 5",
    "銀": "'銀' at character 1",
    None: "not None",
    4: "not 4",
    b"ngan4": "not b'ngan4'",
}


@pytest.mark.parametrize("text", WRONG, ids=repr)
def test_error_names_the_wrong_part(text):
    with pytest.raises(ParseError) as e:
        Syllable.parse(text)
    assert WRONG[text] in str(e.value) and len(str(e.value)) < 250


@given(st.text())
def test_any_text_parses_to_itself_or_raises_one_kind_of_error(text):
    try:
        assert str(Syllable.parse(text)) == text
    except CantolyricError:
        pass


def test_no_syllable_of_impossible_parts():
    assert str(replace(Syllable.parse("si1"), tone=6)) == "si6"
    for parts, why in [
        (("x", "i", "", 1), "no initial 'x'"),
        (("s", "i", "", 0), "tone=0"),
        (("s", "i", "", "1"), "tone='1'"),
        (("s", "i", "", 1.0), "tone=1.0"),
        (("s", "i", "", True), "tone=True"),
        (("s", "a", "an", 1), "('aa', 'n')"),
        (("s", "m", "", 1), "no final 'm'"),
        (("s", "", "", 1), "no final"),
    ]:
        with pytest.raises(CantolyricError, match=re.escape(why)):
            Syllable(*parts)


@pytest.mark.parametrize("name", SCHEMES)
def test_digits_and_tones_of_a_scheme_belong_together(name):
    s = ToneScheme(name)
    assert sorted(t for d in s.digits for t in s.tones(d)) == [1, 2, 3, 4, 5, 6]
    assert all(t in s.tones(s.of(t)) for t in range(1, 7))
    assert s.encode(Syllable.parse(f"si{t}") for t in range(1, 7)) == s.encode(range(1, 7)) == SCHEMES[name]
    for wrong in (0, 7, None, "1", 1.5, True):
        with pytest.raises(ArgumentError, match="1 to 6") as e:
            s.of(wrong)
        assert e.value.name == "tone" and e.value.value is wrong
    for wrong in ("", "33", "a", "７"):
        with pytest.raises(ArgumentError, match=" ".join(s.digits)) as e:
            s.tones(wrong)
        assert (e.value.name, e.value.value) == ("digit", wrong)


def test_unknown_scheme():
    for wrong in ("0234", "", None):
        with pytest.raises(ArgumentError, match="0243, 02493, 394052, jyutping") as e:
            ToneScheme(wrong)
        assert (e.value.name, e.value.value) == ("scheme", wrong)


@pytest.mark.parametrize("a", SCHEMES)
@pytest.mark.parametrize("b", SCHEMES)
def test_conversion_says_neither_more_nor_less(a, b):
    "What a converted digit stands for is the least that the other scheme can say and that holds all its tones."
    one, two = ToneScheme(a), ToneScheme(b)
    for d in one.digits:
        got = one.convert(d, b, sets=True)
        assert {t for e in got.strip("[]") for t in two.tones(e)} == {
            t for t in range(1, 7) if any(two.of(t) == two.of(u) for u in one.tones(d))
        }
        if got.startswith("["):
            with pytest.raises(ArgumentError, match=re.escape(f"'{d}' (character 1) may be")) as e:
                one.convert(d, b)
            assert (e.value.name, e.value.value) == ("digits", d)
        else:
            assert one.convert(d, two) == got and len(got) == 1


@given(st.lists(st.integers(1, 6)))
def test_conversion_to_a_coarser_scheme_is_encoding(tones):
    for a, b in [("jyutping", "394052"), ("394052", "02493"), ("02493", "0243"), ("jyutping", "0243")]:
        assert ToneScheme(a).convert(ToneScheme(a).encode(tones), b) == ToneScheme(b).encode(tones)


def test_conversion_of_an_unknown_digit():
    with pytest.raises(ArgumentError, match=re.escape("no digit '9' in the scheme 0243 (character 3)")) as e:
        ToneScheme("0243").convert("029", "02493")
    assert (e.value.name, e.value.value) == ("digits", "029")
    with pytest.raises(ArgumentError) as e:
        ToneScheme("0243").convert("02", "0234")
    assert (e.value.name, e.value.value) == ("scheme", "0234")


def test_levels_are_the_order_of_0243():
    assert sorted(range(1, 7), key=pitch_level) == [4, 6, 3, 5, 1, 2] and [
        pitch_level(t) for t in (4, 6, 3, 5, 1, 2)
    ] == [
        0,
        1,
        2,
        2,
        3,
        3,
    ]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(55, 80)), max_size=12))
def test_conflicts_follow_the_rule_step_by_step(song):
    tones, pitches = [t for t, _ in song], [p for _, p in song]
    height = {4: 0, 6: 1, 3: 2, 5: 2, 1: 3, 2: 3}
    want = [
        i
        for i, ((s, p), (t, q)) in enumerate(pairwise(song))
        if height[s] < height[t] and p >= q or height[s] > height[t] and p <= q
    ]
    assert (
        tone_melody_conflicts(tones, pitches)
        == want
        == tone_melody_conflicts([Syllable.parse(f"si{t}") for t in tones], iter(pitches))
    )


def test_conflicts_need_one_note_per_syllable():
    with pytest.raises(ArgumentError, match="3 tones for 2 notes") as e:
        tone_melody_conflicts([1, 2, 3], [60, 62])
    assert e.value.name == "pitches"


KIND = {"": "", "i": "i", "u": "u", "m": "N", "n": "N", "ng": "N", "p": "T", "t": "T", "k": "T"}


def test_rhyme_and_its_keys():
    "Over all pairs of finals: the grades as defined, and keys that are equal exactly where the grade is reached."
    all_finals = [Syllable.parse(("" if f in ("m", "ng") else "h") + f + "1") for f in sorted(FINALS)]
    for a, b in product(all_finals, repeat=2):
        same = a.nucleus == b.nucleus
        want = 3 if same and a.coda == b.coda else 2 if same and KIND[a.coda] == KIND[b.coda] else 1 if same else 0
        assert rhyme(a, b) == want
        assert all((rhyme_key(a, g) == rhyme_key(b, g)) == (want >= g) for g in (1, 2, 3))


def test_rhyme_ignores_initial_and_tone_and_takes_jyutping():
    assert (
        rhyme("saan1", Syllable.parse("waan6")) == 3
        and rhyme("m4", "ng5") == 0
        and rhyme_key("hng6", 3) == rhyme_key("ng5", 3)
    )
    assert (
        len({rhyme_key("saan1", g) for g in (1, 2, 3)} | {rhyme_key("saa1", g) for g in (1, 2, 3)}) == 5
    )  # vowel only is shared, no key means two things
    with pytest.raises(ParseError, match="no tone"):
        rhyme("saan", "waan6")
    for wrong in (0, 4, "3", None):
        with pytest.raises(ArgumentError, match="the grades are 3") as e:
            rhyme_key("saan1", wrong)
        assert (e.value.name, e.value.value) == ("grade", wrong)


def test_importing_is_light():
    code = "import sys, cantolyric.tones; print(*({'numpy', 'torch', 'pycantonese', 'IPython'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
