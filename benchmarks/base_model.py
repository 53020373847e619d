"""The tiny base against a character 5-gram trained on the same text, on held-out text that neither has seen.

python benchmarks/base_model.py    writes benchmarks/results/base_model.json and the model card, assets/base/README.md
"""

import json
import time

import numpy as np
import torch
from _common import made, write

from cantolyric.base import asset_path, bits_per_text, load_base
from cantolyric.data import load_corpus
from cantolyric.ngram import KneserNey

CARD = """---
language: yue
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The tiny base model of cantolyric

A Cantonese language model small enough to take apart: Qwen3 architecture, {parameters:,} parameters, pretrained from scratch on two CPU cores by lesson 20 of the course. It is a **teaching model**: made to show every step of pretraining, constrained decoding and finetuning in minutes, not to write text for anyone to use.

| | |
|---|---|
| architecture | Qwen3: 6 layers, width 256, 4 query and 2 key-value heads, MLP 768, tied embeddings |
| tokenizer | our own byte-level BPE, 8,000 tokens, trained on the same training split; a standard `tokenizer.json` |
| weights | bf16 safetensors; `load_base()` gives fp32 |
| trained on | {train_texts:,} texts, {train_characters:,} characters: CTCPC (CC0), HKCanCor (CC BY), Common Voice sentences (MPL 2.0), as PyCantonese ships them; see [CORPORA.md](../CORPORA.md). Not CantoMap, which is GPL |
| training | {steps:,} steps of 64 rows of 128 tokens ({epochs:.1f} epochs), Muon and AdamW, bf16 arithmetic, BPE-dropout 0.1, dropout 0.1 |
| remade by | `cantolyric base train` |

## How good it is

Bits a character (the end of a text counts as one) on {test_texts:,} test texts that neither model has seen; the split is by near-duplicate cluster and fixed.

| model | bits a character |
|---|---|
| character 5-gram, interpolated Kneser–Ney, three discounts an order | {ngram:.3f} |
| this model | {base:.3f} |

The difference is {gain:.3f} bits (95 % of {draws:,} bootstrap draws of whole texts: {low:.3f} to {high:.3f}; the order turned round in {turned} of them).

## What it cannot do

- It knows no topics, no tones and no instructions; its turn tokens (`<|im_start|>`, `<|im_end|>`) are untrained. Finetuning teaches the first, the tone constraint guarantees the second.
- It makes sense over a few words, seldom over a sentence. What it says about people, places and facts is noise in the shape of Cantonese.
- Its corpora are news, encyclopedia, forum and subtitle-like sentences and transcribed talk of the 1990s: their biases, coarse words included, are in it. It was not made safe in any way.
- Evaluated on one kind of text by one measure; no person has judged it.

Licence: Apache-2.0 for the weights; the corpora keep their own licences.
"""


def epochs(log):
    "How often the training text was read, from the steps of its first reading (known to ten)."
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
