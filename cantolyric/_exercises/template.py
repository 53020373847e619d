"""Checkers for lesson 02. Each returns "Right." or explains what is wrong; none raises."""

import itertools
from collections.abc import Callable

from cantolyric._exercises import RIGHT, run
from cantolyric.reading import Reader
from cantolyric.template.report import reads_right
from cantolyric.template.template import ToneTemplate


def check_mend(fn: Callable) -> str:
    "`fn(template, line, place, characters)` -> the characters that make a line match."
    for template, line, place, characters in [
        ("2433", "夜雨打人", 3, "窗人門山海"),
        ("00", "銀人", 1, "行長花街"),
        ("03", "人樹", 1, "花海人山"),
        ("43", "種樹", 1, "花類人山"),
        ("33", "種樹", 1, "類花子"),
        ("**", "雨夜", 0, "風花"),
    ]:
        t = ToneTemplate.parse(template)
        want = [c for c in characters if t.matches(line[:place] + c + line[place + 1 :])]
        got, error = run(fn, t, line, place, characters)
        if error:
            return error
        if not isinstance(got, list):
            return f"Not yet: expected a list, got {got!r}"
        if got != want:
            return (
                f"Not yet: for {template}, {line!r}, place {place}, {characters!r} expected {want}, got {got}: "
                "read the whole line again"
            )
    return RIGHT


def check_union(fn: Callable) -> str:
    "`fn(a, b)` -> the text of the template that allows whatever a or b allows, or None."
    for a, b, want, scheme in [
        ("0243", "0243", "0243", "0243"),
        ("0243", "0234", "02[34][34]", "0243"),
        ("0/24", "2/44", "[02]/[24]4", "0243"),
        ("0[23]", "*[34]", "*[234]", "0243"),
        ("[02]", "[34]", "*", "0243"),
        ("02", "024", None, "0243"),
        ("0/2", "02", None, "0243"),
        ("93", "45", "[49][35]", "394052"),
    ]:
        x, y = ToneTemplate.parse(a, scheme), ToneTemplate.parse(b, scheme)
        got, error = run(fn, x, y)
        if error:
            return error
        if want is None:
            if got is not None:
                return f"Not yet: {a} and {b} have different shapes, expected None, got {got!r}"
            continue
        if not isinstance(got, str):
            return f"Not yet: expected a string, got {got!r}"
        parsed, error = run(ToneTemplate.parse, got, scheme)
        if error:
            return f"Not yet: for {a} and {b} expected a template, got {got!r}"
        if str(parsed) != str(ToneTemplate.parse(want, scheme)):
            return f"Not yet: for {a} and {b} expected {want!r}, got {got!r}"
    return RIGHT


def check_count(fn: Callable) -> str:
    "`fn(automaton, characters)` -> the number of accepted texts made of these characters."
    reader = Reader(
        {
            "一": ("jat1",),
            "花": ("faa1",),
            "種": ("zung2",),
            "人": ("jan4",),
            "種花": ("zung3", "faa1"),
            "沙": ("saa1",),
        }
    )
    for template, characters in [
        ("3", "一花種人"),
        ("33", "一花種人"),
        ("43", "一花種人"),
        ("***/*", "一花種"),
        ("3* A/*3 A", "一花種沙人"),
        ("00/3", "種花"),
    ]:
        t = ToneTemplate.parse(template, reader=reader)
        each = [map("".join, itertools.product(characters, repeat=len(line))) for line in t.lines]
        want = sum(reads_right(t, "\n".join(lines), reader) for lines in itertools.product(*each))
        got, error = run(fn, t.automaton(reader), characters)
        if error:
            return error
        if not isinstance(got, int):
            return f"Not yet: expected a whole number, got {got!r}"
        if got != want:
            return f"Not yet: for {template} and the characters {characters} expected {want}, got {got}"
    large = ToneTemplate.parse("*" * 12, reader=reader)
    got, error = run(fn, large.automaton(reader), "一人沙")
    if error:
        return error
    return RIGHT if got == 3**12 else f"Not yet: for 12 free slots and three characters expected 3**12, got {got!r}"
