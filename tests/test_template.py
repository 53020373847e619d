"""Templates: every kind of input, the automaton against the oracle, and the exports with the engines that read them."""

import itertools
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric.characters import is_han
from cantolyric.errors import ArgumentError, CantolyricError, ParseError, UnsatisfiableError
from cantolyric.reading import Reader, default_reader
from cantolyric.template.parser import parse_template
from cantolyric.template.patterns import BREAKS, character_language
from cantolyric.template.report import reads_right
from cantolyric.template.slots import MAX_SLOTS, Slot
from cantolyric.template.sung import lyric_lines, rhyme_group
from cantolyric.template.template import ToneTemplate
from cantolyric.template.words import chinese_parts, insert_words
from cantolyric.tones import SCHEMES, Syllable, ToneScheme

scheme = st.sampled_from(sorted(SCHEMES))


def slots(name):
    digits = ToneScheme(name).digits
    return st.one_of(
        st.sampled_from(digits),
        st.just("*"),
        st.sampled_from("夜雨行"),
        st.sets(st.sampled_from(digits), min_size=2).map(lambda s: f"[{''.join(sorted(s))}]"),
    )


@given(
    scheme.flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.lists(slots(n), min_size=1, max_size=MAX_SLOTS), min_size=1, max_size=4)
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_prints_itself_back(case):
    name, lines = case
    text = "/".join(map("".join, lines))
    assert str(ToneTemplate.parse(text, name)) == text
    assert ToneTemplate.parse(text.replace("/", " \n ").replace("*", "－"), name) == ToneTemplate.parse(text, name)


@given(st.text("0243[]*.-/ 夜a５\n", max_size=20))
@settings(max_examples=300, deadline=None)
def test_parses_or_says_where(text):
    try:
        template = ToneTemplate.parse(text)
    except CantolyricError as e:
        assert re.search(r"line \d+|no line", str(e))
    else:
        assert ToneTemplate.parse(str(template)) == template


@given(st.text("夜雨打窗銀行長種為爲着，。 \n", min_size=1, max_size=25), scheme)
@settings(max_examples=200, deadline=None)
def test_a_text_matches_its_own_template_and_no_neighbour(text, name):
    if not lyric_lines(text):
        with pytest.raises(ParseError):
            ToneTemplate.of(text)
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
        pattern = re.compile(template.to_regex(verify=True))
        texts = [line, line[:-1], line + line[0], line[::-1], *("".join(rng.choices(common, k=2)) for _ in range(20))]
        for text in texts:
            assert bool(pattern.fullmatch(text)) == template.matches(text, reader="characters")


def test_regex_of_fixed_characters_knows_variants():
    pattern = re.compile(ToneTemplate.parse("為*/0").to_regex(verify=True))
    assert pattern.fullmatch("爲你\n行") and pattern.fullmatch("為你\n行") and not pattern.fullmatch("你你\n行")
    with pytest.raises(UnsatisfiableError, match="no character"):
        ToneTemplate.parse("\U00030000").to_regex()


def test_report_of_odd_texts():
    template = ToneTemplate.parse("24/33")
    for text in ("", "夜雨", "夜雨\n打窗\n人", "夜雨\n打", "夜雨\n打窗人", "夜雨\n打の", "<|im_end|>"):
        report = template.check(text)
        assert not report.ok and str(report) and "✗" in report._repr_html_()
    assert "<|im" not in template.check("<|im_end|>")._repr_html_()  # escaped
    assert template.check("夜雨\r\n打窗").ok


def test_errors_of_syllables():
    for wrong in ("ngan", "ngan0", "ngan7", "Ngan4", "ngan4 ", "", "xan4", "zhong1", "1", "bm4", "ngan44"):
        with pytest.raises(ParseError):
            Syllable.parse(wrong)
    for right in ("m4", "ng5", "hng6", "aa3", "jyut6", "gwik1", "kwaang3"):
        assert str(Syllable.parse(right)) == right


def test_every_reading_of_the_lexicon_is_a_syllable():
    for j in {j for js in default_reader().words.values() for j in js}:
        assert str(Syllable.parse(j)) == j


# The automaton against the oracle

