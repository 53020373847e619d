"""A melody as a constraint: brute force on small lexicons, random decodings on real ones, and writing with it."""

import inspect
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_constraint import ABC, table_of

from cantolyric.base import load_base
from cantolyric.cli.main import main
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import bits_without_cache, decode_ids, random_ids
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.pairs import lyric_pairs
from cantolyric.errors import ArgumentError, CantolyricError, UnsatisfiableError
from cantolyric.generation import Sampling
from cantolyric.melody import Melody
from cantolyric.melody.tones import MelodyRule, table_distance
from cantolyric.reading import Reader, default_reader
from cantolyric.template.report import reads_right
from cantolyric.template.slots import Slot
from cantolyric.template.song import with_kept, with_rhyme
from cantolyric.template.template import ToneTemplate
from cantolyric.template.words import chinese_parts
from cantolyric.writing.infill import first_lines, infill_template
from cantolyric.writing.lyricist import Lyricist
from cantolyric.writing.preference import PreferringConstraint
from cantolyric.writing.prompts import prompt_tones
from cantolyric.writing.request import check_request
from cantolyric.writing.sampler import rows_for, write_rows
from cantolyric.writing.session import Session

CLASS = dict(zip("123456", "334042"))  # Jyutping tone -> 0243, written out here so that nothing is shared

# Small lexicons, exhaustively

PAIRS = [a + b for a in "0243" for b in "0243"]


def readings(finals, size):
    return st.lists(st.builds("b{}{}".format, st.sampled_from(finals), st.integers(1, 6)), min_size=size, max_size=size)


def lexicons(characters, finals):
    "Readers in which every character has a reading of its own, and some words other ones."
    word = st.text(characters, min_size=2, max_size=4)
    return st.tuples(readings(finals, len(characters)), st.dictionaries(word, readings(finals, 4), max_size=10)).map(
        lambda x: Reader(dict(zip(characters, zip(x[0]))) | {w: tuple(js[: len(w)]) for w, js in x[1].items()})
    )


tokens = st.lists(
    st.tuples(st.text(ABC + "\n", min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 2)), max_size=12
)
tables = tokens.map(lambda x: table_of([t.encode()[a : len(t.encode()) - b] for t, a, b in x]))
slots = st.lists(st.sampled_from("* * * * * [0243] [24] 七".split()), min_size=1, max_size=3)
moves = st.lists(st.integers(0, 2**16 - 1), min_size=4, max_size=4).map(
    lambda n: [frozenset(p for k, p in enumerate(PAIRS) if (a | b) >> k & 1) for a, b in (n[:2], n[2:])]
)
line = st.tuples(slots, moves)
lines = st.one_of(st.tuples(line), st.tuples(line, line))


def moves_right(template, text, reader):
    "The definition: read whole lines, and look at each pair of neighbours."
    for row, allowed in zip(text.split("\n"), template.moves, strict=True):
        digits = [CLASS[j[-1]] for j in reader.jyutping(row)]
        if any(a + b not in those for a, b, those in zip(digits, digits[1:], allowed)):
            return False
    return True


def right_texts(template, reader):
    "All texts of the reader's characters that are right: tones and rhymes, and then the moves."
    plain = replace(template, moves=())
    characters = sorted({c for w in reader.words for c in w})
    each = [
        [
            text
            for t in itertools.product(characters, repeat=len(row))
            if reads_right(ToneTemplate((row,)), text := "".join(t), reader)
            and moves_right(replace(template, moves=(allowed,)), text, reader)
        ]
        for row, allowed in zip(template.lines, template.moves, strict=True)
    ]
    return {t for t in map("\n".join, itertools.product(*each)) if reads_right(plain, t, reader)}


def template_with_moves(lines, rhyme=None, grade=3):
    template = ToneTemplate.parse("/".join("".join(slots) for slots, _ in lines), rhyme=rhyme, grade=grade)
    return replace(template, moves=tuple(tuple(allowed[: len(slots) - 1]) for slots, allowed in lines))


def check_every_mask(template, table, reader, rng):
    "Every mask on the way of a text allows exactly the tokens with which some right text goes on."
    right = right_texts(template, reader)
    if not right:
        with pytest.raises(UnsatisfiableError, match=r"line \d+"):
            ToneConstraint(template, table, reader)
        return False
    for text in right:
        assert template.matches(text, reader) and template.check(text, reader).ok
    sample = {"".join(rng.sample(text, len(text))) for text in itertools.islice(right, 20)}
    for text in sample:
        assert template.matches(text, reader) == template.automaton(reader).accepts(text) == (text in right), text
    texts, c = [t.encode() for t in right], ToneConstraint(template, table, reader)
    for _ in range(2):
        s, done = c.start(), b""
        while not s.ended:
            want = {i for i, b in table.tokens.items() if any(t.startswith(done + b) for t in texts)}
            want |= {table.end[0]} if done in texts else set()
            assert set(c.allowed_ids(s).tolist()) == want, (template, done)
            assert c.is_final(s) == (done in texts)
            i = rng.choice(sorted(want))
            s, done = c.advance(s, i), done + table.tokens.get(i, b"")
        assert done in texts
    return True


