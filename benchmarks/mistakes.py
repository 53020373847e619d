"""Planted mistakes and the gates of lesson 40: how many healthy runs are stopped, and how many spoiled ones.

python benchmarks/mistakes.py [part ...]    writes benchmarks/results/mistakes.json; about ten minutes of one core
The parts are "healthy", "severity" and "without". Times are processor seconds, intervals are Wilson's, 95 %.

Every threshold of a gate was set on runs with seed 0 (those of the lesson) and 1 to 20. The runs here have the seeds
101 to 120, so they have other examples, weights and adapters.
- "healthy": twenty runs that differ in family, rank, lines, rows, format and seed.
- "severity": each mistake in six of them, from small to large if it has a severity. It is caught if any gate stops the
  run, and named if the first that does is its own.
- "without": each mistake as people usually make it, without its own gate.
"""

import json
import logging
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace

from _common import RESULTS, made, write

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")

from cantolyric.base import load_base, quiet_loading
from cantolyric.checks.costs import wilson
from cantolyric.checks.mistakes import MISTAKES
from cantolyric.checks.planted_model import four_bit_base
from cantolyric.checks.preflight import GATES, preflight, small_variant
from cantolyric.checks.setup import make_setup, with_fresh_lora
from cantolyric.data.pairs import lyric_pairs
from cantolyric.families.table import FAMILIES
from cantolyric.families.tiny import tiny_variant
from cantolyric.formats import FORMATS

# kind: "base", "small", or a family; rank; lines of each lyric; rows; format; seed; and more
HEALTHY = [
    ("small", 8, 1, 4, "chatml", 105, {}),
    ("small", 16, 2, 8, "alpaca", 106, {}),
    ("small", 4, 6, 4, "chatml", 107, {}),
    ("small", 32, 4, 2, "alpaca", 108, {}),
    ("small", 16, 2, 4, "chatml", 109, dict(quantization="nf4")),
    ("small", 16, 3, 4, "chatml", 110, dict(dropout=0.1)),
    ("small", 16, 2, 4, "alpaca", 111, dict(mask=False)),
    ("qwen2.5", 16, 2, 4, None, 112, {}),
    ("qwen2.5", 8, 6, 4, None, 113, {}),
    ("qwen3", 4, 4, 4, None, 114, {}),
    ("deepseek-llm", 16, 2, 4, None, 115, {}),
    ("deepseek-llm", 32, 6, 2, None, 116, {}),
    ("yi", 16, 1, 4, None, 117, {}),
    ("internlm3", 8, 3, 4, None, 118, {}),
    ("qwen3-moe", 16, 2, 4, None, 119, {}),
    ("deepseek-v2", 8, 4, 4, None, 120, {}),
    ("base", 16, 1, 4, "chatml", 101, {}),
    ("base", 4, 2, 4, "alpaca", 102, {}),
    ("base", 32, 4, 4, "chatml", 103, {}),
    ("base", 8, 3, 2, "alpaca", 104, {}),
]
SPOILED = [HEALTHY[i] for i in (0, 3, 7, 11, 12, 13)]
NAMES = ("kind", "rank", "lines", "rows", "format", "seed", "more")


def examples(split, n, lines, seed):
    "Lyrics of `lines` lines; None: of any number, for the held-out ones, because long ones are few."
    pairs = (
        e
        for e in lyric_pairs(split, 4000 if split == "train" else None, seed)
        if lines is None or e["lyrics"].count("\n") + 1 == lines
    )
    return [e for e, _ in zip(pairs, range(n))]


def build(kind, rank, lines, rows, fmt, seed, more):
    "The setup of a healthy run."
    with quiet_loading():
        model, tokenizer = tiny_variant(kind, seed=seed) if kind in FAMILIES else load_base()
    if kind == "small":
        model = small_variant(tokenizer, seed)
    if more.get("quantization"):
        model = four_bit_base(with_fresh_lora(model))
    fmt = FORMATS[fmt or FAMILIES[kind].format]
    model = with_fresh_lora(model, rank, seed, more.get("dropout", 0.0))
    setup = make_setup(
        model,
        tokenizer,
        examples("train", rows, lines, seed),
        examples("validation", 50, None, seed),
        format=fmt,
        lr=3e-3 if kind == "base" else 1e-2,
        quantization=more.get("quantization", "none"),
    )
    if more.get("mask", True):
        return setup
    batch = {k: v for k, v in setup.batch.items() if k not in ("mask_ids", "mask_table")}
    return replace(setup, batch=batch, mask_context=None)


def rate(k, n):
    return dict(k=k, n=n, share=k / n, interval=[round(x, 3) for x in wilson(k, n)])


def first(name, setup, severity=None, only=tuple(GATES)):
    "The first gate that stops a planted mistake, or None."
    return (preflight(MISTAKES[name](setup, severity), only, stop=True).failed or [None])[0]


def gates_of(setup):
    "The result of each gate for a run, and its processor time."
    out = {}
    for g in GATES:
        start = time.process_time()
        out[g] = preflight(setup, g)[g], round(time.process_time() - start, 3)
    return out


def healthy(**_):
    "Twenty healthy runs, and what stopped them."
    runs = []
    for how in HEALTHY:
        found = gates_of(build(*how))
        runs.append(
            dict(zip(NAMES, how))
            | dict(
                failed={g: r.message for g, (r, _) in found.items() if not r},
                seconds={g: s for g, (_, s) in found.items()},
            )
        )
        print(how, runs[-1]["failed"], round(sum(runs[-1]["seconds"].values()), 1), flush=True)
    return dict(runs=runs, stopped=rate(sum(bool(r["failed"]) for r in runs), len(runs)))


def tried(setups, name, s=None):
    "In how many runs a mistake is caught, and in how many by its own gate first."
    found = [first(name, p, s) for p in setups]
    return dict(
        severity=s,
        caught=rate(sum(f is not None for f in found), len(found)),
        named=rate(sum(f == MISTAKES[name].gate for f in found), len(found)),
        others=Counter(f for f in found if f not in (None, MISTAKES[name].gate)),
    )


def severity(keep, **_):
    "Plant each mistake in six healthy runs, from small to large if it has a severity."
    setups, out = [build(*how) for how in SPOILED], {}
    for name, m in MISTAKES.items():
        out[name] = dict(
            gate=m.gate, unit=m.unit, usual=m.usual, rows=[tried(setups, name, s) for s in m.severities or (None,)]
        )
        print(name, [(r["severity"], r["caught"]["k"], r["named"]["k"]) for r in out[name]["rows"]], flush=True)
        keep(out)
    return out


def without(keep, **_):
    "Which gate stops a mistake when its own gate is left out."
    setup = build(*SPOILED[0])
    return {name: first(name, setup, only=[g for g in GATES if g != m.gate]) for name, m in MISTAKES.items()}


PARTS = dict(healthy=healthy, severity=severity, without=without)

if __name__ == "__main__":
    path = RESULTS / "mistakes.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in sys.argv[1:] or PARTS:
        result |= made("torch", "transformers", "peft", "bitsandbytes") | dict(mistakes=len(MISTAKES), gates=len(GATES))
        start = time.process_time()
        result[part] = PARTS[part](
            keep=lambda out: path.write_text(
                json.dumps(result | {part: out}, ensure_ascii=False, indent=1), encoding="utf-8"
            )
        )
        result.setdefault("seconds", {})[part] = round(time.process_time() - start)
        write("mistakes", result)
