"""Checkers for lesson 01. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric.reading import Reader

RIGHT = "Right."


def _run(fn, *args):
    "What `fn` gives, or why it gave nothing."
    try: return fn(*args), None
    except Exception as e: return None, f"Not yet: it raised {type(e).__name__}: {e}"


def check_longest_words(fn) -> str:
    "`fn(text, words)` -> the pieces that a longest-word reader takes."
    words = {"銀", "行", "銀行", "行長", "長", "行行", "一", "一行行"}
    for text, want in [("", []), ("銀行", ["銀行"]), ("銀行長", ["銀行", "長"]), ("銀行行長", ["銀行", "行長"]),
                       ("一行行長", ["一行行", "長"]), ("一行長", ["一", "行長"]), ("雨，銀雨", ["雨", "，", "銀", "雨"])]:
        got, error = _run(fn, text, words)
        if error: return error
        if not isinstance(got, list): return f"Not yet: wanted is a list, it returned {got!r}"
        if got != want: return f"Not yet: for {text!r} wanted is {want}, it returned {got}"
    return RIGHT


def check_disputed(fn) -> str:
    "`fn(text, one, two)` -> where two readers give different 0243 classes."
    one = Reader({"長": ("coeng4",), "行": ("haang4",), "好": ("hou2",), "三": ("saam1",), "夜": ("je6",)})
    two = Reader({"長": ("zoeng2",), "行": ("hong4",), "好": ("hou3",), "三": ("saam2",), "雨": ("jyu5",)})
    for text, want, why in [("行", [], "another syllable of the same class is no dispute"), ("三", [], "tones 1 and 2 are one class"),
                            ("好長", [0, 1], "both classes differ"), ("夜行雨", [0, 2], "only one of them reads it"),
                            ("長，長", [0, 2], "neither reads the comma"), ("", [], "nothing to read")]:
        got, error = _run(fn, text, one, two)
        if error: return error
        if not isinstance(got, list): return f"Not yet: wanted is a list, it returned {got!r}"
        if got != want: return f"Not yet: for {text!r} wanted is {want} ({why}), it returned {got}"
    return RIGHT
