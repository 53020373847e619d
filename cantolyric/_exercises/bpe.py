"""Checkers for lesson 10. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def _bytes(text):
    return tuple(bytes([b]) for b in text.encode())


def check_next_merge(fn: Callable) -> str:
    "`fn(words)` -> the most frequent pair of adjacent tokens."
    for words, want, why in [
        ({_bytes("ab"): 2, _bytes("bc"): 3}, (b"b", b"c"), "3 is more than 2"),
        (
            {_bytes("abab"): 1, _bytes("ab"): 1, _bytes("xy"): 2},
            (b"a", b"b"),
            "a pair counts each time it occurs in a word",
        ),
        ({_bytes("xy"): 2, _bytes("ab"): 2}, (b"a", b"b"), "ties go to the smaller pair"),
        ({_bytes("雨"): 1, _bytes("雪"): 1}, (b"\xe9", b"\x9b"), "both characters begin with these bytes"),
        ({(b"ab", b"c"): 1}, (b"ab", b"c"), "tokens may be longer than a byte"),
        ({_bytes("a"): 9}, None, "a word of one token has no pair"),
    ]:
        got, error = run(fn, dict(words))
        if error:
            return error
        if got != want:
            return f"Not yet: for {words} expected {want} ({why}), got {got!r}"
    return RIGHT


def check_apply_merges(fn: Callable) -> str:
    "`fn(parts, ranks)` -> parts merged by rank."
    ranks = {(b"b", b"c"): 0, (b"a", b"b"): 1, (b"a", b"bc"): 2, (b"a", b"a"): 3, (b"aa", b"a"): 4}
    for text, want, why in [
        ("abc", [b"abc"], "b c has the lowest rank, then a bc"),
        ("abab", [b"ab", b"ab"], "every ab is merged"),
        ("aaa", [b"aaa"], "the leftmost a a first, then aa a"),
        ("aaaa", [b"aa", b"aa"], "a a at both places comes before aa a"),
        ("cab", [b"c", b"ab"], "c a is not in the list"),
        ("", [], "nothing to merge"),
        ("c", [b"c"], "nothing to merge"),
    ]:
        got, error = run(fn, list(_bytes(text)), dict(ranks))
        if error:
            return error
        if got is None or got is ...:
            return f"Not yet: expected a list, got {got!r}"
        if list(got) != want:
            return f"Not yet: for {text!r} expected {want} ({why}), got {got!r}"
    return RIGHT


def check_characters_of(fn: Callable) -> str:
    "`fn(tokens)` -> for each token the positions of the characters it touches."
    rain = "雨".encode()
    for tokens, want, why in [
        ([b"a", b"b"], [[0], [1]], "one byte, one character"),
        (["銀行".encode(), rain], [[0, 1], [2]], "one token may hold two characters"),
        ([rain[:2], rain[2:]], [[0], [0]], "one character may be two tokens"),
        (
            ["夜".encode() + rain[:1], rain[1:2], rain[2:] + b"!"],
            [[0, 1], [1], [1, 2]],
            "a token may hold one character and part of the next",
        ),
        (["𠻺".encode()[:3], "𠻺".encode()[3:]], [[0], [0]], "some characters have four bytes"),
        ([], [], "no tokens"),
    ]:
        got, error = run(fn, list(tokens))
        if error:
            return error
        if got is None or got is ...:
            return f"Not yet: expected a list, got {got!r}"
        if [list(x) for x in got] != want:
            return f"Not yet: for {tokens} expected {want} ({why}), got {got!r}"
    return RIGHT
