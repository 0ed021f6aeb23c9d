from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import features

MODULES = sorted(module.name for module in pkgutil.iter_modules(features.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"features.{name}")).failed == 0


def test_public_names_are_sorted_and_there() -> None:
    constants = [name for name in features.__all__ if name.isupper()]
    classes = [name for name in features.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in features.__all__ if name[0].islower()]
    assert features.__all__ == sorted(constants) + sorted(classes) + sorted(functions)
    assert all(hasattr(features, name) for name in features.__all__)


def test_import_brings_no_heavy_library() -> None:
    code = (
        "import sys, features; "
        "print([m for m in ('torch', 'scipy', 'redis', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
