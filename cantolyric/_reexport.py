"""Lazy imports of a package's names from its modules, and of old names with a warning."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(
    package: str,  # package or module that the names belong to
    modules: str,  # modules to search, in this order, separated by spaces
    renamed: Mapping[str, str] | None = None,  # old name -> "module:new name"
) -> Callable[[str], object]:
    "Make a module's `__getattr__`: find a name in the first of `modules` that has it, and warn about an old name."

    def find(name: str) -> object:
        if renamed and name in renamed:
            return old_name(package, name, renamed[name])
        if not (name.startswith("__") and name.endswith("__")):
            for module in modules.split():
                if name == module.rpartition(".")[2]:
                    return import_module(module)
            for module in modules.split():
                found = import_module(module)
                if hasattr(found, name):
                    return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def old_name(package: str, name: str, place: str) -> object:
    "Return the object that an old name refers to, with a `DeprecationWarning` that gives the new name."
    module, _, new = place.partition(":")
    message = f"{package}.{name} is now {module}.{new}; the old name will be removed in the next release"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return getattr(import_module(module), new)
