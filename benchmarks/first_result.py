"""The example on the README's first screen: one prompt, four ways to write, one text each, nothing selected.

python benchmarks/first_result.py [--base NAME] [--adapter FOLDER]    writes benchmarks/results/first_result.json

Without the constraint, the texts are samples with seed 0; with it, they are what `Lyricist.write` gives by default. The
base alone gets an instruction in words.
"""

import argparse

import torch
from _common import made, write

from cantolyric.model_files import CATALOGUE, find_file
from cantolyric.writing.lyricist import Lyricist

BASE, TOPIC, TONES, SEED = "qwen2.5-coder-0.5b", "夜雨", "0243324/3324043", 0


def result_of(lyricist, masked):
    "The first candidate, as plain data."
    lyrics = lyricist.write(TOPIC, TONES, n=1, seed=SEED, masked=masked)
    c = lyrics[0]
    slots = [s for line in c.report.lines for s in line if s.slot]
    lengths = [sum(bool(s.char) for s in line) for line in c.report.lines]
    return dict(
        text=c.text,
        jyutping=c.jyutping,
        got=c.got,
        right=sum(s.right for s in slots),
        slots=len(slots),
        line_lengths=lengths,
        bits_per_character=round(c.bits, 3),
        seconds=round(lyrics.seconds, 2),
        method=lyricist.default_method(masked=masked),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=BASE, help="base model; its file has to be on this machine")
    parser.add_argument("--adapter", help="folder of an adapter or run; default: the shipped one")
    args = parser.parse_args()
    if args.base in CATALOGUE and not find_file(CATALOGUE[args.base]):
        return print(f"skipped: {args.base} is not on this machine; to get it, run  cantolyric model get {args.base}")
    torch.set_num_threads(2)
    rows = {}
    for name, adapter in (("base", "none"), ("finetuned", args.adapter)):
        lyricist = Lyricist.from_pretrained(args.base, adapter)
        rows |= {
            f"{name}, {way}": result_of(lyricist, way == "constrained") for way in ("unconstrained", "constrained")
        }
        del lyricist
    result = dict(base=args.base, topic=TOPIC, tones=TONES, seed=SEED, temperature=0.8, top_p=0.95, rows=rows)
    write("first_result", result | made("torch", "transformers"))


if __name__ == "__main__":
    main()
