"""The same model through an endpoint that gives text only, and under the constraint: slots right, lines right, tokens, seconds.

python benchmarks/endpoint.py    writes benchmarks/results/endpoint.json; ten minutes on two cores, three of them for a training run
                                 (each part is kept in --folder as it ends, and an interrupted benchmark goes on from there)
Two models of the tiny base are written with: "shipped", the adapter of this package, which was taught under the tone mask, and "plain", taught as long on the same
pairs without any mask, as lesson 51's ablation has it ("no hook"), so that it learns the template from its prompt. Both are merged and served by `transformers serve`
on the loopback; both write under the constraint too. Everything is the teaching model of 6.8 million parameters. Seconds are processor time: of the server's process
for the endpoint, of this one for the constraint.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from _common import made, write

from cantolyric.data import lyric_pairs
from cantolyric.endpoint import REPAIRS, EndpointWriter, save_servable, serving
from cantolyric.evaluation import fluency, judge_model, slot_report
from cantolyric.finetune import FinetuneConfig, Workshop, train_rung
from cantolyric.models import load_model
from cantolyric.lyricist import Lyricist
from cantolyric.template import ToneTemplate

ROUNDS = 8


def train(folder):
    "An adapter that was taught without the mask."
    if (folder / "adapter_config.json").exists():
        return folder
    shop = Workshop(FinetuneConfig(name="endpoint", mask=False))
    model = shop.adapted()
    with tempfile.TemporaryDirectory() as part:
        train_rung(shop, "full", model, part)
    model.save_pretrained(folder)
    return folder


def server_seconds():
    "Processor time of the processes that this one started."
    return sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children(recursive=True))


def kept(folder, name, work):
    "What was measured before, or what `work` gives now: a benchmark that was interrupted goes on."
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(work(), ensure_ascii=False), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def by_endpoint(endpoint, requests, repair):
    "One candidate a request, and what had been reached after each round."
    writer, start = EndpointWriter(endpoint, "taught", repair), server_seconds()
    drafts = [
        writer.write(r["topic"], r["tones"], n=1, rounds=ROUNDS, seed=1000 * k)[0] for k, r in enumerate(requests)
    ]
    return dict(
        seconds=(server_seconds() - start) / len(requests),
        texts=[c.text for c in drafts],
        paths=[c.path for c in drafts],
        requests=sum(c.usage.requests for c in drafts),
        read=sum(c.usage.input for c in drafts) / len(requests),
        written=sum(c.usage.output for c in drafts) / len(requests),
    )


def by_constraint(folder, requests):
    "One text a request, under the mask; tokens as an endpoint would count them."
    model, tokenizer = load_model(str(folder))
    lyricist = Lyricist(model, tokenizer)
    lyricist.write("夜雨", "0243", n=1, seed=0)  # what is made once
    start = time.process_time()
    texts = [lyricist.write(r["topic"], r["tones"], n=1, seed=1000 * k)[0].text for k, r in enumerate(requests)]
    seconds = (time.process_time() - start) / len(requests)
    length = lambda t: len(tokenizer(t, add_special_tokens=False)["input_ids"]) + 1  # and the end
    return dict(
        seconds=seconds,
        texts=texts,
        requests=len(requests),
        read=float(np.mean([len(lyricist.format.prompt_ids(r, tokenizer)) for r in requests])),
        written=float(np.mean([length(t) for t in texts])),
    )


def figures(run, requests, judge):
    "What is written down about a run."
    texts, templates = run["texts"], [ToneTemplate.parse(r["tones"]) for r in requests]
    fit, slots = slot_report(texts, templates), sum(len(line) for t in templates for line in t.lines)
    lines = [
        all(c.right for c in line) for text, t in zip(texts, templates) for line in t.check(text).lines[: len(t.lines)]
    ]
    at = lambda path, k: path[min(k, len(path) - 1)]
    curve = (
        [
            {
                "rounds": k,
                "tokens": float(np.mean([at(p, k)[0] for p in run["paths"]])),
                "slots %": 100 * sum(at(p, k)[2] for p in run["paths"]) / slots,
                "faults": float(np.mean([at(p, k)[1] for p in run["paths"]])),
            }
            for k in range(ROUNDS + 1)
        ]
        if "paths" in run
        else []
    )
    out = {
        "slots %": 100 * fit.tones,
        "lines %": 100 * float(np.mean(lines)),
        "lengths %": 100 * fit.lengths,
        "whole %": 100 * fit.whole / fit.texts,
        "judge bits": fluency(texts, judge),
        "tokens": run["read"] + run["written"],
        **{k: run[k] for k in ("read", "written", "requests", "seconds")},
    }
    return {k: round(v, 3) for k, v in out.items()} | dict(
        curve=[{k: round(v, 2) for k, v in c.items()} for c in curve], texts=texts[:4]
    )


def main():
    arg = argparse.ArgumentParser()
    arg.add_argument("--folder", default="runs/endpoint")
    arg.add_argument("--requests", type=int, default=24)
    a = arg.parse_args()
    folder, requests, runs = Path(a.folder), list(lyric_pairs("test", a.requests, 0)), {}
    for name, adapter, repairs in ("plain", train(folder / "plain"), REPAIRS), ("shipped", None, ("fresh",)):
        served = save_servable(folder / f"{name} served", adapter=adapter)
        runs[name] = dict(
            constraint=kept(folder, f"{name} constraint {a.requests}", lambda: by_constraint(served, requests))
        )
        with serving(served) as endpoint:
            endpoint.chat([dict(role="user", content="夜雨")], max_tokens=4)  # the server loads what it loads once
            for repair in repairs:
                runs[name][repair] = kept(
                    folder, f"{name} {repair} {a.requests}", lambda: by_endpoint(endpoint, requests, repair)
                )
    judge = judge_model()
    out = {name: {how: figures(run, requests, judge) for how, run in of.items()} for name, of in runs.items()}
    human = fluency([r["lyrics"] for r in requests], judge)
    write(
        "endpoint",
        dict(
            requests=len(requests),
            slots=sum(len(line) for r in requests for line in ToneTemplate.parse(r["tones"]).lines),
            rounds=ROUNDS,
            **{"human judge bits": round(human, 3)},
            models=out,
            **made("torch", "transformers"),
        ),
    )


if __name__ == "__main__":
    main()
