"""Searching a site in Chinese without a dictionary: Han text is cut into single characters and pairs of neighbours.

The index and the query are cut alike. A query of several characters asks for all its pairs, so that 夜雨 finds the
pages where 夜 is followed by 雨, and not every page with both.
"""

import re

HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{HAN}]+|[^\\W{HAN}]+")
IS_HAN = re.compile(f"[{HAN}]")
DIGITS = "n"  # before a word of digits: Sphinx leaves bare numbers out, and tone codes are nothing else

# The same for the browser, but a query of several characters is not cut into single ones: its pairs say more.
JAVASCRIPT = r"""
var splitQuery = (query) =>
  (query.match(/[HAN]+|(?:(?![HAN])[\p{L}\p{N}_])+/gu) || []).flatMap((run) => {
    if (/^\d+$/.test(run)) return ["n" + run];
    if (!/[HAN]/u.test(run)) return [run];
    const signs = [...run];
    return signs.length < 2 ? signs : signs.slice(1).map((sign, i) => signs[i] + sign);
  });
""".replace("HAN", r"\u3400-\u9fff\uf900-\ufaff\u{20000}-\u{3ffff}")


def split(text: str) -> list:
    "Words to index: Latin ones whole; of a run of Han each character and each pair."
    words = []
    for run in WORD.findall(text):
        if not IS_HAN.match(run):
            words.append(DIGITS + run if run.isdigit() else run)
        else:
            words += [*run, *(a + b for a, b in zip(run, run[1:]))]
    return words
