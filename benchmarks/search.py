"""Better than masking alone? Sampling, best of n, beam search and sequential Monte Carlo at equal compute.

python benchmarks/search.py [ADAPTER]    writes benchmarks/results/search.json; ADAPTER: one that was finetuned without
                                         the mask (`cantolyric finetune --unmasked-fraction 1`), for the rows that
                                         weigh the probability that the mask leaves
Each method has eight rows of the batch per held-out request, so that all take about the same number of steps of equal
width; one text is kept.
"""

import sys
import time

import numpy as np
import torch
from _common import made, write
from tqdm import tqdm

from cantolyric.constraint.decoding import beams, decode_ids, sampled, smc, write_tokens
from cantolyric.data.corpora import load_corpus
from cantolyric.data.pairs import lyric_pairs
from cantolyric.evaluation.metrics import distinct_share, reference_model, topic_share
from cantolyric.overlap import NgramOverlap
from cantolyric.writing.lyricist import Lyricist
from cantolyric.writing.prompts import writing_constraint

REQUESTS, ROWS = 192, 8
SAMPLE = dict(do_sample=True, temperature=0.8, top_p=0.95)
METHODS = {
    "sampling": (lambda: sampled(**SAMPLE), 0),
    "best of 8": (lambda: sampled(**SAMPLE), None),
    "beam search, 8": (lambda: beams, None),
    "sequential Monte Carlo, 8": (lambda: smc(**SAMPLE), 0),
    "Monte Carlo, the likeliest": (lambda: smc(**SAMPLE), None),
}


def texts_of(x, requests, strategy, pick):
    "One text for each request: the row `pick`, or None for the likeliest; with its bits a character under the model."
    texts, bits = [], []
    for n, r in enumerate(tqdm(requests)):
        torch.manual_seed(n)
        c = writing_constraint(r["tones"], x.table, x.reader)
        out = write_tokens(
            x.model,
            torch.tensor([x.format.prompt_ids(r, x.tokenizer)]),
            c,
            num_return_sequences=ROWS,
            strategy=strategy(),
        )
        k = int(np.argmin(out.bits)) if pick is None else pick
        texts.append(decode_ids(x.table, out.ids[k]))
        bits.append(out.bits[k] / (len(texts[-1]) + 1))
    return texts, bits


def interval(values, weights, draws=2000):
    "95 % of bootstrap draws of whole texts."
    at = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    return np.quantile(values[at].sum(1) / weights[at].sum(1), [0.025, 0.975]).round(2).tolist()


def main():
    torch.set_num_threads(1)
    requests, reference = list(lyric_pairs("test", REQUESTS)), reference_model()
    seen = NgramOverlap([*load_corpus("train")["text"], *lyric_pairs("train")["lyrics"]])
    writers, rows = {"shipped adapter": Lyricist.from_pretrained()}, {}
    if sys.argv[1:]:
        writers["finetuned without the mask"] = Lyricist.from_pretrained(adapter=sys.argv[1])
    for who, x in writers.items():
        for method, (strategy, pick) in METHODS.items():
            start = time.perf_counter()
            texts, bits = texts_of(x, requests, strategy, pick)
            seconds = time.perf_counter() - start
            lines = [t.replace("\n", "，") for t in texts]
            cost, length = reference.bits_per_text(lines), np.array([len(t) + 1 for t in lines])
            rows[f"{method}; {who}"] = {
                "5-gram, bits per character": round(float(cost.sum() / length.sum()), 3),
                "95 %": interval(cost, length),
                "model, bits per character": round(float(np.mean(bits)), 3),
                "distinct-2": round(distinct_share(texts), 3),
                "copied": round(seen.copied_share(texts), 4),
                "about the topic": round(topic_share(texts, [r["topic"] for r in requests]), 3),
                "seconds": round(seconds, 1),
                "sample": texts[:3],
            }
            print(f"{method}; {who}", rows[f"{method}; {who}"])
    write("search", dict(requests=REQUESTS, rows=ROWS, methods=rows) | made("torch"))


if __name__ == "__main__":
    main()
