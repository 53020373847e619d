"""What ranking candidates gains, what looking ahead gains when a line is rewritten, and how long writing takes.

python benchmarks/lyricist.py [part ...]    writes benchmarks/results/lyricist.json

The parts are batch, speed, ranking and ahead; without one, all are run. Parts that are not run keep their old results.
All but "batch" use the shipped model on one core. Texts are scored by the reference language model, which is called
judge in the JSON.
"""

import json
import random
import sys
import time
from itertools import count

import numpy as np
import torch
from _common import RESULTS, made, seconds, write

from cantolyric import Lyricist
from cantolyric.data.pairs import lyric_pairs
from cantolyric.data.topics import is_about
from cantolyric.evaluation.metrics import fluency, reference_model

N, REQUESTS, LINE = 8, 48, 2
AHEAD, TEXTS = 16, 200  # candidates and texts, where a line is rewritten
SONG = "0243324/3324043/0243324/3324043"  # four lines of seven
BASES = ("tiny", "qwen2.5-coder-0.5b")


def interval(x, rng, draws=2000):
    "Mean, and the middle 95 % of the means of resampled requests."
    x = np.array(x)
    means = np.sort(x[rng.integers(0, len(x), (draws, len(x)))].mean(1))
    return dict(
        mean=round(float(x.mean()), 3),
        low=round(float(means[int(0.025 * draws)]), 3),
        high=round(float(means[int(0.975 * draws)]), 3),
    )


def requests(least, most=REQUESTS):
    "Topics and tones of held-out human texts of at least `least` lines, the same in every run."
    rows = [r for r in lyric_pairs("test") if r["lyrics"].count("\n") + 1 >= least]
    return random.Random(0).sample(rows, min(most, len(rows)))


def ranking(lyricist, reference, rng):
    """Reference bits of the candidate that is ranked first, of the average one, and of the reference model's favourite.

    The same for topic and rhyme."""
    rows, order = requests(2), []
    for r in rows:
        c = lyricist.write(r["topic"], r["tones"], n=N, seed=0, method="sample")
        bits = [fluency([x.text], reference) for x in c]
        order.append((bits, [is_about(x.text, r["topic"]) for x in c], [x.criteria()["rhyme"] for x in c], c))
    spread = lambda bits: np.argsort(np.argsort(bits))
    return dict(
        requests=len(rows),
        candidates=N,
        judge_first=interval([b[0] for b, *_ in order], rng),
        judge_mean=interval([np.mean(b) for b, *_ in order], rng),
        judge_best=interval([min(b) for b, *_ in order], rng),
        gain=interval([np.mean(b) - b[0] for b, *_ in order], rng),
        rank_correlation=interval(
            [np.corrcoef(spread([x.bits for x in c]), spread(b))[0, 1] for b, _, _, c in order], rng
        ),
        topic_first=interval([a[0] for _, a, _, _ in order], rng),
        topic_mean=interval([np.mean(a) for _, a, _, _ in order], rng),
        topic_ranked=interval(
            [is_about(c.sort_by(topic=2.0).best.text, r["topic"]) for (*_, c), r in zip(order, rows)], rng
        ),
        rhyme_first=interval([m[0] for _, _, m, _ in order], rng),
        rhyme_mean=interval([np.mean(m) for _, _, m, _ in order], rng),
        rhyme_ranked=interval([c.sort_by(rhyme=2.0).best.criteria()["rhyme"] for *_, c in order], rng),
    )


