from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from features import DataError, read_interactions, read_items
from features.tables.reading import ReadOptions, find_options, read_frame, read_table

IDS = ("user_id", "item_id")
LOG = pl.DataFrame(
    {
        "user_id": ["007", "7", "+49151", "Zoë"],
        "item_id": ["1", "2", "1e5", "x, y"],
        "timestamp": [1_700_000_000, 1_700_000_100, 1_700_000_200, 1_700_000_300],
        "weight": [1.0, 2.5, None, 3.0],
    }
)
PLAIN = LOG.with_columns(item_id=pl.Series(["1", "2", "1e5", "xy"]))


def text(frame: pl.DataFrame, separator: str = ",", **options: object) -> str:
    return frame.write_csv(separator=separator, **options)  # type: ignore[call-overload, no-any-return]


def objects(frame: pl.DataFrame) -> list[dict[str, object]]:
    return frame.to_dicts()


def lines(frame: pl.DataFrame) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in objects(frame))


def quoted(frame: pl.DataFrame, mark: str) -> str:
    return text(frame, quote_style="always", quote_char=mark)


SHAPES: dict[str, tuple[str, bytes]] = {
    "csv": ("log.csv", text(LOG).encode()),
    "upper case": ("LOG.CSV", text(LOG).encode()),
    "tsv": ("log.tsv", text(LOG, "\t").encode()),
    "tabs in csv": ("log.csv", text(LOG, "\t").encode()),
    "semicolons": ("log.csv", text(LOG, ";").encode()),
    "bars": ("log.txt", text(LOG, "|").encode()),
    "all quoted": ("log.csv", quoted(LOG, '"').encode()),
    "single quotes": ("log.csv", quoted(LOG, "'").encode()),
    "line ends of Windows": ("log.csv", text(LOG, line_terminator="\r\n").encode()),
    "line ends of old": ("log.csv", text(LOG).replace("\n", "\r").encode()),
    "blank lines": ("log.csv", text(LOG).replace("\n", "\n\n").encode()),
    "no last line end": ("log.csv", text(LOG).rstrip("\n").encode()),
    "UTF-8 with a mark": ("log.csv", b"\xef\xbb\xbf" + text(LOG).encode()),
    "UTF-16": ("log.csv", text(LOG).encode("utf-16")),
    "UTF-16 without a mark": ("log.csv", text(LOG).encode("utf-16-le")),
    "UTF-16 of the other end": ("log.csv", text(LOG).encode("utf-16-be")),
    "Latin-1": ("log.csv", text(LOG).encode("latin-1")),
    "gzip": ("log.csv.gz", gzip.compress(text(LOG).encode())),
    "gzip unsaid": ("log.csv", gzip.compress(text(LOG).encode())),
    "zstd": ("log.csv.zst", pa.compress(text(LOG).encode(), "zstd", asbytes=True)),
    "JSON lines": ("log.jsonl", lines(LOG).encode()),
    "JSON lines, gzip": ("log.jsonl.gz", gzip.compress(lines(LOG).encode())),
    "JSON array": ("log.json", json.dumps(objects(LOG)).encode()),
    "JSON array, pretty": ("log.json", json.dumps(objects(LOG), indent=2).encode("utf-16")),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reads_the_same(shape: str, tmp_path: Path) -> None:
    name, content = SHAPES[shape]
    (tmp_path / name).write_bytes(content)
    assert_frame_equal(read_frame(tmp_path / name, ids=IDS), LOG)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_found_reads_the_same_again(shape: str, tmp_path: Path) -> None:
    name, content = SHAPES[shape]
    (tmp_path / name).write_bytes(content)
    found = find_options(tmp_path / name)
    again = read_table(tmp_path / name, found, ids=IDS)
    assert again.found == found
    assert_frame_equal(again.frame, LOG)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_two_colons_as_movielens_has_them(end: str, tmp_path: Path) -> None:
    rows = ['007::Toy Story: "1"::1', "7::Heat, the::2"]
    (tmp_path / "movies.dat").write_bytes(end.join([*rows, ""]).encode("latin-1"))
    frame = read_frame(tmp_path / "movies.dat", ids=("column_1",))
    assert frame.to_dict(as_series=False) == {
        "column_1": ["007", "7"],
        "column_2": ['Toy Story: "1"', "Heat, the"],
        "column_3": [1, 2],
    }


def test_rows_without_a_header_are_named_by_position(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text(PLAIN, include_header=False))
    named = PLAIN.rename({name: f"column_{n}" for n, name in enumerate(PLAIN.columns, 1)})
    assert_frame_equal(read_frame(path, ids=("column_1", "column_2")), named)
    assert find_options(path).header is False
    forced = read_frame(path, ReadOptions(header=True))
    assert forced.columns == ["007", "1", "1700000000", "1.0"]


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("user_id,1,2\nu1,5,3\n", True),
        ("1,2,3\n4,5,6\n", False),
        ("a,b\nx,y\n", True),
        ("name,day\nx,2020-01-01\n", True),
        ("x,2020-01-02\ny,2020-01-01\n", False),
    ],
)
def test_a_header_is_told_from_a_row(head: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(head)
    assert find_options(tmp_path / "a.csv").header is found


def test_headers_of_recbole_name_and_type_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.inter"
    path.write_text(
        "user_id:token\titem_id:token\trating:float\tgenres:token_seq\tvector:float_seq\n"
        "007\t1\t4\ta b\t1 2.5\n"
        "08\t2\t3\tc\t0 1\n"
    )
    assert read_frame(path).to_dict(as_series=False) == {
        "user_id": ["007", "08"],
        "item_id": ["1", "2"],
        "rating": [4.0, 3.0],
        "genres": [["a", "b"], ["c"]],
        "vector": [[1.0, 2.5], [0.0, 1.0]],
    }


def test_nested_objects_have_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 7, "a": {"b": 1, "c": {"d": "x"}}}\n\n{"id": "08", "a": {"b": 2.5}}\n')
    frame = read_frame(path, ids=("id",))
    assert frame.to_dict(as_series=False) == {
        "id": ["7", "08"],
        "a.b": [1.0, 2.5],
        "a.c.d": ["x", None],
    }


