"""What the full finetune of lesson 50 will take on a real model and GPU: a forecast, not a measurement of the run.

python benchmarks/full_finetune.py    writes benchmarks/results/full_finetune.json; five minutes on one core. Needs
                                      Qwen2's vocabulary (CANTOLYRIC_DATA)

Measured here: the tokens of a training pair in Qwen2's vocabulary, and the seconds and memory of its masks on the CPU.
The steps on the GPU are lesson 34's estimate, which was within 2 % in memory and 22 % in time on the one card that it
was compared with, an H100.
"""

import os
import time
from pathlib import Path

import numpy as np
from _common import made, write
from transformers import AutoTokenizer

from cantolyric.constraint.mask_store import MaskStore
from cantolyric.constraint.scoring import ToneCollator, encode_pairs
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.pairs import lyric_pairs
from cantolyric.formats import format_named

PAIRS, BATCH, VOCABULARY = 4096, 32, 151_936


def measured(tokenizer):
    "Encode the first pairs in four equal parts; masks, seconds and memory after each."
    format = format_named("qwen2.5")
    store = MaskStore(TokenTable.from_tokenizer(tokenizer, VOCABULARY, end=format.end_token))
    pairs, rows, parts = list(lyric_pairs("train", PAIRS, 0)), [], []
    for k in range(0, PAIRS, PAIRS // 4):
        start = time.process_time()
        rows += encode_pairs(pairs[k : k + PAIRS // 4], format, tokenizer, store)
        parts.append(
            dict(
                pairs=len(rows),
                masks=len(store),
                seconds=time.process_time() - start,
                mask_gib=sum(r.nbytes for r in store.rows) / 2**30,
            )
        )
    return rows, parts, store


def shares(rows, store):
    "The average batch, shuffled as in training: width, share of labelled positions, allowed rows of the head."
    collate, order = ToneCollator(0, store, packed=True), np.random.default_rng(0).permutation(len(rows))
    batches = [collate([rows[i] for i in order[k : k + BATCH]]) for k in range(0, len(rows) - BATCH + 1, BATCH)]
    width = [b["input_ids"].shape[1] for b in batches]
    labelled = [float((b["labels"] != -100).float().mean()) for b in batches]
    allowed = [
        int(np.bitwise_count(np.bitwise_or.reduce(b["mask_table"][1:].numpy().view(np.uint32), axis=0)).sum())
        for b in batches
    ]
    return dict(
        width=float(np.mean(width)),
        widest=max(width),
        labelled=float(np.mean(labelled)),
        allowed_rows_a_batch=float(np.mean(allowed)),
    )


def main():
    folder = Path(os.environ.get("CANTOLYRIC_DATA", "")) / "tokenizers" / "qwen2"
    if not folder.exists():
        raise SystemExit("CANTOLYRIC_DATA names no folder with Qwen2's vocabulary")
    rows, parts, store = measured(AutoTokenizer.from_pretrained(folder))
    write(
        "full_finetune",
        dict(batch=BATCH, all_pairs=len(lyric_pairs("train")), parts=parts, **shares(rows, store))
        | made("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
