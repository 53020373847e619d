"""Evaluation of lyrics: tones, fluency, topic and copying, compared with human lines and random baselines."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.evaluation.measure cantolyric.evaluation.metrics cantolyric.evaluation.counts "
    "cantolyric.evaluation.compare cantolyric.evaluation.bootstrap cantolyric.evaluation.requests "
    "cantolyric.evaluation.decoding cantolyric.evaluation.table cantolyric.evaluation.systems "
    "cantolyric.evaluation.figures cantolyric.evaluation.report cantolyric.evaluation.ratings "
    "cantolyric.evaluation.summary",
)
