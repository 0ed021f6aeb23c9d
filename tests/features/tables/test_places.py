"""Problems of files name lines as a person counts them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from features import DataError, find_problems, read_interactions, read_items, read_users
from features.tables import Tables
from features.tables.reading import ReadOptions, read_table
from features.tables.rules import EventRules

HEAD = "user_id,item_id,timestamp\n"
FINE = "u,i,1500000000\n"


def first(path: Path | str) -> str:
    (problem,) = find_problems(path)
    return problem.first


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + FINE + ",i,1500000001\n", 3),
        (HEAD + FINE + ",i,1500000001", 3),  # no line feed at the end
        (HEAD + "\n" + FINE + "\n\n,i,1500000001\n", 6),
        (HEAD + ",,\n" + FINE + ",i,1500000001\n", 4),  # a row of empty cells is none
        (HEAD + 'u,"two\nlines",1500000000\n'.replace("two\nlines", "i") + ",i,1500000001\n", 3),
        ('user_id,item_id,timestamp,"a\nb"\nu,i,1500000000,x\n,i,1500000001,x\n', 4),
        ('user_id,item_id,timestamp,a\nu,i,1500000000,"x\n\ny"\n,i,1500000001,x\n', 5),
        ((HEAD + FINE + ",i,1500000001\n").replace("\n", "\r\n"), 3),
        ((HEAD + FINE + ",i,1500000001\n").replace("\n", "\r"), 3),
        ((HEAD + FINE + ",i,1500000001\n").replace(",", "::"), 3),
    ],
)
def test_a_line_of_delimited_text(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    assert first(path) == f"None (line {line})"
    with pytest.raises(DataError, match=rf"log\.csv: .* first: None \(line {line}\)"):
        read_interactions(path)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(text.encode("utf-16")))
    assert first(packed) == f"None (line {line})"


def test_rows_that_are_dropped_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "short\n" + FINE + "long,,,,,\n,i,1500000001\n")
    tables = Tables(path, read={"events": ReadOptions(bad_rows="drop")})
    (problem,) = tables.problems
    assert problem.first == "None (line 5)"
    assert "2 rows dropped" in tables.dropped[0]


def test_a_file_without_header_and_json(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("x,1\n\ny,2\n")
    assert read_table(path, ReadOptions(header=False)).places.of(1) == "line 3"
    lines = tmp_path / "log.jsonl"
    good, bad = '{"user_id": "u", "item_id": "i", "timestamp": 1500000000}', '{"user_id": '
    lines.write_text(f"{good}\n\n{bad}\n{good}\n")
    places = read_table(lines, ReadOptions(bad_rows="drop")).places
    assert [places.of(0), places.of(1)] == ["line 1", "line 4"]
    lines.write_text(f"{good}\n{good}\n")
    assert first(lines).endswith("(line 2)")  # it repeats
    array = tmp_path / "log.json"
    array.write_text(f"[{good},\n\n{good}]")
    assert first(array).endswith("(row 1)")


def test_files_of_a_directory_are_named(tmp_path: Path) -> None:
    for name, rows in (
        ("a.csv", FINE),
        ("b.csv", ""),
        ("c.csv", "v,i,1500000000\n,i,1500000001\n"),
    ):
        (tmp_path / name).write_text(HEAD + rows)
    assert first(tmp_path) == "None (line 3 of c.csv)"


def test_events_of_unknown_items_and_tables(tmp_path: Path) -> None:
    path, items, users = (tmp_path / f"{name}.csv" for name in ("log", "items", "users"))
    path.write_text(HEAD + "\n" + FINE + "u,other,1500000000\n")
    items.write_text("item_id,title\ni,I\n\nj,J\nj,K\n")
    users.write_text("user_id,age\nu,1\n,2\n")
    found = find_problems(path, items, users)
    assert [one.first for one in found] == [
        "'other' (line 4)",
        "item_id=j (line 5)",
        "None (line 3)",
    ]
    with pytest.raises(DataError, match=r"item_id=j \(line 5\)"):
        read_items(items)
    with pytest.raises(DataError, match=r"None \(line 3\)"):
        read_users(users)


def test_a_value_that_looks_like_a_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEAD + "u,i,(row 9)\n")
    (problem,) = find_problems(path)
    assert "String" in problem.first
    path.write_text(HEAD + FINE + "u(row 1)\t,i,1500000000\n")
    assert first(path) == "'u(row 1)\\t' (line 3)"


def test_rows_that_a_rule_leaves_out_count_as_lines(tmp_path: Path) -> None:
    path, items = tmp_path / "log.csv", tmp_path / "items.csv"
    path.write_text(HEAD + ",i,1500000000\n" + FINE + "u,i,12\nu,other,1500000000\n")
    items.write_text("item_id\ni\n")
    rules = EventRules(missing="drop")
    outside, unknown = Tables(path, items, rules=rules).problems
    assert outside.first == "12 (line 4)"
    assert unknown.first == "'other' (line 5)"
    with pytest.raises(DataError, match=r"12 \(line 4\)"):
        read_interactions(path, rules=rules)
    path.write_text(HEAD + ",i,1500000000\n" + FINE)
    log = read_interactions(path, rules=rules)
    assert log.frame.columns == ["user_id", "item_id", "timestamp", "event", "weight"]
