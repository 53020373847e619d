"""A finetuning run: its settings, its stages, its folder and its report."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.training.config cantolyric.training.config_file cantolyric.training.run "
    "cantolyric.training.stages cantolyric.training.context cantolyric.training.trainer "
    "cantolyric.training.run_folder cantolyric.training.report cantolyric.training.card "
    "cantolyric.training.publish cantolyric.training.forecast cantolyric.training.logs "
    "cantolyric.training.arguments cantolyric.training.validation cantolyric.training.errors",
)
