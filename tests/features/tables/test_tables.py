from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features import DataError, ItemTable, UserTable, read_items, read_users

RAW = pl.DataFrame(
    {
        "movieId": [1, 2, 3, 4],
        "title": ["A", "B", "C", "D"],
        "genres": ["x|y", " y |y||", None, "x"],
        "country": ["de", "de", "fr", "fr"],
        "year": [1999, None, 2001, 2002],
        "sequel": [True, False, None, True],
        "seen": [None, None, None, None],
    },
    schema_overrides={"seen": pl.Date},
)


def test_columns_find_their_roles() -> None:
    items = ItemTable.from_frame(RAW, id_column="movieId")
    assert items.text_columns == ("title",)
    assert items.list_columns == ("genres",)
    assert items.category_columns == ("country", "sequel")
    assert items.number_columns == ("year",)
    assert items.frame.columns[0] == "item_id"
    assert items.frame.columns[1:] == RAW.columns[1:]
    assert items.ids == ["1", "2", "3", "4"]
    assert len(items) == 4


def test_lists_are_split_stripped_and_distinct() -> None:
    items = ItemTable.from_frame(RAW, id_column="movieId")
    assert items.frame["genres"].to_list() == [["x", "y"], ["y"], [], ["x"]]
    ready = RAW.with_columns(pl.Series("genres", [["b", "a", "b"], [None], None, [""]]))
    items = ItemTable.from_frame(ready, id_column="movieId")
    assert items.frame["genres"].to_list() == [["b", "a"], [], [], []]


def test_declared_roles_win() -> None:
    items = ItemTable.from_frame(
        RAW,
        id_column="movieId",
        text_columns=["genres"],
        category_columns=["title"],
        list_columns=["country"],
        list_separator=",",
    )
    assert items.text_columns == ("genres",)
    assert items.category_columns == ("title", "sequel")
    assert items.list_columns == ("country",)
    assert items.frame["country"].to_list() == [["de"], ["de"], ["fr"], ["fr"]]


def test_integer_category_is_no_number() -> None:
    items = ItemTable.from_frame(RAW, id_column="movieId", category_columns=["year"])
    assert items.number_columns == ()


def test_empty_string_column_is_text() -> None:
    frame = pl.DataFrame({"item_id": ["a"], "note": [None]}, schema_overrides={"note": pl.String})
    assert ItemTable.from_frame(frame).text_columns == ("note",)


def test_list_separator_is_used_for_guessing() -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "tags": ["p;q", "q"]})
    assert ItemTable.from_frame(frame).list_columns == ()
    assert ItemTable.from_frame(frame, list_separator=";").list_columns == ("tags",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_columns": ["titel"]}, "column 'titel' must exist"),
        ({"text_columns": ["year"]}, "column 'year' cannot be a text column"),
        ({"category_columns": ["seen"]}, "column 'seen' cannot be a category column"),
        ({"list_columns": ["year"]}, "column 'year' cannot be a list column"),
        ({"id_column": "id"}, "column 'id' must exist"),
    ],
)
def test_roles_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ItemTable.from_frame(RAW, **({"id_column": "movieId"} | options))  # type: ignore[arg-type]


def test_two_id_columns() -> None:
    frame = RAW.with_columns(pl.lit("x").alias("item_id"))
    with pytest.raises(DataError, match="the id column given is 'movieId'"):
        ItemTable.from_frame(frame, id_column="movieId")


def test_ids_are_unique() -> None:
    with pytest.raises(DataError, match="things: column 'item_id' must not repeat"):
        ItemTable.from_frame(pl.DataFrame({"item_id": [1, 1]}), source="things")
    with pytest.raises(DataError, match="users: column 'user_id' must not be null"):
        UserTable.from_frame(pl.DataFrame({"user_id": ["a", None]}))


def test_reading(tmp_path: Path) -> None:
    RAW.drop("seen").write_csv(tmp_path / "items.csv")
    items = read_items(tmp_path / "items.csv", id_column="movieId")
    assert items.list_columns == ("genres",)
    pl.DataFrame({"user_id": [1], "age": [3]}).write_parquet(tmp_path / "users.parquet")
    users = read_users(tmp_path / "users.parquet")
    assert (users.ids, users.number_columns, len(users)) == (["1"], ("age",), 1)
    with pytest.raises(DataError, match=r"items\.csv: column 'item_id' must exist"):
        read_items(tmp_path / "items.csv")
