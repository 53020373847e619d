"""The same model behind an endpoint that returns only text, and under the constraint: right slots, right lines, cost.

python benchmarks/endpoint.py    writes benchmarks/results/endpoint.json; ten minutes on two cores, three of them for a
                                 training run

Each part is saved in --folder as it ends; an interrupted benchmark resumes there.

There are two models, both the tiny base of 6.8 million parameters with an adapter. "shipped" is the adapter of this
package, trained under the tone mask. "plain" was trained for as long on the same pairs without a mask, like "no hook"
in lesson 51's ablation, so that it learns to follow the template in its prompt. Both are merged and served by
`transformers serve` on the loopback interface, and both also write under the constraint. Seconds are processor time: of
the server's processes for the endpoint, of this process for the constraint.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from _common import made, write

from cantolyric.data.pairs import lyric_pairs
from cantolyric.endpoint.drafting import REPAIRS
from cantolyric.endpoint.server import save_servable, serving
from cantolyric.endpoint.writer import EndpointWriter
from cantolyric.evaluation.metrics import fluency, reference_model, slot_report
from cantolyric.models import load_model
from cantolyric.template.template import ToneTemplate
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage
from cantolyric.writing.lyricist import Lyricist

ROUNDS = 8


def train(folder):
    "The folder of an adapter that was trained without the mask; it is trained now if it does not exist."
    if (folder / "adapter_config.json").exists():
        return folder
    context = RunContext(FinetuneConfig(name="endpoint", mask=False))
    model = context.adapted()
    with tempfile.TemporaryDirectory() as part:
        train_stage(context, "full", model, Path(part))
    model.save_pretrained(folder)
    return folder


def server_seconds():
    "Processor time of the child processes, in seconds."
    return sum(sum(p.cpu_times()[:2]) for p in psutil.Process().children(recursive=True))


def kept(folder, name, work):
    "The result of `work` from an earlier, interrupted run of this benchmark, or from now."
    path = folder / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(work(), ensure_ascii=False), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def by_endpoint(endpoint, requests, repair):
    "One candidate per request, and its state after each round."
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
    "One text per request, written under the mask; tokens are counted as an endpoint would."
    model, tokenizer = load_model(str(folder))
    lyricist = Lyricist(model, tokenizer)
    lyricist.write("夜雨", "0243", n=1, seed=0)  # fills the caches
    start = time.process_time()
    texts = [lyricist.write(r["topic"], r["tones"], n=1, seed=1000 * k)[0].text for k, r in enumerate(requests)]
    seconds = (time.process_time() - start) / len(requests)
    length = lambda t: len(tokenizer(t, add_special_tokens=False)["input_ids"]) + 1  # the end token
    return dict(
        seconds=seconds,
        texts=texts,
        requests=len(requests),
        read=float(np.mean([len(lyricist.format.prompt_ids(r, tokenizer)) for r in requests])),
        written=float(np.mean([length(t) for t in texts])),
    )


def figures(run, requests, reference):
    "The figures that are reported about a run."
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
        "judge bits": fluency(texts, reference),
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
            endpoint.chat(
                [dict(role="user", content="夜雨")], max_tokens=4
            )  # the server loads the model on its first request
            for repair in repairs:
                runs[name][repair] = kept(
                    folder, f"{name} {repair} {a.requests}", lambda: by_endpoint(endpoint, requests, repair)
                )
    reference = reference_model()
    out = {name: {how: figures(run, requests, reference) for how, run in of.items()} for name, of in runs.items()}
    human = fluency([r["lyrics"] for r in requests], reference)
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
