from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from features import (
    Affinity,
    Age,
    Category,
    Count,
    DataError,
    Field,
    HourOfDay,
    LastNOverlap,
    ListContains,
    ListSize,
    MeanWeight,
    Position,
    Rate,
    Recency,
    RetrievalRank,
    RetrievalScore,
    Session,
    Similarity,
    SlateRelative,
    TextMatch,
    Trend,
    UniqueCount,
    VectorComponent,
    definitions_sha256,
    dump_definitions,
    load_definitions,
)
from features.definitions.columns import Definition

SOME: tuple[Definition, ...] = (
    Count(name="n"),
    Count(name="w", by="user_attribute", column="genres", window_days=2.5, weighted=True, log=True),
    Rate(name="liked", threshold=4.0, prior=0.5, event="view", default=0.0),
    Category(name="maker", column="maker", values=("a", "b")),
    SlateRelative(name="n_rank", of="n"),
)


def test_dicts_hold_only_what_differs_from_the_defaults() -> None:
    assert dump_definitions(SOME)[0] == {"kind": "count", "name": "n"}
    assert dump_definitions(SOME)[3]["values"] == ["a", "b"]
    assert load_definitions(dump_definitions(SOME)) == SOME
    assert load_definitions(json.loads(json.dumps(dump_definitions(SOME)))) == SOME


def test_toml() -> None:
    text = """
    [[feature]]
    kind = "rate"
    name = "liked"
    threshold = 4
    by = "user_attribute"
    column = "genres"
    """
    loaded = load_definitions(tomllib.loads(text)["feature"])
    assert loaded == (Rate(name="liked", threshold=4, by="user_attribute", column="genres"),)


