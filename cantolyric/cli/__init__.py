"""The command line."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.cli.main cantolyric.cli.parsing cantolyric.cli.inputs cantolyric.cli.option_groups "
    "cantolyric.cli.read cantolyric.cli.check cantolyric.cli.write cantolyric.cli.rewrite cantolyric.cli.finetune "
    "cantolyric.cli.config_options cantolyric.cli.evaluate cantolyric.cli.base cantolyric.cli.model "
    "cantolyric.cli.export cantolyric.cli.completion",
)
