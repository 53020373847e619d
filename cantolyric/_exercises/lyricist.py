"""Checkers for lesson 52. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, run


def _candidate(text, bits=1.):
    "A candidate whose tones are right, whatever its text."
    from cantolyric.lyricist import Candidate
    from cantolyric.template import ToneTemplate
    return Candidate(text, ToneTemplate.of(text).check(text), bits)


def check_distinct(fn) -> str:
    "`fn(texts)` -> the share of different character pairs among all pairs, pairs within a line."
    for texts, want, about in [(["夜雨"], 1., "one pair"), (["夜雨", "夜雨"], .5, "the same text twice"), (["夜雨\n雨夜"], 1., "a pair never crosses a line end"),
                               (["哈哈哈哈"], 1 / 3, "one pair three times"), (["夜"], 0., "no pair at all")]:
        got, error = run(fn, texts)
        if error: return error
        try: ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if not ok: return f"Not yet: {about} ({texts}): wanted is {want:.3g}, it returned {got}"
    return RIGHT


def check_rhyming(fn) -> str:
    "`fn(candidate)` -> the rhyme of the line ends: the mean grade of all pairs of lines."
    for text, want, about in [("落雨\n行路", 0., "jyu5 and lou6 do not rhyme"), ("落雨\n朱古", 0., "jyu5 and gu2"), ("條街\n招牌", 3., "gaai1 and paai4: the same final, tones do not count"),
                              ("條街\n招牌\n落雨", 1., "one pair of three rhymes"), ("條街", 0., "one line has no partner")]:
        got, error = run(fn, _candidate(text))
        if error: return error
        try: ok = abs(float(got) - want) < 1e-9
        except (TypeError, ValueError): return f"Not yet: wanted is a number, it returned {got!r}"
        if not ok: return f"Not yet: {about}: wanted is {want:g}, it returned {got}"
    return RIGHT