def test_types_are_those_of_all_rows(tmp_path: Path) -> None:
    count = 10_500
    rows = {
        "whole": ["1"] * count,
        "late_real": ["1"] * (count - 1) + ["2.5"],
        "late_text": ["1"] * (count - 1) + ["B00X"],
        "truth": ["true"] * (count - 1) + ["False"],
        "late_none": ["true"] * (count - 1) + ["maybe"],
        "empty": [None] * count,
        "code": ["12345"] * (count - 1) + ["01234"],
        "barcode": [f"6221888200042590{n:05d}" for n in range(count)],
        "long_late": ["1.5"] * (count - 1) + ["12345678901234567"],
        "gaps": ["1", None] * (count // 2),
        "small": ["-1e-3"] * count,
        "zero": ["0"] * (count - 1) + ["-0.5"],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "a.csv")
    schema = dict(read_frame(tmp_path / "a.csv").schema)
    assert schema == {
        "whole": pl.Int64,
        "late_real": pl.Float64,
        "late_text": pl.String,
        "truth": pl.Boolean,
        "late_none": pl.String,
        "empty": pl.String,
        "code": pl.String,
        "barcode": pl.String,
        "long_late": pl.String,
        "gaps": pl.Int64,
        "small": pl.Float64,
        "zero": pl.Float64,
    }


def test_quoted_numbers_are_numbers_and_empty_cells_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,n,s\n"1","",""\n"2","3",x\n')
    frame = read_frame(tmp_path / "a.csv")
    assert frame["n"].to_list() == [None, 3]


def test_ids_of_every_role_are_as_written(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp,event_id\n007,01,1700000000,1\n7,1,1700000001,01\n"
        "7,1,1700000002,1\n"
    )
    log = read_interactions(tmp_path / "log.csv").frame
    assert log.select("user_id", "item_id").rows() == [("007", "01"), ("7", "1"), ("7", "1")]
    (tmp_path / "items.csv").write_text("key,title\n01,A\n1,B\n")
    assert read_items(tmp_path / "items.csv", id_column="key").ids == ["01", "1"]


def test_plain_whole_ids_are_what_they_were(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": [1, 2], "item_id": [10, 9], "timestamp": [1_700_000_000, 1_700_000_001]}
    )
    frame.write_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet")
    logs = [read_interactions(tmp_path / f"log.{suffix}") for suffix in ("csv", "parquet")]
    assert logs[0].fingerprint() == logs[1].fingerprint()


def test_a_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",item_id,title\n0,p1,A\n1,p2,B\n")
    assert read_frame(tmp_path / "a.csv").columns == ["item_id", "title"]


def test_a_bar_within_cells_is_no_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item_id,genres|tags\n1,a|b\n2,c|d\n")
    assert read_frame(tmp_path / "a.csv").columns == ["item_id", "genres|tags"]


def halves(directory: Path, write: Callable[[pl.DataFrame, Path], object], suffix: str) -> None:
    for number in range(2):
        part = directory / f"day=2020-01-0{number + 1}" / f"shop=0{number}"
        part.mkdir(parents=True)
        write(LOG[2 * number : 2 * number + 2], part / f"part-0.{suffix}")
    (directory / "_SUCCESS").touch()
    (directory / ".part-0.crc").write_bytes(b"crc")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("path", ["log", "log/*/*/part-*"])
def test_directories_and_patterns_with_their_partitions(
    suffix: str, path: str, tmp_path: Path
) -> None:
    def write(frame: pl.DataFrame, file: Path) -> None:
        if suffix == "parquet":
            frame.write_parquet(file)
        else:
            file.write_text(text(frame) if suffix == "csv" else lines(frame))

    halves(tmp_path / "log", write, suffix)
    frame = read_frame(tmp_path / path, ids=(*IDS, "shop"))
    wanted = LOG.with_columns(
        day=pl.Series(["2020-01-01"] * 2 + ["2020-01-02"] * 2),
        shop=pl.Series(["00"] * 2 + ["01"] * 2),
    )
    assert_frame_equal(frame, wanted)


