"""The definitions of the ranker's features, and whether they fit the data.

`recsys.config.features` says what can be declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from features.computation import FeatureComputer
from features.definitions import DayOfWeek, Definition, HourOfDay, default_definitions
from features.definitions.sets import check_definitions
from features.errors import DataError, Problem
from features.tables import ITEM, USER, Interactions, ItemTable, Tables, UserTable, Vocabulary
from features.tables.rules import DISLIKE, RETURN
from features.tables.schema import INTERACTION_SCHEMA
from recsys.config import Config
from recsys.config.features import CONTENT, combined_definitions, retrieval_definitions
from recsys.content.variety import different_descriptions

__all__ = [
    "USER_COLUMNS",
    "definitions_problems",
    "describe_definitions",
    "find_definition_problems",
    "ranker_definitions",
    "user_columns",
]

USER_COLUMNS = "user_columns.parquet"
"""File of a bundle's ``features`` and ``candidates`` with what `user_columns` kept."""

_SAMPLE = 100
_NO_EVENTS = Interactions(pl.DataFrame(schema=INTERACTION_SCHEMA))
_ROLES = ("text_columns", "category_columns", "list_columns", "number_columns")


def ranker_definitions(config: Config, items: ItemTable) -> tuple[Definition, ...]:
    """The declared definitions, or the defaults for the catalogue, and what is added to them."""
    sources, added = config.retrieval.sources, config.ranking.retrieval_features
    content = different_descriptions(items) > 1
    if config.features is not None:
        return combined_definitions(
            config.features, sources, retrieval_features=added, content=content
        )
    found = retrieval_definitions(sources, content=content) if added else ()
    own = default_definitions(
        items,
        reserved=[definition.name for definition in found],
        disliked=disliked_kinds(config),
        repeats=not config.slate.to_rule().excludes_all,
    )
    return check_definitions((*own, *found))


def disliked_kinds(config: Config) -> list[str]:
    """Kinds of the dislikes that the log of a run may hold."""
    data = config.data
    kinds = [kind for kind, weight in data.kinds.items() if weight < 0]
    if data.rules.negative is not None:
        kinds.append(DISLIKE)
    if data.takes_back:
        kinds.append(RETURN)
    return list(dict.fromkeys(kinds))


def describe_definitions(config: Config, definitions: Sequence[Definition]) -> dict[str, Any]:
    """What `ranker_definitions` gave, for people: where the first ones are from, and all names."""
    added = {one.name for one in retrieval_definitions(config.retrieval.sources)}
    if config.features is None:
        own = [one.name for one in definitions if one.name not in added]
        source = "defaults"
    else:
        own = [one.name for one in config.features]
        source = "[[features]]" if config.features_file is None else config.features_file.name
    return {
        "source": source,
        "own": own,
        "added": [one.name for one in definitions if one.name not in set(own)],
    }


def user_columns(users: UserTable | None, definitions: Sequence[Definition]) -> UserTable | None:
    """The columns of the user table that definitions read, by rising id; None if they read none."""
    read = _read_of("user", definitions)
    if users is None or not read:
        return None
    kept = [name for name in users.frame.columns if name == USER or name in read]
    roles = {role: tuple(name for name in getattr(users, role) if name in read) for role in _ROLES}
    return UserTable(users.frame.select(kept).sort(USER), **roles)


def find_definition_problems(
    config: Config, tables: Tables
) -> tuple[list[Problem], dict[str, Any] | None]:
    """`definitions_problems` of a run's tables, and `describe_definitions`.

    The latter is None where a column cannot play its role; the problems say why.

    Raises:
        DataError: a table cannot be read.
    """
    try:
        items, users = tables.item_table, tables.user_table
    except DataError as error:
        if not error.problems:
            raise
        return list(error.problems), None
    definitions = ranker_definitions(config, items)
    described = describe_definitions(config, definitions)
    problems = definitions_problems(
        definitions, items, users, source=described["source"], dim=config.content.dim
    )
    return problems, described


