"""What a 4-bit base saves and costs: memory of a process that loads it, lyrics at fewer and fewer bits, QLoRA and LoRA.

python benchmarks/quantization.py [part ...]    writes benchmarks/results/quantization.json; one thread, about ten
                                                minutes for all parts

"memory" loads a model of Qwen2.5-0.5B's shape with random weights (1 GB on disk, deleted afterwards) in its own
process: once in bf16, once in NF4 by bitsandbytes. "written" is the tiny base with the shipped adapter merged; "qlora"
trains a fresh adapter on the tiny base, for three seeds.
"""

import json
import logging
import multiprocessing
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, made, write

warnings.filterwarnings("ignore")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config

from cantolyric.base import load_base, quiet_loading
from cantolyric.constraint.scoring import ToneCollator, encode_pairs, per_character, row_bits
from cantolyric.data.pairs import lyric_pairs
from cantolyric.evaluation.decoding import write_many
from cantolyric.evaluation.metrics import fluency, reference_model, slot_report, topic_share
from cantolyric.paths import asset_path
from cantolyric.quantization import cpu_packed_layers, modified_weights, quantize_dequantize, storage_report
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage
from cantolyric.writing.lyricist import Lyricist

SHAPE = dict(
    hidden_size=896,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    intermediate_size=4864,
    vocab_size=151_936,
    tie_word_embeddings=True,
)
WIDTHS, TEXTS, SEEDS = (32, 8, 4, 3, 2), 192, (0, 1, 2)


def load_4bit(folder=None, dtype=torch.bfloat16):
    "Load a model from a folder, with its blocks in NF4 with double quantization."
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    with quiet_loading():
        return AutoModelForCausalLM.from_pretrained(
            folder or asset_path("base"), quantization_config=config, dtype=dtype
        ).eval()


def occupied():
    "MiB that the process occupies now (VmRSS)."
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def _child(pipe, folder, four):
    import ctypes
    import gc

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:  # imports and buffers of a first load do not count
        tiny = AutoModelForCausalLM.from_config(
            Qwen2Config(
                hidden_size=64,
                num_hidden_layers=1,
                num_attention_heads=1,
                num_key_value_heads=1,
                intermediate_size=64,
                vocab_size=64,
            ),
            dtype=torch.bfloat16,
        )
        tiny.save_pretrained(d)
        load_4bit(d) if four else AutoModelForCausalLM.from_pretrained(d, dtype=torch.bfloat16)
    before = occupied()
    if four:
        model = load_4bit(folder)
    else:
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for p in model.parameters():
        if p.dtype == torch.bfloat16:
            p.data = p.data.clone()  # out of the mapped file, or else the whole file would count
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    rows = storage_report(model)
    inside = [r for r in rows if "layers" in r["name"] and "proj.weight" in r["name"]]
    pipe.send(
        dict(
            added=occupied() - before,
            held=sum(r["bytes"] for r in rows) / 2**20,
            blocks=sum(r["bytes"] for r in inside) / 2**20,
            bits=8 * sum(r["bytes"] for r in inside) / sum(r["numbers"] for r in inside),
        )
    )


def in_process(folder, four):
    ours, theirs = multiprocessing.Pipe(False)
    p = multiprocessing.get_context("spawn").Process(target=_child, args=(theirs, folder, four))
    p.start()
    p.join()
    return ours.recv()


def memory():
    "MiB of the model in bf16 and in 4 bits."
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE), dtype=torch.bfloat16)
        model.save_pretrained(folder)
        del model
        found = {name: in_process(folder, four) for name, four in (("bf16", False), ("NF4, double quantization", True))}
    shown = {
        "added": "MiB added to the process",
        "held": "MiB that the model's tensors hold",
        "blocks": "of them the blocks' linear layers",
    }
    return dict(
        process={k: {shown[n]: round(v[n], 1) for n in shown} for k, v in found.items()},
        bits={
            "bits a weight, formula": 4 + 8 / 64 + 32 / (64 * 256),
            "bits a weight, held": round(found["NF4, double quantization"]["bits"], 4),
        },
    )


def written():
    "Write one text per held-out request at each bit width, and score the texts with the reference language model."
    writer, reference = Lyricist.from_pretrained(), reference_model()
    model = writer.model.merge_and_unload()
    pairs = list(lyric_pairs("test", TEXTS))
    context = RunContext(FinetuneConfig())
    rows = encode_pairs(pairs, writer.format, writer.tokenizer, context.store)
    collate = ToneCollator(writer.tokenizer.pad_token_id, context.store)
    out = {}
    for bits in WIDTHS:
        with modified_weights(model, lambda name, w: quantize_dequantize(w, bits) if bits < 16 else None):
            texts = write_many(model, writer.tokenizer, pairs, store=context.store, desc=f"{bits} bits")
            held_out = per_character(row_bits(model, rows, collate), pairs)
        report = slot_report(texts, [p["tones"] for p in pairs])
        out[f"{bits} bits"] = {
            "texts": len(texts),
            "tones right, %": 100 * report.tones,
            "judge's bits a character": round(fluency(texts, reference), 2),
            "about their topic, %": round(100 * topic_share(texts, [p["topic"] for p in pairs]), 1),
            "held-out bits a character": round(held_out, 3),
        }
    people = [p["lyrics"] for p in pairs]
    return out | {
        "by people": {
            "texts": len(people),
            "judge's bits a character": round(fluency(people, reference), 2),
            "about their topic, %": round(100 * topic_share(people, [p["topic"] for p in pairs]), 1),
        }
    }


def qlora():
    "The same finetune on the base and on the base in 4 bits, for each seed."
    runs = []
    for seed in SEEDS:
        config = FinetuneConfig(
            name="qlora",
            num_examples=4096,
            steps=256,
            batch_size=16,
            pilot_fraction=1 / 2,
            rank=16,
            alpha=16,
            seed=seed,
        )
        row = dict(seed=seed)
        for name, base in (("LoRA", load_base()[0]), ("QLoRA", load_4bit(dtype=torch.float32))):
            context = RunContext(config)
            context.model = base
            student = context.adapted()
            assert not cpu_packed_layers(student)
            report = train_stage(context, "pilot", student)
            pairs = context.held_out_examples("test", 320)
            row |= {
                f"{name}, loss at first": float(np.mean(report.losses[:3])),
                f"{name}, at last": float(np.mean(report.losses[-10:])),
                f"{name}, bits a character": per_character(
                    context.bits(pairs, student, context.format)["masked"], pairs
                ),
            }
        runs.append(row)
        print(row, flush=True)
    difference = [r["QLoRA, bits a character"] - r["LoRA, bits a character"] for r in runs]
    return dict(
        pairs=config.num_examples // 2,
        steps=config.steps // 2,
        batch=config.batch_size,
        held_out=320,
        runs=runs,
        difference=dict(mean=float(np.mean(difference)), least=min(difference), most=max(difference)),
    )


PARTS = dict(memory=memory, written=written, qlora=qlora)


def main():
    torch.set_num_threads(1)
    path = RESULTS / "quantization.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in sys.argv[1:] or PARTS:
        result[part] = PARTS[part]()
    write("quantization", result | made("torch", "transformers", "peft", "bitsandbytes"))


if __name__ == "__main__":
    main()
