"""Planted mistakes and the gates of lesson 40: how many healthy runs are stopped, and how many spoilt ones, the more and the less they are spoilt.

python benchmarks/mistakes.py [part ...]    writes benchmarks/results/mistakes.json; processor seconds; about ten minutes of one core
The parts are "healthy", "severity" and "without".
Every threshold of a gate was set on runs with seed 0 (those of the lesson, which are not among these) and 1 to 20; those here have the seeds 101 to 120, so other examples, weights and adapters.
"healthy" are twenty runs that differ in family, rank, lines, rows, format and seed. "severity" plants each mistake into six of them (random small models), from
little to much where it has a severity: it is caught if any gate stops the run, and named if the first that does is its own. "without" plants each as people make
it, and does not ask its own gate.
Intervals are Wilson's, 95 %.
"""

import json
import logging
import sys
import time
import warnings
from collections import Counter

from _common import RESULTS, made, write

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")

from cantolyric.base import load_base, quiet_loading  # noqa: E402
from cantolyric.data import lyric_pairs  # noqa: E402
from cantolyric.families import FAMILIES, tiny_variant  # noqa: E402
from cantolyric.formats import FORMATS  # noqa: E402
from cantolyric.preflight import (
    GATES,
    MISTAKES,
    add_adapter,
    four_bit_base,
    make_parts,
    preflight,
    small_variant,
    wilson,
)  # noqa: E402

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
SPOILT = [HEALTHY[i] for i in (0, 3, 7, 11, 12, 13)]
NAMES = ("kind", "rank", "lines", "rows", "format", "seed", "more")


def examples(split, n, lines, seed):
    "Lyrics of so many lines; held-out ones are of any length, as long ones are few."
    pairs = (
        e
        for e in lyric_pairs(split, 4000 if split == "train" else None, seed)
        if lines is None or e["lyrics"].count("\n") + 1 == lines
    )
    return [e for e, _ in zip(pairs, range(n))]


def build(kind, rank, lines, rows, fmt, seed, more):
    "The parts of a healthy run."
    with quiet_loading():
        model, tokenizer = tiny_variant(kind, seed=seed) if kind in FAMILIES else load_base()
    if kind == "small":
        model = small_variant(tokenizer, seed)
    if more.get("quantization"):
        model = four_bit_base(add_adapter(model))
    fmt = FORMATS[fmt or FAMILIES[kind].format]
    model = add_adapter(model, rank, seed, more.get("dropout", 0.0))
    parts = make_parts(
        model,
        tokenizer,
        examples("train", rows, lines, seed),
        examples("validation", 50, None, seed),
        format=fmt,
        lr=3e-3 if kind == "base" else 1e-2,
        quantization=more.get("quantization", "none"),
    )
    if more.get("mask", True):
        return parts
    parts.batch, parts.attach = {k: v for k, v in parts.batch.items() if k not in ("states", "table")}, None
    return parts


def rate(k, n):
    return dict(k=k, n=n, share=k / n, interval=[round(x, 3) for x in wilson(k, n)])


def first(name, parts, severity=None, only=tuple(GATES)):
    "The first gate that stops a planted mistake, or None."
    return (preflight(MISTAKES[name](parts, severity), only, stop=True).failed or [None])[0]


def gates_of(parts):
    "What each gate says of a run, and its processor time."
    out = {}
    for g in GATES:
        start = time.process_time()
        out[g] = preflight(parts, g)[g], round(time.process_time() - start, 3)
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


def tried(parts, name, s=None):
    "How many of the runs a mistake is caught in, and how many by its own gate first."
    found = [first(name, p, s) for p in parts]
    return dict(
        severity=s,
        caught=rate(sum(f is not None for f in found), len(found)),
        named=rate(sum(f == MISTAKES[name].gate for f in found), len(found)),
        others=Counter(f for f in found if f not in (None, MISTAKES[name].gate)),
    )


def severity(keep, **_):
    "Each mistake in six healthy runs, from little to much where it has a severity."
    parts, out = [build(*how) for how in SPOILT], {}
    for name, m in MISTAKES.items():
        out[name] = dict(
            gate=m.gate, unit=m.unit, usual=m.usual, rows=[tried(parts, name, s) for s in m.severities or (None,)]
        )
        print(name, [(r["severity"], r["caught"]["k"], r["named"]["k"]) for r in out[name]["rows"]], flush=True)
        keep(out)
    return out


def without(keep, **_):
    "Which gate stops a mistake when its own is not asked."
    parts = build(*SPOILT[0])
    return {name: first(name, parts, only=[g for g in GATES if g != m.gate]) for name, m in MISTAKES.items()}


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
