"""Checkers for lesson 02. Each returns "Right." or explains what is wrong; none raises."""

import itertools
from collections.abc import Callable
from operator import methodcaller
from typing import Any

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


LEXICON = {
    "銀": "0",
    "行": "0",
    "長": "0",
    "大": "2",
    "好": "3",
    "銀行": "00",
    "行長": "03",
    "長大": "32",
    "行長大": "040",
}
TEMPLATES = (
    [{"0"}, {"0"}, {"3"}],
    [{"3"}, {"2"}],
    [{"0"}, {"0", "4"}, {"0"}],
    [set("0243")] * 2,
    [{"0"}],
    [{"0"}, {"3"}],
)


def check_machine(cls: type) -> str:
    "`cls(slots, codes)` -> an automaton with `start()`, `step(state, char)` and `is_final(state)`."
    for slots in TEMPLATES:
        machine, error = run(cls, [set(slot) for slot in slots], dict(LEXICON))
        for size in range(5):
            for text in map("".join, itertools.product("銀行長大好", repeat=size)):
                error = error or _check_run(machine, slots, text)
                if error:
                    return error
    return RIGHT


def _check_run(machine: Any, slots: list[set[str]], text: str) -> str | None:
    state, error = run(methodcaller("start"), machine)
    if not error and state is None:
        return "Not yet: start() should return a state, got None"
    for k, char in enumerate(text, 1):
        if error:
            return error
        if state is None:
            break
        state, error = run(methodcaller("step", state, char), machine)
        if not error and state is not None and not _fits(slots, _certain(text[:k])):
            return f"Not yet: for the slots {slots}, step should return None after {text[:k]!r}, got {state!r}"
    got, error = (False, error) if error or state is None else run(methodcaller("is_final", state), machine)
    if error:
        return error
    read = _read(text)
    want = len(read) == len(slots) and _fits(slots, read)
    if bool(got) != want:
        verb = "accepted" if want else "rejected"
        return f"Not yet: for the slots {slots}, {text!r} is read {read!r} and should be {verb}"
    return None


def _fits(slots: list[set[str]], digits: str) -> bool:
    return len(digits) <= len(slots) and all(d in slot for d, slot in zip(digits, slots))


def _read(text: str) -> str:
    "Read a whole text, the longest word first."
    out = ""
    while text:
        word = max((w for w in LEXICON if text.startswith(w)), key=len)
        out, text = out + LEXICON[word], text[len(word) :]
    return out


def _certain(text: str) -> str:
    "Return the digits that no continuation of a text changes: those before the words that it may still form."
    out = ""
    while text and not any(w.startswith(text) and w != text for w in LEXICON):
        word = max((w for w in LEXICON if text.startswith(w)), key=len)
        out, text = out + LEXICON[word], text[len(word) :]
    return out


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
