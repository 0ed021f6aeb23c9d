"""docs/faults.md names the tests that show what it says, and none is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TEXT = (HERE.parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "::" in line]


def functions_of(name: str) -> set[str]:
    (path,) = HERE.parent.rglob(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        f"{name}::{node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_of_the_table_exists_and_every_fault_is_in_it() -> None:
    named = set(re.findall(r"`(test_\w+\.py::test_\w+)`", TEXT))
    there = set().union(*(functions_of(name) for name in {one.split("::")[0] for one in named}))
    assert named - there == set()
    faults = (path.name for path in HERE.glob("test_faults_*.py") if path != Path(__file__))
    assert set().union(*map(functions_of, faults)) - named == set()


def test_every_row_is_whole() -> None:
    assert len(ROWS) >= 25
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5, row
        assert all(cells), row
