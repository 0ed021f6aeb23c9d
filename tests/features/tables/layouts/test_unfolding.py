"""Each layout of a log: what it is found by, and that its rows are the plain rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.errors import DataError
from features.tables import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.tables.layouts import (
    FoundLayout,
    Unfolding,
    detect_layout,
    find_layout,
    layout,
    unfold,
)
from features.tables.layouts import read_rows as read

MIND = (
    "1\tU1\t11/11/2019 9:05:58 AM\tN5 N6\tN3-1 N2-0 N7-0\n"
    "2\tU2\t11/12/2019 6:11:30 PM\t\tN1-0 N3-1\n"
    "3\tU1\t11/13/2019 6:00:00 PM\tN5 N6\tN2-1\n"
)
HEAD = "impression_id\tuser\twhen\thistory\timpressions\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def found(path: Path, **options: object) -> FoundLayout:
    one = find_layout(path, **options)  # type: ignore[arg-type]
    assert one is not None
    return one


def rows(path: Path, **options: object) -> pl.DataFrame:
    """What init finds, as training reads it."""
    one = found(path, **options).unfolding
    return read(path, None, one, ids=(USER, ITEM)).frame


def triples(frame: pl.DataFrame, *names: str) -> list[tuple[object, ...]]:
    return frame.select(names or (USER, ITEM)).rows()


def test_names_are_those_of_the_tables() -> None:
    assert (layout.USER, layout.ITEM, layout.TIMESTAMP) == (USER, ITEM, TIMESTAMP)
    assert (layout.EVENT, layout.WEIGHT) == (EVENT, WEIGHT)


@pytest.mark.parametrize("head", ["", HEAD])
def test_impressions(tmp_path: Path, head: str) -> None:
    path = written(tmp_path / "behaviors.tsv", head + MIND)
    one = found(path)
    assert one.unfolding.layout == "impressions"
    assert one.kinds == {"click": 1.0, "history": 1.0, "shown": 0.0}
    assert one.targets == ("click",)
    frame = rows(path)
    first, second = datetime(2019, 11, 11, 9, 5, 58), datetime(2019, 11, 12, 18, 11, 30)
    third = datetime(2019, 11, 13, 18)
    assert triples(frame, USER, ITEM, TIMESTAMP, EVENT, "request_id", "position") == [
        ("U1", "N5", first - timedelta(seconds=2), "history", None, None),
        ("U1", "N6", first - timedelta(seconds=1), "history", None, None),
        ("U1", "N3", first, "click", "1", 1),
        ("U1", "N2", first, "shown", "1", 2),
        ("U1", "N7", first, "shown", "1", 3),
        ("U2", "N1", second, "shown", "2", 1),
        ("U2", "N3", second, "click", "2", 2),
        ("U1", "N2", third, "click", "3", 1),
    ]


def test_impressions_of_two_lists() -> None:
    frame = pl.DataFrame(
        {
            "impression_id": [7, 8],
            "user_id": [1, 2],
            "impression_time": [datetime(2023, 5, 1), datetime(2023, 5, 2)],
            "article_ids_inview": [[10, 11], [12, 10]],
            "article_ids_clicked": [[11], [12]],
        }
    )
    one = detect_layout(frame)
    assert one is not None
    assert "history" not in one.kinds
    plain = unfold(frame, one.unfolding)
    assert triples(plain, USER, ITEM, EVENT) == [
        (1, 10, "shown"),
        (1, 11, "click"),
        (2, 12, "click"),
        (2, 10, "shown"),
    ]


def test_impressions_that_are_not_marked(tmp_path: Path) -> None:
    path = written(tmp_path / "b.tsv", MIND + "4\tU3\t11/13/2019 6:00:00 PM\t\tN2-1 N3\n")
    unfolding = Unfolding(
        "impressions", {"user_id": "column_2", "shown": "column_5", "timestamp": "column_3"}
    )
    with pytest.raises(DataError, match=r"b\.tsv: line 4 must hold items marked .* 'N2-1 N3'"):
        read(path, None, unfolding)


@pytest.mark.parametrize("mark", [" ", "\t", ","])
def test_sequences(tmp_path: Path, mark: str) -> None:
    path = written(tmp_path / "train.txt", "u1 i3 i1 i2\nu2 i9 i3\n\nu3 i1\n".replace(" ", mark))
    one = found(path)
    assert one.unfolding.layout == "sequences"
    frame = rows(path)
    assert triples(frame, USER, ITEM, "position") == [
        ("u1", "i3", 1),
        ("u1", "i1", 2),
        ("u1", "i2", 3),
        ("u2", "i9", 1),
        ("u2", "i3", 2),
        ("u3", "i1", 1),
    ]
    assert TIMESTAMP not in frame.columns


def test_sequences_of_one_length(tmp_path: Path) -> None:
    lines = [" ".join(map(str, (u, *((u * 7 + n * 3) % 50 for n in range(6))))) for u in range(40)]
    assert rows(written(tmp_path / "t.txt", "\n".join(lines))).height == 240


@pytest.mark.parametrize(
    "text",
    [
        "196 242 3 881250949\n186 302 3 891717742\n22 377 1 878887116\n",
        "1 1\n1 2\n2 1\n",
        "user_id,item_id,timestamp\nu1,i1,1600000000\n",
        "1,5,3,4\n2,1,1\n" + "".join(f"{n},2,3,4\n" for n in range(3, 40)),  # one bad row
    ],
)
def test_no_sequences(tmp_path: Path, text: str) -> None:
    from features.tables.layouts.sequences import find_sequences

    assert find_sequences(text.splitlines()) is None


@pytest.mark.parametrize(
    "cells",
    [
        ('"1 2 03"', '"1600000000 1600000100 1600000200"', '"9"', '"1600000300"'),
        ('"[1, 2, 03]"', '"[1600000000,1600000100,1600000200]"', "[9]", "[1600000300]"),
        ("1|2|03", "1600000000|1600000100|1600000200", "9|", "1600000300|"),
        (
            '"[""1"",""2"",""03""]"',
            '"[1600000000,1600000100,1600000200]"',
            '"[""9""]"',
            "[1600000300]",
        ),
    ],
)
def test_lists(tmp_path: Path, cells: tuple[str, ...]) -> None:
    text = "user_id,item_ids,timestamps\nu1,{},{}\nu2,{},{}\nu3,,\n".format(*cells)
    path = written(tmp_path / "lists.csv", text)
    one = found(path)
    assert one.unfolding.layout == "lists"
    assert one.unfolding.lists == ("item_ids", "timestamps")
    assert triples(rows(path), USER, ITEM, TIMESTAMP) == [
        ("u1", "1", 1600000000),
        ("u1", "2", 1600000100),
        ("u1", "03", 1600000200),
        ("u2", "9", 1600000300),
    ]


def test_lists_of_parquet_and_nested_json(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": ["a", "b"], "item_ids": [["x", "y"], ["x"]], "ratings": [[5, 1], [3]]}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    plain = rows(tmp_path / "a.parquet")
    assert triples(plain, USER, ITEM, "rating") == [("a", "x", 5), ("a", "y", 1), ("b", "x", 3)]
    path = written(
        tmp_path / "a.json",
        '[{"user": "a", "events": [{"item": "x", "time": "2024-01-01"}, {"item": "y", "time":'
        ' "2024-01-02"}]}, {"user": "b", "events": [{"item": "x", "time": "2024-01-03"}]}]',
    )
    plain = rows(path)
    assert triples(plain, USER, "item", "time") == [
        ("a", "x", "2024-01-01"),
        ("a", "y", "2024-01-02"),
        ("b", "x", "2024-01-03"),
    ]


def test_lists_without_times_have_an_order(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "uid,history\n1,5 6\n1,7 8\n2,5 9\n")
    frame = rows(path)
    assert triples(frame, USER, "position") == [
        *[("1", n) for n in (1, 2, 3, 4)],
        ("2", 1),
        ("2", 2),
    ]


def test_lists_of_several_lengths(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv",
        'user_id,item_ids,timestamps\n"u\n1",1 2,1 2\nu2,1 2 3,1 2\nu3,1 2,3 4\n',
    )
    unfolding = Unfolding("lists", {}, ("item_ids", "timestamps"), separator=" ")
    with pytest.raises(DataError, match=r"line 4 .* 'timestamps' as in 'item_ids', got 2 and 3"):
        read(path, None, unfolding)


def test_a_list_beside_one_item_a_row_is_no_layout() -> None:
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "tags": ["a|b|c"], "t": [1600000000]})
    assert detect_layout(frame) is None


def test_matrix(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "reader,i07,i2,i3\nu1,5,,3\nu2,,4,1\n")
    one = found(path)
    assert one.unfolding.layout == "matrix"
    frame = rows(path)
    assert sorted(triples(frame, USER, ITEM, WEIGHT)) == [
        ("u1", "i07", 5.0),
        ("u1", "i3", 3.0),
        ("u2", "i2", 4.0),
        ("u2", "i3", 1.0),
    ]
    assert frame.equals(rows(path))
    assert not frame.select(USER, "position").is_duplicated().any()


def test_matrix_of_jester(tmp_path: Path) -> None:
    """The first column counts the cells that are not 99, and nothing names the user."""
    cells = [
        [(-1) ** n * (u + n) / 2 if (u + n) % 3 else 99.0 for n in range(12)] for u in range(5)
    ]
    lines = [",".join(map(str, [sum(one != 99 for one in row), *row])) for row in cells]
    path = written(tmp_path / "jester.csv", "\n".join(lines))
    one = found(path)
    assert one.unfolding.missing == (99.0,)
    frame = rows(path)
    assert frame.height == sum(one != 99 for row in cells for one in row)
    assert frame.filter(pl.col(USER) == "3", pl.col(ITEM) == "1")[WEIGHT].to_list() == [1.0]


@pytest.mark.parametrize(("mark", "shown"), [("0", 0.0), ("-1", -1.0), ("99", 99.0)])
def test_marks_of_a_matrix(tmp_path: Path, mark: str, shown: float) -> None:
    text = "user,1,2,3,4\na,5,_,_,3\nb,_,4,1,_\n".replace("_", mark)
    assert found(written(tmp_path / "m.csv", text)).unfolding.missing == (shown,)
    assert rows(tmp_path / "m.csv").height == 4


def test_a_full_table_of_numbers_is_no_matrix() -> None:
    assert detect_layout(pl.DataFrame({"user": [1, 2], "f1": [1, 2], "f2": [2, 1]})) is None


def test_matrix_with_a_cell_of_text(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", "user,1,2\na,5,\nb,,good\n")
    with pytest.raises(DataError, match=r"line 3 must hold a number .* column '2', got 'good'"):
        read(path, None, Unfolding("matrix", {"user_id": "user"}))


LINES = "order_id,product_id,add_to_cart_order\n1,007,1\n1,8,2\n2,9,1\n3,007,1\n"


def test_order_lines_without_a_clock(tmp_path: Path) -> None:
    path = written(tmp_path / "lines.csv", LINES)
    text = "order_id,user_id,order_number,order_dow\n2,7,2,1\n1,7,1,3\n3,8,1,1\n"
    orders = written(tmp_path / "orders.csv", text)
    one = found(path, orders=orders)
    assert one.unfolding.columns["order_number"] == "order_number"
    frame = read(path, None, one.unfolding, ids=(USER, "product_id", "order_id")).frame
    assert triples(frame, USER, "product_id", "order_id") == [
        ("7", "007", "1"),
        ("7", "8", "1"),
        ("7", "9", "2"),
        ("8", "007", "3"),
    ]
    assert frame["position"].to_list() == [1, 1, 2, 1]


def test_order_lines_with_a_time(tmp_path: Path) -> None:
    path = written(tmp_path / "lines.csv", LINES)
    text = "order_id,customer_id,ordered_at\n1,c1,2024-01-01\n2,c1,2024-02-01\n3,c2,2024-01-03\n"
    one = found(path, orders=written(tmp_path / "orders.csv", text))
    frame = read(path, None, one.unfolding, ids=(USER, "product_id")).frame
    assert triples(frame, USER, "product_id", TIMESTAMP)[:3] == [
        ("c1", "007", "2024-01-01"),
        ("c1", "8", "2024-01-01"),
        ("c1", "9", "2024-02-01"),
    ]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ("order_id,user_id,n\n1,7,1\n2,7,2\n", r"line 5 must be of one of the orders, got '3'"),
        ("order_id,user_id,n\n1,7,1\n2,7,2\n2,7,2\n", r"one row for each 'order_id', got 2 rows"),
        ("code,user_id\n1,7\n", r"must exist, got 'order_id'"),
    ],
)
def test_order_lines_that_do_not_fit(tmp_path: Path, orders: str, message: str) -> None:
    path = written(tmp_path / "lines.csv", LINES)
    held = written(tmp_path / "orders.csv", orders)
    with pytest.raises(DataError, match=message):
        read(path, None, Unfolding("order_lines", {"order_id": "order_id"}, orders=held))


def test_order_lines_alone_ask_for_the_orders(tmp_path: Path) -> None:
    path = written(tmp_path / "lines.csv", LINES)
    with pytest.raises(DataError, match=r"'order_lines': 'order_id' .* --orders"):
        find_layout(path)
    with pytest.raises(DataError, match=r"needs the orders, got none"):
        unfold(pl.DataFrame({"order_id": ["1"]}), Unfolding("order_lines"))
    with pytest.raises(DataError, match=r"must share a column"):
        find_layout(path, orders=written(tmp_path / "o.csv", "code,user_id\n1,7\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 qid:1 1:0.89 2:0.75\n1 qid:1 1:0.69 2:0.64\n", r"'svmlight'.* one row an event"),
        ("1 3:1 11:0.5 # doc\n-1 2:1\n", "'svmlight'"),
        ("1:\n14888,3,2005-09-06\n2:\n88,4,2005-10-19\n", r"'netflix'.* awk"),
        ("label,I1,I2,C1,C2\n0,1,2,05db9164,08d6d899\n", r"'criteo'.* no user"),
        ("0\t" + "1\t" * 13 + "\t".join(["05db9164"] * 26) + "\n" * 2, "'criteo'"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_layout(written(tmp_path / "a.csv", text))


def test_a_plain_log_is_of_no_layout(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp,weight\nu1,i1,1600000000,1\nu2,i2,1600000001,2\n"
    assert find_layout(written(tmp_path / "a.csv", text)) is None
    assert read(tmp_path / "a.csv", None, Unfolding()).frame.height == 2


def test_wrong_settings() -> None:
    frame = pl.DataFrame({"user": ["a"], "items": ["1 2"], "item_id": ["x"]})
    with pytest.raises(ValueError, match=r"layout must be one of 'rows', .* got 'wide'"):
        Unfolding("wide")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"'user_id' is unfolded from must exist, got 'who'"):
        unfold(frame, Unfolding("lists", {"user_id": "who"}, ("items",)))
    with pytest.raises(DataError, match=r"'items' becomes the column 'item_id' .* another one"):
        unfold(frame, Unfolding("lists", {"item_id": "items"}, ("items",)))
    with pytest.raises(DataError, match="one column of whole lines"):
        unfold(frame, Unfolding("sequences"))
    with pytest.raises(DataError, match="needs the column that 'shown' is made of"):
        unfold(frame, Unfolding("impressions"))
    with pytest.raises(DataError, match=r"must hold times in one form, got such as 'soon'"):
        unfold(
            pl.DataFrame({"u": ["a"], "s": ["x-1 y-0"], "t": ["soon"]}),
            Unfolding("impressions", {"user_id": "u", "shown": "s", "timestamp": "t"}),
        )
    with pytest.raises(DataError, match="must have a column of several items a cell"):
        unfold(pl.DataFrame({"user": ["a"]}), Unfolding("lists"))
