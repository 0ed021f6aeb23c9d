"""Benchmarks start as they are typed, end with bars of one form, and each has its place in docs."""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reporting import Report, text_of

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)

# Starts every program in a fork of one process, where the libraries are loaded already. The folder
# above the benchmarks is taken off the path: where the packages are installed it is not on it.
START_ALL = """
import json, os, runpy, sys
import features, recsys, serving
import implicit.als, implicit.bpr, lightgbm, numba, polars, scipy.stats, torch
import recsys.pipeline.evaluation, recsys.simulation
root, names = sys.argv[1], sys.argv[2:]
folder = os.path.join(root, "benchmarks")
sys.path[:] = [folder, *(one for one in sys.path if one and os.path.abspath(one) != root)]
found = {}
for name in names:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        sys.argv = [os.path.join(folder, name + ".py"), "--help"]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(1 if end.code else 0)  # spares the second that taking torch down would take
        os._exit(1)
    os.close(write)
    with open(read, encoding="utf-8") as output:
        said = output.read()
    found[name] = (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)
print(json.dumps(found))
"""


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**given)


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str]]:
    command = [sys.executable, "-c", START_ALL, str(ROOT), *BENCHMARKS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return {name: tuple(found) for name, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help(helps: dict[str, tuple[int, str]], name: str) -> None:
    code, said = helps[name]
    assert code == 0
    assert said.startswith(f"usage: {name}.py")


@pytest.mark.parametrize("command", [["benchmarks/ope_slates.py"], ["-m", "benchmarks.ope_slates"]])
def test_both_ways_to_type_it(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--help"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    assert "--quick" in done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_ends_with_the_closing_line(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Report"]
    closed = [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "report.close"
    ]
    assert [ast.literal_eval(call.args[0]) for call in made] == [name]
    assert len(closed) == 1


def test_the_page_says_everything_of_every_benchmark() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, flags=re.M | re.S))
    assert sorted(sections) == BENCHMARKS
    for name, text in sections.items():
        said = re.findall(r"^\*\*(\w[\w ]*)\.\*\*", text, flags=re.M)
        assert said[:4] == ["Question", "Data", "Peer", "How long"], name
        assert "Last result" in said, name
    assert "docs/benchmarks.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_closing_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("some", options(seed=3, only=None, data=Path("here")))
    report.data("ten rows")
    report.bar("share", 0.25, at_least=0.2, at_most=0.3)
    report.bar("low end", 0.0, above=0)
    report.bar("unknown", float("nan"), at_most=1)
    report.bar("errors", 12, equal_to=0)
    report.judged("rounds", 2.04, "refused", holds=True)
    report.close(rows=[{"a": 1}])
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["benchmark"] == "some"
    assert found["settings"] == {"seed": 3, "data": "here"}
    assert found["data"] == "ten rows"
    assert found["results"] == {"rows": [{"a": 1}]}
    assert found["bars"] == {
        "share": {"value": 0.25, "bar": ">= 0.2 and <= 0.3", "holds": True},
        "low end": {"value": 0.0, "bar": "> 0", "holds": False},
        "unknown": {"value": None, "bar": "<= 1", "holds": False},
        "errors": {"value": 12, "bar": "= 0", "holds": False},
        "rounds": {"value": 2.04, "bar": "refused", "holds": True},
    }
    assert found["holds"] is False
    assert lines[0].startswith("machine: ")
    assert "MISSED  low end: 0.0 (bar > 0)" in lines


def test_without_bars_everything_holds(capsys: pytest.CaptureFixture[str]) -> None:
    Report("some", options()).close()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["bars"] == {}
    assert found["holds"] is True


def test_a_bar_has_a_name_of_its_own() -> None:
    report = Report("some", options())
    report.bar("errors", 0, at_most=0)
    with pytest.raises(ValueError, match=r"name must be new, got 'errors' twice"):
        report.bar("errors", 1, at_most=0)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("some", options())
    capsys.readouterr()
    report.table([{"system": "ours", "bytes": 12345, "95%": [0.1, 0.2]}, {"system": "theirs"}])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "system   bytes      95%",
        "ours    12,345  0.1 0.2",
        "theirs       -        -",
    ]


def test_values_as_people_read_them() -> None:
    assert text_of({"users": 100_000, "quick": True, "seeds": [0, 1]}) == (
        "users 100,000, quick True, seeds 0 1"
    )
