"""The shipped adapter on held-out requests: the table of lesson 51, at a size that means something.

python benchmarks/evaluation.py    writes benchmarks/results/evaluation.json
"""
import datetime
import json
import os
import platform
from pathlib import Path

import torch

from cantolyric.evaluation import evaluate
from cantolyric.lyricist import Lyricist

REQUESTS = 192


def main():
    x = Lyricist.from_pretrained()
    table = evaluate(x.model, x.tokenizer, REQUESTS, x.format, desc="writing")
    made = dict(made=datetime.date.today().isoformat(), torch=torch.__version__, machine=f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}")
    path = Path(__file__).parent / "results" / "evaluation.json"
    path.write_text(json.dumps(table.to_dict() | made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__": main()
