"""Tokens per Han character of Cantonese in published vocabularies, and the families' sizes computed from their shapes.

python benchmarks/families.py    writes benchmarks/results/families.json; half a minute on one core

The vocabularies are read from the folder that CANTOLYRIC_DATA names (the tiny base's comes with the package); the
result lists those that are missing. The text is 2,000 held-out lines of the open corpus and 1,000 held-out lyrics.
"""

import re

from _common import made, write
from transformers import AutoTokenizer

from cantolyric._published import FILES, at_hand, published
from cantolyric.data.corpora import load_corpus
from cantolyric.data.pairs import lyric_pairs
from cantolyric.families.table import FAMILIES, cache_numbers, count_parameters, family_config, state_numbers
from cantolyric.paths import asset_path

HAN = re.compile("[\u3400-\u9fff\U00020000-\U000323af]")


def texts():
    "Han characters only: everything else costs about the same in all vocabularies."
    keep = lambda t: "".join(HAN.findall(t))
    return {
        "corpus": [keep(t) for t in load_corpus("test")["text"][:2000]],
        "lyrics": [keep(e["lyrics"]) for e in lyric_pairs("test", 1000)],
    }


def measured(encode, given):
    "Tokens per character of running text, and the share of characters that take more than one token by themselves."
    out = {k: sum(len(encode(t)) for t in ts if t) / sum(map(len, ts)) for k, ts in given.items()}
    seen = [c for ts in given.values() for t in ts for c in t]
    pieces = {c: len(encode(c)) for c in set(seen)}
    return {k: round(v, 3) for k, v in out.items()} | {
        "characters of more than one token, %": round(100 * sum(pieces[c] > 1 for c in seen) / len(seen), 2)
    }


def sizes():
    "Parameters computed from the shapes in FAMILIES, next to the makers' own figures."
    out = {}
    for name, f in FAMILIES.items():
        config, c = family_config(name), f.checkpoints[0]
        total, active = count_parameters(config)
        out[name] = dict(
            id=c.id,
            counted=round(total / 1e9, 2),
            counted_active=round(active / 1e9, 2),
            said=c.billions,
            said_active=c.active or c.billions,
            cache_numbers=cache_numbers(config),
            state_numbers=state_numbers(config),
        )
    return out


def main():
    given = texts()
    tiny = AutoTokenizer.from_pretrained(asset_path("base"))
    encoders = {"tiny base": lambda t: tiny(t, add_special_tokens=False)["input_ids"]} | {
        n: published(n).encode for n in at_hand()
    }
    result = dict(
        texts={k: f"{len(ts):,} texts, {sum(map(len, ts)):,} Han characters" for k, ts in given.items()},
        tokens={n: measured(e, given) for n, e in encoders.items()},
        vocabulary={"tiny base": len(tiny)} | {n: len(published(n).vocab) for n in at_hand()},
        not_at_hand=[n for n in FILES if n not in at_hand()],
        sizes=sizes(),
    )
    write("families", result | made("torch", "transformers", "tokenizers"))


if __name__ == "__main__":
    main()