ABC = "一丁七"
LONERS = {
    "丂": ("baan1",),
    "丄": ("baa4",),
    "丅": ("bi2",),
    "丆": ("di5",),
}  # stand in no word, so that few characters need a search
syllables = st.builds(
    lambda i, f, t: f"{i}{f}{t}", st.sampled_from("bd"), st.sampled_from(["aa", "aan", "aang", "i"]), st.integers(1, 6)
)
lexicons = st.tuples(
    st.dictionaries(
        st.text(ABC, min_size=1, max_size=4), st.lists(syllables, min_size=4, max_size=4), min_size=3, max_size=14
    ),
    st.booleans(),
)
typed = st.tuples(
    st.lists(st.sampled_from("6 [123] [456] [1345] [1235] * * * 七 七=1 丁=[1234]".split()), min_size=1, max_size=3),
    st.sampled_from(["", " A", " A", " A", " B"]),
).map(lambda t: "".join(t[0]) + t[1])


def reader_of(lexicon):
    words, loners = lexicon
    return Reader({w: tuple(js[: len(w)]) for w, js in words.items()} | (LONERS if loners else {}))


def untried(text, grade):
    "A template as `parse` makes it, but not tried: it may be impossible."
    return ToneTemplate(*parse_template(text, "jyutping", grade=grade))


def all_texts(template, reader):
    "Every text of the reader's characters that has as many lines and characters."
    characters = sorted({c for w in reader.words for c in w})
    return map(
        "\n".join,
        itertools.product(
            *(["".join(t) for t in itertools.product(characters, repeat=len(line))] for line in template.lines)
        ),
    )


@settings(max_examples=250, deadline=None)
@given(lexicons, st.lists(typed, min_size=1, max_size=2), st.integers(1, 3))
def test_every_text_of_small_lexicons(lexicon, lines, grade):
    "Accepted texts read right, texts that read right are accepted, and only templates that no text meets are refused."
    reader, template = reader_of(lexicon), untried("/".join(lines), grade)
    right = {t for t in all_texts(template, reader) if reads_right(template, t, reader)}
    if not right:
        with pytest.raises(UnsatisfiableError) as e:
            template.automaton(reader)
        assert e.value.line in (1, 2)
        return
    automaton = template.automaton(reader)
    for t in all_texts(template, reader):
        assert automaton.accepts(t) == (t in right)


@settings(max_examples=300, deadline=None)
@given(lexicons, st.lists(typed, min_size=1, max_size=3), st.text(ABC + "丂，A 1\r\n\n", max_size=9))
def test_texts_with_everything_in_them(lexicon, lines, text):
    "Punctuation, letters, blank lines: the automaton takes them as the reader does."
    reader, template = reader_of(lexicon), untried("/".join(lines), 3)
    try:
        automaton = template.automaton(reader)
    except CantolyricError:
        return
    assert automaton.accepts(text) == reads_right(template, text, reader)
    try:
        own = ToneTemplate.of(text, reader, "jyutping", grade=2)
    except CantolyricError:
        return
    assert reads_right(own, text, reader) and own.check(text, reader).ok
    try:
        automaton = own.automaton(reader)
    except UnsatisfiableError:
        assert "A" in text  # no character of the lexicon fits where the English word stands
        return
    assert automaton.accepts(text)


def test_every_short_text_of_one_lexicon():
    "Every text of up to seven signs, with line ends and commas among them."
    reader = Reader(
        {
            "一": ("baa1",),
            "丁": ("di3",),
            "一丁": ("baan4", "di1"),
            "一丁一一": ("baa3", "baa2", "di1", "baa6"),
            "丁一": ("di2", "baang1"),
        }
    )
    for text in ("* A/** A", "[12]*/[1236][36]", "一丁=[14]", "*** A1/* A1"):
        template = ToneTemplate.parse(text, "jyutping", reader=reader)
        automaton, accepted = template.automaton(reader), 0
        for n in range(8):
            for t in map("".join, itertools.product("一丁，\n", repeat=n)):
                assert automaton.accepts(t) == reads_right(template, t, reader), (text, t)
                accepted += automaton.accepts(t)
        assert accepted


