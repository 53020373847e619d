"""Forward and backward of the head and the loss: our sliced loss compared with transformers' and torch's chunked loss.

python benchmarks/loss.py [part ...]    writes benchmarks/results/loss.json; wall clock, two threads, a quarter of an
                                        hour for all parts

"head" and "step" (a whole LoRA step) use the shape of Qwen2.5-0.5B, random weights, and tokens and mask ids of real
`lyric_pairs`; they need Qwen2's vocabulary (CANTOLYRIC_DATA). "finetune" is a finetune of the tiny base. The memory of
head and loss is the peak of a process (VmHWM) above weights and inputs, measured in a process of its own.

"gpu" is head and loss in bf16 on a CUDA device, next to Liger's and Apple's fused losses if they are installed. It only
runs when named, and is saved under the device's name: the median of 20 wall-clock times, and
`torch.cuda.max_memory_allocated` above weights and inputs.
"""

import json
import multiprocessing
import re
import statistics
import sys
import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _common import RESULTS, made, write
from decoding import SIZES, VOCABULARY
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.loss.loss_utils import ForCausalLMLoss

from cantolyric import loss as ours
from cantolyric._published import TOKENIZERS
from cantolyric.constraint.mask_store import MaskStore
from cantolyric.constraint.scoring import encode_pairs
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.data.pairs import lyric_pairs
from cantolyric.formats import ChatML
from cantolyric.machine import bf16_is_fast
from cantolyric.training.config import FinetuneConfig
from cantolyric.training.context import RunContext
from cantolyric.training.stages import train_stage

POSITIONS, WIDTH, ROUNDS, BATCH, LENGTH = 4_096, SIZES["0.5B"]["hidden_size"], 3, 4, 256


def rows():
    "Training rows with mask ids, and the store of their masks."
    tokenizer, fmt = AutoTokenizer.from_pretrained(TOKENIZERS / "qwen2"), ChatML()
    store = MaskStore(TokenTable.from_tokenizer(tokenizer, VOCABULARY, end=fmt.end_token))
    return encode_pairs(list(lyric_pairs("train", 400)), fmt, tokenizer, store), store


def small_table(mask_ids, store):
    "Renumber mask ids, and keep only the masks that occur, packed."
    used, mask_ids = np.unique(mask_ids, return_inverse=True)
    return torch.from_numpy(mask_ids), torch.from_numpy(np.stack([store.rows[i] for i in used]))


def head_batch():
    "Random hidden states, the head, and 4,096 labelled positions of answers in one row."
    every, store = rows()
    on = [[k for k, x in enumerate(r["labels"]) if x != -100] for r in every]
    mask_ids = np.concatenate([np.asarray(r["mask_ids"])[np.array(k) - 1] for r, k in zip(every, on)])[:POSITIONS]
    labels = np.concatenate([np.asarray(r["labels"])[k] for r, k in zip(every, on)])[:POSITIONS]
    mask_ids, mask_table = small_table(np.append(mask_ids, 0)[None], store)
    torch.manual_seed(0)
    hidden, head = torch.randn(1, POSITIONS + 1, WIDTH), torch.randn(VOCABULARY, WIDTH) * 0.02
    return dict(
        hidden=hidden.requires_grad_(),
        head=head,
        mask_ids=mask_ids.view(1, -1),
        labels=torch.from_numpy(np.append(-100, labels))[None],
        mask_table=mask_table,
    )


def hf(hidden, head, labels, **_):
    return ForCausalLMLoss(F.linear(hidden, head), labels, VOCABULARY)


def hf_masked(hidden, head, labels, mask_ids, mask_table):
    "The loss with a mask hook on the head: all logits and a full mask."
    bits = (
        (mask_table[:, :, None] >> torch.arange(32, dtype=torch.int32, device=mask_table.device) & 1).bool().flatten(1)
    )
    return ForCausalLMLoss(
        ours.apply_tone_mask(F.linear(hidden, head), ours.tone_mask_slice(mask_ids, bits)), labels, VOCABULARY
    )


def chunked(hidden, head, labels, **_):
    return F.linear_cross_entropy(hidden[0, :-1], head, labels[0, 1:], options=torch.nn.LinearCrossEntropyOptions())


def sliced(hidden, head, labels, mask_ids, mask_table):
    return ours.sliced_cross_entropy(hidden, head, mask_ids, labels, mask_table)


