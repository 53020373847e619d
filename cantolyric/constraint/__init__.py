"""Constrained decoding: the tokens that may come next, for any tokenizer and template."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.constraint.vocabulary cantolyric.constraint.automaton cantolyric.constraint.processor "
    "cantolyric.constraint.decoding cantolyric.constraint.bits cantolyric.constraint.edits "
    "cantolyric.constraint.sampling cantolyric.constraint.cache_use "
    "cantolyric.constraint.token_index cantolyric.constraint.compiled cantolyric.constraint.mask_store "
    "cantolyric.constraint.scoring",
)
