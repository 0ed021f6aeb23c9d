"""Names of a package that are loaded on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = """
from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from toy.heavy import first, second

__all__ = ["first", "second"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text(TEXT)
    (tmp_path / "toy" / "heavy.py").write_text("first, second = 1, 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    monkeypatch.delitem(sys.modules, "toy.heavy", raising=False)
    importlib.invalidate_caches()
    yield importlib.import_module("toy")
    sys.modules.pop("toy", None)
    sys.modules.pop("toy.heavy", None)


def test_a_name_is_loaded_when_it_is_asked_for(toy) -> None:
    assert "toy.heavy" not in sys.modules
    assert {"first", "second"} <= set(dir(toy))
    assert toy.second == 2
    assert "toy.heavy" in sys.modules
    assert vars(toy)["second"] == 2, "found at once from now on"


def test_an_unknown_name_is_told_as_of_any_module(toy) -> None:
    with pytest.raises(AttributeError, match="module 'toy' has no attribute 'third'"):
        _ = toy.third
    assert not hasattr(toy, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'third' from 'toy'"):
        exec("from toy import third")


@pytest.mark.parametrize("package", ["features", "recsys", "serving"])
def test_importing_a_package_loads_no_table_library(package: str) -> None:
    code = f"import sys, {package}; print('polars' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
