"""Real language models on two CPU cores: loading, writing, memory, bits per character, and whether every tone is right.

    python benchmarks/real_model.py                        measures every model of the catalogue that is on this machine
    python benchmarks/real_model.py needs bits tones       only these parts
    python benchmarks/real_model.py bits --models qwen2.5-coder-0.5b

Each part of each model runs in its own process, so that its peak memory is measured alone. Its results are merged into
benchmarks/results/real_model.json as soon as it is finished. Models must have been downloaded with
cantolyric model get NAME.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from _common import RESULTS, made, write

PARTS = ("convert", "needs", "bits", "tied", "tones")
REQUESTS = {"tiny": 320, "qwen2.5-coder-0.5b": 320, "qwen2.5-coder-1.5b": 64}
TOPIC, TONES, SEED = "夜雨", "0243324/3324043", 0


def peak_gib():
    "The largest amount of memory that this process has held."
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def lyricist_of(name):
    "The base without an adapter; all but the tiny one are prompted with an instruction."
    from cantolyric.writing.lyricist import Lyricist

    return Lyricist.from_pretrained(name, "none")


def convert(name):
    "Seconds and peak memory of the conversion from GGUF to safetensors, which happens once."
    from cantolyric.model_files import model_path

    path = model_path(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CANTOLYRIC_CACHE"] = folder
        from cantolyric.models import convert_gguf

        start = time.perf_counter()
        made_in = convert_gguf(path)
        seconds, size = time.perf_counter() - start, sum(p.stat().st_size for p in made_in.iterdir())
    return dict(convert_seconds=round(seconds, 1), convert_peak_gib=peak_gib(), converted_gib=round(size / 2**30, 2))


def needs(name):
    "Seconds to load and to write a candidate of two short lines, and the peak of memory."
    from cantolyric.models import load_model

    start = time.perf_counter()
    model, tokenizer = load_model(name)
    seconds = time.perf_counter() - start
    out = dict(parameters=sum(p.numel() for p in model.parameters()), load_seconds=round(seconds, 2))
    del model, tokenizer
    lyricist = lyricist_of(name)
    lyricist.write(TOPIC, TONES, n=1, seed=SEED, method="sample")  # fills the caches of the constraint
    for n in (1, 4, 16):
        start = time.perf_counter()
        found = lyricist.write(TOPIC, TONES, n=n, seed=SEED + 1, method="sample")
        out[f"candidates_{n}"] = round((time.perf_counter() - start) / len(found), 2)
    return out | dict(seconds_per_candidate=out["candidates_1"], peak_gib=peak_gib())


def held_out():
    "Held-out examples of three kinds, at most 48 each: speech and written Chinese from corpora, and our own verses."
    # Kept in a file, so that results stay comparable when the data grow
    kinds = defaultdict(list)
    for line in Path(__file__).with_name("held-out.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kinds[row["kind"]].append(row)
    return kinds


def bits(name, tie=None):
    "Bits per character of held-out lyrics, constrained and unconstrained."
    from cantolyric.constraint.mask_store import mask_store
    from cantolyric.constraint.scoring import answer_bits, per_character
    from cantolyric.formats import instructed
    from cantolyric.models import format_for, load_model

    model, tokenizer = load_model(name, tie=tie)
    format = None if name == "tiny" else instructed(format_for(model, tokenizer))
    store, out = mask_store(model, tokenizer, format), {}
    for kind, pairs in held_out().items():
        how = dict(format=format, batch=8, store=store)
        both = {
            k: answer_bits(model, tokenizer, pairs, masked=k == "constrained", **how)
            for k in ("constrained", "unconstrained")
        }
        out[kind] = {k: round(per_character(v, pairs), 3) for k, v in both.items()} | dict(examples=len(pairs))
    return dict(bits_per_character=out, prompt="none" if format is None else "instruction")


def tied(name):
    "The same with the head's weights as the embedding."
    return dict(tied_to_the_head=bits(name, tie="head")["bits_per_character"])


def tones(name):
    "Whether every tone of the benchmark's requests is right, according to our reader."
    from cantolyric.evaluation.decoding import Decoding, write_many
    from cantolyric.evaluation.metrics import request_template
    from cantolyric.evaluation.requests import benchmark_id, benchmark_requests

    lyricist, requests = lyricist_of(name), benchmark_requests(REQUESTS[name])
    start = time.perf_counter()
    texts = write_many(
        lyricist.model, lyricist.tokenizer, requests, lyricist.format, Decoding(batch_size=16), desc=name
    )
    seconds = time.perf_counter() - start
    right = [request_template(r).matches(t) for r, t in zip(requests, texts)]
    slots = sum(len(line) for r in requests for line in request_template(r).lines)
    found = dict(
        benchmark=benchmark_id(requests),
        requests=len(requests),
        right=sum(right),
        slots=slots,
        seconds=round(seconds, 1),
        first=texts[:6],
    )
    return dict(tones=found)


def run(part, name):
    "One part of one model, in a process of its own."
    command = [sys.executable, __file__, part, "--models", name, "--here"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=None, choices=[*PARTS, []])
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        torch.set_num_threads(2)
        print(json.dumps(globals()[args.parts[0]](args.models[0]), ensure_ascii=False))
        return
    from cantolyric.model_files import CATALOGUE, find_file

    names = args.models or [n for n, e in CATALOGUE.items() if e.repo is None or find_file(e)]
    path = RESULTS / "real_model.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
    for part in args.parts or PARTS:
        for name in names:
            if part in ("tied", "convert") and name == "tiny":
                continue  # no GGUF file, and one matrix for both
            known = result["models"].setdefault(name, {})
            known |= run(part, name)
            known.setdefault("made", {})[part] = made("torch", "transformers", "gguf")
            result["models"] = {n: result["models"][n] for n in CATALOGUE if n in result["models"]}
            write("real_model", result)


if __name__ == "__main__":
    main()
