"""How torch's threads wait is decided before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Ends where torch would be loaded, and says what its OpenMP would read.
TRAIN = """
import os, sys

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("waits", os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Torch())
from serving.cli import main
sys.argv = ["recsys", "train", "--config", "recsys.toml"]
main()
"""


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_training_waits_asleep_unless_told_otherwise(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout.splitlines()[-1] == f"waits {expected}"
