"""Checkers for lesson 12. Each returns "Right." or explains what is wrong; none raises."""

import math
import random
from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_leaks(fn: Callable) -> str:
    "`fn(train, test, threshold)` -> the test lines that are too similar to a training line."
    train = ["我今日唔想返工", "落雨喇", "好"]
    for test, threshold, want, why in [
        (["我今日唔想返工呀", "出太陽"], 0.6, ["我今日唔想返工呀"], "6 of 7 bigrams are shared"),
        (["我今日唔想返工呀"], 0.9, [], "6/7 is below 0.9"),
        (["落雨啦", "落雨喇"], 1, ["落雨喇"], "equal lines have the similarity 1"),
        (["落雨啦"], 1 / 3, ["落雨啦"], "a similarity of exactly 1/3 counts"),
        (["好", "壞"], 0.5, ["好"], "lines of one character are compared by equality"),
        (["日今我想唔工返"], 0.5, [], "bigrams keep the order of characters"),
        ([], 0.5, [], "no test lines"),
    ]:
        got, error = run(fn, train, test, threshold)
        if error:
            return error
        if not isinstance(got, list):
            return f"Not yet: expected a list, got {got!r}"
        if got != want:
            return f"Not yet: for {test} and {threshold:.2f} expected {want} ({why}), got {got}"
    return RIGHT


def check_stable_split(fn: Callable) -> str:
    "`fn(keys, share)` -> the split of each key, which depends on the key alone."
    keys = [f"line {i}" for i in range(2_000)]
    got, error = run(fn, keys, 0.2)
    if error:
        return error
    if not isinstance(got, dict) or set(got) != set(keys):
        return f"Not yet: expected a dict with every key, got a {type(got).__name__}"
    if set(got.values()) - {"train", "test"}:
        return 'Not yet: the values must be "train" and "test"'
    share = list(got.values()).count("test") / len(keys)
    if abs(share - 0.2) > 0.05:
        return f"Not yet: {share:.0%} of 2,000 keys are in test, expected about 20 %"
    fewer = keys[::3]
    random.Random(0).shuffle(fewer)
    again, error = run(fn, fewer, 0.2)
    if error:
        return error
    if any(again[k] != got[k] for k in fewer):
        return "Not yet: a key changed its split when others were removed or reordered"
    more, error = run(fn, keys, 0.5)
    if error:
        return error
    if any(got[k] == "test" and more[k] != "test" for k in keys):
        return "Not yet: with a larger share, every key that was in test before must stay there"
    if _process_dependent(fn):
        return "Not yet: another run of Python would split differently (hash() of a string is salted)"
    return RIGHT


def _process_dependent(fn) -> bool:
    "Return whether a function, or one that is defined inside it, uses Python's salted `hash`."

    def uses(code):
        return "hash" in code.co_names or any(uses(c) for c in code.co_consts if hasattr(c, "co_names"))

    return hasattr(fn, "__code__") and uses(fn.__code__)


def check_most_telling(fn: Callable) -> str:
    "`fn(words, df, lines)` -> the word with the largest TF-IDF."
    df = {"月餅": 10, "中秋": 40, "屋企": 900, "落雨": 100}
    for words, want, why in [
        (["月餅", "中秋"], "月餅", "the rarer word says more"),
        (
            ["屋企", "落雨", "屋企"],
            "屋企" if 2 * math.log(1000 / 900) > math.log(10) else "落雨",
            "a word that is everywhere says little, even twice",
        ),
        (["中秋", "中秋", "月餅"], "中秋", "2 × log 25 is more than 1 × log 100"),
        (["夜雨", "中秋"], "中秋", "夜雨 is not in df"),
        (["夜雨"], None, "no word is left"),
        ([], None, "no word at all"),
    ]:
        got, error = run(fn, words, df, 1_000)
        if error:
            return error
        if got != want:
            return f"Not yet: for {words} expected {want!r} ({why}), got {got!r}"
    return RIGHT