def test_parts_without_rows_are_nothing(tmp_path: Path) -> None:
    for number, content in enumerate(("", text(LOG[:0]), text(LOG))):
        (tmp_path / f"{number}.csv").write_text(content)
    assert_frame_equal(read_frame(tmp_path, ids=IDS), LOG)


def test_objects_of_several_files_may_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('[{"a": 1}]')
    (tmp_path / "2.json").write_text('[{"a": 2.5, "b": "x"}]')
    frame = read_frame(tmp_path)
    assert frame.to_dict(as_series=False) == {"a": [1.0, 2.5], "b": [None, "x"]}


def test_a_value_of_no_partition_is_null(tmp_path: Path) -> None:
    for value in ("a%20b", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"log/k={value}").mkdir(parents=True)
        LOG[:1].write_parquet(tmp_path / f"log/k={value}/p.parquet")
    assert read_frame(tmp_path / "log")["k"].to_list() == [None, "a b"]


CELL = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x00\ufeff", exclude_categories=["Cs"])
    | st.sampled_from(list("\"',;|\t\n: é\u2028\x1f\x85")),
    max_size=12,
)


@pytest.mark.parametrize(
    ("words", "encoding", "found"),
    [
        ("café", "latin-1", "cp1252"),
        ("Ding für Zoë, " * 20, "latin-1", "cp1252"),  # a code page of DOS would do as well
        ("Straße München Köln Müller für über Größe, " * 5, "cp1252", "cp1252"),
        ("Książka Miś Krzesło drewniane Stół łóżko, " * 5, "cp1250", "cp1250"),
        ("Książka Miś Krzesło drewniane Stół łóżko, " * 5, "iso8859-2", "iso8859-2"),
        ("Crème brûlée à Genève, été, naïve, façade, où, forêt, hôtel", "cp1252", "cp1252"),
        ("Война и мир, Анна Каренина, Преступление и наказание", "cp1251", "cp1251"),
        ("\x81", "latin-1", "iso8859-1"),
    ],
)
def test_other_encodings_are_found(words: str, encoding: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f'item_id,title\n1,"{words}"\n2,x\n'.encode(encoding))
    assert find_options(path).encoding == found
    assert read_frame(path)["title"].to_list() == [words, "x"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_awkward_text_comes_back(
    rows: list[tuple[str, str]], separator: str, encoding: str, end: str, tmp_path: Path
) -> None:
    held = io.StringIO(newline="")
    writer = csv.writer(held, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("number", "a", "b"), *((f"n{n}", *row) for n, row in enumerate(rows))])
    (tmp_path / "a.csv").write_bytes(held.getvalue().encode(encoding))
    said = ReadOptions(separator=separator, quote='"', header=True)
    frame = read_frame(tmp_path / "a.csv", said, ids=("a", "b"))
    assert frame.select(pl.col("a", "b").fill_null("")).rows() == rows


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"format": "xml"}, "format must be one of 'delimited', 'json_lines', .*, got 'xml'"),
        ({"compression": "xz"}, "compression must be one of 'none', 'gzip', 'zstd', got 'xz'"),
        ({"bad_rows": "keep"}, "bad_rows must be one of 'refuse', 'drop', got 'keep'"),
        ({"separator": ",,"}, "separator must be one ASCII character or '::', got ',,'"),
        ({"quote": "é"}, "quote must be one ASCII character other than the separator"),
        ({"quote": ",", "separator": ","}, "quote must be one ASCII character other than"),
        ({"encoding": "klingon"}, "encoding must be one that Python knows, .* got 'klingon'"),
    ],
)
def test_options_are_checked(values: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ReadOptions(**values)  # type: ignore[arg-type]


def test_files_of_several_forms_are_not_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a,c\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv: must have the columns of .*a\.csv, a, b, got a"):
        read_frame(tmp_path)


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        (["N1\tsports\tA title", "N2\tnews\tAnother", "N3\tsports\tMore", "N4\ttv\tX"], False),
        (["code\tsection\ttitle", "N2\tnews\tAnother", "N3\tsports\tMore", "N4\ttv\tX"], True),
        (["u1\ta", "u2\tb", "u3\tc", "u4\td"], False),  # codes of one form
        (["red\tone", "blue\ttwo", "green\tthree", "blue\tfour"], True),  # nothing tells
        (["red\tone", "blue\ttwo", "red\tthree", "blue\tfour"], False),  # a value of its column
        (["kind\tname", "kind\tname", "red\tx", "blue\ty", "grey\tz"], True),  # stands again
        (["feature1\tx", "a7\ty", "b9\tz", "c2\tw"], True),
    ],
)
def test_a_first_row_like_the_rest_is_no_header(
    rows: list[str], header: bool, tmp_path: Path
) -> None:
    path = tmp_path / "items.tsv"
    path.write_text("\n".join(rows) + "\n")
    assert find_options(path).header is header
