"""How the data affects a finetune of the tiny base, in two experiments.

Faults: the same finetune on clean, shuffled-topic and noisy pairs; held-out bits, topic and fluency.
Sizes: the same finetune on 100, 400 and all training verses; bits per character of the test verses, with intervals.

python benchmarks/data_matters.py    writes benchmarks/results/data_matters.json; twenty minutes on two cores
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import numpy as np
from _common import RESULTS, made, write

from cantolyric.base import load_base
from cantolyric.constraint.mask_store import mask_store
from cantolyric.constraint.scoring import answer_bits
from cantolyric.data.pairs import lyric_pairs, windows
from cantolyric.data.verse_file import load_verses
from cantolyric.evaluation.bootstrap import interval
from cantolyric.evaluation.measure import evaluate
from cantolyric.reading import default_reader
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.stages import run_stage
from cantolyric.writing.lyricist import Lyricist

# Keys of the result, which lesson 12 reads -> columns of `evaluate`.
COLUMN_OF = {"judge bits": "bits per character"} | {k: k for k in ("topic %", "chance %", "rhyme %", "distinct %")}
NOISE = 0.2  # share of characters to replace
SIZES = (100, 400, None)  # training verses; None: all


def shuffled(pairs):
    "The same lyrics, each with the topic of another."
    topics = [p["topic"] for p in pairs]
    random.Random(0).shuffle(topics)
    return [p | {"topic": t} for p, t in zip(pairs, topics)]


def noisy(pairs):
    "Replace one character in five by one from another lyric; the tones are those of the new text."
    rng, read = random.Random(0), default_reader().tones
    characters = [c for p in pairs for c in p["lyrics"] if c != "\n"]
    out = []
    for p in pairs:
        text = "".join(rng.choice(characters) if c != "\n" and rng.random() < NOISE else c for c in p["lyrics"])
        out.append(p | {"lyrics": text, "tones": "/".join(map(read, text.split("\n")))})
    return out


KINDS = {"clean": list, "shuffled topics": shuffled, "noisy": noisy}


def faults(args):
    "The same finetune on clean pairs, and on pairs with one fault."
    rows, writes = {}, {}
    for name, change in KINDS.items():
        data = lambda split, n, seed=0: (
            change(list(lyric_pairs(split, n, seed))) if split == "train" else list(lyric_pairs(split, n, seed))
        )
        config = FinetuneConfig(name="data", num_examples=args.pairs, steps=args.steps, stage="full")
        with tempfile.TemporaryDirectory() as folder:
            report = run_stage(config, data=data, folder=Path(folder))
            x = Lyricist.from_pretrained(adapter=Path(folder, "adapter"))
        table = evaluate(x.model, x.tokenizer, args.requests, x.format, adapted=False)
        found = {r[0]: dict(zip(table.columns[1:], r[1:])) for r in table.rows}
        rows[name] = {key: round(found["model constrained"][column], 2) for key, column in COLUMN_OF.items()}
        rows[name] |= {
            "held-out bits, before": round(report.held_out["before"]["best"]["masked"], 3),
            "held-out bits, after": round(report.held_out["after"]["masked"], 3),
        }
        writes[name] = [
            dict(topic=r["topic"], tones=r["tones"], text=t)
            for r, t in zip(lyric_pairs("test", 4), table.texts["model constrained"])
        ]
        rows.setdefault(
            "held-out lyrics",
            {key: round(found["human lines"][column], 2) for key, column in COLUMN_OF.items()},
        )
    return dict(pairs=args.pairs, steps=args.steps, requests=args.requests, noise=NOISE, rows=rows, writes=writes)


def whole(verse):
    "A verse as one example."
    return dict(topic=verse["topic"], tones=verse["tones"], lyrics="\n".join(verse["lines"]))


def examples(verse):
    "A verse as training examples: whole, and its windows."
    tones, at, out = verse["tones"].split("/"), 0, [whole(verse)]
    for lines in windows(verse["lines"]):
        out.append(dict(topic=verse["topic"], tones="/".join(tones[at : at + len(lines)]), lyrics="\n".join(lines)))
        at += len(lines)
    return out


def bits_of(model, tokenizer, format, verses):
    "Bits and characters of each verse, under the tone mask."
    pairs = [whole(v) for v in verses]
    store = mask_store(model, tokenizer, format)
    bits = answer_bits(model, tokenizer, pairs, masked=True, format=format, batch=8, store=store)
    # Line breaks and the end count as characters, as everywhere in the course.
    return bits, np.array([len(p["lyrics"]) + 1 for p in pairs])


def with_interval(bits, characters, rounds=2_000):
    "Bits per character, with a 95 % bootstrap interval over whole verses."
    draws = np.random.default_rng(0).integers(0, len(bits), (rounds, len(bits)))
    low, high = interval(bits[draws].sum(1) / characters[draws].sum(1))
    return dict(bits=round(float(bits.sum() / characters.sum()), 3), low=round(low, 3), high=round(high, 3))


def sizes(args):
    "The same number of steps on more and more verses; each set contains the smaller ones."
    train, test = (load_verses(split=s).to_list() for s in ("train", "test"))
    random.Random(0).shuffle(train)
    model, tokenizer = load_base()
    before, characters = bits_of(model, tokenizer, None, test)  # without a prompt, as it was pretrained
    rows = [dict(verses=0, examples=0) | with_interval(before, characters)]
    for n in SIZES:
        chosen = [e for v in train[:n] for e in examples(v)]
        random.Random(0).shuffle(chosen)
        data = lambda split, n, seed=0: chosen if split == "train" else [whole(v) for v in load_verses(split=split)][:n]
        config = FinetuneConfig(
            name="sizes", num_examples=len(chosen), steps=args.steps, stage="full", num_held_out=len(test)
        )
        with tempfile.TemporaryDirectory() as folder:
            run_stage(config, data=data, folder=Path(folder))
            x = Lyricist.from_pretrained(adapter=Path(folder, "adapter"))
        after, _ = bits_of(x.model, x.tokenizer, x.format, test)
        change = with_interval(after - before, characters)
        rows.append(dict(verses=len(train[:n]), examples=len(chosen), change=change) | with_interval(after, characters))
    return dict(steps=args.steps, test_verses=len(test), rows=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["faults", "sizes"])
    parser.add_argument("--pairs", type=int, default=3_072)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--requests", type=int, default=128)
    args = parser.parse_args()
    found = {}
    if "faults" in args.parts:
        found |= faults(args)
    if "sizes" in args.parts:
        found["sizes"] = sizes(args)
    old = json.loads((RESULTS / "data_matters.json").read_text(encoding="utf-8"))
    write("data_matters", old | found | made("torch", "transformers", "peft"))


if __name__ == "__main__":
    main()