def ahead(lyricist, reference, rng):
    """Rewrite line 2 of human texts, and rank the candidates with and without the lines that follow.

    Measures the reference bits of the whole text for each ranking's first candidate, and the rank of the human line."""
    rows, out = requests(3, TEXTS), []
    for r in rows:
        found = lyricist.rewrite(r["lyrics"], LINE, topic=r["topic"], tones=r["tones"], n=AHEAD, seed=0, ahead=False)
        texts = [c.text for c in found]
        whole, bits = lyricist.bits_of(r["topic"], texts), [fluency([t], reference) for t in texts]
        lines = r["lyrics"].split("\n")
        upto = lambda t: "\n".join(t.split("\n")[:LINE])
        total = lambda t: fluency([t], reference) * (len(t) + 1)
        seam = [total(t) - total(upto(t)) for t in texts]  # reference bits of the lines that follow
        cost = lambda t: lyricist.bits_of(r["topic"], [upto(t)], None)[0]
        place = lambda costs, own: sum(c < own for c in costs) + 1
        chosen = int(np.argmin(whole))
        out.append(
            dict(
                same=chosen == 0,
                after_left=seam[0],
                after_whole=seam[chosen],
                left=bits[0],
                whole=bits[chosen],
                mean=np.mean(bits),
                best=min(bits),
                human_left=1 / place([cost(t) for t in texts], cost(r["lyrics"])),
                human_whole=1 / place(whole, lyricist.bits_of(r["topic"], [r["lyrics"]])[0]),
                lines=len(lines),
            )
        )
    get = lambda k: [x[k] for x in out]
    return dict(
        texts=len(rows),
        candidates=AHEAD,
        same_choice=round(float(np.mean(get("same"))), 3),
        lines=round(float(np.mean(get("lines"))), 2),
        **{f"judge_{k}": interval(get(k), rng) for k in ("left", "whole", "mean", "best")},
        gain=interval([x["left"] - x["whole"] for x in out], rng),
        reciprocal_gain=interval([x["human_whole"] - x["human_left"] for x in out], rng),
        after_gain=interval([x["after_left"] - x["after_whole"] for x in out], rng),
        human_first_left=round(float(np.mean([x == 1 for x in get("human_left")])), 3),
        human_first_whole=round(float(np.mean([x == 1 for x in get("human_whole")])), 3),
        reciprocal_left=interval(get("human_left"), rng),
        reciprocal_whole=interval(get("human_whole"), rng),
    )


def speed(lyricist):
    "Seconds on one core for the next line of seven, by candidates and by lines already written; the fastest of five."
    song, tones = ["今晚落緊大雨啦"] * 12, "/".join(["3420243"] * 13)
    seeds = count()
    one = lambda n, kept: round(
        seconds(lambda: lyricist.next_line(song[:kept], "夜雨", tones, n=n, seed=next(seeds)), 5), 3
    )
    return dict(candidates={n: one(n, 1) for n in (1, 2, 4, 8, 16)}, kept={k: one(4, k) for k in (0, 1, 3, 6, 12)})


def timed(job):
    "Wall-clock seconds, and processor seconds of all cores together."
    clock, cores = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - clock, time.process_time() - cores


def batch(base, repeats=3):
    "Seconds for 8 candidates of a song: in one call each, and as one batch; the fastest of several runs."
    lyricist, seeds = Lyricist.from_pretrained(base, adapter="none"), count()
    draw = lambda n: lyricist.write("夜雨", SONG, n=n, seed=next(seeds), method="sample")
    draw(2)  # compiles the vocabulary
    alone, together = [], []
    for _ in range(repeats):
        alone.append(timed(lambda: [draw(1) for _ in range(N)]))
        together.append(timed(lambda: draw(N)))
    one_by_one, as_batch = (dict(zip(("clock", "cores"), map(min, zip(*t)))) for t in (alone, together))
    rounded = lambda times: {k: round(v, 3) for k, v in times.items()}
    return dict(
        candidates=N,
        threads=torch.get_num_threads(),
        one_by_one=rounded(one_by_one),
        batch=rounded(as_batch),
        ratio={k: round(one_by_one[k] / as_batch[k], 2) for k in as_batch},
    )


def on_one_core(measure, *more):
    "Run a measurement with the shipped model on one core."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(Lyricist.from_pretrained(), *more)
    finally:
        torch.set_num_threads(threads)


def main(names):
    file = RESULTS / "lyricist.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    parts = dict(
        batch=lambda: {base: batch(base) for base in BASES},
        speed=lambda: on_one_core(speed),
        ranking=lambda: on_one_core(ranking, reference_model(), np.random.default_rng(0)),
        ahead=lambda: on_one_core(ahead, reference_model(), np.random.default_rng(0)),
    )
    if unknown := [name for name in names if name not in parts]:
        raise SystemExit(f"unknown part {unknown[0]!r}; expected some of {', '.join(parts)}")
    origin = made("torch", "transformers")
    for name in names or parts:
        result[name] = parts[name]() | (dict(made=origin) if names else {})
    write("lyricist", result if names else dict(result, made=origin))


if __name__ == "__main__":
    main(sys.argv[1:])
