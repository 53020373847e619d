"""The benchmark of lesson 51: 320 held-out requests, every system with up to three seeds, one report.

python benchmarks/evaluation.py    writes benchmarks/results/evaluation.json, and evaluation/ beside it: the report, its plots, samples; texts are in --folder;
                                   half an hour of processor time, a third of it for five training runs (each adapter and each system's texts are
                                   kept in --folder as they end, and an interrupted benchmark goes on from there)
Two kinds of adapter, all of 8,192 pairs and 256 steps: "finetuned", taught without the tone mask, and "mask-finetuned", taught under it, of which
seed 0 is the adapter that this package ships. Seed s of a system is training seed s, and seed s of what is drawn; RUNS says how many there are.
The endpoint writes for the first ENDPOINT requests only: `transformers serve` with the plain adapter, a draft and up to ROUNDS repairs.
"""

import argparse
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path

from _common import RESULTS, made, write

from cantolyric.base import asset_path
from cantolyric.endpoint import EndpointWriter, save_servable, serving
from cantolyric.evaluation import (
    REPORT_FILES,
    System,
    benchmark_requests,
    evaluate_to,
    prompt_tones,
    reference_systems,
    template_of,
    write_many,
)
from cantolyric.finetune import FinetuneConfig, Workshop, mask_store, train_rung
from cantolyric.models import load_model
from cantolyric.formats import ChatML

SEEDS, ENDPOINT, ROUNDS = 3, 24, 4
PLAIN, TAUGHT = "finetuned", "mask-finetuned"
RUNS = {"base": SEEDS, PLAIN: SEEDS, TAUGHT: SEEDS}  # of those whose texts differ from seed to seed
SEARCHES = SEEDS  # runs of the decoding methods that write four texts for one
BOTH, BEST = f"{PLAIN} masked", f"{TAUGHT} masked"
COMPARE = [
    (f"{PLAIN} free", "base free"),
    ("base masked", "random masked"),
    (BOTH, "base masked"),
    (BOTH, f"{PLAIN} free"),
    (BEST, BOTH),
    (f"{BEST} greedy", BEST),
    (f"{BEST} best of 4", BEST),
    (f"{BEST} beam of 4", BEST),
    (f"{PLAIN} endpoint", f"{PLAIN} free"),
    ("human lines", BEST),
]


def adapter(folder, masked, seed):
    "The folder of an adapter, trained now if it is not there."
    if masked and seed == 0:
        return asset_path("adapter")
    out = folder / "adapters" / f"{'masked' if masked else 'plain'}-{seed}"
    if (out / "adapter_config.json").exists():
        return out
    shop = Workshop(FinetuneConfig(name="evaluation", seed=seed, mask=masked))
    model = shop.adapted()
    with tempfile.TemporaryDirectory() as part:
        train_rung(shop, "full", model, part)
    model.save_pretrained(out.with_suffix(".part"), save_embedding_layers=False)
    out.with_suffix(".part").rename(out)
    return out


def all_adapters(folder):
    "The base with every adapter on it, one of them at work at a time."
    from peft import PeftModel

    model, tokenizer = load_model("tiny")
    folders = {f"{kind}-{s}": adapter(folder, kind == TAUGHT, s) for kind in (PLAIN, TAUGHT) for s in range(RUNS[kind])}
    names = list(folders)
    model = PeftModel.from_pretrained(model, str(folders[names[0]]), names[0])
    for name in names[1:]:
        model.load_adapter(str(folders[name]), name)
    return model.eval(), tokenizer, {name: f.name for name, f in folders.items()}


def by_size(write, requests):
    "Texts that are as long as each other are written together; they come back in the order of the requests."
    order = sorted(range(len(requests)), key=lambda k: len(prompt_tones(template_of(requests[k]))))
    return [t for _, t in sorted(zip(order, write([requests[k] for k in order])), key=lambda x: x[0])]


def systems(model, tokenizer):
    "Every row of the table but the endpoint's."
    format = ChatML()
    store = mask_store(model, tokenizer, format)

    def system(kind, masked, method="sample"):
        def work(requests, seed):
            if kind != "base":
                model.set_adapter(f"{kind}-{seed}")
            with model.disable_adapter() if kind == "base" else nullcontext():
                return by_size(
                    lambda part: write_many(
                        model,
                        tokenizer,
                        part,
                        format,
                        masked,
                        seed,
                        batch=64 if method == "sample" else 24,
                        store=store,
                        method=method,
                    ),
                    requests,
                )

        return System(work, SEARCHES if method in ("best", "beam") else RUNS[kind], f"{kind} {masked} {method}")

    out = reference_systems(store.table) | {
        f"{kind} {how}": system(kind, how == "masked") for kind in ("base", PLAIN) for how in ("free", "masked")
    }
    return (
        out
        | {BEST: system(TAUGHT, True)}
        | {
            f"{BEST} {name}": system(TAUGHT, True, method)
            for name, method in (("greedy", "greedy"), ("best of 4", "best"), ("beam of 4", "beam"))
        }
    )


def endpoint_system(folder):
    "The plain adapter behind an interface that gives text only."

    def work(requests, seed):
        served = save_servable(folder / f"served-{seed}", adapter=adapter(folder, False, seed))
        with serving(served) as endpoint:
            writer = EndpointWriter(endpoint, "taught", "lines")
            one = lambda k, r: (
                writer.write(r["topic"], r["tones"], n=1, rounds=ROUNDS, seed=1000 * k + seed, scheme=r["scheme"])[
                    0
                ].text
            )
            return [one(k, r) if k < ENDPOINT else None for k, r in enumerate(requests)]

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
