"""How often readers give the right syllable, tone and 0243 class, and how fast they are, on the same characters.

python benchmarks/reading.py    writes benchmarks/results/reading.json; processor time of one thread

Peers that are not installed are left out, and the result says so: pip install canto-hk-g2p==2.6.1 xjyutping==1.3.1
"""

import json
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module

import pycantonese
import ToJyutping
from _common import made, seconds, write

from cantolyric.characters import HAN, is_han
from cantolyric.confidence import CONFIDENCES, ReadingSources, confidences
from cantolyric.lexicon_builder import build_lexicon
from cantolyric.paths import pycantonese_data
from cantolyric.pronunciation_data import conversations, rime_words, tone_classes, transcript
from cantolyric.reading import (
    Reader,
    accuracy,
    class_accuracy,
    conversation_folds,
    default_reader,
    hand_annotated_lines,
)


def by_pycantonese(text):
    "PyCantonese on each run of Chinese characters (it may attach a comma to a word, and then reads neither)."
    out = []
    for run in re.findall(f"[{HAN}]+|[^{HAN}]+", text):
        for word, jyutping in pycantonese.characters_to_jyutping(run) if is_han(run) else []:
            j = re.findall("[a-z]+[1-6]", jyutping or "")
            out += j if len(j) == len(word) else [None] * len(word)
        if not is_han(run):
            out += [None] * len(run)
    return out


def by_tojyutping(text):
    return [j and j.split()[0] for _, j in ToJyutping.get_jyutping_list(text)]


def by_canto_hk_g2p(module):
    "canto-hk-g2p on each run of Chinese characters (it replaces digits and punctuation by characters)."
    convert = module.Pipeline(punc_norm=False).convert_detailed

    def read(text):
        out = []
        for run in re.findall(f"[{HAN}]+|[^{HAN}]+", text):
            for token, jyutping, *_ in convert(run) if is_han(run) else []:
                j = jyutping.split()
                out += j if len(j) == len(token) else [None] * len(token)
            if not is_han(run):
                out += [None] * len(run)
        return out

    return read


def by_xjyutping(module):
    annotate = module.Jyutping().annotate
    return lambda text: [j for _, j in annotate(text)]


PEERS = {  # package -> (module, reader)
    "canto-hk-g2p": ("canto_hk_g2p", by_canto_hk_g2p),
    "xjyutping": ("xjyutping", by_xjyutping),
}


def installed_peers():
    "The readers of the peers that are installed, and why the others are left out."
    readers, left_out = {}, {}
    for package, (module, reader) in PEERS.items():
        try:
            readers[package] = reader(import_module(module))
        except ImportError as e:
            left_out[package] = f"left out: {e}"
    return readers, left_out


def by_confidence():
    "Share of the characters and accuracy in tone class within each level; lexicon and sources from the other half."
    a, b = ([conversations()[f] for f in names] for names in conversation_folds())
    n, right = Counter(), Counter()
    for learn, test in ((a, b), (b, a)):
        reader, sources = Reader(build_lexicon(learn)), ReadingSources(learn)
        for text, said in (transcript(u) for talk in test for u in talk):
            for heard, got, level in zip(said, reader.jyutping(text), confidences(text, reader, sources)):
                if heard and got:
                    n[level] += 1
                    right[level] += tone_classes([heard]) == tone_classes([got])
    return {
        level: dict(
            characters=n[level],
            percent=round(100 * n[level] / n.total(), 2),
            class_right=round(100 * right[level] / n[level], 2),
        )
        for level in CONFIDENCES
    }


def two_fold(learn):
    "Mean accuracy on each half of HKCanCor of a lexicon that is built from the other half."
    a, b = ([conversations()[f] for f in names] for names in conversation_folds())
    one, two = accuracy(Reader(learn(a)).jyutping, b), accuracy(Reader(learn(b)).jyutping, a)
    return {k: round((one[k] + two[k]) / 2, 3) for k in ("syllable", "tone", "class")} | {
        "characters": one["characters"] + two["characters"]
    }


def map_task():
    "CantoMap's utterances: speech that none of the readers was built from. (GPL: used for measuring only.)"
    for path in sorted(pycantonese_data("cantomap", "extracted").glob("*.cha")):
        words = None
        for line in path.read_text(encoding="utf-8").replace("\n\t", " ").splitlines():
            if line.startswith("*"):
                words = [w for w in line.partition("\t")[2].split() if w != "#" and "_" not in w]
            elif line.startswith("%mor:") and words:
                mor = [m for m in line.partition("\t")[2].split() if m != "#"]
                if len(mor) == len(words):
                    yield [(w, m.partition("|")[2]) for w, m in zip(words, mor)]


def rounded(found):
    return {k: round(v, 3) for k, v in found.items()}


def speeds(readers, sentences, runs=7):
    "Million characters per second of processor time: the best of several rounds, with the readers taking turns."
    size, best = sum(map(len, sentences)), dict.fromkeys(readers, float("inf"))
    for _ in range(runs):
        for name, read in readers.items():
            best[name] = min(best[name], seconds(lambda: [read(s) for s in sentences]))
    return {name: round(size / t / 1e6, 3) for name, t in best.items()}


def seconds_to_load(runs=5):
    "Seconds that a fresh process takes to import the module, and then to read its first text; the best of several."
    code = (
        "import time; a = time.perf_counter(); import cantolyric.reading; b = time.perf_counter()\n"
        "cantolyric.reading.Reader().read('夜雨'); print(b - a, time.perf_counter() - b)"
    )
    found = [
        tuple(
            map(
                float,
                subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(),
            )
        )
        for _ in range(runs)
    ]
    return dict(zip(("import", "first text"), (round(min(x), 3) for x in zip(*found))))


def main():
    ours = default_reader()
    everyday = json.loads(pycantonese_data("ctcpc", "sents.json").read_text(encoding="utf-8"))[::20]
    peers, left_out = installed_peers()
    readers = {"cantolyric": ours.jyutping, "ToJyutping": by_tojyutping, "PyCantonese": by_pycantonese, **peers}
    no_talk = build_lexicon([])
    talk, unseen = conversations().values(), [list(map_task())]
    result = dict(
        hkcancor={
            "cantolyric, two-fold": two_fold(build_lexicon),
            "cantolyric without HKCanCor": rounded(accuracy(Reader(no_talk).jyutping, talk)),
            **{name: rounded(accuracy(read, talk)) for name, read in readers.items() if name != "cantolyric"},
        },
        confidence=by_confidence(),
        cantomap={
            name: rounded(accuracy(read, unseen))
            for name, read in (*readers.items(), ("cantolyric without HKCanCor", Reader(no_talk).jyutping))
        },
        written_class={
            name: {kind: round(class_accuracy(read, hand_annotated_lines(kind)), 2) for kind in ("verse", "own")}
            for name, read in readers.items()
        },
        written_characters={
            kind: sum(j != ["-"] for _, said in hand_annotated_lines(kind) for j in said) for kind in ("verse", "own")
        },
        million_characters_a_second=speeds(readers, everyday),
        seconds=seconds_to_load(),
        entries=dict(table=len(rime_words()), lexicon=len(ours.words), certain=len(ours.unambiguous().words)),
    )
    write("reading", result | dict(left_out=left_out) | made("ToJyutping", "pycantonese", *peers))


if __name__ == "__main__":
    main()
