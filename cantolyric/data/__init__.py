"""Open Cantonese text, the verses, and a user's own songs, as examples to train on."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.data.corpora cantolyric.data.verse_file cantolyric.data.pairs cantolyric.data.text "
    "cantolyric.data.splits cantolyric.data.topics cantolyric.data.store cantolyric.data.song_files "
    "cantolyric.data.examples",
)
