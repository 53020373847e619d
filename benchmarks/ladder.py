"""What each stage of a run costs, and which stage stops which mistake.

python benchmarks/ladder.py [--out FILE]    writes benchmarks/results/ladder.json; a quarter of an hour on one core.
                                            Cases that FILE already contains are not run again

Each run has its own process.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import RESULTS, made

# The pilot is the default one (512 examples, 16 steps) and the full stage half of the default, so the share of each
# earlier stage is, if anything, too large. The keys of ladder.json are those of its first version: rung for stage.
FULL = dict(num_examples=4096, steps=128, pilot_fraction=1 / 8, num_held_out=320, max_gib=16.0)
SWAP = str.maketrans("24", "42")


def pairs(split, n, seed=0):
    from cantolyric.data.pairs import lyric_pairs

    return [{k: e[k] for k in ("topic", "tones", "lyrics")} for e in lyric_pairs(split, n, seed)]


def on_train(change):
    "Data whose training split is changed by `change(examples)`."
    return lambda split, n, seed=0: change(pairs(split, n, seed)) if split == "train" else pairs(split, n, seed)


def swapped(e):
    return dict(e, tones=e["tones"].translate(SWAP))


def one_at(k):
    "Data in which the k-th example has swapped tones."
    return on_train(lambda rows: [swapped(e) if n == k else e for n, e in enumerate(rows)])


def leak(start, share):
    "Data with test examples among the training examples, from number `start` on."
    held = pairs("test", 320)
    return on_train(
        lambda rows: [held[n % 320] if n >= start and n % round(1 / share) == 0 else e for n, e in enumerate(rows)]
    )


def other_topics(rows):
    "Give each lyric the topic of another."
    topics = [e["topic"] for e in rows]
    return [dict(e, topic=topics[(n * 7 + 3) % len(rows)]) for n, e in enumerate(rows)]


def by_length(split, n, seed=0):
    "The examples of the full stage, the shortest first."
    if split != "train":
        return pairs(split, n, seed)
    return sorted(pairs(split, FULL["num_examples"], seed), key=lambda e: len(e["lyrics"]))[:n]


def spoilt_format(change):
    "Plant a ChatML format whose encoded rows are changed by `change(input_ids, labels)`, which returns both."

    def plant():
        from cantolyric.formats import ChatML
        from cantolyric.training import context

        class Spoilt(ChatML):
            def encode(self, example, tokenizer):
                return dict(zip(("input_ids", "labels"), change(**super().encode(example, tokenizer))))

        context.format_for = lambda model, tokenizer: Spoilt()

    return plant


def without_end(input_ids, labels):
    last = max(i for i, x in enumerate(labels) if x != -100)
    return input_ids, [*labels[:last], -100, *labels[last + 1 :]]


def frozen():
    from cantolyric.training.context import RunContext

    was = RunContext.adapted

    def adapted(self):
        return was(self).requires_grad_(False)

    RunContext.adapted = adapted


def rounded_when_saved():
    "Round the adapter when it is written, so that what is on disk is not what was trained."
    import peft

    was = peft.PeftModel.save_pretrained

    def save(self, *a, **k):
        for n, p in self.named_parameters():
            if "lora_" in n:
                p.data = (p.data * 16).round() / 16
        return was(self, *a, **k)

    peft.PeftModel.save_pretrained = save


# name: (what was done, settings, data, plant)
CASES = {
    "healthy": ("nothing", {}, None, None),
    "learning rate x 100": ("a slip of two digits", dict(lr=0.2), None, None),
    "learning rate x 10": ("a slip of one digit", dict(lr=0.02), None, None),
    "learning rate / 1000": ("a rate for another method", dict(lr=2e-6), None, None),
    "batches multiplied": (
        "steps of an epoch taken for epochs",
        dict(steps=128 * 128, pilot_fraction=1 / 1024),
        None,
        None,
    ),
    "tone table swapped": (
        "2 and 4 exchanged in all examples",
        {},
        "on_train(lambda rows: [swapped(e) for e in rows])",
        None,
    ),
    "one wrong example, early": ("example 100 has swapped tones", {}, "one_at(100)", None),
    "one wrong example, late": ("example 3,000 has swapped tones", {}, "one_at(3000)", None),
    "leak, 10 %": ("one training example in ten is a test example", {}, "leak(0, .1)", None),
    "leak, late": ("the same behind the pilot's last example", {}, "leak(600, .1)", None),
    "no end token": ("the end carries no loss", {}, None, "spoilt_format(without_end)"),
    "prompt in the loss": (
        "labels are a copy of the ids",
        {},
        None,
        "spoilt_format(lambda input_ids, labels: (input_ids, list(input_ids)))",
    ),
    "prompt of another format": (
        "one token of the prompt missing in training",
        {},
        None,
        "spoilt_format(lambda input_ids, labels: (input_ids[:3] + input_ids[4:], labels[:3] + labels[4:]))",
    ),
    "nothing trainable": ("the adapter came frozen", {}, None, "frozen"),
    "rounded when saved": ("what is on disk is not what was trained", {}, None, "rounded_when_saved"),
    "eight lyrics, over and over": (
        "the shuffle never got past its buffer",
        {},
        "on_train(lambda rows: [rows[n % 8] for n in range(len(rows))])",
        None,
    ),
    "sorted by length": ("the pilot sees the shortest examples only", {}, "by_length", None),
    "topics of other lyrics": ("two columns sorted apart", {}, "on_train(other_topics)", None),
}
# The last stage of cases that show everything in the pilot.
UPTO = {
    "sorted by length": "pilot",
    "topics of other lyrics": "pilot",
}
RATES = (6e-3, 2e-3)  # learning rates that the pilot and the full stage rank


class Enough(Exception):
    "Ends a run after the stage in `UPTO`."


def run_one(name):
    "Run one case: processor seconds, held-out bits and forecast per stage, and what stopped the run."
    from cantolyric.errors import CantolyricError
    from cantolyric.machine import peak_gib
    from cantolyric.training import run, stages
    from cantolyric.training.config import FinetuneConfig

    _, settings, data, plant = CASES[name]
    if plant:
        (globals()[plant] if plant in globals() else eval(plant))()
    reports, at = {}, {}
    was_stage, was_trained = run.run_stage, stages.train_stage

    def run_stage(config, **kw):
        at[config.stage] = dict(began=time.process_time())
        try:
            return was_stage(config, **kw)
        finally:
            at[config.stage]["ended"] = time.process_time()

    def train(context, stage, *a):
        at[stage]["first_step"] = time.process_time()
        report = reports[stage] = was_trained(context, stage, *a)
        at[stage]["last_step"] = time.process_time()
        return report

    def log(message):
        if getattr(message, "stage", None) == UPTO.get(name, "") and message.ok:
            raise Enough()

    run.run_stage, stages.train_stage = run_stage, train
    out = dict(stopped=None, rung=None)
    with tempfile.TemporaryDirectory() as d:
        config = FinetuneConfig(name="run", runs_dir=d, **{**FULL, **settings})
        try:
            done = run.run_finetune(config, eval(data) if data else pairs, log)
            if not done.ok:
                out.update(
                    stopped="; ".join(
                        f"[{g['name']}] {g['message']}"
                        for r in done.metrics["stages"].values()
                        for g in r["gates"]
                        if not g["ok"]
                    ),
                    rung="full",
                    when="after",
                )
        except Enough:
            out["upto"] = UPTO[name]
        except CantolyricError as e:
            rung = list(at)[-1]
            out.update(stopped=str(e), rung=rung, when="after" if "first_step" in at[rung] else "before")
    # The message about an example that violates its template names no gate.
    out["gate"] = (re.findall(r"\[(\w+)\] ", out["stopped"]) or ["template"])[0] if out["stopped"] else None
    out["rungs"] = {
        k: {
            **v,
            "losses": [round(mean(r.losses[:3]), 4), round(mean(r.losses[-3:]), 4)] if (r := reports.get(k)) else None,
            "held_out": r and r.held_out,
        }
        for k, v in at.items()
    }
    out["forecast"] = [g["message"] for r in reports.values() for g in r.gates if g["name"] in ("forecast", "limits")]
    out["trained_seconds"] = {k: r.seconds for k, r in reports.items()}
    return dict(out, seconds=time.process_time(), gib=peak_gib())


def mean(x):
    return sum(x) / len(x)


def ranked(lr):
    "Held-out bits per character after the pilot (96 validation examples) and the full stage (320 test); no gates."
    from cantolyric.constraint.scoring import answer_bits, per_character
    from cantolyric.training.config import FinetuneConfig
    from cantolyric.training.context import RunContext
    from cantolyric.training.stages import train_stage

    context, out = RunContext(FinetuneConfig(**{**FULL, "lr": lr}), pairs), dict(lr=lr)
    for stage, split, n in (("pilot", "validation", 96), ("full", "test", 320)):
        model, held = context.adapted(), context.held_out_examples(split, n)
        train_stage(context, stage, model)
        bits = answer_bits(model, context.tokenizer, held, context.format, store=context.store)
        out[stage] = per_character(bits, held)
        context.model = model.unload()
    return out


def run_case(*what):
    env = dict(os.environ, OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    done = subprocess.run([sys.executable, __file__, *what], capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"{what}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", default=RESULTS / "ladder.json", type=Path)
    args = parser.parse_args()
    if args.case:
        return print(json.dumps(run_one(args.case), ensure_ascii=False))
    if args.rate:
        return print(json.dumps(ranked(args.rate)))
    result = (
        json.loads(args.out.read_text(encoding="utf-8"))
        if args.out.exists()
        else dict(unit="seconds of processor time, one thread, from the start of the process", full=FULL, cases={})
    )
    for name, (story, settings, *_) in CASES.items():
        was = result["cases"].get(name)
        result["cases"][name] = dict(was or run_case("--case", name), story=story, settings=settings)
        if not was:
            result.update(made("torch", "transformers", "peft"))
        args.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(
            name,
            result["cases"][name]["rung"],
            result["cases"][name]["gate"],
            f"{result['cases'][name]['seconds']:.0f} s",
            flush=True,
        )
    at = result["cases"]["healthy"]["rungs"]  # the default rate was run above
    known = {
        2e-3: dict(lr=2e-3, pilot=at["pilot"]["held_out"]["after"], full=at["full"]["held_out"]["after"]["masked"]),
        **{r["lr"]: r for r in result.get("ranking", [])},
    }
    result["ranking"] = [known[lr] if lr in known else run_case("--rate", str(lr)) for lr in RATES]
    args.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
