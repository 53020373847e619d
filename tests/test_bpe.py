"""Byte-level BPE against published vocabularies, the `tokenizers` library, and arbitrary bytes."""

import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cantolyric._published import TOKENIZERS, at_hand, published
from cantolyric.bpe import (
    DEEPSEEK_PATTERN,
    GPT2_PATTERN,
    QWEN2_PATTERN,
    ByteLevelBPE,
    count_chunks,
    learn_merges,
    splitter,
)
from cantolyric.errors import ArgumentError, CantolyricError, FileError

needs_published = pytest.mark.skipif(
    len(at_hand()) < 3, reason="CANTOLYRIC_DATA does not name a folder with published vocabularies"
)


@needs_published
@pytest.mark.parametrize("name", ["Qwen2", "GPT-2", "DeepSeek-LLM"])
def test_conformance(name):
    file = TOKENIZERS / f"conformance/ggml-vocab-{name.lower()}.gguf"
    texts = file.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = file.with_suffix(".gguf.out").read_text().split("\n")
    wanted = [[int(i) for i in line.split()] for line in lines]
    assert len(texts) == len(wanted) == 47
    tokenizer = published(name)
    assert [tokenizer.encode(t) for t in texts] == wanted
    assert [tokenizer.decode(w) for w in wanted] == [
        unicodedata.normalize("NFC", t) if name == "Qwen2" else t for t in texts
    ]


@pytest.fixture(scope="module")
def ours():
    return ByteLevelBPE.from_file(Path(__file__).parent.parent / "cantolyric/assets/base/tokenizer.json")


def lines(split, n):
    from cantolyric.data.corpora import load_corpus

    texts = load_corpus(split)["text"][:]
    return random.Random(0).sample(texts, min(n, len(texts)))


def test_equals_tokenizers(ours, tmp_path):
    from tokenizers import Tokenizer

    ours.save(tmp_path / "tokenizer.json")
    rust, texts = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), lines("train", 20_000)
    assert len(texts) == 20_000
    assert [e.ids for e in rust.encode_batch(texts, add_special_tokens=False)] == [ours.encode(t) for t in texts]


def test_auto_tokenizer_loads_it(ours, tmp_path):
    from transformers import AutoTokenizer

    ours.save(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )
    auto, texts = AutoTokenizer.from_pretrained(tmp_path), lines("test", 500)
    assert auto(texts, add_special_tokens=False)["input_ids"] == [ours.encode(t) for t in texts]
    assert len(auto) == len(ours)


@needs_published
def test_qwen2_equals_tokenizers():
    from transformers import AutoTokenizer

    texts = lines("test", 1_000)
    assert AutoTokenizer.from_pretrained(TOKENIZERS / "qwen2")(texts)["input_ids"] == [
        published("Qwen2").encode(t) for t in texts
    ]


def test_patterns_lose_nothing():
    for pattern in (QWEN2_PATTERN, GPT2_PATTERN, DEEPSEEK_PATTERN):
        for t in lines("test", 500) + [" \n\t a  b\r\n\x00１２ ３é́"]:
            assert "".join(splitter(pattern)(t)) == t


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_text_comes_back(ours, text):
    assert ours.decode(ours.encode(text)) == unicodedata.normalize("NFC", text)


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_bytes_come_back(ours, data):
    "Bytes that are no text at all: one chunk, no normalizer."
    assert ours.decode_bytes(ours.encode_chunk(data)) == data


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="夜雨落銀行，a "), st.floats(0, 0.9), st.integers(0, 99))
def test_dropout_changes_ids_only(ours, text, p, seed):
    assert ours.decode(ours.encode(text, dropout=p, rng=random.Random(seed))) == text


def test_every_plane(ours):
    "One character of each 4,096 code points of Unicode, surrogates left out."
    text = "".join(chr(c) for c in range(0x80, 0x110000, 4_096) if not 0xD800 <= c < 0xE000)
    assert ours.decode_bytes(ours.encode(text)) == unicodedata.normalize("NFC", text).encode()


