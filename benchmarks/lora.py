"""What an adapter's rank, placement and learning rate change, compared with training all weights.

python benchmarks/lora.py    writes benchmarks/results/lora.json; about an hour on two cores

All runs train the tiny base for 64 steps on the same 2,048 pairs. Each run is saved in --folder as it ends; an
interrupted benchmark resumes there.
"""

import argparse
import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from _common import made, write

from cantolyric.atomic_files import write_json
from cantolyric.constraint.scoring import answer_bits, per_character
from cantolyric.lora import add_lora, dense_weight, linear_layers, lora_layers
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage

PLACES = {"all-linear": "all-linear", "attention": r"self_attn", "mlp": r"\.mlp\.", "head": "lm_head"}
RANKS = (1, 2, 4, 8, 16, 32, 64)
CONFIG = FinetuneConfig(name="lora", num_examples=2048, steps=64)
HELD_OUT = 192  # validation pairs


@dataclass
class One:
    "One run; alpha equals the rank, so that the scaling is 1, as in the finetune."

    place: str  # a key of PLACES, or "everything": no adapter, all weights trained
    rank: int  # 0 for "everything"
    lr: float  # peak
    seed: int = 0

    @property
    def file(self):
        return f"{self.place}-r{self.rank}-lr{self.lr:g}-s{self.seed}.json"


EQUAL = (("attention", 22), ("mlp", 13), ("head", 28))  # about as many parameters as all-linear with rank 8


def plan():
    "The runs, the most informative first."
    lora = lambda ranks, *rates: [One("all-linear", r, lr) for lr in rates for r in ranks]
    whole = lambda *rates: [One("everything", 0, lr) for lr in rates]
    at = lambda *rates: [One(place, r, lr) for lr in rates for place, r in EQUAL]
    seeds = [One("all-linear", 8, 2e-3, s) for s in (1, 2)] + [One("everything", 0, 4e-4, s) for s in (1, 2)]
    runs = (
        lora(RANKS, 2e-3)
        + whole(4e-4)
        + at(2e-3)
        + whole(8e-4, 2e-4)
        + lora((32, 8), 4e-3)
        + at(4e-3)
        + lora((1, 64), 4e-3)
        + lora((32, 8), 1e-3)
        + whole(1e-4, 1.6e-3)
        + lora((32, 8, 1), 8e-3)
        + lora(RANKS, 4e-3, 1e-3)
        + seeds
        + at(1e-3)
        + lora(RANKS, 8e-3)
        + at(8e-3)
    )
    return list({one.file: one for one in runs}.values())


def shares(before, model):
    """The singular values of each kind of matrix's update.

    `shares`: of the squared Frobenius norm, in the top 1, 2, 4, ... singular vectors; `rank90`: how many hold 90 %."""
    kinds = {}
    for name, layer in linear_layers(model).items():
        if name not in before:
            continue
        merged = (
            layer.updates["default"].merged(dense_weight(layer.base_layer))
            if hasattr(layer, "updates")
            else layer.weight
        )
        s2 = torch.linalg.svdvals((merged - before[name]).detach().double()).square().numpy()
        kinds.setdefault(name.rpartition(".")[2], []).append(np.cumsum(s2) / s2.sum() if s2.sum() else np.ones_like(s2))
    at = lambda c, k: float(c[min(k, len(c)) - 1])
    return {
        kind: dict(
            shares={k: round(float(np.mean([at(c, k) for c in cs])), 4) for k in (1, 2, 4, 8, 16, 32, 64, 128)},
            rank90=float(np.mean([int(np.searchsorted(c, 0.9)) + 1 for c in cs])),
        )
        for kind, cs in kinds.items()
    }


def one_run(one, context, pairs):
    "Train once, and measure the NLL of held-out lyrics."
    context.config = replace(CONFIG, lr=one.lr, seed=one.seed)
    torch.manual_seed(one.seed)
    model = copy.deepcopy(context.model).requires_grad_(True)
    before = {n: m.weight.detach().clone() for n, m in linear_layers(model).items() if n != "lm_head"}
    if one.rank:
        add_lora(model, PLACES[one.place], rank=one.rank, alpha=one.rank)
    report = train_stage(context, "full", model)
    bits = answer_bits(model, context.tokenizer, pairs, context.format, store=context.store)
    return asdict(one) | dict(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=len(lora_layers(model)),
        first=round(float(np.mean(report.losses[:3])), 4),
        last=round(float(np.mean(report.losses[-8:])), 4),
        held_out=round(per_character(bits, pairs), 4),
        update=shares(before, model),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/lora"), help="where each run is saved as it ends")
    parser.add_argument("--runs", type=int, default=None, help="run at most this many, the most informative first")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    context, runs = RunContext(CONFIG), []
    pairs = context.held_out_examples("validation", HELD_OUT)
    base = {
        k: round(per_character(answer_bits(context.model, context.tokenizer, pairs, f, store=s), pairs), 4)
        for k, f, s in (("with prompt", context.format, context.store), ("without", None, context.unprompted_store))
    }
    for one in plan()[: args.runs]:
        path = args.folder / one.file
        if not path.exists():
            write_json(path, one_run(one, context, pairs))
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    write(
        "lora",
        dict(
            pairs=CONFIG.num_examples,
            steps=CONFIG.steps,
            batch=CONFIG.batch_size,
            held_out=len(pairs),
            base=base,
            runs=runs,
        )
        | made("torch", "transformers"),
    )


if __name__ == "__main__":
    main()
