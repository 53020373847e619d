"""Finetune open LLMs to write Cantonese lyrics to a given topic and given tones."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cantolyric.api import check, read
    from cantolyric.constraint.automaton import ToneConstraint
    from cantolyric.constraint.vocabulary import TokenTable
    from cantolyric.evaluation.compare import evaluate_texts
    from cantolyric.models import load_model
    from cantolyric.reading import Reader
    from cantolyric.template.template import ToneTemplate
    from cantolyric.tones import Syllable
    from cantolyric.training.config import FinetuneConfig
    from cantolyric.training.run import run_finetune
    from cantolyric.writing.lyricist import Lyricist

__version__ = "0.1.0"
__all__ = [
    "FinetuneConfig",
    "Lyricist",
    "Reader",
    "Syllable",
    "TokenTable",
    "ToneConstraint",
    "ToneTemplate",
    "check",
    "evaluate_texts",
    "load_model",
    "read",
    "run_finetune",
]
# Imported when they are first used, so that `import cantolyric` takes no time and never imports torch.
_MODULES = {
    "api": "check read",
    "constraint.automaton": "ToneConstraint",
    "constraint.vocabulary": "TokenTable",
    "evaluation.compare": "evaluate_texts",
    "models": "load_model",
    "reading": "Reader",
    "template.template": "ToneTemplate",
    "tones": "Syllable",
    "training.config": "FinetuneConfig",
    "training.run": "run_finetune",
    "writing.lyricist": "Lyricist",
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(import_module(f"cantolyric.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
