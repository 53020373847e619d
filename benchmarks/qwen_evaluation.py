"""Qwen2.5-Coder-0.5B on the requests of the test verses: with and without its adapter, against tiny and our verses.

    python benchmarks/qwen_evaluation.py all [ADAPTER]   writes benchmarks/results/qwen_evaluation.json

183 requests, two seeds (one for the search, which does not sample). The base without its adapter gets an instruction
in words, because it was never trained on our prompt. Texts are kept in the cache folder as they are written, and an
interrupted run resumes where it stopped; the whole run takes about two hours on two cores.
"""

import json
import sys
from pathlib import Path

import torch
from _common import RESULTS, made, write

from cantolyric.evaluation.compare import evaluate_texts
from cantolyric.evaluation.decoding import Decoding
from cantolyric.evaluation.metrics import word_line_share
from cantolyric.evaluation.requests import read_jsonl
from cantolyric.evaluation.systems import HUMAN_LINES, model_systems, write_systems, writer_system
from cantolyric.paths import cache_folder
from cantolyric.writing.lyricist import Lyricist

BASE, SEEDS = "qwen2.5-coder-0.5b", 2
FINETUNED, SEARCHED, TINY, VERSES = "finetuned", "finetuned, searched", "tiny", "verses"
WAYS = ("unconstrained", "constrained")
COMPARE = [
    (f"{FINETUNED}, constrained", "base, constrained"),
    (f"{FINETUNED}, constrained", f"{FINETUNED}, unconstrained"),
    (SEARCHED, f"{FINETUNED}, constrained"),
    (SEARCHED, TINY),
    (VERSES, SEARCHED),
]


def systems_of(lyricist, name):
    "One lyricist, sampling with and without the constraint."
    every = model_systems(lyricist.model, lyricist.tokenizer, lyricist.format, methods=("sample",), desc=name)
    kind = "finetuned" if hasattr(lyricist.model, "disable_adapter") else "model"
    return {f"{name}, {way}": every[f"{kind} {way}"] for way in WAYS}


def all_texts(requests, adapter):
    "The texts of every system, written now if they are not in the cache; one model is in memory at a time."
    folder, texts = cache_folder() / "benchmarks" / "qwen_evaluation", {}

    def add(systems):
        texts.update(write_systems(folder, systems, requests, SEEDS))

    add(systems_of(Lyricist.from_pretrained(BASE, "none"), "base"))
    tuned = Lyricist.from_pretrained(BASE, adapter)
    add(systems_of(tuned, FINETUNED))
    add({SEARCHED: writer_system(tuned, seeds=1)})  # a search draws nothing at random
    del tuned
    tiny = model_systems(*_parts(Lyricist.from_pretrained()), methods=("sample",))
    add({TINY: tiny["finetuned constrained"], VERSES: tiny[HUMAN_LINES]})
    return texts


def _parts(lyricist):
    return lyricist.model, lyricist.tokenizer, lyricist.format


def main():
    if sys.argv[1:2] != ["all"]:  # `make bench`
        return print("skipped: it takes two hours; add the argument all")
    torch.set_num_threads(2)
    requests = read_jsonl(Path(__file__).with_name("requests-verses.jsonl"))
    texts = all_texts(requests, *sys.argv[2:3] or [None])
    found = evaluate_texts(requests, texts, COMPARE)
    words = {
        name: round(100 * word_line_share([t for run in runs for t in run if t]), 1) for name, runs in texts.items()
    }
    result = dict(
        base=BASE,
        requests=len(requests),
        seeds=SEEDS,
        batch_size=Decoding().batch_size,
        figures=found.figures,
        lines_of_words=words,
        differences=found.differences,
        samples={name: runs[0][:12] for name, runs in texts.items()},
    )
    write("qwen_evaluation", json.loads(json.dumps(result, default=float)) | made("torch", "transformers"))
    print(f"written to {RESULTS / 'qwen_evaluation.json'}")


if __name__ == "__main__":
    main()
