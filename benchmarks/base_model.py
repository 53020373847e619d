"""The tiny base compared with a character 5-gram: both trained on the same text, and scored on unseen text.

python benchmarks/base_model.py    writes benchmarks/results/base_model.json and the model card, assets/base/README.md;
                                   ten seconds on two cores
"""

import json
import time

import numpy as np
import torch
from _common import made, write

from cantolyric.base import bits_per_text, load_base
from cantolyric.data.corpora import load_corpus
from cantolyric.ngram import KneserNey
from cantolyric.paths import asset_path

CARD = """---
language: yue
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The tiny base model of cantolyric

A Cantonese language model small enough to take apart: Qwen3 architecture, {parameters:,} parameters, pretrained from
scratch on two CPU cores in lesson 20 of the course. It is a **teaching model**: it shows every step of pretraining,
constrained decoding and finetuning in minutes. It is not meant to write text for anyone to use.

| | |
|---|---|
| architecture | Qwen3: 6 layers, width 256, 4 query and 2 key-value heads, MLP 768, tied embeddings |
| tokenizer | our own byte-level BPE, 8,000 tokens, trained on the same training split; a standard `tokenizer.json` |
| weights | bf16 safetensors; `load_base()` gives fp32 |
| trained on | {train_texts:,} texts, {train_characters:,} characters: CTCPC (CC0), HKCanCor (CC BY), \
Common Voice sentences (MPL 2.0), as PyCantonese ships them; see [CORPORA.md](../CORPORA.md). \
CantoMap is GPL and was left out |
| training | {steps:,} steps of 64 rows of 128 tokens ({epochs:.1f} epochs), Muon and AdamW, bf16 arithmetic, \
BPE-dropout 0.1, dropout 0.1 |
| reproduce it with | `cantolyric base train` |

## How good it is

Bits per character (the end of a text counts as one) on {test_texts:,} test texts that neither model has seen. The split
is fixed and keeps near-duplicates together.

| model | bits per character |
|---|---|
| character 5-gram, interpolated Kneser–Ney, three discounts per order | {ngram:.3f} |
| this model | {base:.3f} |

The difference is {gain:.3f} bits (95 % of {draws:,} bootstrap draws of whole texts: {low:.3f} to {high:.3f}; \
the 5-gram was better in {turned} of them).

## What it cannot do

- It knows no topics, no tones and no instructions; its turn tokens (`<|im_start|>`, `<|im_end|>`) are untrained.
  Finetuning teaches topics; the tone constraint guarantees tones.
- It makes sense over a few words, but seldom over a sentence. What it says about people, places and facts is noise in
  the shape of Cantonese.
- Its corpora are sentences from news, encyclopedias, forums and subtitles, and transcribed speech of the 1990s. It has
  picked up their biases, coarse words included. Nothing was done to make it safe.
- It was evaluated on one kind of text with one metric; no person has rated it.

Licence: Apache-2.0 for the weights; the corpora keep their own licences.
"""


def epochs(log):
    "Epochs of training, from the number of steps in the first one (known to within ten)."
    return log["step"] / min([x["step"] for x in log["log"] if x["epoch"] > 0] or [log["step"]])


def main():
    torch.set_num_threads(2)
    train, test = (list(load_corpus(s)["text"]) for s in ("train", "test"))
    start = time.perf_counter()
    a = KneserNey(order=5).fit(train).bits_per_text(test)
    ngram_seconds = time.perf_counter() - start
    model, tokenizer = load_base()
    start = time.perf_counter()
    b = bits_per_text(model, tokenizer, test)
    base_seconds = time.perf_counter() - start
    length = np.array([len(t) + 1 for t in test])
    draws = np.random.default_rng(0).integers(0, len(test), (10_000, len(test)))
    gains = (a - b)[draws].sum(1) / length[draws].sum(1)
    low, high = np.quantile(gains, [0.025, 0.975])
    log = json.loads(asset_path("base", "training.json").read_text())
    result = dict(
        ngram=round(a.sum() / length.sum(), 4),
        base=round(b.sum() / length.sum(), 4),
        gain=round((a - b).sum() / length.sum(), 4),
        low=round(low, 4),
        high=round(high, 4),
        draws=len(draws),
        turned=int((gains <= 0).sum()),
        test_texts=len(test),
        train_texts=len(train),
        train_characters=sum(map(len, train)),
        parameters=sum(p.numel() for p in model.parameters()),
        steps=log["step"],
        epochs=round(epochs(log), 1),
        pretraining_seconds=log["seconds"],
        seconds={"5-gram, fit and score": round(ngram_seconds, 1), "base, score": round(base_seconds, 1)},
    ) | made("torch", "transformers")
    asset_path("base", "README.md").write_text(CARD.format(**result), encoding="utf-8")
    write("base_model", result)


if __name__ == "__main__":
    main()