def simple_merges(chunks, n):
    "Count everything anew for each merge; tokens are numbers, as in `learn_merges`."
    words, tokens, merges = [(list(c), k) for c, k in chunks.items()], [bytes([b]) for b in range(256)], []
    while len(merges) < n:
        pairs = Counter()
        for w, k in words:
            for p in zip(w, w[1:]):
                pairs[p] += k
        best = min(pairs, key=lambda p: (-pairs[p], tokens[p[0]], tokens[p[1]], p), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(tokens[best[0]] + tokens[best[1]])
        for w, _ in words:
            i = 0
            while i < len(w) - 1:
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = [len(tokens) - 1]
                i += 1
    return merges


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text(alphabet="abc", min_size=1, max_size=12), st.integers(1, 4)), min_size=1, max_size=20)
)
def test_training_equals_counting_anew(words):
    chunks = Counter()
    for w, n in words:
        chunks[w.encode()] += n
    assert learn_merges(chunks, 25) == simple_merges(chunks, 25)


def test_merges_do_not_hang_on_the_order_of_texts():
    texts = lines("train", 3_000)
    assert learn_merges(count_chunks(texts), 300) == learn_merges(count_chunks(texts[::-1]), 300)


@pytest.mark.slow
def test_shipped_merges_are_what_training_gives(ours):
    from cantolyric.data.corpora import load_corpus

    assert ByteLevelBPE.train(load_corpus("train")["text"], len(ours), tuple(ours.special)).merges == ours.merges


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda ours, folder: ByteLevelBPE.from_file(folder / "none.json"), FileError),
        (lambda ours, folder: ByteLevelBPE.from_file(folder), FileError),
        (lambda ours, folder: ours.save(folder / "no" / "t.json"), FileError),
        (lambda ours, folder: ByteLevelBPE.train(["a"], 10), "vocab_size"),
        (lambda ours, folder: ByteLevelBPE.train("夜雨", 300), "texts"),
        (lambda ours, folder: ours.encode(None), "text"),
        (lambda ours, folder: ours.encode("夜雨", dropout=0.5), "rng"),
        (lambda ours, folder: ByteLevelBPE.train([], 300), "no text"),
        (lambda ours, folder: ours.decode([10**6]), f"token id {10**6}"),
        (lambda ours, folder: ByteLevelBPE.from_files({"▁a": 0}, []), "SentencePiece"),
        (lambda ours, folder: ByteLevelBPE.from_files({"a": 0, "b": 1}, ["a b"]).encode("ab"), "b'ab'"),
        (lambda ours, folder: ByteLevelBPE.from_files({"a": 0}, ["a b c"]), "'a b c'"),
    ],
)
def test_mistakes(ours, tmp_path, call, error):
    "A file that cannot be used, an argument (its name), or another error that names what is wrong."
    with pytest.raises(CantolyricError) as e:
        call(ours, tmp_path)
    if isinstance(error, type):
        assert isinstance(e.value, error) and e.value.path.startswith(str(tmp_path))
    elif isinstance(e.value, ArgumentError):
        assert e.value.name == error
    else:
        assert error in str(e.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "line 1, column 2"),
        ('{"model": {"type": "Unigram"}}', "not a byte-level BPE"),
        ("[1]", "not a byte-level BPE"),
        ("夜".encode("big5"), "byte 0 is not UTF-8"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileError, match=message):
        ByteLevelBPE.from_file(path)


def test_half_a_character(ours):
    "What a shell hands over where its bytes are no UTF-8."
    with pytest.raises(CantolyricError, match=r"character 3 .*U\+DCE9"):
        ours.encode("夜雨\udce9")


def test_special_tokens_stay_text(ours):
    for s in ours.special:
        assert ours.special[s] not in ours.encode(f"雨{s}雨{s[:-1]} {s}")
