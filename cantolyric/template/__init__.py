"""Tone templates: what is asked of each syllable, and whether a text has it."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.template.slots cantolyric.template.template cantolyric.template.report cantolyric.template.html "
    "cantolyric.template.lexicon cantolyric.template.line_search cantolyric.template.sung cantolyric.template.parser "
    "cantolyric.template.automaton cantolyric.template.patterns cantolyric.template.song",
)
