"""Checkers for lesson 03. Each returns "Right." or explains what is wrong; none raises."""

import itertools
import random
from collections.abc import Callable, Iterator

from cantolyric._exercises import RIGHT, run
from cantolyric.melody.tones import CLASSES, is_allowed, table_distance


def _tunes(count: int, longest: int) -> Iterator[list[int]]:
    "Yield short random tunes, with repeated notes."
    rng = random.Random(0)
    for k in range(count):
        yield [rng.randint(60, 66) for _ in range(1 + k % longest)]


def _forbidden(pitches: list[int], digits: str) -> list[int]:
    steps = zip(digits, digits[1:], pitches, pitches[1:])
    return [k for k, (a, b, low, high) in enumerate(steps) if not is_allowed(a, b, high - low)]


def check_fights(fn: Callable) -> str:
    "`fn(pitches, digits)` -> places from 0 of the first note of each forbidden move."
    rng = random.Random(1)
    for pitches in [[60, 62, 60], [60, 60], *_tunes(40, 6)]:
        digits = "".join(rng.choices(CLASSES, k=len(pitches)))
        got, error = run(fn, pitches, digits)
        if error:
            return error
        if got != (want := _forbidden(pitches, digits)):
            return f"Not yet: for {pitches} and {digits!r} expected {want}, got {got!r}"
    return RIGHT


def check_count_within(fn: Callable) -> str:
    "`fn(pitches, choices)` -> how many strings the rule admits if each note has its own choice of classes."
    rng = random.Random(2)
    for pitches in _tunes(40, 6):
        choices = ["".join(c for c in CLASSES if rng.random() < 0.7) or "0" for _ in pitches]
        want = sum(not _forbidden(pitches, "".join(x)) for x in itertools.product(*choices))
        got, error = run(fn, pitches, choices)
        if error:
            return error
        if got != want:
            return f"Not yet: for {pitches} and {choices} expected {want}, got {got!r}"
    got, error = run(fn, [60] * 200, [CLASSES] * 200)
    return error or (RIGHT if got == 4 else f"Not yet: 200 times the same note admits 4 strings, got {got!r}")


def check_cheapest(fn: Callable) -> str:
    "`fn(pitches)` -> an admitted string with the smallest sum of `table_distance`."

    def cost(digits: str, pitches: list[int]) -> int:
        steps = zip(digits, digits[1:], pitches, pitches[1:])
        return sum(table_distance(a, b, high - low) for a, b, low, high in steps)

    for pitches in _tunes(30, 5):
        strings = ("".join(x) for x in itertools.product(CLASSES, repeat=len(pitches)))
        best = min(cost(s, pitches) for s in strings if not _forbidden(pitches, s))
        got, error = run(fn, pitches)
        if error:
            return error
        if not isinstance(got, str) or len(got) != len(pitches) or set(got) - set(CLASSES):
            return f"Not yet: for {pitches} expected a string of {len(pitches)} digits of 0243, got {got!r}"
        if places := _forbidden(pitches, got):
            return f"Not yet: for {pitches} you return {got}, but the move after note {places[0] + 1} is forbidden"
        if (missed := cost(got, pitches)) != best:
            return f"Not yet: for {pitches} you return {got}, which misses the table by {missed}, not {best}"
    return RIGHT
