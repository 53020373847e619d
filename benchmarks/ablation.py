"""How should training use the constraint? No hook, a tone mask before the loss, or a soft bonus; all write constrained.

python benchmarks/ablation.py    writes benchmarks/results/ablation.json; 45 minutes on two cores

Each variant has three seeds and the same number of steps. Each run is saved in --folder as it ends; an interrupted
benchmark resumes there.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from _common import made, write

from cantolyric.atomic_files import write_json
from cantolyric.data.pairs import lyric_pairs
from cantolyric.evaluation.decoding import write_many
from cantolyric.evaluation.measure import measure
from cantolyric.evaluation.metrics import reference_model, topic_share
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage

KINDS = {
    "no hook": dict(mask=False),
    "tone mask": dict(loss="hook"),
    "soft bonus": dict(allowed_logit_bonus=3.0),
}  # settings of `FinetuneConfig`


def one_run(kind, seed, requests, reference):
    "Train once, then measure: one number per held-out lyric or request."
    context = RunContext(FinetuneConfig(name="ablation", seed=seed, **KINDS[kind]))
    pairs = context.held_out_examples("test", context.config.num_held_out)
    with tempfile.TemporaryDirectory() as folder:
        model = context.adapted()
        report = train_stage(context, "full", model, Path(folder))
    bits = context.bits(pairs, model, context.format)
    texts = write_many(model, context.tokenizer, requests, context.format, seed=seed, store=context.store)
    topics, others = [r["topic"] for r in requests], [r["topic"] for r in requests[1:] + requests[:1]]
    about = lambda topics: [int(topic_share([t], [x])) for t, x in zip(texts, topics)]
    usual = lambda t: reference.bits_per_character([t.replace("\n", "，")]) * (len(t) + 1)
    row = dict(zip(("tones %", "rhyme %", "distinct %"), (measure(kind, texts, requests)[k] for k in (1, 8, 10))))
    return dict(
        kind=kind,
        seed=seed,
        steps=report.steps,
        losses=report.losses[::16],
        characters=[len(p["lyrics"].strip()) + 1 for p in pairs],
        masked=bits["masked"].round(3).tolist(),
        free=bits["free"].round(3).tolist(),
        judge=[round(usual(t), 3) for t in texts],
        written=[len(t) + 1 for t in texts],
        topic=about(topics),
        chance=about(others),
        texts=texts[:4],
        **row,
    )


FIGURES = {
    "masked bits": ("masked", "characters"),
    "free bits": ("free", "characters"),
    "judge bits": ("judge", "written"),
    "topic %": ("topic", None),
    "chance %": ("chance", None),
}


def ratio(run, figure, chosen=slice(None)):
    "One figure of a run, over all or some of its held-out items."
    top, under = FIGURES[figure]
    top = np.asarray(run[top], float)[chosen]
    return 100 * top.mean() if under is None else top.sum() / np.asarray(run[under], float)[chosen].sum()


def interval(runs, figure, against=None, draws=4_000):
    """Mean over seeds, with a 95 % bootstrap interval over held-out items (the same draws for all runs).

    With `against`, the mean difference from those runs and its interval."""
    n, rng = len(runs[0][FIGURES[figure][0]]), np.random.default_rng(0)
    mean = lambda runs, chosen=slice(None): float(np.mean([ratio(r, figure, chosen) for r in runs]))
    value = lambda chosen=slice(None): mean(runs, chosen) - (mean(against, chosen) if against else 0)
    low, high = np.quantile([value(rng.integers(0, n, n)) for _ in range(draws)], (0.025, 0.975))
    return dict(mean=round(value(), 3), low=round(float(low), 3), high=round(float(high), 3))


def base_bits():
    "Bits per character of the base on the same held-out lyrics, without a prompt, as it was pretrained."
    context = RunContext(FinetuneConfig(name="ablation"))
    pairs = context.held_out_examples("test", context.config.num_held_out)
    return {
        k: round(float(v.sum() / sum(len(p["lyrics"].strip()) + 1 for p in pairs)), 3)
        for k, v in context.bits(pairs).items()
    }


def table(runs):
    "The figures of each variant with intervals, its value per seed, and its difference from the tone mask."
    of = {k: [r for r in runs if r["kind"] == k] for k in KINDS}
    seeds = lambda k, f: [round(float(ratio(r, f)), 3) for r in of[k]]
    return {
        k: {
            f: dict(
                interval(of[k], f),
                seeds=seeds(k, f),
                **({"to the tone mask": interval(of[k], f, of["tone mask"])} if k != "tone mask" else {}),
            )
            for f in FIGURES
        }
        | {x: round(float(np.mean([r[x] for r in of[k]])), 2) for x in ("tones %", "rhyme %", "distinct %")}
        for k in KINDS
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="where each run is saved as it ends")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    requests, reference, runs = list(lyric_pairs("test", args.requests)), reference_model(), []
    for seed in range(args.seeds):
        for kind in KINDS:
            path = args.folder / f"{kind.replace(' ', '_')}-{seed}-{args.requests}.json"
            if not path.exists():
                write_json(path, one_run(kind, seed, requests, reference))
            runs.append(json.loads(path.read_text(encoding="utf-8")))
    human = dict(
        kind="human",
        judge=[
            reference.bits_per_character([r["lyrics"].replace("\n", "，")]) * (len(r["lyrics"]) + 1) for r in requests
        ],
        written=[len(r["lyrics"]) + 1 for r in requests],
    )
    write(
        "ablation",
        dict(
            pairs=FinetuneConfig().num_examples,
            steps=FinetuneConfig().steps,
            seeds=args.seeds,
            held_out=FinetuneConfig().num_held_out,
            requests=args.requests,
            bonus=KINDS["soft bonus"]["allowed_logit_bonus"],
            base=base_bits(),
            human_judge_bits=round(float(ratio(human, "judge bits")), 2),
            kinds=table(runs),
            writes={k: next(r["texts"] for r in runs if r["kind"] == k) for k in KINDS},
        )
        | made("torch", "transformers", "peft"),
    )


if __name__ == "__main__":
    main()
