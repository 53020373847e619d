"""Blind reading: lyrics of several systems, shuffled, scored by readers who know nothing about the systems.

    python benchmarks/blind_reading.py make NAME TEXTS   TEXTS: {"requests": [...], "texts": {system: [text, ...]}}
    python benchmarks/blind_reading.py score NAME        writes benchmarks/results/blind_reading.json

The folder benchmarks/reading/NAME has what a reader gets (prompt.md, and items-1.jsonl, items-2.jsonl, ... with the
same lyrics in another order for each reader), the scores that they returned (scores-1.jsonl, ...), and key.json, which
says which systems wrote each lyric. The readers are language models, each in a fresh context.

Scores differ from batch to batch, so each system's mean is rescaled with two reference systems that are in every
batch: the tiny model is 0, our own verses are 1. The 95 % intervals come from a paired bootstrap over requests.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from _common import RESULTS, made, write

from cantolyric.evaluation.bootstrap import draw_weights, interval
from cantolyric.evaluation.ratings import krippendorff_alpha
from cantolyric.evaluation.requests import stable_hash

FOLDER = Path(__file__).with_name("reading")
TINY, VERSES = "tiny", "verses"  # the two systems that every batch has
READERS, ROUNDS = 3, 4000
QUESTIONS = ("sense", "natural", "topic", "keep")
PROMPT = """\
# Reading lyrics

You are a native reader of Cantonese who knows Hong Kong pop lyrics well. You get short lyrics, one per line of a JSONL
file: `item` is a code, `topic` is what the lyric was to be about, `lyrics` is its text. They were written under strict
constraints on tones, which you do not see and should not judge. Colloquial Cantonese and written Chinese are equally
good. Rhyme does not count.

Read each lyric on its own and give four whole numbers from 1 to 5. Use the whole scale.

- `sense`: do the lines mean something, each by itself and together? 1: a string of unrelated words; 3: parts make
  sense; 5: all of it makes sense.
- `natural`: would a good writer put it like this? Think of word choice, grammar and collocation. 1: nobody would; 5:
  it reads like a published lyric.
- `topic`: is it about the topic? 1: not at all; 5: clearly, or in a telling image.
- `keep`: as a lyricist with this assignment, would you keep these lines in your draft? 1: none of them; 3: one line or
  an image; 5: all of them.

Judge every lyric yourself by reading it; do not compute scores with a program. Return one line of JSON per item:
{"item": "…", "sense": 3, "natural": 2, "topic": 4, "keep": 2}
"""


def _lines(path):
    "The rows of a JSONL file."
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _write_lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def make(name, file):
    "Write the prompt, the items of each reader, and the key."
    given = json.loads(Path(file).read_text(encoding="utf-8"))
    requests, texts = given["requests"], given["texts"]
    if missing := {TINY, VERSES} - texts.keys():
        raise SystemExit(f"{file}: every batch needs the systems {TINY} and {VERSES}; {', '.join(missing)} is missing")
    folder = FOLDER / name
    if (folder / "key.json").exists():
        raise SystemExit(f"{folder} exists already, and scores may refer to it; choose another name")
    found = {}
    for system, own in texts.items():
        for request, text in zip(requests, own, strict=True):
            found.setdefault((request["id"], text), []).append(system)  # equal texts are read once
    topics = {r["id"]: r["topic"] for r in requests}
    key, items = {}, []
    for (request, text), writers in found.items():
        item = "i" + stable_hash(name, request, text)[:7]
        key[item] = dict(systems=writers, request=request)
        items.append(dict(item=item, topic=topics[request], lyrics=text))
    if len(key) < len(items):
        raise SystemExit("two lyrics have the same code; choose another name")
    folder.mkdir(parents=True)
    (folder / "prompt.md").write_text(PROMPT, encoding="utf-8")
    for reader in range(1, READERS + 1):
        order = np.random.default_rng([reader, len(items)]).permutation(len(items))
        _write_lines(folder / f"items-{reader}.jsonl", [items[i] for i in order])
    (folder / "key.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {len(items)} lyrics of {len(texts)} systems")


def read_scores(folder, key):
    "Read all scores: float64 (questions, readers, items). Exits if a score is missing or out of range."
    files = sorted(folder.glob("scores-*.jsonl"))
    if not files:
        raise SystemExit(f"{folder} has no scores yet")
    scores = np.full((len(QUESTIONS), len(files), len(key)), np.nan)
    place = {item: k for k, item in enumerate(key)}
    for reader, file in enumerate(files):
        for row in _lines(file):
            for q, question in enumerate(QUESTIONS):
                if row[question] not in (1, 2, 3, 4, 5):
                    raise SystemExit(f"{file}, {row['item']}: {question} is {row[question]!r}, expected 1 to 5")
                scores[q, reader, place[row["item"]]] = row[question]
        if np.isnan(scores[:, reader]).any():
            raise SystemExit(f"{file}: {int(np.isnan(scores[0, reader]).sum())} items have no scores")
    return scores


def _rescaled(means):
    "Rescale means so that the tiny model is 0 and the verses are 1; float64 (..., systems), these two first."
    low, high = means[..., :1], means[..., 1:2]
    return (means - low) / (high - low)


def score(name):
    "Compute each system's mean and rescaled scores, with intervals, and the readers' agreement; write the result file."
    folder = FOLDER / name
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    scores = read_scores(folder, key)
    systems = [TINY, VERSES, *sorted({s for v in key.values() for s in v["systems"]} - {TINY, VERSES})]
    requests = sorted({v["request"] for v in key.values()})
    # (questions, systems, requests): the mean of the readers
    table = np.full((len(QUESTIONS), len(systems), len(requests)), np.nan)
    for k, item in enumerate(key.values()):
        for system in item["systems"]:
            table[:, systems.index(system), requests.index(item["request"])] = scores[:, :, k].mean(1)
    weights, _ = draw_weights(requests, [1], ROUNDS)
    result = dict(requests=len(requests), readers=scores.shape[1], systems={})
    result["alpha"] = {q: round(krippendorff_alpha(scores[k]), 3) for k, q in enumerate(QUESTIONS)}
    for s, system in enumerate(systems):
        figures = {}
        for q, question in enumerate(QUESTIONS):
            draws = np.einsum("bi,si->bs", weights, table[q]) / weights.sum(1, keepdims=True)
            low, high = interval(_rescaled(draws)[:, s])
            figures[question] = dict(
                mean=round(float(table[q, s].mean()), 2),
                rescaled=round(float(_rescaled(table[q].mean(-1))[s]), 3),
                interval=[round(float(low), 3), round(float(high), 3)],
            )
        result["systems"][system] = figures
    file = RESULTS / "blind_reading.json"
    known = json.loads(file.read_text(encoding="utf-8"))["batches"] if file.exists() else {}
    write("blind_reading", dict(batches=known | {name: result}) | made())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    new = commands.add_parser("make")
    new.add_argument("name")
    new.add_argument("texts")
    commands.add_parser("score").add_argument("name")
    args = parser.parse_args()
    if args.command == "make":
        make(args.name, args.texts)
    elif args.command == "score":
        score(args.name)
    else:  # `make bench`
        print("skipped: give make or score; see --help")


if __name__ == "__main__":
    main()
