"""Names of a package that are loaded on first use, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names lie in other modules.

    Args:
        package: ``__name__`` of the package.
        homes: name -> the module that defines it.
    """

    def load(name: str) -> Any:
        """Import the module that holds ``name`` and return it."""
        try:
            home = homes[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        value = getattr(importlib.import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        """Names of the package, the ones not loaded yet included."""
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
