"""Sixteen samples of Qwen2.5-Coder-0.5B with its adapter, which `make test-qwen` compares with.

python benchmarks/qwen_samples.py    writes benchmarks/results/qwen_samples.json; two minutes on two cores

The requests are the first of sixteen test verses; one sample each, nothing selected.
"""

from pathlib import Path

import torch
from _common import made, write
from tqdm import tqdm

from cantolyric.evaluation.metrics import request_template
from cantolyric.evaluation.requests import read_jsonl
from cantolyric.model_files import CATALOGUE, find_file
from cantolyric.writing.lyricist import Lyricist

BASE, NUMBER, SEED = "qwen2.5-coder-0.5b", 16, 0


def first_requests():
    "The first request of each of the first test verses."
    rows = read_jsonl(Path(__file__).with_name("requests-verses.jsonl"))
    return list({r["verse"]: r for r in reversed(rows)}.values())[::-1][:NUMBER]


def main():
    if not find_file(CATALOGUE[BASE]):
        return print(f"skipped: {BASE} is not on this machine; type  cantolyric model get {BASE}")
    torch.set_num_threads(2)
    lyricist, samples = Lyricist.from_pretrained(BASE), []
    for r in tqdm(first_requests()):
        template = request_template(r)
        text = lyricist.write(r["topic"], template, n=1, seed=SEED, method="sample")[0].text
        bits = lyricist.bits_of(r["topic"], [text], template)[0]
        samples.append(dict(topic=r["topic"], tones=r["tones"], scheme=r["scheme"], text=text, bits=round(bits, 4)))
    write("qwen_samples", dict(base=BASE, seed=SEED, samples=samples) | made("torch", "transformers"))


if __name__ == "__main__":
    main()
