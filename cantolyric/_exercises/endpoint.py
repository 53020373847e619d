"""Checkers for lesson 53. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, number_of, run


def check_drafts(fn) -> str:
    "`fn(p, slots)` -> how many drafts it takes on average until one has every slot right, each right with probability p by itself."
    for p, slots, want in ((.5, 1, 2.), (1., 14, 1.), (.9, 14, .9**-14), (.5, 14, 16_384.), (.15, 2, 44.4444444)):
        if why := number_of(fn, (p, slots), want, f"each of {slots} slots right with probability {p}", 1e-6 * want): return why
    return RIGHT


def check_assemble(fn) -> str:
    "`fn(texts, template)` -> the lyrics whose every line is the best that any of the texts has for it."
    from cantolyric.template import ToneTemplate
    template = ToneTemplate.parse("22/33/00")
    for texts, want, about in ((["夜夜\n夜夜\n時時", "詩史\n詩史\n詩史"], "夜夜\n詩史\n時時", "one text has the first and last line, the other the middle one"),
                               (["夜詩\n詩史\n時時", "詩詩\n詩夜\n時夜"], "夜詩\n詩史\n時時", "no line is better in the second text"),
                               (["夜夜", "詩詩\n詩史\n時時"], "夜夜\n詩史\n時時", "the first text has one line only"),
                               (["夜夜夜\n詩史\n時", "夜詩\n詩\n時時"], "夜夜夜\n詩史\n時時", "one character too much is one fault, and so is one wrong; the first of equals is kept")):
        got, error = run(fn, list(texts), template)
        if error: return error
        if got != want: return f"Not yet: {about} ({texts}): wanted is {want!r}, it returned {got!r}"
    return RIGHT
