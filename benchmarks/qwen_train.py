"""Training runs of Qwen2.5-Coder-0.5B: a sweep, the long run, and other ways to train, compared with it.

    python benchmarks/qwen_train.py sweep               four runs of 60 steps; each changes the best settings so far
    python benchmarks/qwen_train.py main                the sweep if not done, then the long run with its best settings
    python benchmarks/qwen_train.py continue            100 more steps from the adapter in adapters/ (see LAST_STEPS)
    python benchmarks/qwen_train.py no-mask bonus nf4   the first 100 steps of the same schedule, trained in another way
    python benchmarks/qwen_train.py decay               100 more steps without a mask, with a falling learning rate
    python benchmarks/qwen_train.py all                 all of them: about three hours on two cores
    python benchmarks/qwen_train.py merge               averages two of these adapters; measures both and the average
    python benchmarks/qwen_train.py ship [RUN]          copies an adapter to adapters/, in bf16; RUN defaults to merged

Every run continues where it was interrupted, and a finished run is not repeated. Checkpoints and snapshots of the
adapter are in the cache folder (CANTOLYRIC_CACHE), figures in benchmarks/results/qwen_train.json. The validation loss
is in nats per token over the whole validation verses, under the mask if the run trains under it.

`merge` averages the weight updates (B A) of an adapter trained under the mask and one trained without it, and
approximates the result by a truncated singular value decomposition at the same rank.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, made, write
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from cantolyric.atomic_files import atomic_dir, atomic_file
from cantolyric.constraint.mask_store import mask_store
from cantolyric.constraint.scoring import ToneCollator, encode_pairs, row_bits
from cantolyric.data.examples import load_examples
from cantolyric.models import format_for, load_model
from cantolyric.paths import cache_folder
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.config_file import yaml_text
from cantolyric.training.context import RunContext
from cantolyric.training.stages import save_adapter
from cantolyric.training.trainer import TrainingJob, checkpoints, make_trainer, run_trainer

BASE = "qwen2.5-coder-0.5b"
ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"
SWEEP_STEPS, MAIN_STEPS, COMPARED_STEPS = 60, 400, 100
DECAYED_STEPS = 200  # without a mask: from step 100 on, the learning rate falls to 0 at this step
# The long run was cut off after step 300, and only its adapter was kept. `continue` trains the last quarter of the
# linear schedule from it, with a new optimizer and examples in another order.
LAST_STEPS = dict(from_adapter="shipped", lr=2.5e-4, seed=1)
MERGED = {"main-step-300": 0.4, "no-mask-step-175": 0.6}  # folders in adapters/warm-start -> weights
SNAPSHOTS = 25  # steps between snapshots of the runs that are compared
COMMON = dict(base=BASE, examples="random-windows", max_length=256, batch_size=8, num_eval_examples=90)
OTHER_WAYS = {
    "no-mask": dict(mask=False),
    "bonus": dict(allowed_logit_bonus=5.0),
    "nf4": dict(quantization="nf4"),
}


def folder_of(name):
    "The folder of a run in the cache."
    return cache_folder() / "benchmarks" / "qwen_train" / name


def results():
    "The figures so far, by run."
    file = RESULTS / "qwen_train.json"
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else {}


def keep(name, figures):
    "Add the figures of a run to the result file."
    runs = results() | {name: figures}
    write("qwen_train", dict(base=BASE, runs=runs) | made("torch", "transformers", "peft"))


class Snapshots(TrainerCallback):
    "Keep the adapter of every checkpoint, and stop at `last_step`, even if the schedule is longer."

    def __init__(self, folder, last_step):
        self.folder, self.last_step = folder, last_step

    def on_save(self, args, state, control, **kw):
        target = self.folder / "snapshots" / f"step-{state.global_step}"
        target.mkdir(parents=True, exist_ok=True)
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copy(Path(args.output_dir) / f"checkpoint-{state.global_step}" / file, target / file)

    def on_step_end(self, args, state, control, **kw):
        if state.global_step >= self.last_step:
            control.should_training_stop = control.should_save = True


def validation_rows(context):
    "The whole validation verses, the longest first: the same for every run, whatever it trains on."
    verses = load_examples("verses", kind="verses")("validation")
    rows = encode_pairs(verses, context.format, context.tokenizer, context.masks)
    return sorted(rows, key=lambda r: -len(r["input_ids"]))


def train(name, steps, every, last_step=None, after=None, **settings):
    """Train once, unless the figures exist: a schedule of `steps` steps, with a snapshot every `every` steps.

    A new run starts from the last checkpoint of the run `after`, if there is one.
    """
    known = results().get(name)
    if known:
        return known
    trainer_options = dict(gradient_accumulation_steps=2, eval_steps=settings.pop("eval_steps"))
    trainer_options |= settings.pop("trainer", {})
    config = FinetuneConfig(**COMMON, steps=steps, save_every=every, trainer=trainer_options, **settings)
    folder = folder_of(name)
    context = RunContext(config)
    rows, model = context.stage_rows("full", f"{name}: masks"), context.adapted()
    job = TrainingJob(rows, context.plan("full"), folder, validation_rows(context), title=name)
    trainer = make_trainer(context, model, job)
    trainer.add_callback(Snapshots(folder, last_step or steps))
    found = checkpoints(folder) or (checkpoints(folder_of(after)) if after else [])
    run_trainer(trainer, found[-1] if found else None)
    history = trainer.state.log_history
    losses = [x["loss"] for x in history if "loss" in x]
    seconds = [x["seconds"] for x in history if "seconds" in x]
    evals = [[x["step"], round(x["eval_loss"], 4)] for x in history if "eval_loss" in x]
    save_adapter(model, folder / "adapter", BASE)
    (folder / "adapter" / "config.yaml").write_text(yaml_text(config, context.data), encoding="utf-8")
    figures = dict(
        settings=dict(
            lr=config.lr,
            scheduler=str(trainer.args.lr_scheduler_type.value),
            data=config.mix or config.data,
            **{k: settings[k] for k in ("mask", "allowed_logit_bonus", "quantization") if k in settings},
        ),
        schedule=steps,
        steps=len(losses),
        examples=len(rows),
        seconds_per_step=round(sorted(seconds)[len(seconds) // 2], 2),
        validation=evals,
        best_step=trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
        losses=[round(x, 4) for x in losses],
    )
    keep(name, figures)
    return figures


def last_validation(figures):
    return figures["validation"][-1][1]


def sweep():
    "Learning rate, then schedule, then share of corpus lines; each run changes one setting of the best so far."
    best = dict(lr=3e-4, data="verses")
    lowest = last_validation(train("sweep: learning rate 3e-4", SWEEP_STEPS, 30, eval_steps=30, **best))
    trials = {
        "sweep: learning rate 1e-3": dict(lr=1e-3),
        "sweep: linear schedule": dict(trainer=dict(lr_scheduler_type="linear")),
        "sweep: 25 % corpus lines": dict(data="builtin", mix={"verses": 0.75, "corpora": 0.25}),
    }
    for name, change in trials.items():
        loss = last_validation(train(name, SWEEP_STEPS, 30, eval_steps=30, **best | change))
        if loss < lowest:
            lowest, best = loss, best | change
    return best


def validation_losses(model, tokenizer, format, store):
    "Nats per token over the validation verses, with and without the mask."
    pairs = load_examples("verses", kind="verses")("validation")
    rows = encode_pairs(pairs, format, tokenizer, store)
    bits = row_bits(model, rows, ToneCollator(tokenizer.pad_token_id, store), desc="losses", free=True)
    tokens = sum(sum(label != -100 for label in row["labels"]) for row in rows)
    return {kind: round(float(np.sum(b)) * np.log(2) / tokens, 4) for kind, b in bits.items()}


def merge():
    "Average adapters, and measure the losses of each and of the average."
    sources = [ADAPTERS / "warm-start" / name for name in MERGED]
    base, tokenizer = load_model(BASE)
    model = PeftModel.from_pretrained(base, sources[0], adapter_name=sources[0].name)
    for source in sources[1:]:
        model.load_adapter(source, source.name)
    rank = model.peft_config[sources[0].name].r
    options = dict(combination_type="svd", svd_rank=rank, svd_full_matrices=False)
    model.add_weighted_adapter(list(MERGED), list(MERGED.values()), "merged", **options)
    format = format_for(base, tokenizer)
    store = mask_store(model, tokenizer, format)
    losses = {}
    for name in (*MERGED, "merged"):
        model.set_adapter(name)
        losses[name] = validation_losses(model, tokenizer, format, store)
        print(name, losses[name])
    settings = model.peft_config["merged"]
    settings.base_model_name_or_path, settings.revision = BASE, getattr(base, "commit", None)
    folder = folder_of("merged") / "adapter"
    with atomic_dir(folder) as unfinished:
        model.save_pretrained(str(unfinished), selected_adapters=["merged"], save_embedding_layers=False)
        for file in (unfinished / "merged").iterdir():
            shutil.move(file, unfinished / file.name)
        (unfinished / "merged").rmdir()
        for name in ("base.json", "config.yaml"):
            shutil.copy(sources[0] / name, unfinished / name)
    keep("merged", dict(settings=dict(weights=MERGED, rank=rank), validation=losses))


def ship(name):
    "Write the adapter of a run to adapters/, in bf16, with its settings; the model card is written by hand."
    source, target = folder_of(name) / "adapter", ADAPTERS / BASE
    tensors = {k: v.to(torch.bfloat16) for k, v in load_file(source / "adapter_model.safetensors").items()}
    with atomic_file(target / "adapter_model.safetensors") as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt"})
    for name in ("adapter_config.json", "base.json", "config.yaml"):
        shutil.copy(source / name, target / name)
    sha256 = hashlib.sha256((target / "adapter_model.safetensors").read_bytes()).hexdigest()
    print(f"write this hash into the catalogue in nbs/lib/model_files.ipynb: {sha256}")


def main():
    if sys.argv[1:2] == ["ship"]:
        return ship(*sys.argv[2:3] or ["merged"])
    if sys.argv[1:] == ["merge"]:
        return merge()
    parts = sys.argv[1:]
    if not parts:  # `make bench`
        return print("skipped: it trains for hours; name the runs, as the first lines of this file describe")
    if parts == ["all"]:
        parts = ["sweep", "main", *OTHER_WAYS]
    best = sweep()
    print("best settings:", best)
    if "main" in parts:
        train("main", MAIN_STEPS, 50, eval_steps=50, early_stopping=2, **best)
    if "continue" in parts:
        train("continue", 100, 50, eval_steps=50, early_stopping=2, **best | LAST_STEPS)
    for name, change in OTHER_WAYS.items():
        if name in parts:
            train(name, MAIN_STEPS, SNAPSHOTS, COMPARED_STEPS, eval_steps=COMPARED_STEPS, **best | change)
    if "decay" in parts:
        settings = best | OTHER_WAYS["no-mask"]
        train("no-mask, decayed", DECAYED_STEPS, SNAPSHOTS, after="no-mask", eval_steps=COMPARED_STEPS, **settings)


if __name__ == "__main__":
    main()
