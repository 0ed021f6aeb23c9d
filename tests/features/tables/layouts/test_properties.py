"""Properties of items over time: a row an item, as it was known at a moment."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from features.errors import DataError
from features.tables import EventColumns, Tables
from features.tables.layouts import Unfolding, find_item_layout, unfold, unfold_properties
from features.tables.layouts.layout import FoundLayout

TEXT = (
    "timestamp,itemid,property,value\n"
    "1599000000000,10,categoryid,07\n"
    "1599000000000,10,available,1\n"
    "1599900000000,10,available,0\n"
    "1599000000000,11,categoryid,08\n"
    "1599900000000,12,categoryid,09\n"
    "1599900000000,12,available,1\n"
)
EARLY, LATE = datetime(2020, 9, 5), datetime(2020, 9, 20)


def found(path: Path) -> FoundLayout:
    one = find_item_layout(path)
    assert one is not None
    return one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "properties.csv"
    file.write_text(TEXT)
    return file


def test_the_newest_values(path: Path) -> None:
    one = found(path)
    assert one.unfolding.columns == {
        "item_id": "itemid",
        "property": "property",
        "value": "value",
        "timestamp": "timestamp",
    }
    described = unfold_properties(pl.read_csv(path, infer_schema=False), one.unfolding, source="i")
    assert described.frame.rows() == [("10", 0, "07"), ("11", None, "08"), ("12", 1, "09")]
    assert described.frame.columns == ["item_id", "available", "categoryid"]
    assert described.changing == ("available",)
    assert unfold(pl.read_csv(path, infer_schema=False), one.unfolding).equals(described.frame)


def test_values_known_at_the_cut(path: Path) -> None:
    """What is written later changes nothing; an item described later has texts and no numbers."""
    frame = pl.read_csv(path, infer_schema=False)
    at = unfold_properties(frame, Unfolding("properties"), source="i", cut=EARLY, end=LATE)
    assert at.frame.rows() == [("10", 1, "07"), ("11", None, "08"), ("12", None, "09")]
    assert at.changing == ()
    at = unfold_properties(frame, Unfolding("properties"), source="i", cut=EARLY, end=EARLY)
    assert at.frame["item_id"].to_list() == ["10", "11"]


def test_names_are_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    lines = [f"{n},{name},{n}{name}" for n in range(6) for name in ("colour", "maker")]
    file.write_text("product_id,what,which\n" + "\n".join(lines))
    one = found(file)
    assert one.unfolding.columns == {"item_id": "product_id", "property": "what", "value": "which"}


@pytest.mark.parametrize(
    "text",
    [
        "item_id,title,genre\n1,a,x\n2,b,x\n3,c,y\n",
        "item_id,title,genre\n1,a,x\n2,b,x\n2,b,x\n",
        "item_id,property,value\n1,a,x\n2,b,x\n",
        "item_id,title\n1,a\n",
    ],
)
def test_a_table_of_items_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(text)
    assert find_item_layout(file) is None


def test_many_properties(tmp_path: Path) -> None:
    """Those of the most items become columns, and what is left out is told."""
    rows = [(item, f"p{n:03}", "x") for n in range(70) for item in range(n % 7 + 1)]
    frame = pl.DataFrame(rows, schema=["item_id", "property", "value"], orient="row")
    file = tmp_path / "p.csv"
    frame.write_csv(file)
    chosen = found(file).unfolding.properties
    assert len(chosen) == 64
    assert {f"p{n:03}" for n in range(70) if n % 7 > 0} <= set(chosen)
    tables = Tables(pl.DataFrame(), file, layouts={"items": Unfolding("properties")})
    assert tables.frame("items").width == 65
    assert "6 properties that fewer items have" in tables.dropped[0]
    assert "data.item_unfold.properties" in tables.dropped[0]
    two = Unfolding("properties", properties=("p001", "p002"))
    assert unfold(frame, two).columns == ["item_id", "p001", "p002"]


def test_a_property_called_like_the_id() -> None:
    rows = pl.DataFrame({"item_id": ["1"], "property": ["item_id"], "value": ["x"]})
    columns = {name: name for name in rows.columns}
    plain = unfold(rows, Unfolding("properties", columns))
    assert plain.to_dicts() == [{"item_id": "1", "item_id_property": "x"}]


def test_refused(path: Path) -> None:
    frame = pl.read_csv(path, infer_schema=False)
    with pytest.raises(DataError, match="must hold properties of items until 1999-01-01"):
        unfold_properties(frame, Unfolding("properties"), source="i", end=datetime(1999, 1, 1))
    with pytest.raises(DataError, match="needs the column that 'property' is made of"):
        unfold(frame.select("itemid", "value"), Unfolding("properties", {"item_id": "itemid"}))
    with pytest.raises(DataError, match="'timestamp' must hold times in one form, got such as 'x'"):
        unfold(
            frame.with_columns(timestamp=pl.lit("x")),
            Unfolding("properties", {**found(path).unfolding.columns}),
        )


def test_tables_take_them_as_of_the_cut(path: Path) -> None:
    events = pl.DataFrame({"user_id": ["a"], "item_id": ["10"], "timestamp": [1600000000]})
    tables = Tables(
        events,
        path,
        columns=EventColumns(),
        layouts={"items": Unfolding("properties")},
        known=lambda: (EARLY, LATE),
    )
    assert tables.problems == []
    table = tables.item_table
    assert table.frame["available"].to_list() == [1, None, None]
    now = Tables(events, path, layouts={"items": Unfolding("properties")})
    assert now.item_table.number_columns == ()  # it changed, so it plays no role by itself
    assert now.item_table.frame["available"].to_list() == [0, None, 1]
