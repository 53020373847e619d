"""What each rung of the ladder costs, and which rung stops which mistake: each climb in a process of its own.

python benchmarks/ladder.py [--out FILE]    writes benchmarks/results/ladder.json; cases that are in it already are not run again
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

# The pilot is that of the defaults (512 pairs, 16 steps); the full rung is half of theirs, so each rung's share of it is, if anything, too large.
FULL = dict(pairs=4096, steps=128, pilot=1 / 8, held_out=320, max_gib=16.0)
SWAP = str.maketrans("24", "42")


def pairs(split, n, seed=0):
    from cantolyric.data import lyric_pairs

    return [{k: e[k] for k in ("topic", "tones", "lyrics")} for e in lyric_pairs(split, n, seed)]


def on_train(change):
    "Data whose training part is changed: `change(examples)`."
    return lambda split, n, seed=0: change(pairs(split, n, seed)) if split == "train" else pairs(split, n, seed)


def swapped(e):
    return dict(e, tones=e["tones"].translate(SWAP))


def one_at(k):
    "One example with swapped tones, the k-th."
    return on_train(lambda rows: [swapped(e) if n == k else e for n, e in enumerate(rows)])


def leak(start, share):
    "Test examples among the training ones, from the start-th on."
    held = pairs("test", 320)
    return on_train(
        lambda rows: [held[n % 320] if n >= start and n % round(1 / share) == 0 else e for n, e in enumerate(rows)]
    )


def other_topics(rows):
    "Each lyric under the topic of another."
    topics = [e["topic"] for e in rows]
    return [dict(e, topic=topics[(n * 7 + 3) % len(rows)]) for n, e in enumerate(rows)]


def by_length(split, n, seed=0):
    "All of the full rung's pairs, the short ones first."
    return (
        sorted(pairs(split, FULL["pairs"], seed), key=lambda e: len(e["lyrics"]))[:n]
        if split == "train"
        else pairs(split, n, seed)
    )


def spoilt_format(change):
    "A ChatML whose encoded rows are changed: `change(input_ids, labels)` -> both."

    def plant():
        import cantolyric.finetune as F
        from cantolyric.formats import ChatML

        class Spoilt(ChatML):
            def encode(self, example, tokenizer):
                return dict(zip(("input_ids", "labels"), change(**super().encode(example, tokenizer))))

        F.format_named = lambda name: Spoilt()

    return plant


def without_end(input_ids, labels):
    last = max(i for i, x in enumerate(labels) if x != -100)
    return input_ids, [*labels[:last], -100, *labels[last + 1 :]]


def frozen():
    import cantolyric.finetune as F

    was = F.Workshop.adapted

    def adapted(self):
        return was(self).requires_grad_(False)

    F.Workshop.adapted = adapted


def rounded_when_saved():
    "The adapter is rounded when it is written: what is on disk is not what was trained."
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
    "batches multiplied": ("steps of an epoch taken for epochs", dict(steps=128 * 128, pilot=1 / 1024), None, None),
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
UPTO = {
    "sorted by length": "pilot",
    "topics of other lyrics": "pilot",
}  # what they show, the pilot shows; the full rung is not run
RATES = (6e-3, 2e-3)  # ranked by the pilot and by the full rung


class Enough(Exception):
    pass


def climbed(name):
    "One climb, by its rungs: processor seconds, held-out bits, forecast; and what stopped it."
    import cantolyric.finetune as F

    _, settings, data, plant = CASES[name]
    if plant:
        (globals()[plant] if plant in globals() else eval(plant))()
    reports, at = {}, {}
    was_rung, was_trained = F.finetune, F.train_rung

    def finetune(config, **kw):
        at[config.rung] = dict(began=time.process_time())
        try:
            return was_rung(config, **kw)
        finally:
            at[config.rung]["ended"] = time.process_time()

    def train(shop, rung, *a):
        at[rung]["first_step"] = time.process_time()
        report = reports[rung] = was_trained(shop, rung, *a)
        at[rung]["last_step"] = time.process_time()
        return report

    def say(told):
        if getattr(told, "rung", None) == UPTO.get(name, "") and told.ok:
            raise Enough()

    F.finetune, F.train_rung = finetune, train
    out = dict(stopped=None, rung=None)
    with tempfile.TemporaryDirectory() as d:
        config = F.FinetuneConfig(name="run", runs_dir=d, **{**FULL, **settings})
        try:
            run = F.climb(config, eval(data) if data else pairs, say)
            if not run.ok:
                out.update(
                    stopped="; ".join(
                        f"[{g['name']}] {g['message']}"
                        for r in run.metrics["rungs"].values()
                        for g in r["gates"]
                        if not g["ok"]
                    ),
                    rung="full",
                    when="after",
                )
        except Enough:
            out["upto"] = UPTO[name]
        except F.CantolyricError as e:
            rung = list(at)[-1]
            out.update(stopped=str(e), rung=rung, when="after" if "first_step" in at[rung] else "before")
    out["gate"] = (
        (re.findall(r"\[(\w+)\] ", out["stopped"]) or ["template"])[0] if out["stopped"] else None
    )  # an example that misfits is named without a gate
    out["rungs"] = {
        k: {
            **v,
            "losses": [round(mean(r.losses[:3]), 4), round(mean(r.losses[-3:]), 4)] if (r := reports.get(k)) else None,
            "held_out": r and r.held_out,
        }
        for k, v in at.items()
    }
    out["forecast"] = [g["message"] for r in reports.values() for g in r.gates if g["name"] in ("forecast", "granted")]
    out["trained_seconds"] = {k: r.seconds for k, r in reports.items()}
    return dict(out, seconds=time.process_time(), gib=F.peak_gib())


def mean(x):
    return sum(x) / len(x)


def ranked(lr):
    "Held-out bits a character after the pilot (96 validation pairs) and after the full rung (320 test pairs), trained as in a climb; no gates."
    import cantolyric.finetune as F

    shop, out = F.Workshop(F.FinetuneConfig(**{**FULL, "lr": lr}), pairs), dict(lr=lr)
    for rung, split, n in (("pilot", "validation", 96), ("full", "test", 320)):
        model, held = shop.adapted(), shop.held_out(split, n)
        F.train_rung(shop, rung, model)
        out[rung] = F.per_character(F.answer_bits(model, shop.tokenizer, held, shop.format, store=shop.store), held)
        shop.model = model.unload()
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
        return print(json.dumps(climbed(args.case), ensure_ascii=False))
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
    at = result["cases"]["healthy"]["rungs"]  # the default rate has been climbed already
    known = {
        2e-3: dict(lr=2e-3, pilot=at["pilot"]["held_out"]["after"], full=at["full"]["held_out"]["after"]["masked"]),
        **{r["lr"]: r for r in result.get("ranking", [])},
    }
    result["ranking"] = [known[lr] if lr in known else run_case("--rate", str(lr)) for lr in RATES]
    args.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
