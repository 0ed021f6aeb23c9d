"""Names of a package that are loaded on first use, so that importing the package costs nothing."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package that imports its names for types alone.

    Where a name comes from is read, once and when it is first asked for, from the imports that the
    package has under ``if TYPE_CHECKING``.

    Args:
        package: ``__name__`` of the package.
        file: its ``__file__``.
    """

    @cache
    def homes() -> dict[str, str]:
        found: dict[str, str] = {}
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                for imported in node.body:
                    if isinstance(imported, ast.ImportFrom) and imported.module is not None:
                        found |= {alias.name: imported.module for alias in imported.names}
        return found

    def load(name: str) -> Any:
        """Import the module that holds ``name`` and return it."""
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes()[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        """Names of the package, the ones not loaded yet included."""
        return sorted({*vars(sys.modules[package]), *homes()})

    return load, names
