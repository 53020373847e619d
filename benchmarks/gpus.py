"""Memory and time of real training steps, compared with `cantolyric.gpus.estimate` and accelerate's `estimate-memory`.

python benchmarks/gpus.py    writes benchmarks/results/gpus.json; a few minutes on one core, 5 GiB. On a machine with
                             CUDA it measures the GPU in bf16 instead, and writes benchmarks/results/gpus_cuda.json; a
                             few minutes, up to 60 GB on the card
python benchmarks/gpus.py --again gpus    measures nothing: new estimates for the measurements of an earlier run

Weights and tokens are random. The first case in each precision calibrates the time; the others are predicted from it.

On a CPU, each case runs in its own process. Memory is the peak (VmHWM) of the second step, above what the process held
after its imports; time is the processor time of the faster of two steps. The allocator is told to return freed memory
at once, as on a GPU: by default glibc keeps holes, up to a third of the total, and the peak would mostly measure those.

On a GPU, memory is `torch.cuda.max_memory_allocated` in the second step, and time is wall clock, the fastest of five
more steps. `busy` is the share of a step during which the card has a kernel to run. Below `LAUNCH_BOUND` the host is
too slow to keep the card busy, and no roofline of the card can predict that time.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import re
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from _common import RESULTS, made, write
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from cantolyric.fitting import calibrated_efficiency
from cantolyric.gpus import GPU, GPUS, estimate
from cantolyric.loss import sliced_loss
from cantolyric.memory_model import qwen25_config
from cantolyric.quantization import convert_to_nf4

CUDA = torch.cuda.is_available()


def shape(hidden, layers, heads, kv, inner, vocab):
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=inner,
        vocab_size=vocab,
        tie_word_embeddings=True,
        use_cache=False,
    )


SHAPES = {
    **{f"Qwen2.5-{size}": qwen25_config(size) for size in ("0.5B", "1.5B", "7B")},
    "12 blocks of 512": shape(512, 12, 8, 2, 1536, 32_000),
    "6 blocks of 1,024": shape(1024, 6, 16, 4, 4096, 8_000),
}
LABELLED = 0.25  # share of tokens with a label
# shape, method, rows, tokens, bits, checkpointing, loss; the first case in each precision calibrates the time
CASES = [
    ("Qwen2.5-0.5B", "lora", 1, 384, 32, False, "full"),
    ("12 blocks of 512", "full", 4, 384, 32, False, "full"),
    ("6 blocks of 1,024", "full", 2, 768, 32, False, "full"),
    ("Qwen2.5-0.5B", "qlora", 1, 384, 32, False, "full"),
    ("12 blocks of 512", "full", 4, 384, 32, True, "full"),
    ("Qwen2.5-0.5B", "lora", 2, 256, 32, True, "sliced"),
    ("6 blocks of 1,024", "qlora", 4, 768, 32, False, "full"),
    ("Qwen2.5-0.5B", "lora", 2, 384, 16, False, "full"),
    ("12 blocks of 512", "full", 4, 768, 16, False, "full"),
    ("Qwen2.5-0.5B", "qlora", 2, 384, 16, True, "full"),
]
CUDA_CASES = [
    ("Qwen2.5-1.5B", "lora", 16, 512, 16, False, "full"),
    ("Qwen2.5-1.5B", "lora", 16, 512, 16, True, "sliced"),
    ("Qwen2.5-1.5B", "qlora", 16, 512, 16, False, "full"),
    ("Qwen2.5-1.5B", "full", 8, 512, 16, False, "full"),
    ("Qwen2.5-0.5B", "lora", 16, 512, 16, False, "full"),
    ("Qwen2.5-0.5B", "lora", 1, 512, 16, False, "full"),
    ("Qwen2.5-0.5B", "qlora", 16, 512, 16, False, "full"),
    ("Qwen2.5-0.5B", "qlora", 2, 512, 16, True, "full"),
    ("Qwen2.5-0.5B", "full", 16, 512, 16, False, "full"),
    ("Qwen2.5-7B", "lora", 8, 512, 16, False, "full"),
    ("Qwen2.5-7B", "lora", 16, 512, 16, True, "full"),
    ("Qwen2.5-7B", "lora", 1, 512, 16, False, "full"),
    ("Qwen2.5-7B", "qlora", 8, 512, 16, False, "full"),
    ("Qwen2.5-7B", "qlora", 8, 1024, 16, True, "sliced"),
]
LAUNCH_BOUND = 0.8
KEYS = ("shape", "method", "rows", "tokens", "bits", "checkpointing", "loss")


def student(config, method, bits, checkpointing):
    "A model with random weights that is ready to train, and its optimizer."
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if bits == 16 and method != "full" else torch.float32
        )
        if method == "qlora":
            model = convert_to_nf4(model)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if method != "full":
        if checkpointing:
            model.enable_input_require_grads()
        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    return model.train(), torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)


def tokens_of(config, rows, length):
    """A batch of random tokens with a mask table.

    Eight mask rows allow 4,000 tokens in all, like a group of slots under a tone mask. Labels are allowed tokens."""
    torch.manual_seed(1)
    ids, states = torch.randint(0, config.vocab_size, (rows, length)), torch.randint(1, 9, (rows, length))
    table = torch.zeros(9, config.vocab_size, dtype=torch.bool)
    table[0] = True
    allowed = torch.randperm(config.vocab_size)[:4_000]
    for row in table[1:]:
        row[allowed[torch.rand(4_000) < 0.8]] = True
    labels = table[states].to(torch.int8).argmax(-1).roll(1, 1)
    labels[:, : round(length * (1 - LABELLED))] = -100
    return {
        k: v.cuda() if CUDA else v
        for k, v in dict(
            input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, states=states, table=table
        ).items()
    }


def step(model, optimizer, batch, bits, loss):
    "Run one training step, and return its loss."
    with torch.autocast("cuda" if CUDA else "cpu", torch.bfloat16) if bits == 16 else nullcontext():
        out = (
            sliced_loss(model, batch)
            if loss == "sliced"
            else model(**{k: batch[k] for k in ("input_ids", "attention_mask", "labels")}).loss
        )
    out.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(out)


def of_process(what):
    "VmRSS or VmHWM of this process, in bytes."
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def seconds_of(run):
    "Seconds that the device took: processor time, or wall clock on a GPU."
    now = time.perf_counter if CUDA else time.process_time
    if CUDA:
        torch.cuda.synchronize()
    start = now()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return now() - start


def give_back_at_once(least=2**16):
    "Make the allocator return freed blocks of at least `least` bytes to the system at once."
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, least)  # M_MMAP_THRESHOLD


def _child(pipe, case):
    give_back_at_once()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.randn(64, 64) @ torch.randn(64, 64)  # what the libraries allocate for themselves
    import bitsandbytes  # noqa: F401

    name, method, rows, length, bits, checkpointing, loss = case
    before = of_process("VmRSS")
    model, optimizer = student(SHAPES[name], method, bits, checkpointing)
    batch = tokens_of(SHAPES[name], rows, length)
    run = lambda: step(model, optimizer, batch, bits, loss)
    run()  # creates the optimizer's state
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    seconds = seconds_of(run)
    most = of_process("VmHWM") - before
    pipe.send((most, min(seconds, seconds_of(run)), 1.0))


def busy_seconds(run):
    "Seconds of one step, on one stream, during which the card has a kernel to run."
    for _ in range(2):  # the profiler itself is slow at first
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            seconds_of(run)
    kernels = [
        e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and not e.is_user_annotation
    ]
    return sum(e.time_range.elapsed_us() for e in kernels) / 1e6


def on_the_card(case):
    "Bytes, seconds and the busy share of a case on the GPU."
    name, method, rows, length, bits, checkpointing, loss = case
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model, optimizer = student(SHAPES[name], method, bits, checkpointing)
    batch = tokens_of(SHAPES[name], rows, length)
    run = lambda: step(model, optimizer, batch, bits, loss)
    run()
    torch.cuda.reset_peak_memory_stats()
    run()
    most = torch.cuda.max_memory_allocated() - before
    seconds = min(seconds_of(run) for _ in range(5))
    return most, seconds, busy_seconds(run) / seconds


def in_a_process(case):
    "Bytes, seconds and the busy share (1, because processor time is counted) of a case, in its own process."
    ours, theirs = multiprocessing.Pipe(False)
    p = multiprocessing.get_context("spawn").Process(target=_child, args=(theirs, case))
    p.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        p.join()


def measured(case):
    return on_the_card(case) if CUDA else in_a_process(case)


def this_machine(bits):
    "A data sheet of one CPU core, measured with matrix products and copies."
    torch.set_num_threads(1)
    a, b = (torch.randn(2048, 2048, dtype=torch.float32 if bits == 32 else torch.bfloat16) for _ in range(2))
    big = torch.randn(2**26)
    rate = 2 * 2048**3 / min(seconds_of(lambda: a @ b) for _ in range(5))
    speed = 2 * big.nbytes / min(seconds_of(lambda: big.clone()) for _ in range(5))
    return GPU("CPU, one core", gb=6, gbs=speed / 1e9, tflops=rate / 1e12 * bits / 16)


def rates():
    "The machine to estimate with, by bits."
    return {b: card() if CUDA else this_machine(b) for b in ((16,) if CUDA else (32, 16))}


def by_accelerate(config, bits):
    "What `accelerate estimate-memory` reports for training with Adam: the largest of its four numbers."
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total, _ = calculate_maximum_sizes(model)
    return max(estimate_training_usage(total, "float32" if bits == 32 else "float16").values())


def predicted(case, machine, efficiency=1.0):
    name, method, rows, length, bits, checkpointing, loss = case
    return estimate(
        SHAPES[name],
        method,
        length,
        rows,
        machine,
        checkpointing=checkpointing,
        loss=loss,
        labelled=LABELLED,
        bits=bits,
        efficiency=efficiency,
        context=0.0,
    )


def compared(case, machine, efficiency, most, seconds, busy):
    "One row of the table."
    e = predicted(case, machine, efficiency)
    return dict(zip(KEYS, case)) | {
        "measured GiB": round(most / 2**30, 4),
        "estimated GiB": round(e.bytes / 2**30, 3),
        "memory off": round(e.bytes / most - 1, 3),
        "fullest at": e.peak,
        "accelerate GiB": round(by_accelerate(SHAPES[case[0]], case[4]) / 2**30, 3),
        "measured s": round(seconds, 3),
        "predicted s": round(e.step, 2),
        "time off": round(e.step / seconds - 1, 3),
        "busy": round(busy, 3),
    }


def card():
    "The row of `GPUS` for the CUDA device of this machine, by its name."
    name, gb = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 1e9
    named = [g for key, g in GPUS.items() if g.cards == 1 and re.search(rf"\b{key.split('-')[0]}\b", name)]
    if not named:
        raise SystemExit(f"gpus.csv has no row for {name}")
    return min(named, key=lambda g: abs(g.gb - gb))


def report(name, machines, got, about):
    "Write what was measured so far, with the estimates."
    # The first case in each precision.
    first = {b: next((k for k, g in enumerate(got) if g[0][4] == b), None) for b in machines}
    reached = {
        b: calibrated_efficiency(predicted(got[k][0], machines[b]), got[k][2])
        for b, k in first.items()
        if k is not None
    }
    rows = [
        compared(c, machines[c[4]], reached[c[4]], *figures) | {"calibrates": k in first.values()}
        for k, (c, *figures) in enumerate(got)
    ]
    foretold = [r for r in rows if not r["calibrates"] and r["busy"] >= LAUNCH_BOUND]
    write(
        name,
        {
            "rates": {
                b: dict(name=m.name, gbs=m.gbs, tflops=m.tflops, efficiency=round(reached.get(b, 0), 3))
                for b, m in machines.items()
            },
            "worst memory": max(abs(r["memory off"]) for r in rows),
            "worst time": max([abs(r["time off"]) for r in foretold], default=0),
            "cases": rows,
        }
        | about,
    )


def measure():
    "Measure every case on this machine, writing the results after each."
    machines, got = rates(), []
    about = made("torch", "transformers", "peft", "bitsandbytes", "accelerate") | (
        {"device": torch.cuda.get_device_name()} if CUDA else {}
    )
    for c in CUDA_CASES if CUDA else CASES:
        got.append((c, *measured(c)))
        report("gpus_cuda" if CUDA else "gpus", machines, got, about)


def estimate_again(name):
    "Write new estimates for the measurements of an earlier run."
    old = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    machines = {
        int(b): GPUS.get(m["name"]) or GPU(m["name"], gb=6, gbs=m["gbs"], tflops=m["tflops"])
        for b, m in old["rates"].items()
    }
    got = [
        (tuple(r[k] for k in KEYS), r["measured GiB"] * 2**30, r["measured s"], r.get("busy", 1.0))
        for r in old["cases"]
    ]
    report(
        name, machines, got, {k: v for k, v in old.items() if k not in ("rates", "worst memory", "worst time", "cases")}
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--again", choices=("gpus", "gpus_cuda"), help="measure nothing: new estimates for the cases of that result"
    )
    again = parser.parse_args().again
    if again:
        estimate_again(again)
    else:
        measure()


if __name__ == "__main__":
    main()
