from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from features import DataError, find_problems, read_interactions
from features.tables.reading import ReadOptions, read_frame, read_table

HEAD = "user_id,item_id,timestamp\n"
GOOD = "".join(f"u{n},i{n},{1_700_000_000 + n}\n" for n in range(300))
PACKED = "".join(f"{n * 7919 % 10007},{n * 104729 % 10007}\n" for n in range(20_000)).encode()


def parquet() -> bytes:
    held = io.BytesIO()
    pl.DataFrame({"a": list(range(1000))}).write_parquet(held)
    return held.getvalue()


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "a.csv: must hold rows, got an empty file; check how"),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), "must hold rows, got an empty file"),
    "blank lines": ("a.csv", b"\n \n\n", "must hold rows, got blank lines alone"),
    "header alone": ("a.csv", HEAD.encode(), "must hold rows, got a header alone; check how"),
    "long row": (
        "a.csv",
        (HEAD + GOOD + "u,i,1,5\n").encode(),
        r"a.csv: line 302 must have 3 cells like the first, got 4: 'u,i,1,5'; repair it, or set "
        r"bad_rows = 'drop' in \[data.read\]",
    ),
    "short row": ("a.csv", (HEAD + GOOD + "u,i\n").encode(), "line 302 must have 3 cells .* got 2"),
    "short row behind lines in cells": (
        "a.csv",
        (HEAD + '"a\nb",i,1\n\nu,i\n').encode(),
        "line 5 must have 3 cells like the first, got 2: 'u,i'",
    ),
    "short row of a gzip": (
        "a.csv.gz",
        gzip.compress((HEAD + GOOD + "u,i\n").encode()),
        "a.csv.gz: line 302 must have 3 cells",
    ),
    "short row of two colons": ("a.dat", b"u::i::1\nu::i::1\nu::i\n", "line 3 must have 3 cells"),
    "quote never closed": (
        "a.csv",
        (HEAD + '"a, b",i,1\n' + GOOD + '"u,i,1\n' + GOOD).encode(),
        'line 303 opens a quote that is never closed; close it, or set quote = ""',
    ),
    "text behind a quote": (
        "a.csv",
        (HEAD + GOOD + '"a, b",i,1\n"a"b,i,1\n').encode(),
        "line 303 has text behind a closing quote",
    ),
    "Latin-1 late": (
        "a.csv",
        (HEAD + 2_000 * GOOD).encode() + "ü,i,1\n".encode("latin-1"),
        "line 600002 holds bytes that are no utf-8 text; repair it, set another encoding than",
    ),
    "Latin-1 late in a gzip": (
        "a.csv.gz",
        gzip.compress((HEAD + 100 * GOOD).encode() + "ü,i,1\n".encode("latin-1"), 1),
        "line 30002 holds bytes that are no utf-8 text",
    ),
    "UTF-16 cut off": (
        "a.csv",
        (HEAD + GOOD).encode("utf-16")[:-1],
        "line 301 holds bytes that are no utf-16 text",
    ),
    "gzip cut off": (
        "a.csv.gz",
        gzip.compress(b"a,b\n" + PACKED)[:-5000],
        "must be a whole gzip file, got one that is cut off or damaged; copy it again",
    ),
    "gzip damaged": (
        "a.csv.gz",
        (whole := gzip.compress(b"a,b\n" + PACKED))[:90_000] + bytes(200) + whole[90_200:],
        "must be a(?: whole)? gzip file, got",
    ),
    "zstd cut off": (
        "a.csv.zst",
        pa.compress(b"a,b\n" + PACKED, "zstd", asbytes=True)[:-5000],
        "must be a whole zstd file, got one that is cut off or damaged",
    ),
    "Excel": ("a.xlsx", b"PK\x03\x04....", "must be text or Parquet, got an Excel or zip file"),
    "bytes": ("a.csv", bytes(range(256)) * 40, "must be text or Parquet, got bytes that are nei"),
    "no Parquet": ("a.parquet", b"a,b\n1,2\n", "must be a Parquet file, got other bytes; write"),
    "Parquet cut off": ("a.parquet", parquet()[:-20], "must be a whole Parquet file, got: "),
    "JSON line": (
        "a.jsonl",
        b'{"a": 1}\n\n{"a": 2\n',
        "line 3 is no JSON .*'{\"a\": 2'; repair it",
    ),
    "JSON no object": ("a.jsonl", b'{"a": 1}\n[3]\n', r"line 2 is no object: '\[3\]'; repair it"),
    "JSON kinds": (
        "a.jsonl",
        b'{"a": 1}\n{"a": {"b": 2}}\n',
        "all objects must have values of one kind under one name",
    ),
    "JSON array": ("a.json", b'[{"a": 1},\n {"a" 2}]', r"line 2 must be JSON, .* \(column 7\)"),
    "JSON array of numbers": (
        "a.json",
        b'[{"a": 1}, 7]',
        "must hold objects, got '7' as element 1",
    ),
    "JSON array of kinds": (
        "a.json",
        b'[{"a": 1}, {"a": {"b": 1}}]',
        "all objects must have values of one kind",
    ),
    "JSON empty array": ("a.json", b"[]", "must hold rows, got none"),
    "JSON Latin-1 late": (
        "a.jsonl",
        b'{"a": "x"}\n' * 40_000 + '{"a": "ü"}\n'.encode("latin-1"),
        "line 40001 is no JSON .*utf-8",
    ),
    "JSON UTF-16 cut off": (
        "a.jsonl",
        ('{"a": "x"}\n' * 9).encode("utf-16")[:-1],
        r"must be utf-16 text, got other bytes .*; set encoding in \[data.read\]",
    ),
    "tabs in a text, short row": ("a.txt", b"a\tb\n1\t2\n3\n", "line 3 must have 2 cells"),
    "RecBole": (
        "a.inter",
        b"user_id:token\trating:float\n1\t2\n2\tx\n",
        "columns that the header calls float must hold numbers, got: ",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_told_with_its_place(case: str, tmp_path: Path) -> None:
    name, content, told = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        read_frame(tmp_path / name, ids=("user_id",))
    assert name in str(caught.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; check the path"):
        read_frame(tmp_path / "none.csv")
    with pytest.raises(DataError, match="the directory must hold files, got none; check the path"):
        read_frame(tmp_path)
    with pytest.raises(DataError, match="a file must match the pattern, got none; check the pat"):
        read_frame(tmp_path / "*.csv")


def test_a_pattern_of_brackets_names_the_file_that_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("a,b\n1,2\n")
    assert read_frame(tmp_path / "a[1].csv").height == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_must_not_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    (tmp_path / name).chmod(0)
    with pytest.raises(DataError, match="must be readable, got no permission; change its mode"):
        read_frame(tmp_path / name)


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.csv: must be readable, got no permission; change its"):
        read_frame(path)


def test_wrong_options_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\n1,ü\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 holds bytes that are no utf-8 text"):
        read_frame(path, ReadOptions(encoding="utf-8"))
    with pytest.raises(DataError, match="must be a gzip file, got: Not a gzipped file"):
        read_frame(path, ReadOptions(compression="gzip"))
    with pytest.raises(DataError, match="must be a whole zstd file"):
        read_frame(path, ReadOptions(compression="zstd"))
    with pytest.raises(DataError, match="must be a whole Parquet file, got"):
        read_frame(path, ReadOptions(format="parquet"))


def test_bad_rows_are_dropped_counted_and_named_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + "u1,i1,1700000000\nu2,i2\n\nu3,i3,1700000001,x\n007,,1700000002\n")
    with pytest.raises(DataError, match="line 3 must have 3 cells"):
        read_interactions(path)
    reading = read_table(path, ReadOptions(bad_rows="drop"), ids=("user_id", "item_id"))
    assert reading.frame.to_dict(as_series=False) == {
        "user_id": ["u1", "007"],
        "item_id": ["i1", None],
        "timestamp": [1_700_000_000, 1_700_000_002],
    }
    assert [str(one) for one in reading.dropped] == [
        f"{path}: 2 rows dropped that cannot be read; first: line 3 must have 3 cells like the "
        "first, got 2: 'u2,i2'"
    ]
    path.write_text(HEAD + "u1,i1,1700000000\n")
    assert read_table(path, ReadOptions(bad_rows="drop")).dropped == ()


def test_lines_that_a_quote_swallows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + '"a, b",i,1\n"u,i,1\nu,i,1\nu,i,1\n')
    reading = read_table(path, ReadOptions(bad_rows="drop"))
    assert (reading.frame.height, reading.dropped[0].rows) == (1, 3)