@settings(max_examples=80, deadline=None)
@given(lexicons(ABC, ["aa"]), tables, lines, st.randoms(use_true_random=False))
def test_small_lexicons_exhaustively(reader, table, lines, rng):
    check_every_mask(template_with_moves(lines), table, reader, rng)


@settings(max_examples=40, deadline=None)
@given(lexicons(ABC[:4], ["aa", "aan", "i"]), tables, st.tuples(line, line), st.randoms(use_true_random=False))
def test_small_lexicons_with_rhymes_exhaustively(reader, table, lines, rng):
    check_every_mask(template_with_moves(lines, "AA", 1), table, reader, rng)


# The real lexicon


def random_melody(rng, phrases=3, notes=9):
    "Steps as in songs: mostly small, some repeated notes, some leaps."
    sizes = rng.integers(1, notes + 1, rng.integers(1, phrases + 1))
    steps = rng.choice([0, 0, 1, 2, 2, 3, 4, 5, 7, 12], sum(sizes)) * rng.choice([-1, 1], sum(sizes))
    pitches = 60 + np.clip(np.cumsum(steps), -20, 20)
    return Melody.parse(" ".join(map(str, pitches)), phrases=sizes.tolist())


def opposed(melody, text, reader):
    "The places where a text opposes a melody, by definition: whole lines are read, then neighbours compared."
    out = []
    for n, (phrase, row) in enumerate(zip(melody.phrases, text.split("\n"), strict=True), 1):
        levels = ["0243".index(CLASS[j[-1]]) for j in reader.jyutping(row)]
        assert len(levels) == len(phrase)
        for k in range(1, len(levels)):
            step, rise = levels[k] - levels[k - 1], phrase.pitches[k] - phrase.pitches[k - 1]
            if step and (step > 0) != (rise > 0) or step and not rise:
                out.append((n, k + 1))
    return out


def check_random(table, n, seed, phrases=3, notes=9):
    rng, reader = np.random.default_rng(seed), default_reader()
    for _ in range(n):
        melody = random_melody(rng, phrases, notes)
        c = ToneConstraint(melody.constraint(), table)
        assert not any(c.needs_search)  # the fast path is tested
        text = decode_ids(table, random_ids(c, rng))
        assert opposed(melody, text, reader) == [], (melody, text)


def test_random_decoding_tiny_vocabulary(tiny_table):
    check_random(tiny_table, 300, seed=2)


@pytest.mark.slow
def test_many_random_decodings_tiny_vocabulary(tiny_table):
    check_random(tiny_table, 2000, seed=4)


def qwen_table():
    from cantolyric._published import FILES, TOKENIZERS, published

    if not (TOKENIZERS / FILES["Qwen2"]).exists():
        pytest.skip("CANTOLYRIC_DATA names no folder with Qwen2's vocabulary")
    bpe = published("Qwen2")
    end = max([*bpe.vocab.values(), *bpe.added.values()]) + 1  # one behind all others
    return TokenTable.from_tokenizer(bpe, end + 1, end=end)


def test_random_decoding_published_vocabulary():
    check_random(qwen_table(), 100, seed=3, notes=6, phrases=2)


@pytest.mark.slow
def test_many_random_decodings_published_vocabulary():
    check_random(qwen_table(), 2000, seed=5)


def test_held_out_lyrics_are_allowed(tiny_table):
    "Whatever fits a melody can be written: tunes that move with real lyrics, and repeat or turn where a class stays."
    rng, tokenizer = np.random.default_rng(7), load_base()[1]
    for pair in lyric_pairs("test").select(range(100)):
        rows = pair["tones"].split("/")
        heights = [[6 * "0243".index(d) + rng.integers(-2, 3) for d in row] for row in rows]
        melody = Melody.parse(" | ".join(" ".join(str(60 + h) for h in row) for row in heights))
        ids = tokenizer(pair["lyrics"], add_special_tokens=False)["input_ids"] + [tiny_table.end[0]]
        ToneConstraint(melody.constraint(), tiny_table).masks_along(ids)  # raises if a token is forbidden


# The rule


