"""Does a real model learn tones by itself? Qwen2.5-Coder-0.5B trained with and without the tone mask.

    python benchmarks/qwen_tones.py all    writes benchmarks/results/qwen_tones.json; after qwen_train.py

The adapters are the snapshots that qwen_train.py keeps in the cache folder, and the shipped one. Each writes 64 texts
without the constraint (32 validation verses, two seeds, temperature 0.8, top-p 0.95). `tone_accuracy` is the share of
the slots with the right tone, where a missing syllable counts as wrong; `tones_of_fitting_lines` counts only the lines
with the right number of syllables; `chance` is the latter if each line is compared with the tones of another line of
the same length. The losses are nats per token over the 90 complete validation verses, with the mask and without it.
Adapters that are already in the result file are not measured again.
"""

import json
import sys

import numpy as np
import torch
from _common import RESULTS, made, write
from qwen_search import requests
from qwen_train import ADAPTERS, BASE, COMPARED_STEPS, OTHER_WAYS, SNAPSHOTS, folder_of, validation_losses

from cantolyric.constraint.mask_store import mask_store
from cantolyric.evaluation.decoding import Decoding, write_many
from cantolyric.evaluation.metrics import slot_report
from cantolyric.template.template import ToneTemplate
from cantolyric.writing.lyricist import Lyricist

SEEDS = 2


def adapters():
    "The adapters to measure: (run, step) -> folder; the shipped one has no step, because it is an average."
    out = {("base", 0): "none", ("main", 300): ADAPTERS / "warm-start" / "main-step-300"}
    out |= {("no-mask", 175): ADAPTERS / "warm-start" / "no-mask-step-175", ("shipped", None): ADAPTERS / BASE}
    for run in OTHER_WAYS:
        for step in range(2 * SNAPSHOTS, COMPARED_STEPS + 1, 2 * SNAPSHOTS):
            folder = folder_of(run) / "snapshots" / f"step-{step}"
            if folder.exists() and (run == "no-mask" or step == COMPARED_STEPS):
                out[run, step] = folder
    return out


def fitting_lines(texts, templates):
    "The digits of each line with the right number of syllables, and those of the template."
    for text, tones in zip(texts, templates, strict=True):
        wanted = tones.split("/")
        for line in ToneTemplate.parse(tones).check(text).lines[: len(wanted)]:
            if all(check.slot and check.char for check in line):
                yield "".join(check.got for check in line), "".join(check.wanted for check in line)


def share(pairs):
    "The share of equal digits; None if there are no digits."
    same = [a == b for pair in pairs for a, b in zip(*pair, strict=True)]
    return round(sum(same) / len(same), 4) if same else None


def by_chance(pairs, rng):
    "The pairs, with the templates shuffled among lines of the same length."
    by_length = {}
    for digits, wanted in pairs:
        by_length.setdefault(len(wanted), []).append((digits, wanted))
    for same in by_length.values():
        yield from zip([digits for digits, _ in same], rng.permutation([wanted for _, wanted in same]), strict=True)


def unconstrained(x, store):
    "The tone accuracy, the share of lines with the right length, and the first texts."
    asked, texts = requests(), []
    for seed in range(SEEDS):
        decoding = Decoding(constrained=False)
        texts += write_many(x.model, x.tokenizer, asked, x.format, decoding, seed, store, f"seed {seed}")
    templates = [r["tones"] for r in asked] * SEEDS
    found, pairs = slot_report(texts, templates), list(fitting_lines(texts, templates))
    rng = np.random.default_rng(0)
    shuffled = [pair for _ in range(100) for pair in by_chance(pairs, rng)]
    return dict(
        tone_accuracy=round(found.tones, 4),
        line_lengths=round(found.lengths, 4),
        fitting_lines=len(pairs),
        tones_of_fitting_lines=share(pairs),
        chance=share(shuffled),
        first=[text[:200] for text in texts[:4]],
    )


def main():
    if sys.argv[1:] != ["all"]:  # `make bench`
        return print("skipped: it needs the runs of qwen_train.py; to measure them, pass the argument all")
    torch.set_num_threads(2)
    file = RESULTS / "qwen_tones.json"
    known = json.loads(file.read_text(encoding="utf-8"))["adapters"] if file.exists() else {}
    for (run, step), folder in adapters().items():
        name = run if step is None else f"{run}, step {step}"
        if name in known:
            continue
        print(name)
        x = Lyricist.from_pretrained(BASE, str(folder))
        store = mask_store(x.model, x.tokenizer, x.format)
        figures = dict(run=run, step=step) | unconstrained(x, store)
        if step is None or step >= COMPARED_STEPS:
            figures["validation"] = validation_losses(x.model, x.tokenizer, x.format, store)
        known[name] = figures
        write("qwen_tones", dict(base=BASE, seeds=SEEDS, adapters=known) | made("torch", "transformers", "peft"))


if __name__ == "__main__":
    main()
