"""Do definitions fit the tables they read?"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from features.computation.feature_tables import FeatureTables
from features.computation.requests import OWN
from features.definitions.columns import (
    Definition,
    ListContains,
    ListSize,
    TextMatch,
    VectorComponent,
)
from features.errors import DataError

__all__ = ["check_sources"]


def check_sources(definitions: Sequence[Definition], tables: FeatureTables) -> None:
    """Refuse definitions that read what is not there.

    Raises:
        DataError: a definition reads a column or vectors that do not exist or are of another type,
            or takes a name that every request uses itself.
    """
    known_columns = {
        "item": set(tables.item_frame.columns),
        "user": set() if tables.users is None else set(tables.users[1].columns),
        "vectors": set(tables.vectors),
    }
    for definition in definitions:
        if definition.name in OWN:
            raise DataError(
                f"definition {definition.name!r}: name must not be one of {', '.join(OWN)}; "
                "rename it"
            )
        for source in definition.columns():
            table, _, column = source.partition(".")
            if table in known_columns and column not in known_columns[table]:
                known = ", ".join(sorted(known_columns[table])) or "none given"
                raise DataError(
                    f"definition {definition.name!r}: {source} must exist; known: {known}"
                )
        _check_type(definition, tables)
    for name, (vocabulary, vectors) in tables.vectors.items():
        if vectors.ndim != 2 or vectors.shape[0] != vocabulary.size:
            raise DataError(
                f"vectors {name!r} must be [N + 1, D] with N = {len(vocabulary)}, got shape "
                f"{vectors.shape}; row 0 is the padding row"
            )


def _check_type(definition: Definition, tables: FeatureTables) -> None:
    if isinstance(definition, ListSize | ListContains):
        frame = tables.item_frame
        if definition.table == "user" and tables.users is not None:
            frame = tables.users[1]
        dtype = frame.schema[definition.column]
        if dtype != pl.List(pl.String):
            raise DataError(
                f"definition {definition.name!r}: column must be a list of text, got "
                f"{definition.column!r} of type {dtype}; declare it a list column"
            )
    elif isinstance(definition, TextMatch):
        dtype = tables.item_frame.schema[definition.column]
        if dtype != pl.String:
            raise DataError(
                f"definition {definition.name!r}: column must be text, got "
                f"{definition.column!r} of type {dtype}"
            )
    elif isinstance(definition, VectorComponent):
        vectors = tables.vectors[definition.vectors][1]
        if vectors.ndim == 2 and definition.component >= vectors.shape[1]:
            raise DataError(
                f"definition {definition.name!r}: component must be below the "
                f"{vectors.shape[1]} of vectors {definition.vectors!r}, got "
                f"{definition.component}"
            )
