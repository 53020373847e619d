"""The old import path of `cantolyric.training`. Its names still work here."""

from cantolyric._reexport import lazily

__getattr__ = lazily(
    __name__,
    "cantolyric.training cantolyric.constraint.mask_store cantolyric.constraint.scoring cantolyric.machine "
    "cantolyric.atomic_files",
    renamed={
        "finetune": "cantolyric.training.stages:run_stage",
        "climb": "cantolyric.training.run:run_finetune",
    },
)
