"""The checkers of lessons 00 to 03 reject wrong answers. (nbs/solutions shows that they accept the solutions.)"""

from cantolyric._exercises.melody import check_cheapest, check_count_within, check_fights
from cantolyric._exercises.reading import check_disputed, check_read_backward
from cantolyric._exercises.template import check_count, check_machine, check_mend
from cantolyric._exercises.tones import check_coarser, check_count_fitting, check_scheme
from cantolyric.reading import Reader

CHECKS = (
    check_cheapest,
    check_coarser,
    check_count,
    check_count_fitting,
    check_count_within,
    check_disputed,
    check_fights,
    check_machine,
    check_mend,
    check_read_backward,
    check_scheme,
)


def test_empty_stubs_and_crashes_are_rejected():
    for check in CHECKS:
        assert check(lambda *a: ...).startswith("Not yet")
        assert check(lambda *a: None).startswith("Not yet")
        assert "ZeroDivisionError" in check(lambda *a: 1 / 0)


def test_typical_mistakes_are_rejected():
    assert "encode('luk9 si1') should raise" in check_scheme(Lenient)
    assert "should contain 'je'" in check_scheme(Silent)
    assert "tones('3') should be {1, 2}, got {1}" in check_scheme(FirstOnly)
    assert check_scheme(Strict) == "Right."
    assert "Not yet" in check_coarser(lambda a, b: dict(zip(a, b)))  # never refuses
    assert "strings that stay" in check_count_fitting(
        lambda tune: 4 ** len(tune) if len(tune) < 2 else 6 ** (len(tune) - 1)
    )  # forgets that classes may repeat
    assert "held note" in check_count_fitting(lambda tune: count(tune, held_is_free=True))
    assert check_count_fitting(count) == "Right."
    assert "時間 comes first" in check_read_backward(lambda text, lexicon: Reader(lexicon).jyutping(text))  # forward

    def syllables(text, one, two):  # compares readings, not classes
        return [i for i, (a, b) in enumerate(zip(one.jyutping(text), two.jyutping(text))) if a != b]

    assert "no dispute" in check_disputed(syllables)

    def alone(template, line, place, characters):  # reads the character alone
        slot = template.lines[0][place]
        from cantolyric.reading import as_reader

        return [c for c in characters if int(as_reader("characters").jyutping(c)[0][-1]) in slot.tones]

    assert "read the whole line again" in check_mend(alone)
    assert "Not yet: for 33" in check_count(lambda a, chars: sum(a.accepts(c) for c in chars))  # one slot only
    assert "step should return None" in check_machine(Patient)
    assert "should be accepted" in check_machine(Hasty)
    assert check_machine(Following) == "Right."


class Lenient:
    "Refuses a missing tone only."

    def __init__(self, table):
        self.table = table

    def encode(self, jyutping):
        for s in jyutping.split():
            if s[-1].isalpha():
                raise ValueError(s)
        return "".join(self.table[min(int(s[-1]), 6) - 1] for s in jyutping.split())

    def tones(self, digit):
        if digit not in self.table:
            raise ValueError(digit)
        return {k for k, d in enumerate(self.table, 1) if d == digit}


class Silent(Lenient):
    "Refuses wrong tones, without saying where."

    def encode(self, jyutping):
        if not all(s[-1] in "123456" for s in jyutping.split()):
            raise ValueError("wrong tone")
        return super().encode(jyutping)


class Strict(Lenient):
    def encode(self, jyutping):
        for s in jyutping.split():
            if s[-1] not in "123456":
                raise ValueError(f"{s!r} has no tone")
        return super().encode(jyutping)


class FirstOnly(Strict):
    def tones(self, digit):
        return {min(super().tones(digit))}


class Following:
    "An automaton of one line."

    def __init__(self, slots, codes):
        self.slots, self.codes = slots, codes
        self.prefixes = {word[:n] for word in codes for n in range(1, len(word))}

    def start(self):
        return 0, ""

    def step(self, state, char):
        (slot, text), digits = (state[0], state[1] + char), ""
        while text and text not in self.prefixes:
            word = max((w for w in self.codes if text.startswith(w)), key=len)
            digits, text = digits + self.codes[word], text[len(word) :]
        fits = all(slot + k < len(self.slots) and d in self.slots[slot + k] for k, d in enumerate(digits))
        return (slot + len(digits), text) if fits else None

    def is_final(self, state):
        prefixes, self.prefixes = self.prefixes, ()
        after = self.step(state, "")
        self.prefixes = prefixes
        return after is not None and after[0] == len(self.slots)


class Patient(Following):
    "Reads only at the end."

    def step(self, state, char):
        return super().step(state, char) if self.prefixes == () else (state[0], state[1] + char)


class Hasty(Following):
    "Reads each character by itself, at once."

    def __init__(self, slots, codes):
        super().__init__(slots, codes)
        self.prefixes = ()


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
