"""The example on the README's first screen: one prompt, one seed, one sample each, nothing selected.

python benchmarks/first_result.py [--adapter FOLDER]    writes benchmarks/results/first_result.json; a few seconds
"""

import argparse
import json

import torch
from _common import made, write

from cantolyric.paths import asset_path
from cantolyric.writing.lyricist import Lyricist

TOPIC, TONES, SEED = "夜雨", "0243324/3324043", 0


def sample(lyricist, masked):
    "The first candidate for the seed, as plain data."
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
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", help="folder of an adapter or run; default: the shipped one")
    args = parser.parse_args()
    torch.set_num_threads(2)
    base, tuned = Lyricist.from_pretrained(adapter="none"), Lyricist.from_pretrained(adapter=args.adapter)
    rows = {
        "base, free": sample(base, False),
        "base, masked": sample(base, True),
        "finetuned, free": sample(tuned, False),
        "finetuned, masked": sample(tuned, True),
    }
    result = dict(
        topic=TOPIC,
        tones=TONES,
        seed=SEED,
        temperature=0.8,
        top_p=0.95,
        rows=rows,
        pretraining_steps=json.loads(asset_path("base", "training.json").read_text())["step"],
    )
    write("first_result", result | made("torch", "transformers"))


if __name__ == "__main__":
    main()
