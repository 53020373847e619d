"""Checkers for lesson 53. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number_of, run


def check_drafts(fn: Callable) -> str:
    "`fn(p, slots)` -> the average number of drafts until every slot is right, each with probability p."
    for p, slots, want in (
        (0.5, 1, 2.0),
        (1.0, 14, 1.0),
        (0.9, 14, 0.9**-14),
        (0.5, 14, 16_384.0),
        (0.15, 2, 44.4444444),
    ):
        if why := number_of(fn, (p, slots), want, f"each of {slots} slots right with probability {p}", 1e-6 * want):
            return why
    return RIGHT


def check_assemble(fn: Callable) -> str:
    "`fn(texts, template)` -> lyrics in which each line is the best of that line in any of the texts."
    from cantolyric.template.template import ToneTemplate

    template = ToneTemplate.parse("22/33/00")
    for texts, want, about in (
        (
            ["夜夜\n夜夜\n時時", "詩史\n詩史\n詩史"],
            "夜夜\n詩史\n時時",
            "one text has the first and last line, the other the middle one",
        ),
        (["夜詩\n詩史\n時時", "詩詩\n詩夜\n時夜"], "夜詩\n詩史\n時時", "no line is better in the second text"),
        (["夜夜", "詩詩\n詩史\n時時"], "夜夜\n詩史\n時時", "the first text has one line only"),
        (
            ["夜夜夜\n詩史\n時", "夜詩\n詩\n時時"],
            "夜夜夜\n詩史\n時時",
            "an extra character is one fault, and so is a wrong one; ties go to the first text",
        ),
    ):
        got, error = run(fn, list(texts), template)
        if error:
            return error
        if got != want:
            return f"Not yet: {about} ({texts}): expected {want!r}, got {got!r}"
    return RIGHT
