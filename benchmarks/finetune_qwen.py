"""The run of `make finetune-qwen`: time and memory compared with its forecast, and the bits per character it gained.

    make finetune-qwen
    python benchmarks/finetune_qwen.py    reads runs/qwen; writes benchmarks/results/finetune_qwen.json; a few minutes

Bits per character are measured before and after training, on the 48 windows of held-out verses in
benchmarks/held-out.jsonl (kind: verses). None of them is in the training data.
"""

import argparse
import json
from pathlib import Path

from _common import RESULTS, made, write
from real_model import held_out


def bits_of_windows(run):
    "Constrained and unconstrained bits per character of the windows, without and with the run's adapter."
    from peft import PeftModel

    from cantolyric.constraint.mask_store import mask_store
    from cantolyric.constraint.scoring import ToneCollator, encode_pairs, per_character, row_bits
    from cantolyric.models import format_for, load_model

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


def _settings(config):
    "The main settings, under the keys that the result file has had since its first version."
    same = ("base", "data", "examples", "rank", "alpha", "lr", "batch_size", "steps", "seed")
    renamed = dict(pilot="pilot_fraction", held_out="num_held_out", eval_pairs="num_eval_examples")
    return {k: config[k] for k in same} | {old: config[new] for old, new in renamed.items()}


def summary(metrics):
    "What the result file reports about a run: settings, time and memory compared with the forecast, gates, losses."
    c, full, guess = metrics["config"], metrics["stages"]["full"], metrics["forecast"]
    stages = {
        k: dict(
            seconds_of_steps=r["seconds"],
            seconds_of_gates=round(sum(g["seconds"] for g in r["gates"]), 1),
            steps=r["steps"],
        )
        for k, r in metrics["stages"].items()
    }
    slow = sorted(((g["seconds"], g["name"]) for g in metrics["stages"]["smoke"]["gates"]), reverse=True)[:5]
    return dict(
        settings=_settings(c),
        data=metrics["data"]["hash"],
        examples=full["num_examples"],
        minutes=round(metrics["seconds"] / 60, 1),
        peak_gib=metrics["peak_gib"],
        seconds_per_step=round(full["seconds"] / full["steps"], 2),
        forecast={k: round(v, 2) for k, v in guess.items()},
        steps_against_forecast=round(full["seconds"] / guess["training"], 3),
        peak_against_forecast=round(metrics["peak_gib"] / guess["peak_gib"], 3),
        stages=stages,
        slowest_gates={name: seconds for seconds, name in slow},
        held_out=full["held_out"],
        losses=full["losses"],
        evals=full["evals"],
    )


def memory():
    "Peak memory of the run's two most demanding parts: its largest batch, and the twelve longest held-out lyrics."
    import numpy as np

    from cantolyric.machine import peak_gib
    from cantolyric.options import batch_tokens
    from cantolyric.training.config import FinetuneConfig, stage_plan
    from cantolyric.training.context import RunContext
    from cantolyric.training.forecast import timed_steps
    from cantolyric.training.stages import bits_before_training
    from cantolyric.training.trainer import batch_order

    config = FinetuneConfig(
        base="qwen2.5-coder-0.5b", data="verses", steps=100, max_length=256, trainer=dict(gradient_accumulation_steps=2)
    )
    context = RunContext(config)
    plan = stage_plan(config, "full")
    examples = [e for e in context.data("train", plan.num_examples, 0) if context.num_tokens(e) <= config.max_length]
    order = batch_order([context.num_tokens(e) for e in examples], plan.steps, plan.batch_size, 0)
    tokens = batch_tokens(np.array([context.num_tokens(examples[i]) for i in order]), plan.batch_size)
    largest = order.reshape(-1, plan.batch_size)[int(np.argmax(tokens))]
    timed_steps(context, [examples[i] for i in largest] * 2, plan)
    training = peak_gib()
    longest = sorted(context.held_out_examples("test", plan.num_held_out), key=lambda e: -len(e["lyrics"]))[:12]
    bits_before_training(context, longest, context.adapted())
    return dict(training=round(training, 2), held_out=round(peak_gib(), 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/qwen", help="folder of the finished run (default runs/qwen)")
    parser.add_argument("--memory", action="store_true", help="measure only peak memory, and add it to the result")
    args = parser.parse_args()
    if args.memory:
        known = json.loads((RESULTS / "finetune_qwen.json").read_text(encoding="utf-8"))
        write("finetune_qwen", known | dict(peak_gib_now=memory()))
        return
    if not (Path(args.run) / "metrics.json").exists():
        print(f"skipped: there is no finished run in {args.run}; run  make finetune-qwen  first")
        return
    from cantolyric.training.run_folder import read_run

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
