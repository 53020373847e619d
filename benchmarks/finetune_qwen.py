"""Measure the run of `make finetune-qwen`: its time and memory against the forecast, and its bits per character on the 48 windows of held-out verses, before and after training.

    make finetune-qwen
    python benchmarks/finetune_qwen.py                 reads runs/qwen, measures the windows without and with the adapter, and writes benchmarks/results/finetune_qwen.json

The windows are those of benchmarks/held-out.jsonl (kind: verses). None of them is in the training data.
"""

import argparse
import json
from pathlib import Path

from _common import RESULTS, made, write
from real_model import held_out


def bits_of_windows(run):
    "Constrained and unconstrained bits per character of the windows, without and with the run's adapter."
    from cantolyric.finetune import mask_store, per_character, row_bits, encode_pairs, ToneCollator
    from cantolyric.models import format_for, load_model
    from peft import PeftModel

    model, tokenizer = load_model(run.metrics["config"]["base"])
    format = format_for(model, tokenizer)
    store, windows = mask_store(model, tokenizer, format), held_out()["verses"]
    rows = encode_pairs(windows, format, tokenizer, store)
    collate = ToneCollator(tokenizer.pad_token_id, store)

    def bits(model):
        found = row_bits(model, rows, collate, free=True)
        return dict(
            constrained=round(per_character(found["masked"], windows), 3),
            unconstrained=round(per_character(found["free"], windows), 3),
        )

    before = bits(model)
    return dict(
        windows=len(windows), before=before, after=bits(PeftModel.from_pretrained(model, str(run.adapter)).eval())
    )


def summary(metrics):
    "Collect what the result file reports about a run: settings, time and memory against the forecast, gates, and losses."
    c, full, guess = metrics["config"], metrics["rungs"]["full"], metrics["forecast"]
    rungs = {
        k: dict(
            seconds_of_steps=r["seconds"],
            seconds_of_gates=round(sum(g["seconds"] for g in r["gates"]), 1),
            steps=r["steps"],
        )
        for k, r in metrics["rungs"].items()
    }
    slow = sorted(((g["seconds"], g["name"]) for g in metrics["rungs"]["smoke"]["gates"]), reverse=True)[:5]
    return dict(
        settings={
            k: c[k]
            for k in (
                "base",
                "data",
                "examples",
                "rank",
                "alpha",
                "lr",
                "batch_size",
                "steps",
                "pilot",
                "held_out",
                "eval_pairs",
                "seed",
            )
        },
        data=metrics["data"]["hash"],
        examples=full["pairs"],
        minutes=round(metrics["seconds"] / 60, 1),
        peak_gib=metrics["peak_gib"],
        seconds_per_step=round(full["seconds"] / full["steps"], 2),
        forecast={k: round(v, 2) for k, v in guess.items()},
        steps_against_forecast=round(full["seconds"] / guess["training"], 3),
        peak_against_forecast=round(metrics["peak_gib"] / guess["peak_gib"], 3),
        rungs=rungs,
        slowest_gates={name: seconds for seconds, name in slow},
        held_out=full["held_out"],
        losses=full["losses"],
        evals=full["evals"],
    )


def memory():
    "The peak of memory of the run's two largest loads: its largest batch, then held-out lyrics, the longest twelve."
    import numpy as np
    from cantolyric.finetune import FinetuneConfig, Workshop, batch_order, examples_of, rung_plan
    from cantolyric.finetune import _before, _timed_steps
    from cantolyric.options import batch_tokens
    from cantolyric.preflight import peak_gib

    config = FinetuneConfig(
        base="qwen2.5-coder-0.5b", data="verses", steps=100, max_length=256, trainer=dict(gradient_accumulation_steps=2)
    )
    shop = Workshop(config)
    plan, encode = rung_plan(config, "full"), lambda e: shop.format.encode(e, shop.tokenizer)["input_ids"]
    pairs = [e for e in shop.data("train", plan.pairs, 0) if len(encode(e)) <= config.max_length]
    order = batch_order([len(encode(e)) for e in pairs], plan.steps, plan.batch, 0)
    largest = int(np.argmax(batch_tokens(np.array([len(encode(pairs[i])) for i in order]), plan.batch)))
    _timed_steps(shop, [pairs[i] for i in order[largest * plan.batch : (largest + 1) * plan.batch]] * 2, plan)
    training = peak_gib()
    longest = sorted(shop.held_out("test", plan.held_out), key=lambda e: -len(e["lyrics"]))[:12]
    _before(shop, longest, None, shop.adapted())
    return dict(training=round(training, 2), held_out=round(peak_gib(), 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/qwen", help="folder of the finished run (default runs/qwen)")
    parser.add_argument(
        "--memory", action="store_true", help="measure only the peak of memory, and add it to the result"
    )
    args = parser.parse_args()
    if args.memory:
        known = json.loads((RESULTS / "finetune_qwen.json").read_text(encoding="utf-8"))
        write("finetune_qwen", known | dict(peak_gib_now=memory()))
        return
    if not (Path(args.run) / "metrics.json").exists():
        print(f"skipped: there is no finished run in {args.run}; run  make finetune-qwen  first")
        return
    from cantolyric.finetune import read_run

    run = read_run(args.run)
    lyrics = (run.folder / "lyrics.md").read_text(encoding="utf-8") if (run.folder / "lyrics.md").exists() else ""
    result = summary(run.metrics) | dict(
        bits_per_character=bits_of_windows(run),
        lyrics=lyrics.split("```")[1].strip().split("\n\n") if lyrics else [],
        cpu=run.metrics["machine"]["cpu"],
    )
    write("finetune_qwen", result | made("torch", "transformers", "peft"))
    print(json.dumps(result["bits_per_character"]))


if __name__ == "__main__":
    main()
