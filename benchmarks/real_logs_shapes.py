"""The shapes of file in which `real_logs` writes its world, and what is compared of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import polars as pl
import real_logs_files as files
from real_logs_files import ALL, NO_KIND, Arguments, World

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True)
class Shape:
    """A way to write the world.

    Attributes:
        name: what it is called in the table.
        write: writes it into the working directory and says what `recsys init` is called with.
        keeps: columns of the log that nothing is lost of.
        same: whether the metric must be that of the plain shape: nothing at all is lost.
        kinds: kind of event as it is written -> as it is in the world.
        only: kind of event; of other kinds there may be more rows than in the world.
        ordered: times are an order alone, and the order of each user's items is compared.
        dropped: rows that are no events, which `validate` must count.
        as_of: what is compared in place of the world's events.
    """

    name: str
    write: Callable[[World], Arguments]
    keeps: tuple[str, ...] = ALL
    same: bool = True
    kinds: Mapping[str, str] | None = None
    only: str | None = None
    ordered: bool = False
    dropped: int = 0
    as_of: Callable[[World], pl.DataFrame] = lambda world: world.events


def _zeros(column: str) -> pl.Expr:
    return pl.col(column).str.slice(1).alias(column)


def _coded(world: World) -> World:
    """Ids that are digits with zeros before them."""
    events = world.events.with_columns(_zeros("user_id"), _zeros("item_id"))
    return World(events, world.items.with_columns(_zeros("item_id")))


def _seconds(log: pl.DataFrame, kind: pl.DataType, times: int = 1) -> pl.DataFrame:
    return log.with_columns((pl.col("timestamp") * times).cast(kind))


_RENAMED = {"PageView": "view", "order_done": "purchase"}
_BACK = {new: old for old, new in _RENAMED.items()}

SHAPES: tuple[Shape, ...] = (
    Shape("plain CSV", files.csv),
    Shape("tabs", partial(files.csv, events="events.tsv", items="items.tsv", separator="\t")),
    Shape("semicolons", partial(files.csv, separator=";")),
    Shape("bars", partial(files.csv, separator="|", quote_style="non_numeric")),
    Shape("two colons, no header", files.double_colon),
    Shape("all quoted", partial(files.csv, quote_style="always")),
    Shape("UTF-16", partial(files.encoded, encoding="utf-16")),
    Shape("Latin-1", partial(files.encoded, encoding="latin-1")),
    Shape("gzip", partial(files.packed, suffix="gz")),
    Shape("zstd", partial(files.packed, suffix="zst")),
    Shape("no header", partial(files.csv, include_header=False)),
    Shape("JSON lines", files.json_lines),
    Shape("JSON array, nested", files.nested),
    Shape("Parquet", files.parquet),
    Shape("directory of Parquet", partial(files.parts, form="directory")),
    Shape("Hive partitions", partial(files.parts, form="hive")),
    Shape("pattern of CSV", partial(files.parts, form="glob")),
    Shape("RecBole", files.recbole),
    Shape("ISO with zone", files.time("%Y-%m-%d %H:%M:%S+00")),
    Shape("ISO, T and Z", files.time("%Y-%m-%dT%H:%M:%SZ")),
    Shape("ISO, basic form", files.time("%Y%m%dT%H%M%S")),
    Shape("day first", files.time("%d/%m/%Y %H:%M:%S")),
    Shape("month first, 12 hours", files.time("%m/%d/%Y %I:%M:%S %p")),
    Shape("Twitter's time", files.time("%a %b %d %H:%M:%S +0000 %Y")),
    Shape("milliseconds", files.changed(lambda log: _seconds(log, pl.Int64(), 1_000))),
    Shape("microseconds", files.changed(lambda log: _seconds(log, pl.Int64(), 1_000_000))),
    Shape("float seconds", files.changed(lambda log: _seconds(log, pl.Float64()))),
    Shape("index of pandas", files.changed(lambda log: log.with_row_index(""))),
    Shape("named index", files.changed(lambda log: log.with_row_index("Unnamed: 0"))),
    Shape("odd names", files.odd_names),
    Shape("other order", files.changed(lambda log: log.select(reversed(log.columns)))),
    Shape("session beside user", files.changed(files.with_session)),
    Shape(
        "odd kinds",
        files.changed(lambda log: log.with_columns(pl.col("event").replace(_BACK))),
        kinds=_RENAMED,
    ),
    Shape("impressions", files.impressions, NO_KIND, False, only="click", as_of=files.bought),
    Shape("impressions, header", partial(files.impressions, header=True), NO_KIND, False,
          only="click", as_of=files.bought),
    Shape("sequences", files.sequences, ALL[:2], same=False, ordered=True, as_of=files.viewed),
    Shape("lists, bars", partial(files.lists, form="bar")),
    Shape("lists, JSON in CSV", partial(files.lists, form="json")),
    Shape("lists, Parquet", partial(files.lists, form="parquet")),
    Shape("objects of a user, JSON", partial(files.lists, form="objects")),
    Shape("matrix", files.matrix, ALL[:2], same=False,
          as_of=lambda world: world.events.filter(pl.col("event") == "view")),
    Shape("order lines", partial(files.order_lines, clock=True)),
    Shape("order lines, no clock", partial(files.order_lines, clock=False),
          ("user_id", "item_id", "event"), same=False, ordered=True),
    Shape("properties of items", files.properties),
    Shape("no items file", files.no_items, same=False),
    Shape("users file", files.users, same=False),
    Shape("marks of no value", files.marks, dropped=3),
    Shape("repeated header", files.repeated_header, dropped=1),
    Shape("returns", files.returns, dropped=2),
    Shape("file:// URL", partial(files.url, scheme="file")),
    Shape("memory:// URL", partial(files.url, scheme="memory")),
    Shape("ids with zeros", lambda world: files.csv(_coded(world)), same=True,
          as_of=lambda world: _coded(world).events),
    Shape("dates alone", files.time("%Y-%m-%d"), ("user_id", "item_id", "event"), same=False),
)  # fmt: skip
