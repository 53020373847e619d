"""Melodies: read a tune, split it into phrases, and find the tones that it asks for."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.melody.melody cantolyric.melody.notes cantolyric.melody.singing cantolyric.melody.tones "
    "cantolyric.melody.abc_reader cantolyric.melody.musicxml_reader cantolyric.melody.midi_reader "
    "cantolyric.melody.typed cantolyric.melody.export cantolyric.melody.check",
)
