"""Shared by all benchmarks: processor time, and result files that name the machine and the versions."""

import json
import os
import platform
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def seconds(f, n=1):
    "Processor time of the fastest of `n` runs, in seconds."
    best = float("inf")
    for _ in range(n):
        start = time.process_time()
        f()
        best = min(best, time.process_time() - start)
    return best


def made(*packages):
    "The date, the versions of some packages, and the machine, for the record of a result."
    return dict(
        made=date.today().isoformat(),
        python=platform.python_version(),
        **{p: version(p) for p in packages},
        machine=f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
    )


def write(name, result):
    "Write a result to benchmarks/results/NAME.json, and print it."
    text = json.dumps(result, ensure_ascii=False, indent=1)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