@settings(max_examples=300, deadline=None)
@given(lexicons, st.lists(typed, min_size=1, max_size=3), st.text(ABC + "，\n", max_size=9), st.integers(1, 3))
def test_the_report_says_what_the_oracle_says(lexicon, lines, text, grade):
    reader, template = reader_of(lexicon), untried("/".join(lines), grade)
    report = template.check(text, reader)
    assert report.ok == reads_right(template, text, reader) == template.matches(text, reader)
    assert str(report) and report._repr_html_().count("✗ wanted") == report.slots - report.right


def corpus_lines(n):
    "Lines of CTCPC: those of validation and test first, then training lines."
    from cantolyric.data.corpora import load_corpus

    reader, out = default_reader(), {}
    for split in ("validation", "test", "train"):
        for row in load_corpus(split):
            if row["source"] != "ctcpc":
                continue
            for line in row["text"].split("\n"):
                if 0 < len("".join(filter(is_han, line))) <= MAX_SLOTS and all(
                    j or not ch.isalnum() for ch, j in zip(line, reader.jyutping(line))
                ):
                    out[line] = split
            if len(out) >= n:
                return list(out.items())[:n]


def test_twenty_thousand_lines_people_wrote():
    rng, lines = random.Random(0), corpus_lines(20_000)
    assert len(lines) == 20_000 and sum(split != "train" for _, split in lines) > 4_000
    for line, _ in lines:
        own = ToneTemplate.of(line)
        slots, at = own.lines[0], rng.randrange(len(own.lines[0]))
        digit = rng.choice([d for d in "0243" if d != str(slots[at])])
        changed = ToneTemplate((slots[:at] + (Slot(ToneScheme("0243").tones(digit), None, digit),) + slots[at + 1 :],))
        assert own.automaton().accepts(line) and reads_right(own, line), line
        assert not changed.automaton().accepts(line) and not reads_right(changed, line), line


def test_the_automaton_never_asks_the_reader(monkeypatch):
    template = ToneTemplate.parse("03 A/** A")
    for name in ("read", "jyutping", "tones"):
        monkeypatch.setattr(Reader, name, None)
    automaton = template.automaton()
    assert automaton.accepts("銀紙\n自己") is False and automaton.accepts("銀紙\n知子") is True


def test_building_takes_milliseconds():
    template = ToneTemplate.parse("/".join(["024332402"] * 8), rhyme="AABAAABA")
    template.automaton()

    def cost():
        start = time.process_time()
        template.automaton()
        return time.process_time() - start

    assert min(cost() for _ in range(20)) < 0.005


# Letters, sections, breaks

letters = st.sampled_from(["", " A", " A2", " B", " C1"])


@given(
    scheme.flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(
                st.tuples(
                    st.lists(slots(n).filter(lambda s: s not in "夜雨行"), min_size=1, max_size=6),
                    letters,
                    st.booleans(),
                ),
                min_size=1,
                max_size=5,
            ),
        )
    ),
    st.integers(0, 3),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_letters_breaks_and_sections_print_back(case, times, data):
    name, lines = case
    rows = []
    for line, letter, broken in lines:
        at = data.draw(st.integers(1, max(1, len(line) - 1)))
        rows.append(
            ("".join(line[:at]) + "," + "".join(line[at:]) if broken and len(line) > 1 else "".join(line))
            + letter.replace("A2", "A")
        )
    if times:
        rows = [f"({'/'.join(rows[:2])})x{times}", *rows[2:]]
    text = "/".join(rows)
    template = ToneTemplate.parse(text, name)
    assert str(template) == text and ToneTemplate.parse(str(template), name) == template
    flat = ToneTemplate(template.lines, name, template.rhymes, template.breaks)
    assert flat == template and ToneTemplate.parse(str(flat), name) == template
    assert template._repr_html_().count("<tr>") == len(template.lines)


