"""The checkers of lessons 00 to 03 reject wrong answers. (nbs/solutions shows that they accept the solutions.)"""

from cantolyric._exercises.melody import check_cheapest, check_count_within, check_fights
from cantolyric._exercises.reading import check_disputed, check_longest_words
from cantolyric._exercises.template import check_count, check_mend, check_union
from cantolyric._exercises.tones import check_coarser, check_count_fitting, check_pronounces_itself
from cantolyric.tones import SCHEMES

CHECKS = (
    check_cheapest,
    check_coarser,
    check_count,
    check_count_fitting,
    check_count_within,
    check_disputed,
    check_fights,
    check_longest_words,
    check_mend,
    check_pronounces_itself,
    check_union,
)


def test_empty_stubs_and_crashes_are_rejected():
    for check in CHECKS:
        assert check(lambda *a: ...).startswith("Not yet")
        assert check(lambda *a: None).startswith("Not yet")
        assert "ZeroDivisionError" in check(lambda *a: 1 / 0)


def test_typical_mistakes_are_rejected():
    assert "Not yet" in check_pronounces_itself(
        lambda table, numerals: table in SCHEMES.values()
    )  # compares with the known tables
    assert "Not yet" in check_coarser(lambda a, b: dict(zip(a, b)))  # never refuses
    assert "strings that stay" in check_count_fitting(
        lambda tune: 4 ** len(tune) if len(tune) < 2 else 6 ** (len(tune) - 1)
    )  # forgets that classes may repeat
    assert "held note" in check_count_fitting(lambda tune: count(tune, held_is_free=True))
    assert check_count_fitting(count) == "Right."
    assert "Not yet" in check_longest_words(lambda text, words: list(text))

    def syllables(text, one, two):  # compares readings, not classes
        return [i for i, (a, b) in enumerate(zip(one.jyutping(text), two.jyutping(text))) if a != b]

    assert "no dispute" in check_disputed(syllables)

    def alone(template, line, place, characters):  # reads the character alone
        slot = template.lines[0][place]
        from cantolyric.reading import as_reader

        return [c for c in characters if int(as_reader("characters").jyutping(c)[0][-1]) in slot.tones]

    assert "read the whole line again" in check_mend(alone)
    assert "Not yet: for 33" in check_count(lambda a, chars: sum(a.accepts(c) for c in chars))  # one slot only
    assert "shapes" in check_union(
        lambda a, b: str(a) if str(a) == "02" else union(a, b)
    )  # zip drops the end of the longer one


def union(a, b):
    from cantolyric.template.slots import ALL_TONES
    from cantolyric.tones import ToneScheme

    digits = lambda tones: "".join(sorted({ToneScheme(a.scheme).of(t) for t in tones}))
    return "/".join(
        "".join("*" if x.tones | y.tones == ALL_TONES else f"[{digits(x.tones | y.tones)}]" for x, y in zip(*two))
        for two in zip(a.lines, b.lines)
    )


def count(tune, held_is_free=False):
    from itertools import product

    moves = lambda x: [(b > a) - (b < a) for a, b in zip(x, x[1:])]
    return sum(
        all(m in (0, t) or (held_is_free and t == 0) for m, t in zip(moves(s), moves(tune)))
        for s in product(range(4), repeat=len(tune))
    )


def test_typical_mistakes_with_melodies_are_rejected():
    from cantolyric.melody.tones import allowed_classes

    def broken(pitches, digits):  # a repeated note taken for a rising one
        moves = zip(digits, digits[1:], pitches, pitches[1:])
        return [k for k, (a, b, low, high) in enumerate(moves) if b not in allowed_classes(a, high - low or 1)]

    assert "Not yet" in check_fights(broken)
    assert "Not yet" in check_count_within(lambda pitches, choices: 4 ** len(pitches))  # forgets the tune
    assert "misses the table by" in check_cheapest(lambda pitches: "0" * len(pitches))
    assert "forbidden" in check_cheapest(lambda pitches: ("30" * len(pitches))[: len(pitches)])
