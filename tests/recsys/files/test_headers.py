from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header


@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_written_is_read(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "toy.json"
    write_header(path, 3, {"names": ["a", "ü"], "top": 5}, indent=indent)
    assert read_header(path, 3, remedy="train again") == {"names": ["a", "ü"], "top": 5}
    assert list(json.loads(path.read_text())) == ["format", "names", "top"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"toy\.json is damaged \(.*\); train again"),
        (b"\xff", r"toy\.json is damaged \(.*\); train again"),
        (b"[1]", r"toy\.json is damaged \(it must hold an object, got list\); train again"),
        (b"[" * 100_000, r"toy\.json is damaged \(.*\); train again"),
        (b"{}", r"toy\.json must have format 1, got None; train again"),
        (b'{"format": "1"}', r"toy\.json must have format 1, got '1'; train again"),
        (b'{"format": 2}', r"toy\.json must have format 1, got 2; train again"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "toy.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_header(path, 1, remedy="train again")


def test_a_missing_file_is_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "toy.json", 1, remedy="train again")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_header(tmp_path, 1, remedy="train again")