@pytest.mark.parametrize(
    "text, place",
    [
        ("O243", "line 1, column 1 of the template: the letter 'O', which is not a slot"),  # not a zero
        ("02 A 4", "line 1, column 6"),
        ("02/43 AB", "line 2, column 5"),
        ("02/43 a", "line 2, column 4"),
        ("02 A9", "line 1, column 4"),
        ("A/02", "line 1, column 1"),
        ("02,/43", "line 1, column 3"),
        (",02", "line 1, column 1"),
        ("0,,2", "line 1, column 3"),
        ("(02/43)", "line 2, column 3"),
        ("(02/43", "line 1, column 1"),
        ("02)x2", "line 1, column 3"),
        ("(02/(43/2)x2", "line 2, column 1"),
        ("0(2)x2", "line 1, column 2"),
        ("(02)x2 4", "line 1, column 8"),
        ("(02)x0", "line 1, column 4"),
        ("(02)x999999999999", "line 1, column 4"),
        ("()x2", "line 1"),
        ("雨=", "line 1, column 1"),
        ("雨=9", "line 1, column 1"),
        ("雨=雨", "line 1, column 1"),
        ("02 A2/43 A1", "line 2, column 4"),
        ("0[2", "line 1, column 2"),
        ("0[2a]", "line 1, column 2"),
        ("02\n\n43", "line 2"),
        ("0" * 41, "line 1, column 41"),
    ],
)
def test_errors_name_the_place_and_what_may_stand_there(text, place):
    with pytest.raises(ParseError, match=re.escape(place)) as e:
        ToneTemplate.parse(text)
    line, *column = map(int, re.findall(r"\d+", place))
    assert e.value.line == line and column in ([], [e.value.column])
    assert "Allowed there" in str(e.value) or "put a slot at column" in str(e.value)


@pytest.mark.parametrize(
    "rhyme, message", [("AAB", "3 letters for 2 lines"), ("Aa", "position 2 is 'a'"), ("", "0 letters for 2 lines")]
)
def test_errors_of_letters(rhyme, message):
    with pytest.raises(ArgumentError, match=message) as e:
        ToneTemplate.parse("02/43", rhyme=rhyme)
    assert (e.value.name, e.value.value) == ("rhyme", rhyme)
    with pytest.raises(ArgumentError, match="line 1, column 4 .*rhyme letter A is already given") as e:
        ToneTemplate.parse("02 A/43 A", rhyme="AA")
    assert (e.value.name, e.value.value) == ("rhyme", "AA")
    with pytest.raises(ArgumentError) as e:
        ToneTemplate.parse("02/43", rhyme="AA", grade=4)
    assert (e.value.name, e.value.value) == ("grade", 4)


def test_a_section_rhymes_with_itself_and_x_with_nothing():
    template = ToneTemplate.parse("(**/* A)x2")
    assert [str(r or "") for r in template.rhymes] == ["", "A", "", "A"]
    assert template.matches("門前\n窗\n門前\n涼") and not template.matches("門前\n窗\n門前\n風")
    assert (
        ToneTemplate.parse("0/2/4/3", rhyme="XAXA")
        == ToneTemplate.parse("0/2 A/4 X/3 A")
        == ToneTemplate.parse("0/2/4/3", rhyme="-A.A")
    )
    graded = [ToneTemplate.parse("* A/* A", grade=g) for g in (3, 2, 1)]
    assert [[t.matches(x) for t in graded] for x in ("窗\n涼", "山\n耕", "山\n街", "山\n窗")] == [
        [True] * 3,
        [False, True, True],
        [False, False, True],
        [False] * 3,
    ]


def test_impossible_templates_are_refused_with_the_reason():
    for text, line, slot, reason in [
        ("02雨=0", 1, 3, "line 1, slot 3 .*雨=0, but 雨 is read jyu5 \\(4\\)"),
        ("種=4類", 1, 1, "slot 1 .*no word that fits"),
        ("*/雨=0", 2, 1, "line 2, slot 1"),
        ("雨 A/人 A", 1, None, "letter A cannot all rhyme .*line 1 can end in -yu; line 2 can end in -an"),
        ("0雨 A1/窗 A1", 1, None, "cannot all rhyme \\(grade 1\\)"),
    ]:
        with pytest.raises(UnsatisfiableError, match=reason) as e:
            ToneTemplate.parse(text)
        assert (e.value.line, e.value.slot) == (line, slot)
    assert ToneTemplate.parse("種=4花").matches("種花") and ToneTemplate.parse("雨 A/語 A").matches("雨\n語")
    assert ToneTemplate.parse("雨=2*", reader=Reader(extra={"雨": "jyu6"})).matches(
        "雨人", Reader(extra={"雨": "jyu6"})
    )
    with pytest.raises(UnsatisfiableError, match="no reading of"):
        ToneTemplate.parse("\U00030000").automaton()
    with pytest.raises(UnsatisfiableError, match="no character that the reader knows"):
        ToneTemplate.parse("2").automaton(Reader({"一": ("jat1",)}))