def test_digest_changes_with_any_argument() -> None:
    digest = definitions_sha256(SOME)
    assert digest == definitions_sha256(load_definitions(dump_definitions(SOME)))
    assert digest != definitions_sha256(SOME[:4])
    assert digest != definitions_sha256((Count(name="n", log=True), *SOME[1:]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "cuont", "name": "n"}, "unknown kind 'cuont'; .*did you mean 'count'"),
        ({"name": "n"}, "definition 'n': unknown kind ''"),
        ({"kind": "count", "name": "n", "windw_days": 1}, "did you mean 'window_days'"),
        ({"kind": "rate", "name": "n"}, "rate needs 'threshold'"),
        ({"kind": "count"}, r"definition '\?': count needs 'name'"),
        ({"kind": "count", "name": ""}, "name must not be empty"),
    ],
)
def test_broken_records(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_definitions([record])


def test_definitions_must_fit_together() -> None:
    count, rank = {"kind": "count", "name": "n"}, {"kind": "slate_relative", "name": "r"}
    with pytest.raises(DataError, match="name 'n' must be used once"):
        load_definitions([count, count])
    with pytest.raises(DataError, match="of must name another definition, got 'm'; known: n, r"):
        load_definitions([count, rank | {"of": "m"}])
    with pytest.raises(DataError, match="of must not be made of others itself, got 'r'"):
        load_definitions([count, rank | {"of": "n"}, rank | {"name": "s", "of": "r"}])
    with pytest.raises(DataError, match="'d': minus must name another definition, got 'm'"):
        load_definitions([count, {"kind": "difference", "name": "d", "of": "n", "minus": "m"}])


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Count, {"by": "session"}, "by must be one of global, item, .* got 'session'"),
        (Count, {"by": "attribute"}, "column must be given for by='attribute'"),
        (Count, {"column": "genres"}, "column must be given for by='attribute'"),
        (Count, {"window_days": 0}, "window_days must be > 0, got 0"),
        (Rate, {"threshold": 1, "prior_count": -1}, "prior_count must be >= 0, got -1"),
        (MeanWeight, {"by": "user"}, "prior must be a number for by='user', got None"),
        (Recency, {"unit": "h"}, "unit must be one of s, log_days; got 'h'"),
        (Age, {"unit": "h"}, "unit must be one of s, log_days; got 'h'"),
        (Age, {"by": "user", "year_column": "y"}, "by must be 'item' with a year_column"),
        (Trend, {"short_days": 3, "long_days": 3}, "0 < short_days < long_days, got 3 and 3"),
        (Affinity, {"column": "g", "how": "all"}, "how must be one of mean, any; got 'all'"),
        (Affinity, {"column": "g", "last": 0}, "last must be > 0, got 0"),
        (Affinity, {"column": "g", "how": "any"}, "last must be a number for how='any'"),
        (LastNOverlap, {"column": "g", "last": -1}, "last must be > 0, got -1"),
        (Similarity, {"vectors": "v", "last": 0}, "last must be > 0, got 0"),
        (Field, {"column": "c", "table": "shop"}, "table must be one of item, user; got 'shop'"),
        (Category, {"column": "c", "values": ("a", "a")}, "values must not repeat"),
        (Count, {"refresh_s": -1}, "refresh_s must be >= 0, got -1"),
        (
            Count,
            {"window_days": 1, "refresh_s": 7 * 3600},
            "window_days must be a multiple of refresh_s, got 1 days and 25200 s",
        ),
        (
            Trend,
            {"short_days": 0.5, "long_days": 2, "refresh_s": 86400},
            "short_days must be a multiple of refresh_s",
        ),
        (Recency, {"ttl_days": 0}, "ttl_days must be > 0, got 0"),
        (Similarity, {"vectors": "v", "ttl_days": -1}, "ttl_days must be > 0, got -1"),
        (
            LastNOverlap,
            {"column": "g", "session_minutes": 0},
            "session_minutes must be > 0, got 0",
        ),
        (Affinity, {"column": "g", "session_minutes": 5}, "last must be a number with session"),
        (Session, {"what": "clicks"}, "what must be one of events, items, weight, seconds"),
        (Session, {"session_minutes": 0}, "session_minutes must be > 0, got 0"),
        (Session, {"last": 0}, "last must be > 0, got 0"),
        (HourOfDay, {"zone": "Mars/Olympus"}, "zone must be the name of a time zone"),
        (VectorComponent, {"vectors": "v", "component": -1}, "component must be >= 0, got -1"),
        (TextMatch, {"column": "t", "k1": 0}, "k1 must be > 0, got 0"),
        (TextMatch, {"column": "t", "b": 1.5}, "b must be 0..1, got 1.5"),
        (SlateRelative, {"of": "n", "how": "max"}, "how must be one of minus_mean, rank"),
    ],
)
def test_arguments_are_checked(
    kind: type[Definition], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        kind(name="x", **arguments)


@pytest.mark.parametrize(
    ("definition", "scope", "columns"),
    [
        (Count(name="x", by="global"), "global", ()),
        (Count(name="x", by="attribute", column="g"), "item", ("item.g",)),
        (Count(name="x", by="user_attribute", column="g"), "user_item", ("item.g",)),
        (Age(name="x", year_column="year"), "item", ("item.year",)),
        (Age(name="x", by="user"), "user", ()),
        (Field(name="x", table="user", column="age"), "user", ("user.age",)),
        (Affinity(name="x", column="g"), "user_item", ("item.g",)),
        (LastNOverlap(name="x", column="g"), "user_item", ("item.g",)),
        (Similarity(name="x", vectors="v"), "user_item", ("vectors.v",)),
        (RetrievalScore(name="x", retriever="r"), "request", ("request.score__r",)),
        (RetrievalRank(name="x", retriever="r"), "request", ("request.rank__r",)),
        (SlateRelative(name="x", of="y"), "request", ()),
        (UniqueCount(name="x", of="user"), "item", ()),
        (
            UniqueCount(name="x", of="g", by="attribute", column="h"),
            "item",
            ("item.h", "item.g"),
        ),
        (Session(name="x"), "user", ()),
        (ListSize(name="x", column="g"), "item", ("item.g",)),
        (ListContains(name="x", table="user", column="g", value="v"), "user", ("user.g",)),
        (VectorComponent(name="x", vectors="v", component=0), "item", ("vectors.v",)),
        (Position(name="x"), "request", ("request.position",)),
        (TextMatch(name="x", column="t"), "request", ("item.t", "request.query")),
        (HourOfDay(name="x", zone_column="zone"), "request", ("user.zone",)),
    ],
)
def test_scope_and_columns(definition: Definition, scope: str, columns: tuple[str, ...]) -> None:
    assert definition.scope == scope
    assert definition.columns() == columns