def one_group_per_mask(**batch):
    "The sliced loss without shared groups: each mask is its own group."
    shared, ours.mask_groups = ours.mask_groups, lambda mask_ids, mask_table: torch.arange(len(mask_table))
    try:
        return sliced(**batch)
    finally:
        ours.mask_groups = shared


WAYS = {
    "transformers": hf,
    "transformers, tone mask on the logits": hf_masked,
    "torch, chunked": chunked,
    "sliced": sliced,
    "sliced, one group per mask": one_group_per_mask,
}


def gradient(way, batch, bf16=False):
    "The loss, and its gradient with respect to the hidden states."
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        loss = WAYS[way](**batch)
    return loss.item(), torch.autograd.grad(loss, batch["hidden"])[0]


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def in_turns(runs, rounds=ROUNDS):
    "Median seconds of several functions, which take turns."
    seconds = {k: [] for k in runs}
    for _ in range(rounds):
        for k, f in runs.items():
            seconds[k].append(clock(f))
    return {k: statistics.median(v) for k, v in seconds.items()}


def high_water():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def _child(pipe, prepare, run, way):
    torch.set_num_threads(2)
    given = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = high_water()
    run(way, given)
    pipe.send(high_water() - before)


def memory(prepare, run, way):
    "Peak memory in GiB above what was prepared, measured in a process of its own."
    ours, theirs = multiprocessing.Pipe(False)
    p = multiprocessing.get_context("spawn").Process(target=_child, args=(theirs, prepare, run, way))
    p.start()
    p.join()
    return ours.recv()


def head_and_loss():
    "Seconds and memory of every implementation, and how much the masked ones differ."
    batch = head_batch()
    used = batch["mask_ids"][0, :-1]
    groups = ours.mask_groups(used, batch["mask_table"])
    result = dict(
        positions=POSITIONS,
        states=int(len(used.unique())),
        groups=int(groups.max()) + 1,
        allowed_a_position=int(
            ours.table_bits(batch["mask_table"], torch.arange(VOCABULARY)).sum(1)[used].float().mean()
        ),
    )
    (want, g), (got, h) = gradient("transformers, tone mask on the logits", batch), gradient("sliced", batch)
    result |= {
        "loss apart": abs(want - got),
        "gradient apart, of its largest number": float((g - h).abs().max() / g.abs().max()),
    }
    for name, bf16, ways in (
        ("fp32", False, WAYS),
        ("bf16 autocast", True, ("transformers", "torch, chunked", "sliced")),
    ):
        s = in_turns({w: lambda w=w: gradient(w, batch, bf16) for w in ways})
        result[name] = {
            w: {"seconds": round(s[w], 3), "transformers takes, times": round(s["transformers"] / s[w], 2)}
            for w in ways
        }
    for w in ("transformers", "torch, chunked", "sliced"):
        result["fp32"][w]["GiB above weights and inputs"] = round(memory(head_batch, gradient, w), 3)
    return result


def step_batch():
    "A model of Qwen2.5-0.5B's shape with LoRA, and four rows of 256 tokens: examples one after another."
    every, store = rows()
    ids, labels, mask_ids = (
        np.concatenate([np.asarray(r[k]) for r in every])[: BATCH * LENGTH].reshape(BATCH, LENGTH)
        for k in ("input_ids", "labels", "mask_ids")
    )
    labels[:, 0] = -100  # no position predicts it
    mask_ids, mask_table = small_table(mask_ids, store)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, **SIZES["0.5B"])).train()
    student = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.from_numpy(ids)
    return student, dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=torch.from_numpy(labels),
        mask_ids=mask_ids.view(BATCH, LENGTH),
        mask_table=mask_table,
    )


def step(way, given):
    "Forward and backward."
    student, batch = given
    if way == "sliced":
        loss = ours.sliced_loss(student, batch)
    else:
        loss = student(**{k: batch[k] for k in ("input_ids", "attention_mask", "labels")}).loss
    loss.backward()
    student.zero_grad()


def whole_step():
    "Seconds of a LoRA training step."
    given = step_batch()
    s = in_turns({w: lambda w=w: step(w, given) for w in ("transformers", "sliced")})
    share = float((given[1]["labels"] != -100).float().mean())
    return dict(rows=BATCH, tokens=LENGTH, labelled=round(share, 3)) | {
        w: {"seconds": round(x, 2), "transformers takes, times": round(s["transformers"] / x, 2)} for w, x in s.items()
    }


