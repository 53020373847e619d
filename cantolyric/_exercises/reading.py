"""Checkers for lesson 01. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run
from cantolyric.reading import Reader


def check_read_backward(fn: Callable) -> str:
    "`fn(text, lexicon)` -> one Jyutping or None per character, longest words from the end of the text."
    lexicon = {
        "有": ("jau5",),
        "時": ("si4",),
        "間": ("gaan1",),
        "長": ("coeng4",),
        "有時": ("jau5", "si4"),
        "時間": ("si4", "gaan3"),
        "銀行": ("ngan4", "hong4"),
        "行長": ("hong4", "zoeng2"),
        "時間長": ("si4", "gaan3", "coeng4"),
        "有時間長": ("jau5", "si4", "gaan3", "zoeng2"),
    }
    for text, want, why in [
        ("", [], "nothing to read"),
        ("有", ["jau5"], "a single character"),
        ("有時間", ["jau5", "si4", "gaan3"], "from the right, 時間 comes first"),
        ("銀行長", [None, "hong4", "zoeng2"], "行長 comes first, and 銀 alone is not in the lexicon"),
        ("銀行行長", ["ngan4", "hong4", "hong4", "zoeng2"], "two words, in the order of the text"),
        ("有時間長", ["jau5", "si4", "gaan3", "zoeng2"], "the longest word that ends here has four characters"),
        ("長時間長", ["coeng4", "si4", "gaan3", "coeng4"], "the longest word that ends here has three characters"),
        ("雨，有時", [None, None, "jau5", "si4"], "the lexicon has neither 雨 nor the comma"),
    ]:
        got, error = run(fn, text, dict(lexicon))
        if error:
            return error
        if not isinstance(got, list):
            return f"Not yet: expected a list, got {got!r}"
        if got != want:
            return f"Not yet: for {text!r} expected {want} ({why}), got {got}"
    return RIGHT


def check_disputed(fn: Callable) -> str:
    "`fn(text, one, two)` -> the positions where two readers give different 0243 classes."
    one = Reader({"長": ("coeng4",), "行": ("haang4",), "好": ("hou2",), "三": ("saam1",), "夜": ("je6",)})
    two = Reader({"長": ("zoeng2",), "行": ("hong4",), "好": ("hou3",), "三": ("saam2",), "雨": ("jyu5",)})
    for text, want, why in [
        ("行", [], "another syllable of the same class is no dispute"),
        ("三", [], "tones 1 and 2 are one class"),
        ("好長", [0, 1], "both classes differ"),
        ("夜行雨", [0, 2], "only one of them reads it"),
        ("長，長", [0, 2], "neither reads the comma"),
        ("", [], "nothing to read"),
    ]:
        got, error = run(fn, text, one, two)
        if error:
            return error
        if not isinstance(got, list):
            return f"Not yet: expected a list, got {got!r}"
        if got != want:
            return f"Not yet: for {text!r} expected {want} ({why}), got {got}"
    return RIGHT


def check_net_gain(fn: Callable) -> str:
    "`fn(words, word, reading, cases)` -> the number of characters fixed minus the number broken by the new word."
    words = {"我": ("ngo5",), "哋": ("dei2",), "噉": ("gam2",), "我哋": ("ngo5", "dei6")}
    we, so = ("我哋", ["ngo5", "dei6"]), ("噉我", ["gam2", "ngo5"])
    for word, reading, cases, want, why in [
        ("噉我", ("gam3", "ngo5"), [so], -1, "it breaks one character"),
        ("噉我", ("gam2", "ngo5"), [so], 0, "it changes nothing"),
        ("噉我", ("gam2", "ngo5"), [("噉我哋", ["gam2", "ngo5", "dei6"]), so], -1, "it takes 我 away from 我哋"),
        ("噉我哋", ("gam2", "ngo5", "dei6"), [("噉我哋", ["gam2", "ngo5", "dei6"])], 0, "it was right before"),
        (
            "傻傻哋",
            ("so4", "so4", "dei2"),
            [("傻傻哋", ["so4", "so4", "dei2"]), we],
            2,
            "two characters had no reading",
        ),
        ("我哋", ("ngo5", "dei2"), [("我哋", ["ngo5", None]), we, we], -2, "an unknown reading counts neither way"),
        ("銀行", ("ngan4", "hong4"), [], 0, "there is nothing to read"),
    ]:
        before = dict(words)
        got, error = run(fn, words, word, reading, cases)
        if error:
            return error
        if not isinstance(got, int):
            return f"Not yet: expected a number, got {got!r}"
        if got != want:
            return f"Not yet: for {word} in {cases} expected {want} ({why}), got {got}"
        if words != before:
            return "Not yet: the function changed its argument, the lexicon"
    return RIGHT