def test_second_reader():
    template = ToneTemplate.parse("24/33")
    report = template.check(
        "夜，雨\n打窗", second=lambda line: ["coeng4" if ch == "雨" else "daa1" if ch == "打" else None for ch in line]
    )
    assert [c.second for c in report] == [None, "coeng4", None, None] and report.ok  # daa1 and daa2 are both 3
    assert "雨 disputed: coeng4" in str(report) and "or coeng4?" in report._repr_html_()
    with pytest.raises(ArgumentError, match="1 readings for the 2 characters") as e:
        template.check("夜雨", second=lambda line: [None])
    assert e.value.name == "second"


# Exports, with the engines that read them


def changed(text, rng, pool):
    "A text with one mistake, or perhaps none: a character exchanged, left out, doubled or moved."
    at, ch = rng.randrange(len(text)), rng.choice(pool)
    return rng.choice(
        [
            text[:at] + ch + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + ch + text[at:],
            text[:at][::-1] + text[at:],
            text + "\n" + ch,
        ]
    )


def strings_for(template, finals, n):
    "Right texts, drawn at random, and the same with a mistake; breaks only where the template has them."
    rng, out, language = random.Random(1), [], character_language(template, finals)
    pool = "".join("".join(rng.choices(c, k=50)) for line in language for c in line if c) + "\n"
    while len(out) < n:
        text = "\n".join(
            "".join(rng.choice(c) if c else rng.choice(["", rng.choice(BREAKS)]) for c in line) for line in language
        )
        out += [text, changed(text, rng, pool)]
    return out


EXPORTS = [("0[34]2,3/雨3*0", None), ("243 A/*0 B/4,0 A", {"A": "oeng"}), ("24 A2/(33 A2/4)x2", {"A": "an"})]


def right_alone(template, finals, text):
    "What an exported language should hold: `matches`, with the given finals, and punctuation at breaks only."
    if not template.matches(text, "characters"):
        return False
    lines = text.split("\n")
    if len(lines) != len(template.lines):
        return False
    for n, line in enumerate(lines):
        sung = [k for k, ch in enumerate(line) if is_han(ch)]
        for k, ch in enumerate(line):
            before = sum(i < k for i in sung)
            if not is_han(ch) and (
                ch not in BREAKS
                or before not in (template.breaks[n] if template.breaks else ())
                or not is_han(line[k - 1])
            ):
                return False
        r = template.rhymes[n] if template.rhymes else None
        if r and r.letter in (finals or {}):
            final = default_reader().characters().read(line[sung[-1]])[0].final
            if rhyme_group(final, r.grade) != rhyme_group(finals[r.letter], r.grade):
                return False
    return True


def cases():
    for text, finals in EXPORTS:
        template = ToneTemplate.parse(text)
        strings = strings_for(template, finals, 1668)
        want = [right_alone(template, finals, s) for s in strings]
        assert 0.45 < sum(want) / len(want) < 0.8, text
        yield template, finals, strings, want


@pytest.mark.filterwarnings("ignore::cantolyric.errors.SimplifiedWarning")
def test_regex_agrees_on_five_thousand_strings():
    for template, finals, strings, want in cases():
        pattern = re.compile(template.to_regex(finals, verify=True))
        assert [bool(pattern.fullmatch(s)) for s in strings] == want


@pytest.mark.filterwarnings("ignore::cantolyric.errors.SimplifiedWarning")
def test_llguidance_agrees_on_five_thousand_strings():
    llguidance = pytest.importorskip("llguidance", reason="llguidance is not installed")
    from llguidance.gbnf_to_lark import any_to_lark

    class Bytes:  # a real tokenizing callback: one that returns nothing gives wrong masks
        tokens, eos_token_id, bos_token_id, special_token_ids = (
            [bytes([b]) for b in range(256)] + [b"<end>"],
            256,
            None,
            [256],
        )

        def __call__(self, text):
            return list(text if isinstance(text, bytes) else text.encode())

    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    make = llguidance.LLMatcher
    for template, finals, strings, want in cases():
        for grammar in (
            make.grammar_from_regex(template.to_regex(finals, verify=True)),
            make.grammar_from_lark(any_to_lark(template.to_gbnf(finals, verify=True))),
        ):
            assert not make.validate_grammar(grammar, tokenizer)
            whole = make(tokenizer, grammar)
            for s, ok in zip(strings, want):
                tokens = list(s.encode()) + [256]
                assert (whole.validate_tokens(tokens) == len(tokens)) == ok, s


