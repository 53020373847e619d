"""What training sees, and what comes of it: no hook, a tone mask before the loss, a soft bonus; three seeds, equal steps, all write under the mask.

python benchmarks/ablation.py    writes benchmarks/results/ablation.json; three quarters of an hour on two cores
                                 (each run is kept in --folder as it ends, and an interrupted benchmark goes on from there)
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from _common import made, write

from cantolyric.data import lyric_pairs
from cantolyric.evaluation import judge_model, measure, topic_share, write_many
from cantolyric.finetune import FinetuneConfig, Workshop, train_rung, write_json

KINDS = {
    "no hook": dict(mask=False),
    "tone mask": dict(loss="hook"),
    "soft bonus": dict(bonus=3.0),
}  # settings of `FinetuneConfig`


def one_run(kind, seed, requests, judge):
    "Train once, then everything that is measured, a number for each held-out lyric or request."
    shop = Workshop(FinetuneConfig(name="ablation", seed=seed, **KINDS[kind]))
    pairs = shop.held_out("test", shop.config.held_out)
    with tempfile.TemporaryDirectory() as folder:
        model = shop.adapted()
        report = train_rung(shop, "full", model, folder)
    bits = shop.bits(pairs, model, shop.format)
    texts = write_many(model, shop.tokenizer, requests, shop.format, seed=seed, store=shop.store)
    topics, others = [r["topic"] for r in requests], [r["topic"] for r in requests[1:] + requests[:1]]
    about = lambda topics: [int(topic_share([t], [x])) for t, x in zip(texts, topics)]
    usual = lambda t: judge.bits_per_character([t.replace("\n", "，")]) * (len(t) + 1)
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
    "A figure over some of the held-out items of a run."
    top, under = FIGURES[figure]
    top = np.asarray(run[top], float)[chosen]
    return 100 * top.mean() if under is None else top.sum() / np.asarray(run[under], float)[chosen].sum()


def interval(runs, figure, against=None, draws=4_000):
    "Mean over seeds, and its 95 % interval from drawing held-out items anew (the same for all runs); with `against`, of the difference."
    n, rng = len(runs[0][FIGURES[figure][0]]), np.random.default_rng(0)
    mean = lambda runs, chosen=slice(None): float(np.mean([ratio(r, figure, chosen) for r in runs]))
    value = lambda chosen=slice(None): mean(runs, chosen) - (mean(against, chosen) if against else 0)
    low, high = np.quantile([value(rng.integers(0, n, n)) for _ in range(draws)], (0.025, 0.975))
    return dict(mean=round(value(), 3), low=round(float(low), 3), high=round(float(high), 3))


def base_bits():
    "The base on the same held-out lyrics, without prompt, as it was pretrained."
    shop = Workshop(FinetuneConfig(name="ablation"))
    pairs = shop.held_out("test", shop.config.held_out)
    return {
        k: round(float(v.sum() / sum(len(p["lyrics"].strip()) + 1 for p in pairs)), 3)
        for k, v in shop.bits(pairs).items()
    }


def table(runs):
    "Figures of each kind with intervals, the spread of its seeds, and its difference to the tone mask."
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
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="where each run is kept as it ends")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    requests, judge, runs = list(lyric_pairs("test", args.requests)), judge_model(), []
    for seed in range(args.seeds):
        for kind in KINDS:
            path = args.folder / f"{kind.replace(' ', '_')}-{seed}-{args.requests}.json"
            if not path.exists():
                write_json(path, one_run(kind, seed, requests, judge))
            runs.append(json.loads(path.read_text(encoding="utf-8")))
    human = dict(
        kind="human",
        judge=[judge.bits_per_character([r["lyrics"].replace("\n", "，")]) * (len(r["lyrics"]) + 1) for r in requests],
        written=[len(r["lyrics"]) + 1 for r in requests],
    )
    write(
        "ablation",
        dict(
            pairs=FinetuneConfig.pairs,
            steps=FinetuneConfig.steps,
            seeds=args.seeds,
            held_out=FinetuneConfig.held_out,
            requests=args.requests,
            bonus=KINDS["soft bonus"]["bonus"],
            base=base_bits(),
            human_judge_bits=round(float(ratio(human, "judge bits")), 2),
            kinds=table(runs),
            writes={k: next(r["texts"] for r in runs if r["kind"] == k) for k in KINDS},
        )
        | made("torch", "transformers", "peft"),
    )


if __name__ == "__main__":
    main()
