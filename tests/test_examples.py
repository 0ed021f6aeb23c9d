"""The examples run, offline and from a directory that is not theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def run(name: str, directory: Path, *arguments: str) -> str:
    """Standard output of an example; a warning there is an error."""
    (path,) = [path for path in EXAMPLES if path.name.startswith(name)]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(path), *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert list(directory.iterdir()) == []  # nothing is left behind
    return done.stdout


def test_features_point_in_time(tmp_path: Path) -> None:
    lines = run("02", tmp_path, "--data", str(ROOT / "examples" / "data")).splitlines()
    counts = [float(value) for value in lines[1].split()[1:]]
    assert counts == sorted(counts)  # what is known grows
    assert counts[0] < counts[-1]
    assert float(lines[-1].split()[-1]) < 1e-6


def test_features_event_by_event(tmp_path: Path) -> None:
    lines = run("04", tmp_path).splitlines()
    assert lines[1] == "one more rating: 1 applied; sent again: 1 duplicate"
    rated = [float(value) for value in lines[2].split()[1:]]
    assert rated[1] == rated[0] + 1
    late, duplicates = map(int, re.findall(r"\d+", lines[-2]))
    assert late > 500
    assert duplicates > 250
    assert lines[-1] == "1,050 values compared, 0 differ"


def test_semantic_ids(tmp_path: Path) -> None:
    lines = run("03", tmp_path).splitlines()
    assert lines[-1] == "9,125 films, as many different ids: 9,125"
    within = [line for line in lines if line.startswith("cosine within")]
    for line in within:
        cosine, shuffled = map(float, re.findall(r"\d\.\d{3}", line))
        assert cosine > shuffled + 0.1


@pytest.mark.slow
def test_recommend_in_process(tmp_path: Path) -> None:
    table = run("01", tmp_path).split("system")[1].splitlines()[1:]
    # A name may hold blanks; the number follows in a column of its own.
    ndcg = {line[:20].strip(): float(line[20:26]) for line in table}
    assert next(iter(ndcg)) == "funnel"
    assert ndcg["funnel"] > ndcg["popularity"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_short_and_of_public_names_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert not re.search(r"(?:\.|import )_\w", text)
    assert "--data" in text