def test_the_rule_by_definition():
    order = {d: k for k, d in enumerate("0243")}
    for pair in PAIRS:
        for interval in range(-14, 15):
            step = order[pair[1]] - order[pair[0]]
            right = step == 0 or (interval > 0 if step > 0 else interval < 0)
            assert MelodyRule().allows(*pair, interval) == right
            near = table_distance(*pair, interval) <= 1
            assert MelodyRule("table", tolerance=1).allows(*pair, interval) == (right and near)
            assert MelodyRule("table", frozenset({pair})).allows(*pair, interval)


def test_exceptions_and_strictness():
    tune = Melody.parse("60 62 | 60 60 59")
    assert [len(row) for row in tune.constraint().moves] == [1, 2]
    assert tune.constraint().moves[1][0] == {"00", "22", "44", "33"}  # a repeated note
    assert tune.constraint(exceptions=["40"]).moves[0][0] == tune.constraint().moves[0][0] | {"40"}
    freed = tune.constraint(exceptions=[(2, 3)]).moves
    assert freed[1][1] == set(PAIRS) and freed[0] == tune.constraint().moves[0]
    assert tune.constraint("digits") == tune.template()
    assert tune.constraint("table").moves[0][0] == {"00", "22", "44", "33", "02", "24", "43"}


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (dict(strictness="strict"), "strictness='strict': expected one of: direction, table, digits"),
        (dict(strictness="table"), r"phrase 1, note 3: no tone class fits .* exceptions=\[\(1, 3\)\]"),
        (dict(exceptions=["45"]), "two of the digits 0, 2, 4 and 3"),
        (dict(exceptions=[(1, 1)]), "has notes 1 to 3, and the first one is never restricted"),
        (dict(exceptions=[(2, 2)]), "expected a phrase from 1 to 1"),
        (dict(exceptions=[7]), "expected two classes such as '40'"),
        (dict(strictness="digits", exceptions=["40"]), "fixed digits allow no exceptions"),
        (dict(strictness="table", tolerance=-1), "tolerance=-1"),
    ],
)
def test_wrong_rules_are_refused(arguments, problem):
    with pytest.raises(ArgumentError, match=problem):
        Melody.parse("48 60 72").constraint(**arguments)


def test_a_freed_note_solves_the_table():
    assert Melody.parse("48 60 72").constraint("table", [(1, 3)]).matches("人花花")
    assert Melody.parse("48 60 72").constraint("table", tolerance=12).matches("人花花")


def test_long_phrases_are_refused():
    with pytest.raises(ArgumentError, match="phrase 1 has 41 notes"):
        Melody.parse("60 " * 41, phrases=[41]).constraint()


def test_a_move_without_a_way_is_named():
    template = Melody.parse("60 62 64").constraint()
    template = replace(template, moves=((frozenset({"00"}), frozenset({"20"})),))
    with pytest.raises(UnsatisfiableError, match="line 1, slot 3 of the template cannot be filled: no tone may follow"):
        template.automaton()


# Reports and other templates made from one with moves


def test_report():
    template = Melody.parse("60 62 60").constraint()
    report = template.check("花雨水")  # 3 4 3: lower on a rising note, higher on a falling one
    assert [c.wanted for c in report] == ["*", "3", "[024]"] and [c.right for c in report] == [True, False, False]
    assert "雨 jyu5 is 4, wanted 3 after 3" in str(report) and report.summary == "1 of 3 slots right"
    assert template.check("雨花雨").ok and not template.check("雨花").ok
    assert template.matches("雨 baby") is template.automaton().accepts("雨 baby") is True  # English has no tone


def test_what_is_derived_keeps_the_moves():
    template = Melody.parse("60 62 64 | 67 65 60 | 60 60").constraint()
    assert with_rhyme(template, "AAA").moves == with_kept(template, {1: "人**"}).moves == template.moves
    assert first_lines(template, 2).moves == template.moves[:2]
    assert infill_template(template, ["x", None, "x"], [1], default_reader()).moves == template.moves[1:2]
    words = replace(template, lines=((template.lines[0][0], *Slot.words("love"), template.lines[0][2]),))
    assert chinese_parts(replace(words, moves=template.moves[:1])).moves == ((), ())
    with pytest.raises(UnsatisfiableError, match=r"no pattern can be exported.*Melody.template\(\)"):
        template.to_regex()


def test_mask_keys_know_moves(tiny_table):
    "Masks that differ have different keys, and equal places of different melodies share one."
    rng, masks = np.random.default_rng(8), {}
    for _ in range(30):
        c = ToneConstraint(random_melody(rng, 2, 5).constraint(), tiny_table)
        s = c.start()
        while not s.ended:
            mask = c.mask(s).tobytes()
            assert masks.setdefault(c.mask_key(s), mask) == mask
            s = c.advance(s, rng.choice(c.allowed_ids(s)))
    assert len(masks) < 30 * 10