def definitions_problems(
    definitions: Sequence[Definition],
    items: ItemTable,
    users: UserTable | None,
    *,
    source: str,
    dim: int,
) -> list[Problem]:
    """Definitions that read what the tables do not have, or cannot use it.

    Each that reads any column is computed for a few rows of the tables, where every time zone
    occurs, and no events.

    Args:
        definitions: of the ranker.
        items: the catalogue.
        users: the user table, if there is one.
        source: where the definitions stand, for the messages.
        dim: dimensions of the content vectors.
    """
    tables = {
        "item": items.frame.columns,
        "user": [] if users is None else users.frame.columns,
        "vectors": [CONTENT],
    }
    few_items = replace(items, frame=items.frame.head(_SAMPLE))
    problems = []
    for definition in definitions:
        missing = [
            (table, column)
            for table, _, column in (read.partition(".") for read in definition.columns())
            if table in tables and column not in tables[table]
        ]
        if missing:
            problems += [_missing(definition, *one, tables, source) for one in missing]
        elif definition.columns():
            few_users = None if users is None else _some_users(users, definition)
            problems += _misfits(definition, few_items, few_users, source, dim)
    return problems


def _missing(
    definition: Definition,
    table: str,
    column: str,
    tables: Mapping[str, Sequence[str]],
    source: str,
) -> Problem:
    rule = f"must exist: definition {definition.name!r} reads it"
    if not tables[table]:
        first, remedy = "there is no user table", "Set data.users, or remove the definition."
    else:
        first = f"{table} has {', '.join(tables[table])}"
        remedy = "Correct the definition, or add the column."
    return Problem(source, f"{table}.{column}", rule, 0, first, remedy)


def _some_users(users: UserTable, definition: Definition) -> UserTable:
    """The first users, and for a clock one of every zone: each is a name that can be wrong."""
    frame = users.frame.head(_SAMPLE)
    if isinstance(definition, HourOfDay | DayOfWeek) and definition.zone_column is not None:
        zones = users.frame.unique(definition.zone_column, keep="first", maintain_order=True)
        frame = pl.concat([frame, zones]).unique(USER, maintain_order=True)
    return replace(users, frame=frame)


def _misfits(
    definition: Definition, items: ItemTable, users: UserTable | None, source: str, dim: int
) -> list[Problem]:
    """What goes wrong where the definition is computed for a few rows."""
    ids = items.frame[ITEM]
    people = ["-"] if users is None or len(users) == 0 else users.ids
    size = max(len(ids), len(people)) if len(ids) else 0
    requests = pl.DataFrame(
        {
            "request_id": np.zeros(size, dtype=np.int64),
            USER: pl.Series([people[row % len(people)] for row in range(size)], dtype=pl.String),
            ITEM: ids.gather(np.arange(size) % max(len(ids), 1)),
            "moment": pl.Series([datetime(2000, 1, 1)] * size, dtype=pl.Datetime("us")),
            **{name: np.zeros(size) for name in _read_of("request", [definition])},
        }
    )
    vectors = {CONTENT: (Vocabulary.from_ids(ids), np.zeros((len(ids) + 1, dim), np.float32))}
    try:
        FeatureComputer([definition], items, users, vectors).compute(requests, _NO_EVENTS)
    except (DataError, pl.exceptions.PolarsError) as error:
        read = ", ".join(definition.columns())
        rule = f"must fit definition {definition.name!r}"
        first = " ".join(str(error).split())
        return [Problem(source, read, rule, 0, first, "Correct the definition, or the column.")]
    return []


def _read_of(table: str, definitions: Sequence[Definition]) -> set[str]:
    """Columns of a table that definitions read."""
    read = [source.partition(".") for each in definitions for source in each.columns()]
    return {column for name, _, column in read if name == table}
