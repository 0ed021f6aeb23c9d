from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features import DataError, EventColumns, find_problems
from features.tables.reading import ReadOptions, read_frame, read_table


def test_marks_of_no_value_are_null_before_types_are_found(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,rating\nu,NA,4\n\\N,b,\\N\nv,c,5\n")
    plain = read_frame(path, ids=("user_id", "item_id"))
    assert plain.row(1) == ("\\N", "b", "\\N")
    frame = read_frame(path, ReadOptions(missing=("\\N", "NA")), ids=("user_id", "item_id"))
    assert frame.rows() == [("u", None, 4), (None, "b", None), ("v", "c", 5)]
    assert frame.schema["rating"] == pl.Int64
    path = tmp_path / "log.parquet"
    plain.write_parquet(path)
    assert read_frame(path, ReadOptions(missing=("NA",)))["item_id"].to_list() == [None, "b", "c"]


def test_a_header_that_stands_there_again_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,time\nu,a,1\nuser_id,item_id,time\nuser_id,b,2\n")
    found = read_table(path, ids=("user_id", "item_id"))
    assert found.frame.rows() == [("u", "a", 1), ("user_id", "b", 2)]
    assert [str(one) for one in found.dropped] == [
        f"{path}: 1 row dropped, in which the header stands once more"
    ]


def test_row_numbers_of_pandas_are_no_column(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        ",Unnamed: 0.1,Unnamed: 0,Unnamed: 3,item_id\n0,x,0,7,a\n1,y,1,3,b\n2,z,2,9,c\n"
    )
    # The last one is no row number, and neither is what another name says.
    assert read_frame(path).columns == ["Unnamed: 0.1", "Unnamed: 3", "item_id"]
    frame = pl.DataFrame({"item_id": ["a", "b"], "__index_level_0__": [0, 1]})
    frame.write_parquet(tmp_path / "items.parquet")
    assert read_frame(tmp_path / "items.parquet").columns == ["item_id"]


def test_row_numbers_begin_anew_in_each_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("Unnamed: 0,item_id\n0,a\n1,b\n")
    assert read_frame(tmp_path).columns == ["item_id"]


def test_a_file_of_row_numbers_alone_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Unnamed: 0\n0\n1\n")
    assert read_frame(path).columns == ["Unnamed: 0"]


def test_problems_name_lines_of_the_file_behind_a_repeated_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,timestamp\nu,a,1600000000\nuser_id,item_id,timestamp\nu,,1600000001\n"
    )
    (problem,) = find_problems(path)
    assert problem.first == "None (line 4)"


def test_blanks_after_separators_are_no_part_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id, item_id, when, note\n7, 08, 1600000000, a b\n8, 09, 1600000100,c\n")
    frame = read_frame(path, ids=("user_id", "item_id"))
    assert frame.columns == ["user_id", "item_id", "when", "note"]
    assert frame.rows() == [("7", "08", 1_600_000_000, " a b"), ("8", "09", 1_600_000_100, "c")]


@pytest.mark.parametrize(
    ("separator", "cells", "wanted"),
    [
        (";", ["4,5", "3,0", "-1,25"], [4.5, 3.0, -1.25]),
        (";", ["4,5", "", "3,25"], [4.5, None, 3.25]),
        (";", ["1,200", "3,400"], ["1,200", "3,400"]),  # twelve hundred, or a little over one
        (";", ["4,5", "3.0"], ["4,5", "3.0"]),
        (";", ["4,5", "x"], ["4,5", "x"]),
        (",", ['"4,5"', '"3,0"'], ["4,5", "3,0"]),
    ],
)
def test_decimals_behind_a_comma(
    separator: str, cells: list[str], wanted: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    rows = [f"u{number}{separator}{cell}" for number, cell in enumerate(cells)]
    path.write_text("\n".join([f"user_id{separator}rating", *rows]) + "\n")
    assert read_frame(path, ids=("user_id",))["rating"].to_list() == wanted


@pytest.mark.parametrize(
    ("before", "skipped", "separator"),
    [
        ("sep=;\n", 1, ";"),
        ("# exported by a program\n# on some day, at noon\n", 2, ";"),
        ("#comment\n#user_id;item_id;n\n", 1, ";"),  # the header itself begins with a mark
    ],
)
def test_lines_before_the_header(before: str, skipped: int, separator: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    header = "" if "#user_id" in before else "user_id;item_id;n\n"
    path.write_text(before + header + "u;a;1\nv;b;2\n")
    found = read_table(path, ids=("user_id", "item_id")).found
    assert (found.skip_lines, found.separator, found.header) == (skipped, separator, True)
    frame = read_frame(path, ids=("user_id", "item_id"))
    assert [name.lstrip("#") for name in frame.columns] == ["user_id", "item_id", "n"]
    assert frame.rows() == [("u", "a", 1), ("v", "b", 2)]
    path.write_text(before + header + "u;a;1\nv;b\n")
    line = before.count("\n") + header.count("\n") + 2
    with pytest.raises(DataError, match=f"line {line} must have 3 cells like the first, got 2"):
        read_frame(path)
    path.write_text(before + header + "u;a;1\n;b;2\n")
    user = frame.columns[0]
    problems = find_problems(path, columns=EventColumns(user=user, timestamp="n"))
    (missing,) = (one for one in problems if one.column == user)
    assert missing.first == f"None (line {line})"


def test_rows_that_begin_with_a_mark_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("".join(f"#t{number},u{number % 7},x\n" for number in range(150)))
    found = read_table(path).found
    assert (found.skip_lines, found.header) == (0, False)
    path.write_text("#a,u,x\n#b,v,y\nc,w,z\nd,w,z\n")
    assert read_table(path).found.skip_lines == 0
