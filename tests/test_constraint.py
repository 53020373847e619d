"""The constraint against brute force: small lexicons exhaustively, the real lexicon token by token."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.bits import unpack_mask
from cantolyric.constraint.compiled import split_bytes
from cantolyric.constraint.decoding import decode_ids, random_ids
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.errors import ArgumentError, CantolyricError, UnsatisfiableError
from cantolyric.melody import Melody
from cantolyric.reading import Reader, default_reader
from cantolyric.template.report import reads_right
from cantolyric.template.template import ToneTemplate

ABC = "一丁七丂丄"  # share their first two bytes: pieces of characters matter
BYTES = [bytes([b]) for b in range(256)]


def table_of(extra):
    tokens = dict(enumerate(dict.fromkeys([*BYTES, *filter(None, extra)])))
    return TokenTable(tokens, len(tokens) + 1, (len(tokens),))


syllables = st.builds(lambda t: f"a{t}", st.integers(1, 6))
words = st.dictionaries(
    st.text(ABC, min_size=1, max_size=4), st.lists(syllables, min_size=4, max_size=4), min_size=3, max_size=14
)
pieces = st.lists(
    st.tuples(st.text(ABC + "\n", min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 2)), max_size=12
)
lines = st.lists(
    st.lists(st.sampled_from("1 2 3 4 5 6 [12] [345] * 七".split()), min_size=1, max_size=3), min_size=1, max_size=2
)


def right_texts(template, reader):
    "All texts over ABC that the template accepts, by re-reading each whole."
    each = [
        [
            "".join(t)
            for t in itertools.product(ABC, repeat=len(line))
            if ToneTemplate((line,), "jyutping").matches("".join(t), reader)
        ]
        for line in template.lines
    ]
    return ["\n".join(t) for t in itertools.product(*each)]


@settings(max_examples=150, deadline=None)
@given(words, pieces, lines, st.randoms(use_true_random=False))
def test_small_lexicons_exhaustively(words, pieces, lines, rng):
    reader = Reader({w: tuple(js[: len(w)]) for w, js in words.items()})
    template = ToneTemplate.parse("/".join("".join(line) for line in lines), scheme="jyutping")
    table = table_of([t.encode()[a : len(t.encode()) - b] for t, a, b in pieces if len(t.encode()) > a + b])
    right = [t.encode() for t in right_texts(template, reader)]
    if not right:
        with pytest.raises(UnsatisfiableError, match=r"line \d+, slot \d+"):
            ToneConstraint(template, table, reader)
        return
    c = ToneConstraint(template, table, reader)
    s, done = c.start(), b""
    while not s.ended:
        want = {i for i, b in table.tokens.items() if any(t.startswith(done + b) for t in right)} | (
            {table.end[0]} if done in right else set()
        )
        assert set(c.allowed_ids(s).tolist()) == want, (template, done)
        assert c.is_final(s) == (done in right)
        i = rng.choice(sorted(want))
        s = c.advance(s, i)
        done += table.tokens.get(i, b"")
    assert done in right


def accepts(constraint, state, token_id):
    try:
        constraint.advance(state, token_id)
    except CantolyricError:
        return False
    return True


TUNE = Melody.parse("60 62 62 59 64 | 67 65 60").constraint(exceptions=["40", (2, 3)])


@pytest.mark.parametrize("template", ["0243[34]4*/3324", TUNE], ids=["digits", "melody"])
def test_every_token_on_the_real_lexicon(tiny_table, template):
    "The mask of a state has exactly the tokens that a search character by character finds."
    rng = np.random.default_rng(1)
    fast, slow = ToneConstraint(template, tiny_table), ToneConstraint(template, tiny_table)
    assert not any(fast.needs_search)
    slow.needs_search = [True, True]
    for _ in range(2):
        s = fast.start()
        while not s.ended:
            allowed = fast.allowed_ids(s)
            if rng.random() < 0.3:
                found = [i for i in tiny_table.tokens if accepts(slow, s, i)]
                assert sorted(set(allowed) - set(tiny_table.end)) == sorted(found), s
            s = fast.advance(s, rng.choice(allowed))


def check_random(table, n, seed, slots=9, lines=3):
    rng, reader = np.random.default_rng(seed), default_reader()
    for _ in range(n):
        template = "/".join(
            "".join(rng.choice(list("0243"), rng.integers(1, slots + 1))) for _ in range(rng.integers(1, lines + 1))
        )
        c = ToneConstraint(template, table)
        text = decode_ids(table, random_ids(c, rng))
        wanted = template.split("/")
        assert [reader.tones(line) for line in text.split("\n")] == wanted, (template, text)
        assert [len(line) for line in text.split("\n")] == [len(w) for w in wanted]


def test_random_decoding_tiny_vocabulary(tiny_table):
    check_random(tiny_table, 2000, seed=2)


@pytest.mark.parametrize("name", ["Qwen2", "DeepSeek-LLM", "GPT-2"])
def test_random_decoding_published_vocabularies(name):
    from cantolyric._published import FILES, TOKENIZERS, published

    if not (TOKENIZERS / FILES[name]).exists():
        pytest.skip(f"CANTOLYRIC_DATA names no folder with {name}'s vocabulary")
    bpe = published(name)
    end = max([*bpe.vocab.values(), *bpe.added.values()]) + 1  # one behind all others
    check_random(TokenTable.from_tokenizer(bpe, end + 1, end=end), 2000, seed=3, slots=6, lines=2)


def test_held_out_lyrics_are_allowed(tiny_table):
    from cantolyric.base import load_base
    from cantolyric.data.pairs import lyric_pairs

    tok = load_base()[1]
    for p in lyric_pairs("test").select(range(200)):
        ids = tok(p["lyrics"], add_special_tokens=False)["input_ids"] + [tiny_table.end[0]]
        masks = unpack_mask(ToneConstraint(p["tones"], tiny_table).masks_along(ids), tiny_table.vocab_size)
        assert masks[np.arange(len(ids)), ids].all()


def test_reading_in_context(tiny_table):
    "行 alone is haang4, in 銀行 it is hong4, in 行長 it is hong4 and 長 is zoeng2: the slot decides."
    c = ToneConstraint(ToneTemplate.of("銀行行長"), tiny_table)
    s = c.start()
    for ch in "銀行行長".encode():
        s = c.advance(s, next(i for i, b in tiny_table.tokens.items() if b == bytes([ch])))
    assert c.is_final(s)


def test_variant_characters_byte_by_byte(tiny_table):
    "鋭 is read as 銳 and has no token of its own: its single bytes are allowed one by one, as its fold is readable."
    c = ToneConstraint(ToneTemplate.of("佢鋭氣"), tiny_table)
    id_of = {b: i for i, b in tiny_table.tokens.items()}
    c.masks_along(ids := [id_of[bytes([x])] for x in "佢鋭氣".encode()])
    s = c.start()
    for i in ids:
        assert i in c.allowed_ids(s)
        s = c.advance(s, i)


def test_processor_under_generate(tiny_table):
    import torch

    from cantolyric.base import load_base
    from cantolyric.constraint.processor import ToneLogitsProcessor

    model, tok = load_base()
    ids = torch.full((2, 1), tok.eos_token_id)
    cs = [ToneConstraint(t, tiny_table) for t in ("0243/33", "22")]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[ToneLogitsProcessor(cs, 1)],
        do_sample=True,
        num_return_sequences=3,
        max_new_tokens=60,
    )
    for k, row in enumerate(out[:, 1:].tolist()):
        text = tok.decode([i for i in row if i != tok.eos_token_id])
        assert cs[k // 3].template.matches(text), text


@pytest.mark.parametrize(
    "data, parts",
    [
        ("我".encode(), (b"", "我", b"")),
        ("我".encode()[1:], ("我".encode()[1:], "", b"")),
        (b"\xe6\x88", (b"", "", b"\xe6\x88")),
        ("a我".encode()[:-1], (b"", "a", b"\xe6\x88")),
        (b"a\xe6b", None),
    ],
)
def test_split_bytes(data, parts):
    assert split_bytes(data) == parts


def test_bad_input(tiny_table):
    c = ToneConstraint("03", tiny_table)
    with pytest.raises(CantolyricError, match="line 1, slot 1"):
        c.advance(c.start(), tiny_table.end[0])
    with pytest.raises(ArgumentError, match="lacks 242 of the single bytes"):
        TokenTable({0: b"a"}, 5, (1,))
    with pytest.raises(ArgumentError, match=r"vocab_size=10: expected at least \d+"):
        TokenTable(dict(enumerate(BYTES)), 10, (256,))
    with pytest.raises(CantolyricError, match="position 1"):
        c.masks_along([*c.allowed_ids(c.start())[:1], tiny_table.end[0]])
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    spm = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", -1.0)])), eos_token="a")
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("tokenizer", "TokenizersBackend")):
        TokenTable.from_tokenizer(spm)


# Rhymes

sounds = st.builds(lambda f, t: f"b{f}{t}", st.sampled_from(["aa", "aan", "aang", "i"]), st.integers(1, 6))
rhyming_words = st.dictionaries(
    st.text(ABC[:3], min_size=1, max_size=4), st.lists(sounds, min_size=4, max_size=4), min_size=3, max_size=14
)
rhymed_lines = st.lists(
    st.tuples(
        st.lists(st.sampled_from("[1235] [3456] [1345] * * * 七 丁=[1234]".split()), min_size=1, max_size=3),
        st.sampled_from(["", " A", " A", " A", " B"]),
    ),
    min_size=1,
    max_size=3,
)
LONERS = {
    "丂": ("baan1",),
    "丄": ("baa4",),
    "丅": ("bi2",),
    "丆": ("di5",),
}  # stand in no word: with them most masks are looked up, without them searched


@settings(max_examples=120, deadline=None)
@given(rhyming_words, pieces, rhymed_lines, st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_rhymes_of_small_lexicons_exhaustively(words, pieces, lines, grade, loners, rng):
    "Every mask on the way allows exactly the tokens with which some right text goes on."
    reader = Reader({w: tuple(js[: len(w)]) for w, js in words.items()} | (LONERS if loners else {}))
    try:
        template = ToneTemplate.parse(
            "/".join("".join(slots) + letter for slots, letter in lines), "jyutping", grade=grade, reader=reader
        )
        template.automaton(reader)
    except CantolyricError:
        return  # test_template shows that no text meets these
    characters = sorted({c for w in reader.words for c in w})
    if len(characters) ** sum(map(len, template.lines)) > 2e5:
        return
    each = [
        [
            "".join(t)
            for t in itertools.product(characters, repeat=len(line))
            if reads_right(ToneTemplate((line,), "jyutping"), "".join(t), reader)
        ]
        for line in template.lines
    ]
    right = [t.encode() for t in map("\n".join, itertools.product(*each)) if reads_right(template, t, reader)]
    table = table_of([t.encode()[a : len(t.encode()) - b] for t, a, b in pieces if len(t.encode()) > a + b])
    c = ToneConstraint(template, table, reader)
    s, done = c.start(), b""
    while not s.ended:
        want = {i for i, b in table.tokens.items() if any(t.startswith(done + b) for t in right)} | (
            {table.end[0]} if done in right else set()
        )
        assert set(c.allowed_ids(s).tolist()) == want, (str(template), done)
        i = rng.choice(sorted(want))
        s = c.advance(s, i)
        done += table.tokens.get(i, b"")
    assert done in right


def test_random_decoding_with_rhymes(tiny_table):
    rng = np.random.default_rng(4)
    for _ in range(150):
        lines = ["".join(rng.choice(list("0243"), rng.integers(1, 8))) for _ in range(rng.integers(2, 5))]
        try:
            template = ToneTemplate.parse(
                "/".join(lines), rhyme="".join(rng.choice(list("AAB-"), len(lines))), grade=int(rng.integers(1, 4))
            )
        except CantolyricError as e:
            assert "cannot all rhyme" in str(e)
            continue
        text = decode_ids(tiny_table, random_ids(ToneConstraint(template, tiny_table), rng))
        assert reads_right(template, text), (str(template), text)


def test_every_token_at_the_end_of_a_rhymed_line(tiny_table):
    "As without rhymes: the mask has exactly the tokens that a search finds."
    rng = np.random.default_rng(6)
    for text in ("024 A/3[34] A", "43 A2/20 A2"):
        fast, slow = ToneConstraint(text, tiny_table), ToneConstraint(text, tiny_table)
        slow.needs_search = [True, True]
        s = fast.start()
        while not s.ended:
            allowed = fast.allowed_ids(s)
            found = [i for i in tiny_table.tokens if accepts(slow, s, i)]
            assert sorted(set(allowed) - set(tiny_table.end)) == sorted(found), s
            s = fast.advance(s, rng.choice(allowed))


def test_a_fixed_reading_is_kept(tiny_table):
    "種=4 can only go on so that 種 is read zung3."
    c = ToneConstraint("種=4*", tiny_table)
    rng, reader = np.random.default_rng(0), default_reader()
    for _ in range(5):
        assert reader.jyutping(decode_ids(tiny_table, random_ids(c, rng)))[0] == "zung3"


def test_impossible_templates(tiny_table):
    for text, why in [
        ("雨 A/人 A", "cannot all rhyme"),
        ("02雨=0", "line 1, slot 3"),
        ("\U00030000*", "no reading of"),
    ]:
        with pytest.raises(UnsatisfiableError, match=why):
            ToneConstraint(text, tiny_table)


def test_kept_masks_know_rhymes(tiny_table):
    "What training keeps of masks is not mixed up between templates with the same tones and other letters."
    from cantolyric.base import load_base
    from cantolyric.constraint.mask_store import MaskStore

    store, tok = MaskStore(tiny_table), load_base()[1]
    text = "舊窗\n微涼\n好想"
    ids = tok(text, add_special_tokens=False)["input_ids"] + [tiny_table.end[0]]
    for letters in (None, "AAA", "-AA", "AA-"):
        template = ToneTemplate.parse(str(ToneTemplate.of(text)), rhyme=letters)
        want = ToneConstraint(template, tiny_table).masks_along(ids)
        assert np.array_equal(np.stack([store.rows[i] for i in store.mask_rows_for(template, ids)]), want)


def test_kept_masks_know_endings(tiny_table):
    "Two templates that differ only in the finals that a line is told have masks of their own."
    from cantolyric.base import load_base
    from cantolyric.constraint.mask_store import MaskStore
    from cantolyric.template.song import as_song

    store, tok = MaskStore(tiny_table), load_base()[1]
    text = "舊窗\n微涼"
    ids = tok(text, add_special_tokens=False)["input_ids"] + [tiny_table.end[0]]
    plain, keys = ToneTemplate.of(text), set()
    for endings in (
        (),
        (frozenset(["oeng"]),) * 2,
        (None, frozenset(["oeng", "ung"])),
        (frozenset(["oeng", "ung"]), None),
    ):
        template = as_song(plain, endings)
        c = ToneConstraint(template, tiny_table)
        assert np.array_equal(np.stack([store.rows[i] for i in store.mask_rows_for(template, ids)]), c.masks_along(ids))
        keys.add(c.mask_key(c.start()))
    assert len(keys) == 4


def test_fill_copies_into_a_buffer(tiny_table):
    torch = pytest.importorskip("torch")
    c = ToneConstraint("03", tiny_table)
    s = c.start()
    buffers = np.zeros((3, 250), np.int32), torch.zeros(3, 250, dtype=torch.int32)
    for buffer in buffers:
        c.fill(s, buffer, 1)
        assert not buffer[0].any() and not buffer[2].any()
    assert np.array_equal(buffers[0][1], c.mask(s)) and np.array_equal(buffers[1][1].numpy(), c.mask(s))
    assert len(c.allowed_ids(s)) == np.bitwise_count(buffers[0].view(np.uint32)).sum()


# other tokenizers


def sentencepiece(kind, byte_fallback=True):
    "A SentencePiece BPE as InternLM and Yi have it, trained on corpus lines; `kind` says where the opening mark goes."
    import json

    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from cantolyric.data.corpora import load_corpus

    t = Tokenizer(models.BPE(byte_fallback=byte_fallback, unk_token="<unk>", fuse_unk=True))
    if kind == "legacy":
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    t.train_from_iterator(
        load_corpus("validation")["text"],
        trainers.BpeTrainer(vocab_size=3000, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False),
    )
    model = json.loads(t.to_str())
    for i in range(256 * byte_fallback):
        model["model"]["vocab"][f"<0x{i:02X}>"] = len(model["model"]["vocab"])
    t = Tokenizer.from_str(json.dumps(model))
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), *([decoders.ByteFallback()] if byte_fallback else []), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["legacy", "first", "always", "never"])
def test_sentencepiece(kind):
    from cantolyric.data.pairs import lyric_pairs
    from cantolyric.text_encoding import text_ids

    tok = sentencepiece(kind)
    table = TokenTable.from_tokenizer(tok)
    for p in lyric_pairs("test").select(range(60)):  # what a model learns from is allowed
        ids = text_ids(tok, p["lyrics"], "text") + [table.end[0]]
        masks = unpack_mask(ToneConstraint(p["tones"], table).masks_along(ids), table.vocab_size)
        assert masks[np.arange(len(ids)), ids].all()
    check_random(table, 150, seed=4, slots=6, lines=2)
    ids = random_ids(ToneConstraint("0243/3324", table), np.random.default_rng(0))
    assert tok.decode(ids) == decode_ids(table, ids)  # bytes as the tokenizer itself puts them together


def test_tokenizers_without_bytes_are_refused(tiny_table):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    word = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordPiece({"[UNK]": 0, "我": 1}, unk_token="[UNK]")), eos_token="我"
    )
    for tok in (word, sentencepiece("never", byte_fallback=False)):
        with pytest.raises(ArgumentError, match="the bytes of its tokens are unknown.*byte fallback"):
            TokenTable.from_tokenizer(tok)
    tokens = dict(tiny_table.tokens)
    with pytest.raises(ArgumentError, match=r"the tokens \d+ and 9000 are both b'a'; leave one of them out"):
        TokenTable(tokens | {9000: b"a"}, 9001, (7997,))
    byte = next(i for i, b in tokens.items() if b == b"\xe6")
    with pytest.raises(ArgumentError, match=r"lacks 1 of the single bytes of UTF-8, the first is b'\\xe6'"):
        TokenTable({i: b for i, b in tokens.items() if i != byte}, 8000, (7997,))
    with pytest.raises(ArgumentError, match=r"vocab_size=100: expected at least \d+"):
        TokenTable(tokens, 100, (7997,))


def test_forbidden_tokens(tiny_table):
    c = ToneConstraint("0243", tiny_table)
    with pytest.raises(CantolyricError, match="id 123456 is outside the vocabulary of 8,000 tokens"):
        c.advance(c.start(), 123456)
    with pytest.raises(CantolyricError, match="end or special token.*line 1, slot 1"):
        c.advance(c.start(), tiny_table.end[0])
    with pytest.raises(CantolyricError, match="id -1 is outside"):
        c.advance(c.start(), -1)
    s = c.start()
    for i in random_ids(c, np.random.default_rng(0)):
        s = c.advance(s, i)
    with pytest.raises(CantolyricError, match="after the end"):
        c.advance(c.advance(s, tiny_table.end[0]), 5)


# kept on disk


def test_vocabulary_comes_back_from_disk(tiny_table, tmp_path, monkeypatch):
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path))
    fresh = lambda: ToneConstraint(
        "0243[34]4*/3324", TokenTable(tiny_table.tokens, tiny_table.vocab_size, tiny_table.end)
    )
    made = fresh()
    [path] = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    back, rng = fresh(), np.random.default_rng(5)
    assert path.stat().st_mtime_ns == before and [path] == list(tmp_path.iterdir())
    s = made.start()
    while not s.ended:
        assert np.array_equal(made.mask(s), back.mask(s))
        s = made.advance(s, rng.choice(made.allowed_ids(s)))
    path.write_bytes(path.read_bytes()[:1000])  # cut short: made anew
    assert np.array_equal(fresh().mask(made.start()), made.mask(made.start())) and path.stat().st_size > 1000
    other = TokenTable(
        {i: b for i, b in tiny_table.tokens.items() if b != "我哋".encode()}, tiny_table.vocab_size, tiny_table.end
    )
    ToneConstraint("02", other)
    assert len(list(tmp_path.iterdir())) == 2  # another vocabulary, another file


def test_nothing_can_be_kept(tiny_table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CANTOLYRIC_CACHE", str(tmp_path / "file"))
    c = ToneConstraint("0243", TokenTable(tiny_table.tokens, tiny_table.vocab_size, tiny_table.end))
    assert len(c.allowed_ids(c.start()))


# canonical


def test_canonical(tiny_table):
    "Ids are the tokenizer's own, also where only one word makes a reading right, and where a character is in pieces."
    from cantolyric.base import load_base

    tok, rng, same = load_base()[1], np.random.default_rng(6), {True: 0, False: 0}
    for _ in range(60):
        template = "/".join("".join(rng.choice(list("0243"), 6)) for _ in range(2))
        for canonical in same:
            c = ToneConstraint(template, tiny_table, canonical=canonical)
            ids = random_ids(c, rng)
            assert c.template.matches(text := decode_ids(tiny_table, ids))
            same[canonical] += tok(text, add_special_tokens=False)["input_ids"] == ids
    assert same[True] == 60 and same[False] <= 45
    with pytest.raises(ArgumentError, match="no BPE merges"):
        ToneConstraint("02", TokenTable(tiny_table.tokens, 8000, tiny_table.end), canonical=True)


@pytest.mark.parametrize("text", ["銀行行長返工", "我哋今晚去邊度食飯", "落雨嘅街頭"])
def test_clash_is_re_encoding(text, tiny_table):
    "Two neighbours clash exactly where the tokenizer writes their bytes otherwise."
    from cantolyric.base import load_base

    tok = load_base()[1]
    encode = lambda t: tok(t, add_special_tokens=False)["input_ids"]
    pieces = [encode(text[:n])[0] for n in range(1, len(text))] + [encode(text[n:])[0] for n in range(len(text))]
    for a in pieces:
        for b in pieces:
            whole = (tiny_table.tokens[a] + tiny_table.tokens[b]).decode("utf-8", "replace")
            if "\ufffd" not in whole:
                assert tiny_table.is_noncanonical_pair(a, b) == (encode(whole) != [a, b])