# Writing


@pytest.fixture(scope="module")
def lyricist():
    return Lyricist.from_pretrained(adapter="none")


@pytest.fixture
def tune(tmp_path):
    path = tmp_path / "曲.abc"
    path.write_text("X:1\nT:t\nM:4/4\nL:1/4\nK:C\nC D E C|z4|G F E D|\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("more", [{}, dict(rhyme="AA"), dict(words="天光"), dict(method="beam"), dict(method="search")])
def test_write_to_a_melody(lyricist, tune, more):
    lyrics = lyricist.write("夜雨", melody=tune, n=2, seed=1, **more)
    melody = Melody.from_file(tune)
    for candidate in lyrics:
        assert opposed(melody, candidate.text, lyricist.reader) == [] and candidate.report.ok
    again = lyricist.rewrite(lyrics.best, 2, topic="夜雨", n=1, seed=3)
    assert opposed(melody, again.best.text, lyricist.reader) == [] and again.template.moves == lyrics.template.moves


def test_stream_and_single_lines(lyricist, tune):
    melody = Melody.from_file(tune)
    written = lyricist.write("夜雨", melody=melody, n=1, seed=5).best
    assert [line.text for line in lyricist.stream("夜雨", melody=str(tune), seed=5)] == written.lines
    song = Session(lyricist, "夜雨", melody.constraint(), n=2)
    song.ask()
    song.keep().ask()
    assert song.keep().done and opposed(melody, song.text, lyricist.reader) == []


def share_in_table(melody, lyrics):
    "The share of the moves between neighbouring syllables that `melody.preference()` allows."
    allowed = [pairs for line in melody.preference().moves for pairs in line]
    digits = [[[CLASS[c.jyutping[-1]] for c in line] for line in candidate.report.lines] for candidate in lyrics]
    moves = [[a + b for line in lines for a, b in zip(line, line[1:])] for lines in digits]
    return np.mean([move in pairs for text in moves for move, pairs in zip(text, allowed, strict=True)])


def test_interval_sizes_are_preferred(lyricist):
    melody = Melody.parse("60 67 60 65 60 67 | 67 60 66 60 67 60")
    write = lambda **more: lyricist.write("夜雨", melody=melody, n=12, seed=2, **more)
    plain, same = write(), write(prefer=melody.preference(), prefer_weight=0)
    assert [c.text for c in plain] == [c.text for c in same] and [c.bits for c in plain] == [c.bits for c in same]
    weighted = write(prefer=melody.preference(), prefer_weight=4.0)
    assert all(opposed(melody, c.text, lyricist.reader) == [] for c in weighted)
    assert share_in_table(melody, plain) < share_in_table(melody, weighted) > 0.95


def test_bits_do_not_depend_on_the_preference(lyricist):
    "They are those under the enforced constraint alone."
    melody = Melody.parse("60 67 60 65 60 67")
    inner, preferred = (ToneConstraint(t, lyricist.table) for t in (melody.constraint(), melody.preference()))
    prompt, _ = lyricist._prompts(dict(topic="夜雨", tones=prompt_tones(inner.template)))
    rows = rows_for([PreferringConstraint(inner, preferred, 3.0)], 0, range(4))
    for _ in write_rows(lyricist.model, prompt, rows, Sampling(do_sample=True)):
        pass
    for row in rows:
        assert abs(bits_without_cache(lyricist.model, torch.tensor(prompt), row.ids, inner) - row.bits) < 1e-3


def test_digits_are_preferred_around_words_and_rhymes(lyricist):
    melody = Melody.parse("60 62 64 60 | 64 62 60 64")
    likely = melody.template()
    written = lyricist.write(
        "夜雨", melody=melody, n=4, seed=1, prefer=likely, prefer_weight=30, rhyme="AA", words="天光"
    )
    assert all(opposed(melody, c.text, lyricist.reader) == [] and "天光" in c.text for c in written)
    free = lyricist.write("夜雨", melody=melody, n=4, seed=1, prefer=likely, prefer_weight=30)
    assert all(likely.matches(c.text, lyricist.reader) for c in free)
    english = "*{baby}*/" + "*" * 4
    written = lyricist.write("夜雨", english, n=2, seed=1, prefer="3004/" + str(likely).split("/")[1], prefer_weight=30)
    assert all(c.report.ok and "baby" in c.text and c.report.lines[0][-1].got == "4" for c in written)
    streamed = [x.text for x in lyricist.stream("夜雨", melody=melody, seed=1, prefer=likely, prefer_weight=30)]
    assert streamed in [c.lines for c in free]


def test_the_tolerance_of_a_preference_grows_until_a_phrase_can_be_sung():
    melody = Melody.parse("48 60 72")
    with pytest.raises(ArgumentError, match="no tone class fits"):
        melody.constraint("table")
    assert melody.preference().moves == melody.constraint("table", tolerance=8).moves
    assert melody.preference("digits") == melody.template()
    with pytest.raises(ArgumentError, match="strictness='direction': expected one of: table, digits"):
        melody.preference("direction")


def test_a_preference_is_in_the_scheme_of_the_template():
    request = check_request("夜雨", "**", scheme="394052", prefer="39")
    assert [slot.tones for slot in request.prefer.lines[0]] == [{1}, {2}]


def test_the_help_names_the_default_weight(capsys):
    assert main(["write", "--help"]) == 0
    weight = inspect.signature(Lyricist.write).parameters["prefer_weight"].default
    described = " ".join(capsys.readouterr().out.split("--prefer-weight WEIGHT")[-1].split())
    assert f"(default: {weight:g})" in described.split("--")[0]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (dict(prefer="033"), r"prefer='033': its lines have \[3\] slots, but the template's lines have \[2\]"),
        (dict(prefer=3), "prefer=3: expected a ToneTemplate"),
        (dict(prefer="03", prefer_weight=-1), "prefer_weight=-1: expected a number from 0 to 100"),
        (dict(prefer="03", method="search"), "method='search': is not compatible with prefer"),
    ],
)
def test_wrong_preferences(arguments, problem):
    with pytest.raises(ArgumentError, match=problem):
        check_request("夜雨", "33", **arguments)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({}, "tones=None: expected a template such as '0243324/3324043', or melody"),
        (dict(tones="03", melody="t.mid"), "tones='03': contradicts melody"),
        (dict(melody=3), "melody=3: expected a Melody, or the path of"),
        (dict(melody="no-such.mid"), "'no-such.mid': cannot read it"),
    ],
)
def test_wrong_requests(arguments, problem):
    with pytest.raises(CantolyricError, match=problem):
        check_request("夜雨", **dict(tones=None) | arguments)


