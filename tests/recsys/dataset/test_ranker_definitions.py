"""The definitions of a run against its tables."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from features import (
    Category,
    Count,
    DayOfWeek,
    Definition,
    Field,
    HourOfDay,
    ItemTable,
    ListContains,
    ListSize,
    SlateRelative,
    TextMatch,
    UserTable,
    VectorComponent,
    default_definitions,
)
from recsys.config import Config
from recsys.config.features import retrieval_definitions
from recsys.dataset.definitions import (
    definitions_problems,
    describe_definitions,
    ranker_definitions,
    user_columns,
)
from tests.feature_world import EVERYTHING, ITEMS, USERS

SOURCES = ("popularity",)


def make_config(**changes: Any) -> Config:
    values = {"data": {"events": "e", "items": "i"}, "retrieval": {"sources": SOURCES}}
    return Config.model_validate(values | changes)


def problems(*definitions: Definition, users: UserTable | None = USERS) -> list[str]:
    found = definitions_problems(definitions, ITEMS, users, source="features.toml", dim=4)
    return [str(one) for one in found]


def test_without_declared_ones_the_defaults_are_computed() -> None:
    config = make_config()
    found = ranker_definitions(config, ITEMS)
    assert found == (*default_definitions(ITEMS), *retrieval_definitions(SOURCES))
    told = describe_definitions(config, found)
    assert told["source"] == "defaults"
    assert told["own"] == [one.name for one in default_definitions(ITEMS)]
    assert told["added"][0] == "content_similarity"
    alone = make_config(ranking={"retrieval_features": False})
    assert ranker_definitions(alone, ITEMS) == default_definitions(ITEMS)


@pytest.mark.parametrize("file", [None, "lists/features.toml"])
def test_declared_ones_replace_the_defaults(file: str | None) -> None:
    record = {"kind": "retrieval_rank", "name": "rank__popularity", "retriever": "popularity"}
    config = make_config(features=[record], features_file=file)
    found = ranker_definitions(config, ITEMS)
    told = describe_definitions(config, found)
    assert told["source"] == ("[[features]]" if file is None else "features.toml")
    assert told["own"] == ["rank__popularity"]
    assert [*told["own"], *told["added"]] == [one.name for one in found]


def test_every_kind_fits_tables_that_have_its_columns() -> None:
    usable = [one for one in EVERYTHING if not isinstance(one, TextMatch)]
    assert problems(*usable) == []
    assert problems(*default_definitions(ITEMS), *retrieval_definitions(SOURCES)) == []


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            Field(name="a", column="yaer"),
            "features.toml: column 'item.yaer' must exist: definition 'a' reads it; broken, first: "
            "item has item_id, genres, maker, year, title. Correct the definition, or add",
        ),
        (Field(name="a", table="user", column="height"), "user has user_id, age, land, zone"),
        (HourOfDay(name="a", zone_column="zeit"), "column 'user.zeit' must exist"),
        (
            VectorComponent(name="a", vectors="images", component=0),
            "column 'vectors.images' must exist: definition 'a' reads it; broken, first: vectors "
            "has content",
        ),
        (
            VectorComponent(name="a", vectors="content", component=4),
            "column 'vectors.content' must fit definition 'a'; broken, first: definition 'a': "
            "component must be below the 4",
        ),
        (Field(name="a", column="title"), "column 'item.title' must fit definition 'a'"),
        (Field(name="a", table="user", column="land"), "column 'user.land' must fit"),
        (ListSize(name="a", column="maker"), "column must be a list of text, got 'maker'"),
        (ListContains(name="a", column="year", value="1"), "column must be a list of text, got"),
        (Category(name="a", column="genres", values=("x",)), "column 'item.genres' must fit"),
        (HourOfDay(name="a", zone_column="land"), "a time zone must be a name such as"),
    ],
)
def test_what_the_tables_do_not_have_is_told(definition: Definition, message: str) -> None:
    (found,) = problems(definition, Count(name="fine"), SlateRelative(name="too", of="a"))
    assert message in found


def test_all_problems_are_told_at_once() -> None:
    found = problems(
        Field(name="a", column="x"), Field(name="b", column="y"), Field(name="c", column="title")
    )
    assert len(found) == 3


def test_a_missing_user_table_is_told_with_its_remedy() -> None:
    (found,) = problems(Field(name="a", table="user", column="age"), users=None)
    assert "there is no user table. Set data.users, or remove the definition." in found


def test_of_the_user_table_only_what_definitions_read_is_kept() -> None:
    kept = user_columns(
        USERS,
        [Field(name="a", table="user", column="age"), HourOfDay(name="h", zone_column="zone")],
    )
    assert kept is not None
    assert kept.frame.columns == ["user_id", "age", "zone"]
    assert kept.ids == sorted(USERS.ids)
    assert (kept.number_columns, kept.category_columns) == (("age",), ("zone",))
    assert user_columns(USERS, [Count(name="c"), Field(name="y", column="year")]) is None
    assert user_columns(None, [Field(name="a", table="user", column="age")]) is None


@pytest.mark.parametrize("num_items", [1, 150])
def test_every_zone_of_the_user_table_is_looked_at(num_items: int) -> None:
    zones = [*["Europe/Berlin"] * 200, None, "Asia/Nowhere", "UTC"]
    users = UserTable.from_frame(
        pl.DataFrame({"user_id": [f"u{n}" for n in range(203)], "zone": zones})
    )
    items = ItemTable.from_frame(pl.DataFrame({"item_id": [f"i{n}" for n in range(num_items)]}))
    clock = DayOfWeek(name="day", zone_column="zone")
    (found,) = definitions_problems([clock], items, users, source="features.toml", dim=4)
    assert "column 'user.zone' must fit definition 'day'" in str(found)
    assert "got 'Asia/Nowhere' in the user table" in str(found)


def test_empty_tables_are_checked_as_well() -> None:
    nobody = UserTable.from_frame(pl.DataFrame({"user_id": ["u"], "age": [1]}).head(0))
    assert problems(Field(name="a", table="user", column="age"), users=nobody) == []