@pytest.mark.filterwarnings("ignore::cantolyric.errors.SimplifiedWarning")
def test_xgrammar_agrees_on_five_thousand_strings():
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar is not installed")
    info = xgrammar.TokenizerInfo(
        [bytes([b]) for b in range(256)] + [b"<end>"], xgrammar.VocabType.RAW, stop_token_ids=[256]
    )
    compiler = xgrammar.GrammarCompiler(info)
    for template, finals, strings, want in cases():
        for grammar in (
            compiler.compile_regex(template.to_regex(finals, verify=True)),
            compiler.compile_grammar(template.to_gbnf(finals, verify=True)),
        ):
            matcher = xgrammar.GrammarMatcher(grammar)
            for s, ok in zip(strings, want):
                matcher.reset()
                assert (matcher.accept_string(s) and matcher.accept_token(256)) == ok, s


def test_exports_refuse_open_letters():
    template = ToneTemplate.parse("24 A/33 A/0 B")
    for export in (template.to_regex, template.to_gbnf):
        with pytest.raises(ArgumentError, match="letter A is open"):
            export()
        with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("final", "xx")):
            export({"A": "xx"})
        with pytest.raises(ArgumentError, match="letter C"):
            export({"A": "an", "C": "an"})
        with pytest.raises(UnsatisfiableError, match="rhymes with -et"):
            export({"A": "et"})
        assert export({"A": "an"}) != export({"A": "an", "B": "an"})


def test_an_export_warns_or_brings_its_check_along():
    from cantolyric.template.patterns import CharacterReadingWarning, CheckedPattern

    template = ToneTemplate.parse("00/0")
    for export in (template.to_regex, template.to_gbnf):
        with pytest.warns(CharacterReadingWarning, match="verify=True") as caught:
            plain = export()
        assert caught[0].filename == __file__
        checked = export(verify=True)
        assert checked == plain and isinstance(checked, CheckedPattern)


def test_a_checked_pattern_writes_again_until_the_text_is_right_in_context():
    "調 alone has the digit 2, and in 調查 the digit 0: the pattern takes 調查 for 20, and only the check does not."
    reader, template = Reader(), ToneTemplate.parse("20")
    assert reader.tones("調") + reader.tones("查") == "20" and reader.tones("調查") == "00"
    pattern = template.to_regex(verify=True)
    assert re.fullmatch(pattern, "調查") and not template.matches("調查") and template.matches("大河")
    texts = ["調查", "調查", "大河"]
    assert pattern.sample(texts.__getitem__) == "大河"
    with pytest.raises(CantolyricError, match="none of 2 texts"):
        pattern.sample(texts.__getitem__, attempts=2)
    with pytest.raises(ArgumentError) as e:
        pattern.sample(texts.__getitem__, attempts=0)
    assert e.value.name == "attempts"


WORDS = ["{A}", "{a}", "{AA}", "{AAA=2}"]
with_words = st.lists(st.sampled_from([*WORDS, *"66*七", "[123]"]), min_size=1, max_size=4).map("".join)
mixed_texts = st.text("一丁七AAa 1'\n，", max_size=9)


@settings(max_examples=400, deadline=None)
@given(lexicons, st.lists(with_words, min_size=1, max_size=2), mixed_texts)
def test_english_words_in_templates_and_texts(lexicon, lines, text):
    "Automaton, oracle and report agree on English words, digits and spaces."
    reader, template = reader_of(lexicon), untried("/".join(lines), 3)
    assert str(untried(str(template), 3)) == str(template)
    right = reads_right(template, text, reader)
    assert right == template.check(text, reader).ok == template.matches(text, reader)
    try:
        automaton = template.automaton(reader)
    except CantolyricError:
        return
    assert automaton.accepts(text) == right