def test_bad_lines_of_json_are_dropped_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nnull\n{"a": 2}\n{"a"')
    reading = read_table(path, ReadOptions(bad_rows="drop"))
    assert reading.frame["a"].to_list() == [1, 2]
    assert str(reading.dropped[0]).endswith(
        "2 rows dropped that cannot be read; first: line 2 is no object: 'null'"
    )


def test_nothing_is_left_of_bad_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1\n2,3,4\n")
    with pytest.raises(DataError, match="must hold rows, got a header alone"):
        read_frame(path, ReadOptions(bad_rows="drop", header=True, separator=","))


def test_parquet_of_several_types_is_not_one_table(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": [[1]]}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(
        DataError, match=r"files must have columns of one type, got: .*; read files"
    ):
        read_frame(tmp_path)


def test_find_problems_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD + "u1,i1,1700000000\nu2,i2\n")
    problem = find_problems(tmp_path / "a.csv")[0]
    assert "line 3 must have 3 cells like the first, got 2" in problem.first
    assert problem.remedy == "Repair the file, or say in [data.read] how it is written."


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log\udcff.csv"
    path.write_text("a,b\n1,2\n")
    for asked in (path, tmp_path, tmp_path / "*.csv"):
        with pytest.raises(DataError, match="names of files must be UTF-8 text; rename it"):
            read_frame(asked)
