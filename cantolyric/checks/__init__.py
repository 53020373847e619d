"""Checks that stop a run before it is wasted, and planted mistakes to test them with."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.checks.preflight cantolyric.checks.results cantolyric.checks.setup "
    "cantolyric.checks.defaults cantolyric.checks.probes cantolyric.checks.data_gates "
    "cantolyric.checks.model_gates cantolyric.checks.training_gates "
    "cantolyric.checks.mistake cantolyric.checks.mistakes cantolyric.checks.planted_data "
    "cantolyric.checks.planted_hooks cantolyric.checks.planted_model "
    "cantolyric.checks.planted_training cantolyric.checks.costs",
)