@settings(max_examples=150, deadline=None)
@given(lexicons, st.lists(with_words, min_size=1, max_size=2))
def test_what_is_written_between_english_words_is_right(lexicon, lines):
    "Texts of the Chinese parts, with the words inserted, are exactly the texts that match."
    reader, template = reader_of(lexicon), untried("/".join(lines), 3)
    try:
        parts = chinese_parts(template)
    except UnsatisfiableError:
        assert all(slot.is_word for line in template.lines for slot in line)
        return
    written = list(itertools.islice(all_texts(parts, reader), 400))
    whole = ["\n".join(insert_words(template, text.split("\n"))) for text in written]
    right = [reads_right(template, text, reader) for text in whole]
    assert [reads_right(parts, text, reader) for text in written] == right
    if any(right):
        assert list(map(template.automaton(reader).accepts, whole)) == right


@pytest.mark.parametrize(
    "typed, printed, slots",
    [
        ("0243{baby}33", "0243{baby}33", 8),
        ("0243 {baby} 33 A/33 A", "0243{baby}33 A/33 A", 10),
        ("{ love you }3", "{love you}3", 3),
        ("３｛ｂａｂｙ｝", "3{ｂａｂｙ}", 3),
        ("{fire=2}3", "{fire=2}3", 3),
        ("{don't = 2}3", "{don't=2}3", 3),
        ("(3{oh})x2/3", "(3{oh})x2/3", 5),
        ("3{baby},4", "3{baby},4", 4),
    ],
)
def test_english_words_are_parsed_and_printed(typed, printed, slots):
    template = ToneTemplate.parse(typed)
    assert str(template) == printed and sum(map(len, template.lines)) == slots
    assert ToneTemplate.parse(printed) == template and template._repr_html_()


@pytest.mark.parametrize(
    "typed, problem",
    [
        ("02{baby", "column 3.*'{' without its '}'"),
        ("02}", "column 3.*'}'"),
        ("02{}", "no word"),
        ("02{夜}", "'夜', which is not an English word"),
        ("02{3}", "'3', which is not an English word"),
        ("02{fire=0}", "1 to 20 syllables for 'fire'"),
        ("02{fire=99}", "1 to 20 syllables for 'fire'"),
        ("{" + "la " * 41 + "}", "at most 40"),
        ("02{baby} A/33 A", "rhyme but ends in English"),
        ("02{fire}/3{Fire=2}", "line 2 of the template: fire has 2 syllables here, but 1 before"),
    ],
)
def test_errors_of_english_words(typed, problem):
    with pytest.raises(CantolyricError, match=problem) as e:
        ToneTemplate.parse(typed)
    assert len(str(e.value)) < 500


def test_english_words_are_checked():
    template = ToneTemplate.parse("43{baby}33{fire=2}")
    text = "我多 Baby，今心 fire"
    assert template.matches(text) and template.check(text).ok and template.automaton().accepts(text)
    for wrong in (
        "我多 lady 今心 fire",
        "我多八被今心 fire",
        "我多 baby 今心",
        "我多 baby 今心 fire 呀",
        "我多今心 baby fire",
    ):
        report = template.check(wrong)
        assert not template.matches(wrong) and not template.automaton().accepts(wrong) and not report.ok and str(report)
    assert template.check("我多 lady 今心 fire").lines[0][2].wanted == "ba"
    assert ToneTemplate.parse("333").matches("fire 心", syllables={"fire": 2})
    assert not ToneTemplate.parse("333").matches("fire 心")
    assert str(ToneTemplate.of("baby 你", grade=3)) == "**4"


def test_english_rhymes_with_nothing():
    template = ToneTemplate.parse("3 A/3 A")
    report = template.check("心\nlove")
    assert not report.ok and not template.matches("心\nlove") and not template.automaton().accepts("心\nlove")
    assert "nothing that could rhyme" in str(report)
    assert str(ToneTemplate.of("心\nlove\n深", grade=3)) == "3 A/*/3 A"


def test_what_cannot_be_done_with_english_words():
    template = ToneTemplate.parse("02{baby}33")
    for export in (template.to_regex, template.to_gbnf):
        with pytest.raises(UnsatisfiableError, match="no pattern inserts"):
            export()
