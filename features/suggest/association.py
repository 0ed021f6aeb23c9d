"""How much the values of an item column go with what users meet next, and with the hour."""

from __future__ import annotations

import numpy as np
import polars as pl

from features.tables.entities import ItemTable
from features.tables.interactions import Interactions
from features.tables.schema import ITEM, TIMESTAMP, USER

__all__ = ["hour_association", "lift"]

_PAIRS = 20_000
_LEAST_EVENTS = 20


def lift(
    column: str, interactions: Interactions, items: ItemTable, rng: np.random.Generator
) -> tuple[float, float]:
    """(neighbouring over random pairs of events that share a value, share of neighbouring ones)."""
    frame = interactions.frame.select(USER, ITEM, TIMESTAMP)
    pairs = frame.with_columns(pl.col(ITEM).shift().over(USER).alias("before")).drop_nulls("before")
    if pairs.height == 0:
        return 0.0, 0.0
    take = rng.choice(pairs.height, min(_PAIRS, pairs.height), replace=False)
    pairs = pairs[np.sort(take)]
    strangers = pairs["before"][rng.permutation(pairs.height)]
    own = _share_common(pairs[ITEM], pairs["before"], column, items)
    other = _share_common(pairs[ITEM], strangers, column, items)
    return (own / other if other > 0 else float(own > 0)), own


def _share_common(left: pl.Series, right: pl.Series, column: str, items: ItemTable) -> float:
    values = _long(column, items)
    sides = [
        pl.DataFrame({"pair": np.arange(len(side)), ITEM: side}).join(values, on=ITEM)
        for side in (left, right)
    ]
    both = set(sides[0]["pair"].unique()) & set(sides[1]["pair"].unique())
    common = sides[0].join(sides[1], on=["pair", "value"])["pair"].n_unique()
    return common / len(both) if both else 0.0


def _long(column: str, items: ItemTable) -> pl.DataFrame:
    """One row per item and value."""
    values = items.frame.select(ITEM, pl.col(column).alias("value"))
    if isinstance(values.schema["value"], pl.List):
        values = values.explode("value")
    return values.drop_nulls().cast({"value": pl.String})


def hour_association(column: str, interactions: Interactions, items: ItemTable) -> float:
    """Bias-corrected Cramér's V of six four-hour blocks and the values.

    Source: Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", 2013.
    """
    daily = interactions.frame.unique(
        [USER, pl.col(TIMESTAMP).dt.date()], keep="first", maintain_order=True
    )
    first = _long(column, items).unique(ITEM, keep="first", maintain_order=True)
    met = daily.join(first, on=ITEM).select(pl.col(TIMESTAMP).dt.hour() // 4, "value")
    counts = met.group_by(TIMESTAMP, "value").len().pivot("value", index=TIMESTAMP).fill_null(0)
    table = counts.drop(TIMESTAMP).to_numpy().astype(np.float64)
    n = table.sum()
    if min(table.shape) < 2 or n < _LEAST_EVENTS:
        return 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    r, k = table.shape
    phi2 = ((table - expected) ** 2 / expected).sum() / n
    corrected = max(0.0, phi2 - (r - 1) * (k - 1) / (n - 1))
    smaller = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1))
    return float(np.sqrt(corrected / (smaller - 1))) if smaller > 1 else 0.0