def our_finetune():
    "Seconds per step of the tiny base's finetune: one pilot after another, with the losses taking turns."
    seconds, contexts = {w: [] for w in ("hook", "sliced")}, {}
    for k in range(ROUNDS + 1):
        for w in seconds:
            context = contexts.setdefault(w, RunContext(FinetuneConfig(name="loss", loss=w)))
            report = train_stage(context, "pilot", model := context.adapted())
            context.model = model.unload()
            if k:
                seconds[w].append(report.seconds / report.steps)  # the first round builds masks and warms up
    s = {w: statistics.median(v) for w, v in seconds.items()}
    return dict(batch=FinetuneConfig().batch_size, steps=256, bf16=bf16_is_fast()) | {
        w: {"seconds a step": round(x, 3), "the hook takes, times": round(s["hook"] / x, 2)} for w, x in s.items()
    }


def liger(hidden, head, labels, **_):
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(head, hidden[0, :-1], labels[0, 1:])


def cut(hidden, head, labels, **_):
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(hidden[0, :-1], head, labels[0, 1:])


def grouped(**batch):
    "The sliced loss with the groups that it uses on a CPU."
    shared, ours._shared = ours._shared, ours._grouped
    try:
        return sliced(**batch)
    finally:
        ours._shared = shared


def gpu_turn(way, batch):
    "Seconds of one forward and backward pass on the GPU, its peak memory in GiB, the loss and the gradient."
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    loss = way(**batch)
    grad = torch.autograd.grad(loss, batch["hidden"])[0]
    torch.cuda.synchronize()
    return time.perf_counter() - start, (torch.cuda.max_memory_allocated() - before) / 2**30, loss.item(), grad


def on_gpu(rounds=20):
    "Head and loss in bf16 on the CUDA device."
    batch = {
        k: v.detach().to("cuda", torch.bfloat16 if v.is_floating_point() else v.dtype) for k, v in head_batch().items()
    }
    batch["hidden"].requires_grad_()
    ways = {
        k: f
        for k, f in (WAYS | {"sliced, groups as on a CPU": grouped, "Liger": liger, "cut-cross-entropy": cut}).items()
        if k != "sliced, one group per mask"
    }
    for k, needs in (
        ("torch, chunked", hasattr(F, "linear_cross_entropy")),
        ("Liger", find_spec("liger_kernel")),
        ("cut-cross-entropy", find_spec("cut_cross_entropy")),
    ):
        if not needs:
            del ways[k]
    turns = {k: [] for k in ways}
    for _ in range(rounds + 3):  # the first three compile and warm up
        for k, f in ways.items():
            turns[k].append(gpu_turn(f, batch)[:2])
    s = {k: statistics.median(t[0] for t in ts[3:]) for k, ts in turns.items()}
    (*_, want, g), (*_, got, h) = gpu_turn(hf_masked, batch), gpu_turn(sliced, batch)
    return {
        "loss apart": abs(want - got),
        "gradient apart, of its largest number": float((g - h).abs().max() / g.abs().max()),
        **made("torch", "transformers"),
    } | {
        k: {
            "milliseconds": round(1e3 * s[k], 2),
            "transformers takes, times": round(s["transformers"] / s[k], 2),
            "GiB above weights and inputs": round(max(t[1] for t in turns[k][3:]), 3),
        }
        for k in ways
    }


PARTS = {
    "head": ("head and loss", head_and_loss),
    "step": ("LoRA step", whole_step),
    "finetune": ("our finetune", our_finetune),
}


def main():
    torch.set_num_threads(2)
    parts, path = sys.argv[1:] or list(PARTS), RESULTS / "loss.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if parts == ["gpu"]:
        return write("loss", result | {"GPU": result.get("GPU", {}) | {torch.cuda.get_device_name(): on_gpu()}})
    for part in parts:
        if part != "finetune" and not (TOKENIZERS / "qwen2").exists():
            print(f"{part} left out: CANTOLYRIC_DATA names no folder with Qwen2's vocabulary")
        else:
            result[PARTS[part][0]] = PARTS[part][1]()
    write("loss", result | made("torch", "transformers", "peft"))


if __name__ == "__main__":
    main()
