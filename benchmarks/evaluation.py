"""The benchmark of lesson 51: 320 held-out requests, every system with up to three seeds, one report.

python benchmarks/evaluation.py    writes benchmarks/results/evaluation.json, and the report, its plots and samples
                                   to evaluation/ next to it; half an hour of processor time

A third of the time is for five training runs. Adapters and texts are saved in --folder as they are finished, and an
interrupted benchmark continues from there.

There are two kinds of adapter, both of 8,192 examples and 256 steps: "finetuned", trained without the tone mask, and
"mask-finetuned", trained with it, of which seed 0 is the adapter that this package ships. Seed s of a system is the
seed of training and of sampling; RUNS says how many there are. The endpoint writes for the first ENDPOINT requests
only: `transformers serve` with the plain adapter, a draft and up to ROUNDS repairs.
"""

import argparse
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from _common import RESULTS, made, write

from cantolyric.constraint.mask_store import mask_store
from cantolyric.endpoint.server import save_servable, serving
from cantolyric.endpoint.writer import EndpointWriter
from cantolyric.evaluation.decoding import Decoding, write_many
from cantolyric.evaluation.metrics import request_template
from cantolyric.evaluation.report import REPORT_FILES, evaluate_to
from cantolyric.evaluation.requests import benchmark_requests
from cantolyric.evaluation.systems import HUMAN_LINES, RANDOM_BASELINE, System, reference_systems, writer_system
from cantolyric.formats import ChatML
from cantolyric.models import load_model
from cantolyric.paths import asset_path
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage
from cantolyric.writing.prompts import prompt_tones

SEEDS, ENDPOINT, ROUNDS = 3, 24, 4
PLAIN, TAUGHT = "finetuned", "mask-finetuned"
RUNS = {"base": SEEDS, PLAIN: SEEDS, TAUGHT: SEEDS}  # of those whose texts differ from seed to seed
SEARCHES = SEEDS  # runs of the decoding methods that write four texts for one
BOTH, BEST = f"{PLAIN} constrained", f"{TAUGHT} constrained"
COMPARE = [
    (f"{PLAIN} unconstrained", "base unconstrained"),
    ("base constrained", RANDOM_BASELINE),
    (BOTH, "base constrained"),
    (BOTH, f"{PLAIN} unconstrained"),
    (BEST, BOTH),
    (f"{BEST} greedy", BEST),
    (f"{BEST} best of 4", BEST),
    (f"{BEST} beam of 4", BEST),
    (f"{PLAIN} endpoint", f"{PLAIN} unconstrained"),
    (HUMAN_LINES, BEST),
]


def adapter(folder, masked, seed):
    "The folder of an adapter, trained now if it is not there."
    if masked and seed == 0:
        return asset_path("adapter")
    out = folder / "adapters" / f"{'masked' if masked else 'plain'}-{seed}"
    if (out / "adapter_config.json").exists():
        return out
    context = RunContext(FinetuneConfig(name="evaluation", seed=seed, mask=masked))
    model = context.adapted()
    with tempfile.TemporaryDirectory() as part:
        train_stage(context, "full", model, Path(part))
    model.save_pretrained(out.with_suffix(".part"), save_embedding_layers=False)
    out.with_suffix(".part").rename(out)
    return out


def all_adapters(folder):
    "The base with all adapters loaded, one of them active at a time."
    from peft import PeftModel

    model, tokenizer = load_model("tiny")
    folders = {f"{kind}-{s}": adapter(folder, kind == TAUGHT, s) for kind in (PLAIN, TAUGHT) for s in range(RUNS[kind])}
    names = list(folders)
    model = PeftModel.from_pretrained(model, str(folders[names[0]]), names[0])
    for name in names[1:]:
        model.load_adapter(str(folders[name]), name)
    return model.eval(), tokenizer, {name: f.name for name, f in folders.items()}


def by_size(write, requests):
    "Write texts of similar length together; return them in the order of the requests."
    order = sorted(range(len(requests)), key=lambda k: len(prompt_tones(request_template(requests[k]))))
    return [t for _, t in sorted(zip(order, write([requests[k] for k in order])), key=lambda x: x[0])]


def model_system(parts, kind, decoding):
    "One kind of adapter (or the base) with one way to decode; `parts` are model, tokenizer, format and mask store."
    model, tokenizer, format, store = parts

    def work(requests, seed):
        if kind != "base":
            model.set_adapter(f"{kind}-{seed}")
        with model.disable_adapter() if kind == "base" else nullcontext():
            return by_size(
                lambda part: write_many(model, tokenizer, part, format, decoding, seed, store),
                requests,
            )

    runs = SEARCHES if decoding.method in ("best", "beam") else RUNS[kind]
    return System(work, runs, f"{kind} {decoding.constrained} {decoding.method}")


def systems(model, tokenizer):
    "Every system except the endpoint."
    format = ChatML()
    store = mask_store(model, tokenizer, format)
    parts = model, tokenizer, format, store
    sampled = Decoding(batch_size=64)
    out = reference_systems(store.table)
    for kind in ("base", PLAIN):
        out[f"{kind} unconstrained"] = model_system(parts, kind, replace(sampled, constrained=False))
        out[f"{kind} constrained"] = model_system(parts, kind, sampled)
    out[BEST] = model_system(parts, TAUGHT, sampled)
    for name, method in (("greedy", "greedy"), ("best of 4", "best"), ("beam of 4", "beam")):
        out[f"{BEST} {name}"] = model_system(parts, TAUGHT, Decoding(method))
    return out


def endpoint_system(folder):
    "The plain adapter behind an endpoint that returns only text."

    def work(requests, seed):
        served = save_servable(folder / f"served-{seed}", adapter=adapter(folder, False, seed))
        with serving(served) as endpoint:
            writer = EndpointWriter(endpoint, "taught", "lines")
            texts = writer_system(writer, rounds=ROUNDS).write(requests[:ENDPOINT], seed)
        return texts + [None] * (len(requests) - len(texts))

    return {f"{PLAIN} endpoint": System(work, RUNS[PLAIN], f"lines, {ROUNDS} rounds, {ENDPOINT} requests")}


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument("--folder", type=Path, default=Path("runs/evaluation"))
    a = arg.parse_args()
    model, tokenizer, _ = all_adapters(a.folder)
    requests = benchmark_requests()
    report = evaluate_to(
        a.folder / "report", systems(model, tokenizer) | endpoint_system(a.folder), requests, SEEDS, COMPARE
    )
    (RESULTS / "evaluation").mkdir(exist_ok=True)
    for name in REPORT_FILES[:-1]:
        shutil.copy(a.folder / "report" / name, RESULTS / "evaluation" / name)
    write("evaluation", report.to_dict() | made("torch", "transformers", "peft", "ToJyutping"))


if __name__ == "__main__":
    main()
