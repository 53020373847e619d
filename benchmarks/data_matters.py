"""The same finetune on clean, shuffled-topic and noisy pairs: what the data do to held-out bits, topic and fluency.

python benchmarks/data_matters.py    writes benchmarks/results/data_matters.json; ten minutes on two cores
"""
import argparse
import random
import tempfile
from pathlib import Path

from _common import made, write

from cantolyric.data import load_corpus, lyric_pairs
from cantolyric.evaluation import Seen, evaluate, judge_model
from cantolyric.finetune import FinetuneConfig, finetune
from cantolyric.lyricist import Lyricist
from cantolyric.reading import default_reader

NOISE = .2 # share of characters that are replaced


def shuffled(pairs):
    "The same lyrics, each with somebody else's topic."
    topics = [p["topic"] for p in pairs]
    random.Random(0).shuffle(topics)
    return [p | {"topic": t} for p, t in zip(pairs, topics)]


def noisy(pairs):
    "One character in five replaced by one from another lyric; the tones are those of the new text."
    rng, read = random.Random(0), default_reader().tones
    characters = [c for p in pairs for c in p["lyrics"] if c != "\n"]
    out = []
    for p in pairs:
        text = "".join(rng.choice(characters) if c != "\n" and rng.random() < NOISE else c for c in p["lyrics"])
        out.append(p | {"lyrics": text, "tones": "/".join(map(read, text.split("\n")))})
    return out


KINDS = {"clean": list, "shuffled topics": shuffled, "noisy": noisy}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3_072)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--requests", type=int, default=128)
    args = parser.parse_args()
    judge, rows, writes = judge_model(), {}, {}
    seen = Seen([*load_corpus("train")["text"], *lyric_pairs("train")["lyrics"]])
    for name, change in KINDS.items():
        data = lambda split, n, seed=0: change(list(lyric_pairs(split, n, seed))) if split == "train" else list(lyric_pairs(split, n, seed))
        config = FinetuneConfig(name="data", pairs=args.pairs, steps=args.steps, rung="full")
        with tempfile.TemporaryDirectory() as folder:
            report = finetune(config, data=data, folder=Path(folder))
            x = Lyricist.from_pretrained(adapter=Path(folder, "adapter"))
        table = evaluate(x.model, x.tokenizer, args.requests, x.format, adapted=False, judge=judge, seen=seen)
        found = {r[0]: dict(zip(table.columns[1:], r[1:])) for r in table.rows}
        rows[name] = {k: round(found["model, masked"][k], 2) for k in ("judge bits", "topic %", "chance %", "rhyme %", "distinct %")}
        rows[name] |= {"held-out bits, before": round(report.held_out["before"]["best"]["masked"], 3), "held-out bits, after": round(report.held_out["after"]["masked"], 3)}
        writes[name] = [dict(topic=r["topic"], tones=r["tones"], text=t) for r, t in zip(lyric_pairs("test", 4), table.texts["model, masked"])]
        rows.setdefault("human lines", {k: round(found["human lines"][k], 2) for k in ("judge bits", "topic %", "chance %", "rhyme %", "distinct %")})
    write("data_matters", dict(pairs=args.pairs, steps=args.steps, requests=args.requests, noise=NOISE, rows=rows, writes=writes) | made("torch", "transformers", "peft"))


if __name__ == "__main__": main()
