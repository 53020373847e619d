"""What part 1 costs: training and applying a byte-level BPE, the lyric pairs, and the n-gram model.

python benchmarks/text.py    writes benchmarks/results/text.json

The BPE is compared with `tokenizers`, the n-gram model with nltk. Times are processor seconds of one thread, except for
the pairs: those are wall clock, with one and with two processes.
"""

import os
import tempfile
import time
from pathlib import Path

# Before tokenizers is imported: one thread, like ours.
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

from _common import made, seconds, write
from nltk.lm import KneserNeyInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from cantolyric.bpe import QWEN2_PATTERN, ByteLevelBPE, merge_by_rank
from cantolyric.data import corpora, pairs, topics
from cantolyric.ngram import KneserNey

SIZE = 8_000


def scan(parts, ranks):
    "Merge as teaching code does: look at all pairs again after each merge."
    while len(parts) > 1:
        pair = min(zip(parts, parts[1:]), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        out, i = [], 0
        while i < len(parts):
            two = tuple(parts[i : i + 2]) == pair
            out.append(parts[i] + parts[i + 1] if two else parts[i])
            i += 1 + two
        parts = out
    return parts


def rust_trained(texts):
    "A BPE of the same size and pattern, trained by `tokenizers` on one thread."
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    return t


def bpe(texts):
    "Time training, encoding with an empty cache, and merging one long chunk."
    ours = {}
    training = seconds(lambda: ours.update(bpe=ByteLevelBPE.train(texts, SIZE)))
    ours = ours["bpe"]
    rust_training = seconds(lambda: rust_trained(texts))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        ours.save(path)
        rust = Tokenizer.from_file(str(path))
    some = texts[::20]

    def cold():
        ours.chunk_ids.clear()
        return [ours.encode(t) for t in some]

    assert cold() == [rust.encode(t, add_special_tokens=False).ids for t in some]
    single = lambda text: [bytes([b]) for b in text.encode()]
    chunks = [c for t in some for c in ours.split(t)]
    assert [merge_by_rank(single(c), ours.ranks) for c in chunks] == [scan(single(c), ours.ranks) for c in chunks]
    times = dict(
        cold=seconds(cold, 3),
        rust=seconds(lambda: [rust.encode(t, add_special_tokens=False) for t in some], 3),
        heap=seconds(lambda: [merge_by_rank(single(c), ours.ranks) for c in chunks], 3),
        scan=seconds(lambda: [scan(single(c), ours.ranks) for c in chunks]),
    )
    long = "".join(c for t in texts for c in t if c.isalpha())
    chunk = {n: seconds(lambda: merge_by_rank(single(long[:n]), ours.ranks), 3) for n in (1_250, 2_500, 5_000, 10_000)}
    return {
        "training, seconds": round(training, 2),
        "training with tokenizers (Rust), seconds": round(rust_training, 2),
        "training, times as long": round(training / rust_training, 2),
        "encoded characters": sum(map(len, some)),
        "encoding cold, million characters a second": round(sum(map(len, some)) / times["cold"] / 1e6, 3),
        "tokenizers, million characters a second": round(sum(map(len, some)) / times["rust"] / 1e6, 3),
        "encoding, times as long as tokenizers": round(times["cold"] / times["rust"], 2),
        "scanning all pairs, times as long as the heap": round(times["scan"] / times["heap"], 2),
        "one chunk, milliseconds": {f"{n:,} characters": round(1_000 * s, 1) for n, s in chunk.items()},
    }


def lyric_pairs():
    "Time all lyric pairs of the training split from the corpus files on, without any cache."
    out = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CANTOLYRIC_CACHE"] = folder
            start = time.perf_counter()
            n = len(pairs.lyric_pairs("train", processes=processes))
            out[processes] = round(time.perf_counter() - start, 1)
            for f in (corpora.whole_corpus, corpora.corpus_columns, corpora.corpus_sources):
                f.cache_clear()
            for f in (topics.document_frequency, topics.related_words):
                f.cache_clear()
    os.environ.pop("CANTOLYRIC_CACHE")
    return {
        "corpus lines": len(corpora.load_corpus()),
        "pairs": n,
        "seconds from files to pairs, one process": out[1],
        "two processes": out[2],
    }


def ngram(texts, held_out):
    "Time fitting and scoring; nltk's model, which is written for clarity, gets a hundredth of the text."
    model = {}
    learning = seconds(lambda: model.update(m=KneserNey(5).fit(texts)))
    m, size = model["m"], sum(map(len, held_out))
    scoring = seconds(lambda: m.bits_per_character(held_out), 3)
    few, scored = texts[::100], held_out[:10]
    nltk = KneserNeyInterpolated(5)
    nltk_learning = seconds(lambda: nltk.fit(*padded_everygram_pipeline(5, [list(t) for t in few])))
    nltk_scoring = seconds(
        lambda: [nltk.logscore(t[i], t[max(0, i - 4) : i]) for t in map(list, scored) for i in range(len(t))]
    )
    with tempfile.TemporaryDirectory() as folder:
        m.save(Path(folder, "m.npz"))
        file = Path(folder, "m.npz").stat().st_size
    return {
        "learning 2.06 M characters, seconds": round(learning, 2),
        "learning, characters a second": int(sum(map(len, texts)) / learning),
        "nltk, characters a second": int(sum(map(len, few)) / nltk_learning),
        "scoring, characters a second": int(size / scoring),
        "nltk scoring, characters a second": int(sum(map(len, scored)) / nltk_scoring),
        "bits a character, held out": round(float(m.bits_per_character(held_out)), 3),
        "file, MB": round(file / 1e6, 1),
    }


def main():
    made_pairs = lyric_pairs()
    texts, held_out = (list(corpora.load_corpus(s)["text"]) for s in ("train", "validation"))
    write(
        "text",
        dict(characters=sum(map(len, texts)), bpe=bpe(texts), pairs=made_pairs, ngram=ngram(texts, held_out))
        | made("tokenizers", "datasets", "nltk"),
    )


if __name__ == "__main__":
    main()
