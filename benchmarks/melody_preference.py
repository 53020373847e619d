"""What a preference for interval sizes does: moves inside the table, and likelihood, by weight.

python benchmarks/melody_preference.py            writes benchmarks/results/melody_preference.json; about three minutes
python benchmarks/melody_preference.py --small    two tunes and two texts of each; prints, writes nothing

Random tunes of four phrases of seven notes, whose intervals span at most seven semitones. The tiny model with its
shipped adapter writes texts for each under the direction rule, with `prefer=melody.preference()` at several weights:

inside_table         share of the moves between neighbouring syllables that the preferred template allows, in percent
bits                 bits per character of the text under the direction rule: what the preference costs
reference_bits       bits per character under the reference language model (a 5-gram with Kneser-Ney smoothing)
"""

import json
import sys
from statistics import fmean

import numpy as np
from _common import made, write

from cantolyric.evaluation.metrics import reference_model
from cantolyric.melody import Melody
from cantolyric.tones import ToneScheme
from cantolyric.writing.lyricist import Lyricist

WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
TOPICS = ("夜雨", "海邊", "屋企", "返工")


def tunes(n):
    rng = np.random.default_rng(25)
    steps = rng.integers(-7, 8, (n, 4, 7))
    steps[:, :, 0] = 0
    return [Melody.parse(" | ".join(" ".join(map(str, 67 + line.cumsum() // 2)) for line in tune)) for tune in steps]


def inside_table(melody, report):
    "How many moves of a text the preferred template allows, and how many there are."
    allowed = [pairs for line in melody.preference().moves for pairs in line]
    digits = [[ToneScheme("0243").of(int(c.jyutping[-1])) for c in line] for line in report.lines]
    moves = [a + b for line in digits for a, b in zip(line, line[1:])]
    return sum(move in pairs for move, pairs in zip(moves, allowed, strict=True)), len(moves)


def main(n_tunes=8, n=16, keep=True):
    lyricist, reference, out = Lyricist.from_pretrained("tiny"), reference_model(), {}
    for weight in WEIGHTS:
        moves, bits, texts = [], [], []
        for k, melody in enumerate(tunes(n_tunes)):
            how = dict(melody=melody, n=n, seed=k, method="sample", prefer=melody.preference(), prefer_weight=weight)
            for candidate in lyricist.write(TOPICS[k % len(TOPICS)], **how):
                moves.append(inside_table(melody, candidate.report))
                bits.append(candidate.bits)
                texts.append(candidate.text)
        inside, total = map(sum, zip(*moves))
        out[f"{weight:g}"] = dict(
            texts=len(moves),
            inside_table=round(100 * inside / total, 2),
            bits=round(fmean(bits), 3),
            reference_bits=round(reference.bits_per_character(texts), 3),
        )
        print(weight, out[f"{weight:g}"], file=sys.stderr, flush=True)
    result = dict(model="tiny, shipped adapter", tunes=n_tunes, weights=out) | made("torch", "transformers")
    write("melody_preference", result) if keep else print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(2, 2, keep=False) if "--small" in sys.argv else main()
