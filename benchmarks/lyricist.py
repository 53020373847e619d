"""What ranking buys, what looking ahead buys when a line is rewritten, and how long a line takes."""

import random
from itertools import count

import numpy as np
import torch
from _common import made, seconds, write

from cantolyric import Lyricist
from cantolyric.data import is_about, lyric_pairs
from cantolyric.evaluation import fluency, judge_model

N, REQUESTS, LINE = 8, 48, 2
AHEAD, TEXTS = 16, 200  # candidates and texts, where a line is rewritten


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
    "Topics and tones of held-out human texts of at least so many lines, the same each time."
    rows = [r for r in lyric_pairs("test") if r["lyrics"].count("\n") + 1 >= least]
    return random.Random(0).sample(rows, min(most, len(rows)))


def ranking(lyricist, judge, rng):
    "Judge bits of the candidate ranked first against the mean of all and the judge's own first; the same for topic and rhyme."
    rows, order = requests(2), []
    for r in rows:
        c = lyricist.write(r["topic"], r["tones"], n=N, seed=0)
        bits = [fluency([x.text], judge) for x in c]
        order.append((bits, [is_about(x.text, r["topic"]) for x in c], [x.parts()["rhyme"] for x in c], c))
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
            [is_about(c.rank(topic=2.0).best.text, r["topic"]) for (*_, c), r in zip(order, rows)], rng
        ),
        rhyme_first=interval([m[0] for _, _, m, _ in order], rng),
        rhyme_mean=interval([np.mean(m) for _, _, m, _ in order], rng),
        rhyme_ranked=interval([c.rank(rhyme=2.0).best.parts()["rhyme"] for *_, c in order], rng),
    )


def ahead(lyricist, judge, rng):
    "Line 2 of human texts rewritten: judge bits of the whole text for the candidate that each ranking puts first, and where the human line would come."
    rows, out = requests(3, TEXTS), []
    for r in rows:
        found = lyricist.rewrite(r["lyrics"], LINE, topic=r["topic"], tones=r["tones"], n=AHEAD, seed=0, ahead=False)
        texts = [c.text for c in found]
        whole, bits = lyricist.bits_of(r["topic"], texts), [fluency([t], judge) for t in texts]
        lines = r["lyrics"].split("\n")
        upto = lambda t: "\n".join(t.split("\n")[:LINE])
        total = lambda t: fluency([t], judge) * (len(t) + 1)
        seam = [total(t) - total(upto(t)) for t in texts]  # what the judge pays for what follows
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
    "Seconds of one core for the next line of seven, by candidates and by kept lines; the fastest of five."
    song, tones = ["今晚落緊大雨啦"] * 12, "/".join(["3420243"] * 13)
    seeds = count()
    one = lambda n, kept: round(
        seconds(lambda: lyricist.next_line(song[:kept], "夜雨", tones, n=n, seed=next(seeds)), 5), 3
    )
    return dict(candidates={n: one(n, 1) for n in (1, 2, 4, 8, 16)}, kept={k: one(4, k) for k in (0, 1, 3, 6, 12)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    lyricist, judge, rng = Lyricist.from_pretrained(), judge_model(), np.random.default_rng(0)
    write(
        "lyricist",
        dict(
            made=made("torch", "transformers"),
            speed=speed(lyricist),
            ranking=ranking(lyricist, judge, rng),
            ahead=ahead(lyricist, judge, rng),
        ),
    )
