"""Templates: every kind of input, and the character-level exports against `matches`."""
import random
import re

import pytest
from hypothesis import given, settings, strategies as st

from cantolyric.reading import default_reader
from cantolyric.template import MAX_SLOTS, ToneTemplate, lyric_lines
from cantolyric.tones import SCHEMES, CantolyricError, Syllable, ToneScheme

scheme = st.sampled_from(sorted(SCHEMES))


def slots(name):
    digits = ToneScheme(name).digits
    return st.one_of(st.sampled_from(digits), st.just("*"), st.sampled_from("夜雨行"),
                     st.sets(st.sampled_from(digits), min_size=2).map(lambda s: f"[{''.join(sorted(s))}]"))


@given(scheme.flatmap(lambda n: st.tuples(st.just(n), st.lists(st.lists(slots(n), min_size=1, max_size=MAX_SLOTS), min_size=1, max_size=4))))
@settings(max_examples=200, deadline=None)
def test_prints_itself_back(case):
    name, lines = case
    text = "/".join(map("".join, lines))
    assert str(ToneTemplate.parse(text, name)) == text
    assert ToneTemplate.parse(text.replace("/", " \n ").replace("*", "－"), name) == ToneTemplate.parse(text, name)


@given(st.text("0243[]*.-/ 夜a５\n", max_size=20))
@settings(max_examples=300, deadline=None)
def test_parses_or_says_where(text):
    try: template = ToneTemplate.parse(text)
    except CantolyricError as e: assert re.search(r"line \d+|no line", str(e))
    else: assert ToneTemplate.parse(str(template)) == template


@given(st.text("夜雨打窗銀行長種為爲着，。 \n", min_size=1, max_size=25), scheme)
@settings(max_examples=200, deadline=None)
def test_a_text_matches_its_own_template_and_no_neighbour(text, name):
    if not lyric_lines(text):
        with pytest.raises(CantolyricError): ToneTemplate.of(text)
        return
    template = ToneTemplate.of(text, scheme=name)
    assert template.matches(text) and template.check(text).right == sum(map(len, lyric_lines(text)))
    rows = str(template).split("/")
    other = next(d for d in ToneScheme(name).digits if d != rows[0][0])
    assert not ToneTemplate.parse("/".join([other + rows[0][1:], *rows[1:]]), name).matches(text)
    assert not ToneTemplate.parse(str(template) + rows[0][0], name).matches(text)
    assert not ToneTemplate.parse(str(template) + "/" + rows[0][0], name).matches(text)


def test_regex_agrees_with_matches():
    rng, words = random.Random(0), default_reader().words
    common = [w for w in words if len(w) in (2, 3)]
    for _ in range(30):
        line = "".join(rng.choices(common, k=2))
        template = ToneTemplate.of(line, reader="characters")
        pattern = re.compile(template.to_regex())
        texts = [line, line[:-1], line + line[0], line[::-1], *("".join(rng.choices(common, k=2)) for _ in range(20))]
        for text in texts: assert bool(pattern.fullmatch(text)) == template.matches(text, reader="characters")


def test_regex_of_fixed_characters_knows_variants():
    pattern = re.compile(ToneTemplate.parse("為*/0").to_regex())
    assert pattern.fullmatch("爲你\n行") and pattern.fullmatch("為你\n行") and not pattern.fullmatch("你你\n行")
    with pytest.raises(CantolyricError, match="no character"): ToneTemplate.parse("\U00030000").to_regex()


def test_report_of_odd_texts():
    template = ToneTemplate.parse("24/33")
    for text in ("", "夜雨", "夜雨\n打窗\n人", "夜雨\n打", "夜雨\n打窗人", "夜雨\n打A", "<|im_end|>"):
        report = template.check(text)
        assert not report.ok and str(report) and "✗" in report._repr_html_()
    assert "<|im" not in template.check("<|im_end|>")._repr_html_() # escaped
    assert template.check("夜雨\r\n打窗").ok


def test_errors_of_syllables():
    for wrong in ("ngan", "ngan0", "ngan7", "Ngan4", "ngan4 ", "", "xan4", "zhong1", "1", "bm4", "ngan44"):
        with pytest.raises(CantolyricError): Syllable.parse(wrong)
    for right in ("m4", "ng5", "hng6", "aa3", "jyut6", "gwik1", "kwaang3"): assert str(Syllable.parse(right)) == right


def test_every_reading_of_the_lexicon_is_a_syllable():
    for j in {j for js in default_reader().words.values() for j in js}: assert str(Syllable.parse(j)) == j
