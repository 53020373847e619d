"""Checkers for lesson 52. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def _candidate(text, bits=1.0):
    "Return a candidate with the given text, whose tones are all right."
    from cantolyric.template.template import ToneTemplate
    from cantolyric.writing.results import Candidate

    return Candidate(text, ToneTemplate.of(text).check(text), bits)


def check_distinct(fn: Callable) -> str:
    "`fn(texts)` -> the share of different character pairs among all pairs, pairs within a line."
    for texts, want, about in [
        (["夜雨"], 1.0, "one pair"),
        (["夜雨", "夜雨"], 0.5, "the same text twice"),
        (["夜雨\n雨夜"], 1.0, "a pair never crosses a line end"),
        (["哈哈哈哈"], 1 / 3, "one pair three times"),
        (["夜"], 0.0, "no pair at all"),
    ]:
        got, error = run(fn, texts)
        if error:
            return error
        try:
            ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if not ok:
            return f"Not yet: {about} ({texts}): expected {want:.3g}, got {got}"
    return RIGHT


def check_rhyming(fn: Callable) -> str:
    "`fn(candidate)` -> the mean rhyme grade of the line ends, over all pairs of lines."
    for text, want, about in [
        ("落雨\n行路", 0.0, "jyu5 and lou6 do not rhyme"),
        ("落雨\n朱古", 0.0, "jyu5 and gu2"),
        ("條街\n招牌", 3.0, "gaai1 and paai4: the same final, tones do not count"),
        ("條街\n招牌\n落雨", 1.0, "one pair of three rhymes"),
        ("條街", 0.0, "one line has no partner"),
    ]:
        got, error = run(fn, _candidate(text))
        if error:
            return error
        try:
            ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError):
            return f"Not yet: expected a number, got {got!r}"
        if not ok:
            return f"Not yet: {about}: expected {want:g}, got {got}"
    return RIGHT


def check_where_it_fits(fn: Callable) -> str:
    "`fn(word, lines)` -> all (line, slot), counted from 1, where the digits of a word occur in a row."
    for word, lines, want, about in [
        ("23", ["2324", "0233"], [(1, 1), (2, 2)], "one place in each line, counted from 1"),
        ("33", ["3332"], [(1, 1), (1, 2)], "places may overlap"),
        ("23", ["0243324", "3324043"], [], "no place is an empty list"),
        ("24", ["02", "4"], [], "a word never crosses a line end"),
        ("3", ["33"], [(1, 1), (1, 2)], "the last slot counts too"),
        ("0243", ["024"], [], "a word longer than the line"),
    ]:
        got, error = run(fn, word, lines)
        if error:
            return error
        try:
            same = sorted(map(tuple, got)) == want
        except TypeError:
            return f"Not yet: expected a list of (line, slot), got {got!r}"
        if not same:
            return f"Not yet: {about} ({word!r} in {lines}): expected {want}, got {got}"
    return RIGHT
