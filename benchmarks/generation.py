"""Our `generate` compared with transformers': same tokens, tokens per second, cost per token with and without cache.

python benchmarks/generation.py    writes benchmarks/results/generation.json; wall clock, two threads, the tiny base in
                                   fp32
"""

import time

import numpy as np
import torch
from _common import made, write

from cantolyric.base import load_base
from cantolyric.generation import generate, trace

NEW, ROUNDS = 64, 7


def clock(f):
    start = time.perf_counter()
    return f(), time.perf_counter() - start


def beside(model, batch, **how):
    "Tokens per second of both loops, which take turns; their ids have to be equal."
    best = dict(ours=float("inf"), transformers=float("inf"))
    for seed in range(ROUNDS):
        ids = {}
        for name, call in (
            ("ours", lambda: generate(model, **batch, max_new_tokens=NEW, eos=(), **how)),
            (
                "transformers",
                lambda: model.generate(
                    **batch, max_new_tokens=NEW, eos_token_id=-1, **dict(do_sample=False, top_k=0) | how
                ),
            ),
        ):
            torch.manual_seed(seed)
            ids[name], seconds = clock(call)
            best[name] = min(best[name], seconds)
        if not torch.equal(*ids.values()):
            raise SystemExit(f"not the same tokens: {how}")
    n = NEW * len(batch["input_ids"])
    return {f"{k}, tokens a second": round(n / s) for k, s in best.items()} | {
        "speed-up over transformers": round(best["transformers"] / best["ours"], 2)
    }


def token_cost(model, text, length, cache):
    "Milliseconds per new token after a text of a given length: the median after the prefill."
    with trace(model) as steps:
        generate(model, text[:, :length], max_new_tokens=10, eos=(), use_cache=cache)
    return round(float(np.median([s.milliseconds for s in steps[1:]])), 2)


def main():
    torch.set_num_threads(2)
    model, tokenizer = load_base()
    model, tokenizer.padding_side = model.eval(), "left"
    prompts = ["今晚落雨，我喺屋企等你", "聽日", "我哋去邊度食飯好", "阿媽話"] * 2
    batches = {
        n: {k: v for k, v in tokenizer(prompts[:n], return_tensors="pt", padding=True).items() if k != "token_type_ids"}
        for n in (1, 8)
    }
    sides = {
        f"batch {n}, {name}": beside(model, b, **how)
        for n, b in batches.items()
        for name, how in (("greedy", {}), ("drawn, top_p 0.95", dict(do_sample=True, top_p=0.95)))
    }
    text = tokenizer("今晚落雨，我喺屋企等你返嚟。" * 200, return_tensors="pt").input_ids
    lengths = [n for n in (32, 64, 128, 256, 400) if n + 10 <= model.config.max_position_embeddings]
    cost = {
        name: {n: token_cost(model, text, n, cache) for n in lengths}
        for name, cache in (("with cache", True), ("without", False))
    }
    fits = {
        name: dict(
            zip(
                ("ms a hundred tokens more", "ms at the start"),
                (round(float(x), 2) for x in np.polyfit(lengths, list(c.values()), 1) * (100, 1)),
            )
        )
        for name, c in cost.items()
    }
    write(
        "generation",
        dict(new_tokens=NEW, same_tokens=True, sides=sides, milliseconds_a_token=cost, fits=fits)
        | made("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