def test_command(tune, tmp_path, capsys):
    out, midi = tmp_path / "out.musicxml", tmp_path / "out.mid"
    pytest.importorskip("mido")
    command = ["write", "--topic", "夜雨", "--melody", str(tune), "-n", "1", "--seed", "0", "--adapter", "none"]
    assert (
        main([*command, "--json", "--musicxml", str(out), "--midi", str(midi), "--allow", "40", "--prefer", "table"])
        == 0
    )
    candidate = json.loads(capsys.readouterr().out)["candidates"][0]
    assert candidate["ok"] and [len(g) for g in candidate["got"]] == [4, 4]
    sung = [n.lyric for n in Melody.from_file(midi).notes]
    assert sung == [c for c in candidate["text"] if c != "\n"]
    assert candidate["jyutping"][0].split()[0] in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options, problem",
    [
        ([], "--tones or --melody is required"),
        (["--tones", "03", "--melody", "{}"], "use only one"),
        (["--tones", "03", "--midi", "out.mid"], "--midi needs a melody"),
        (["--melody", "{}", "--endpoint"], "--melody is for a model on this machine"),
        (["--melody", "{}", "--phrases", "3,3"], "--phrases: they add up to 6, but the melody has 8 notes"),
        (["--melody", "{}", "--phrases", "3;3"], "--phrases '3;3': expected the number of notes"),
        (["--melody", "{}", "--allow", "1:x"], "--allow '1:x': expected PHRASE:NOTE"),
        (["--melody", "{}", "--allow", "1:9"], "--allow (1, 9): phrase 1 has notes 1 to 4"),
        (["--melody", "{}", "--strictness", "digits", "--allow", "40"], "fixed digits allow no exceptions"),
        (["--tones", "03", "--prefer", "table"], "--prefer needs a melody"),
        (["--melody", "{}", "--prefer-weight", "3"], "--prefer-weight says how much --prefer counts; add --prefer"),
        (["--melody", "{}", "--prefer", "table", "--method", "beam"], "--method 'beam': is not compatible with prefer"),
    ],
)
def test_wrong_commands(tune, options, problem, capsys):
    options = [option.replace("{}", str(tune)) for option in options]
    assert main(["write", "--topic", "夜雨", *options]) == 2
    assert problem in capsys.readouterr().err
