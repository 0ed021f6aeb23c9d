from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """`tests/reference/experiment.py`: the same formulas as plain loops."""
    path = Path(__file__).parents[3] / "reference" / "experiment.py"
    spec = importlib.util.spec_from_file_location("reference_experiment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
