"""A melody as a constraint: brute force on small lexicons, random decodings on real ones, and writing with it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric.base import load_base
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.decoding import decode_ids, random_ids
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.pairs import lyric_pairs
from cantolyric.errors import CantolyricError, UnsatisfiableError
from cantolyric.melody import Melody
from cantolyric.reading import Reader, default_reader
from cantolyric.template.report import reads_right
from cantolyric.template.template import ToneTemplate

CLASS = dict(zip("123456", "334042"))  # Jyutping tone -> 0243, written out here so that nothing is shared

# Small lexicons, exhaustively

ABC = "一丁七丂丄"  # share their first two bytes: pieces of characters matter
BYTES = [bytes([b]) for b in range(256)]
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


def table_of(extra):
    tokens = dict(enumerate(dict.fromkeys([*BYTES, *filter(None, extra)])))
    return TokenTable(tokens, len(tokens) + 1, (len(tokens),))


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


@pytest.fixture(scope="module")
def tiny_table():
    return TokenTable.from_tokenizer(load_base()[1])


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


def accepts(constraint, state, token_id):
    try:
        constraint.advance(state, token_id)
    except CantolyricError:
        return False
    return True


def test_every_token_on_the_real_lexicon(tiny_table):
    "The mask of a state has exactly the tokens that a search character by character finds."
    rng = np.random.default_rng(1)
    template = Melody.parse("60 62 62 59 64 | 67 65 60").constraint(exceptions=["40", (2, 3)])
    fast, slow = ToneConstraint(template, tiny_table), ToneConstraint(template, tiny_table)
    slow.needs_search = [True, True]
    for _ in range(2):
        s = fast.start()
        while not s.ended:
            allowed = fast.allowed_ids(s)
            if rng.random() < 0.15:
                found = [i for i in tiny_table.tokens if accepts(slow, s, i)]
                assert sorted(set(allowed) - set(tiny_table.end)) == sorted(found), s
            s = fast.advance(s, rng.choice(allowed))
