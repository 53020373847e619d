"""The figures of the verse collection: its data card, its plots, and the requests made from its test verses.

python tools/verses.py           assign missing splits (90/5/5), then write the card, the plots and the requests
python tools/verses.py --check   check whether the card and the requests are up to date (exit status 1 if not)
"""

import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "cantolyric/assets/verses.jsonl"
CARD = ROOT / "cantolyric/assets/VERSES.md"
PLOT = ROOT / "nbs/images/verses.png"
REQUESTS = ROOT / "benchmarks/requests-verses.jsonl"
BEGIN, END = "<!-- figures: written by tools/verses.py -->", "<!-- end of figures -->"


def with_splits(rows):
    "The rows, each with a split; existing splits are kept."
    from cantolyric.data.verse_file import verse_splits

    if all(r.get("split") for r in rows):
        return rows
    splits = verse_splits([r | {"split": r.get("split", "")} for r in rows], percent=5)
    return [r | {"split": s} for r, s in zip(rows, splits)]


def share_table(title, counts, total):
    "A Markdown table of counts and shares, the largest first."
    rows = [f"| {name} | {n:,} | {n / total:.1%} |" for name, n in counts.most_common()]
    return "\n".join([f"| {title} | verses | share |", "|---|---|---|", *rows])


def figures(verses):
    "The card's figures, as Markdown."
    from cantolyric.verses import corpus_lines, richness

    lines = [line for v in verses for line in v["lines"]]
    characters = sum(map(len, lines))
    own, corpus = richness(lines), richness(corpus_lines(characters))
    schemes = Counter(v["rhyme"] for v in verses)
    topics = Counter(v["topic"] for v in verses)
    named = sum(bool(set(v["topic"]) & set("".join(v["lines"]))) for v in verses)
    hooks = sum(bool(v["hook"]) for v in verses)
    splits = Counter(v["split"] for v in verses)
    endings = Counter(line[-1] for v in verses for line in v["tones"].split("/"))
    endings = ", ".join(f"{tone} {n / len(lines):.0%}" for tone, n in sorted(endings.items()))
    (top, n), *_ = schemes.most_common(1)
    text = [
        f"{len(verses):,} verses, {len(lines):,} lines, {characters:,} characters, {own[0]:,} of them distinct; "
        f"{len(topics):,} topics, none used more than {max(topics.values())} times. {splits['train']:,} verses are for "
        f"training, {splits['validation']} for validation, and {splits['test']} for testing.",
        share_table("register", Counter(v["register"] for v in verses), len(verses)),
        share_table("section", Counter(v["section"] for v in verses), len(verses)),
        share_table("person", Counter(v["person"] for v in verses), len(verses)),
        f"{hooks:,} verses have a hook. There are {len(schemes):,} rhyme schemes; the most frequent, {top}, "
        f"accounts for {n / len(verses):.1%} of the verses. "
        f"In {named / len(verses):.0%} of the verses, at least one character of the topic appears in the lines. "
        f"The last characters of the lines have the tone classes {endings}.",
        f"Corpus pieces with the same number of characters have {corpus[0]:,} distinct characters and "
        f"{corpus[1]:,} distinct pairs of neighbouring words; "
        f"the verses have {own[0]:,} and {own[1]:,}.",
    ]
    return "\n\n".join(text)


def card(text, verses):
    "The data card with its figures put in."
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{figures(verses)}\n\n{END}{rest.split(END)[1]}"


def bars(ax, counts, title, label):
    "A bar chart of counts by number."
    ax.bar(list(counts), list(counts.values()), color="0.45")
    ax.set(title=title, xlabel=label, ylabel="share (%)", xticks=sorted(counts)[::2])


def plot(verses):
    "Lines per verse, characters per line, rhyme schemes, and the growth of the vocabulary."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from cantolyric.verses import corpus_lines, richness_curve

    percent = lambda values: {k: 100 * n / len(values) for k, n in sorted(Counter(values).items())}
    lines = [line for v in verses for line in v["lines"]]
    fig, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    bars(a, percent([len(v["lines"]) for v in verses]), "Lines per verse", "lines")
    bars(b, percent([len(line) for line in lines]), "Characters per line", "characters")
    schemes = Counter(v["rhyme"] for v in verses).most_common(14)[::-1]
    c.barh([s for s, _ in schemes], [100 * n / len(verses) for _, n in schemes], color="0.45")
    c.set(title="Most frequent rhyme schemes", xlabel="share of verses (%)")
    c.tick_params(axis="y", labelsize=7)
    rng = np.random.default_rng(0)
    corpus = corpus_lines(sum(map(len, lines)))
    for name, style, text in (("verses", "-", lines), ("corpus pieces", "--", corpus)):
        text = [text[i] for i in rng.permutation(len(text))]
        sizes = np.linspace(1_000, sum(map(len, text)), 20).astype(int)
        d.plot(sizes / 1_000, [n / 1_000 for _, n in richness_curve(text, sizes)], style, color="black", label=name)
    d.set(
        title="Distinct character bigrams",
        xlabel="characters of text (thousands)",
        ylabel="distinct bigrams (thousands)",
    )
    d.legend()
    fig.savefig(PLOT, dpi=100)


def requests_text():
    "The requests file."
    from cantolyric.data.verse_file import load_verses
    from cantolyric.verses import verse_requests

    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in verse_requests(load_verses(split="test")))


def main(check):
    from cantolyric.data.verse_file import load_verses

    rows = [json.loads(x) for x in FILE.read_text(encoding="utf-8").splitlines()]
    if not check and not all(r.get("split") for r in rows):
        FILE.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in with_splits(rows)), encoding="utf-8")
    verses, old = load_verses().to_list(), CARD.read_text(encoding="utf-8")
    new, requests = card(old, verses), requests_text()
    if check:
        return new == old and REQUESTS.read_text(encoding="utf-8") == requests
    CARD.write_text(new, encoding="utf-8")
    REQUESTS.write_text(requests, encoding="utf-8")
    plot(verses)
    return True


if __name__ == "__main__":
    if not main("--check" in sys.argv[1:]):
        sys.exit("the card or the requests are not up to date: run  python tools/verses.py")
