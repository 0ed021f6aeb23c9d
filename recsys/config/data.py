"""Where a run's data come from: files, or the views of a Feast repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetPydanticSchema, model_validator
from pydantic_core import core_schema

from features.tables import CREATED, EventColumns
from features.tables.layouts import Layout, Unfolding
from features.tables.reading import (
    BadRows,
    Compression,
    FileFormat,
    ReadOptions,
    is_url,
    location,
)
from features.tables.rules import (
    EventRules,
    Missing,
    NegativeQuantity,
    Repeats,
    SameTime,
    Undescribed,
)
from features.tables.times import TimeUnit
from recsys.settings import Natural, Settings

__all__ = [
    "FILES",
    "DataConfig",
    "EntityColumnsConfig",
    "EventColumnsConfig",
    "FeastConfig",
    "ReadConfig",
    "ReadConfigs",
    "RulesConfig",
    "UnfoldConfig",
]

FILES = ("events", "items", "users", "orders")
"""Settings of `DataConfig` that name a file: relative to the configuration, no part of a model."""


def _path_or_url(value: Any, as_path: Callable[[Any], Path]) -> Path | str:
    return value if isinstance(value, str) and is_url(value) else as_path(value)


Location = Annotated[
    Path | str,
    GetPydanticSchema(
        lambda kind, handler: core_schema.no_info_wrap_validator_function(
            _path_or_url,
            handler(Path),
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, when_used="json-unless-none"
            ),
        )
    ),
]
"""A path, or text that is a URL such as ``s3://bucket/events.csv``."""


class EventColumnsConfig(Settings):
    """Which columns of the event file play which role."""

    user: str = EventColumns.user
    """Column of the user's id."""
    item: str = EventColumns.item
    """Column of the item's id."""
    timestamp: str = EventColumns.timestamp
    """Column of when it happened."""
    event: str | None = EventColumns.event
    """Column of the kind of event. Not said: "event" if there is one; "": all are of one kind."""
    weight: str | None = EventColumns.weight
    """Column of how much an event counts. Not said: "weight" if there is one; "": all count 1."""
    created: str | None = EventColumns.created
    """Column of when the row was written, for late events."""
    event_id: str | None = EventColumns.event_id
    """Column of an id of the event; two rows of one id are one event."""
    order: str | None = EventColumns.order
    """Column of the id of an order, basket or session: its lines are one moment, that of the
    first."""
    quantity: str | None = EventColumns.quantity
    """Column of how many; below 0 it is a return."""
    timestamp_unit: TimeUnit = EventColumns.unit
    """Unit of numbers in the timestamp column, since 1970 UTC; "iso" for ISO 8601 text, "order" for
    numbers that only say what came first, "none" where no column does."""
    timestamp_format: str | None = EventColumns.format
    """How the timestamp is written otherwise, as strftime has it: "%d/%m/%Y %H:%M"."""
    default_event: str = EventColumns.default_event
    """Kind of an event where no column says it."""

    def to_event_columns(self) -> EventColumns:
        """The same mapping as the value type the readers take."""
        values = self.model_dump()
        unit, format = values.pop("timestamp_unit"), values.pop("timestamp_format")
        return EventColumns(unit=unit, format=format, **values)

    @model_validator(mode="after")
    def _times_go_together(self) -> Self:
        arrival = self.created and CREATED
        EventColumns(unit=self.timestamp_unit, format=self.timestamp_format, created=arrival)
        return self


class EntityColumnsConfig(Settings):
    """Columns of the item or user file; a role that is not named is found from the values."""

    id: str | None = None
    """Column of the id. Not said: item_id or user_id."""
    title: str | None = None
    """Column that is shown to people."""
    text: tuple[str, ...] | None = None
    """Columns of running text."""
    category: tuple[str, ...] | None = None
    """Columns of one category a row."""
    list: tuple[str, ...] | None = None
    """Columns of several categories a row."""
    list_separator: Annotated[str, Field(min_length=1)] = "|"
    """What stands between them where a list is text."""

    def to_options(self, default_id: str) -> dict[str, Any]:
        """Keyword arguments for `features.read_items` and `features.read_users`."""
        return {
            "id_column": self.id or default_id,
            "text_columns": self.text,
            "category_columns": self.category,
            "list_columns": self.list,
            "list_separator": self.list_separator,
        }


class RulesConfig(Settings):
    """What the rows of the log mean, where they do not all count the same."""

    targets: tuple[str, ...] = EventRules.targets
    """Kinds of event that are to be predicted; the others are history alone. Not said: all that
    weigh above 0."""
    positive: str | None = EventRules.positive
    """Condition on the weight column, such as ">= 4": only such rows are likes."""
    negative: str | None = EventRules.negative
    """Condition on the weight column, such as "< 0": such rows are dislikes."""
    negative_quantity: NegativeQuantity = EventRules.negative_quantity
    """A row of a quantity below 0 takes back what its user bought before, or is left out."""
    missing: Missing = EventRules.missing
    """Rows without user, item, time, kind or weight are a problem, or left out."""
    repeats: Repeats = EventRules.repeats
    """Rows of one user, item, time and kind are a problem, one event of their summed weight, the
    first of them, or as many events."""
    undescribed: Undescribed = EventRules.undescribed
    """Events of items without a row are a problem, make a row without values, or are left out."""
    same_time: SameTime = EventRules.same_time
    """Events of a user at one time are one moment, of which none came before another, or their
    order is drawn at random and they are divided."""


class ReadConfig(Settings):
    """How one of the files is written; what is not said is found from its first block."""

    format: FileFormat | None = ReadOptions.format
    """How rows are written: cells with a separator, an object of JSON a line, one array of objects,
    or Parquet."""
    separator: str | None = ReadOptions.separator
    """What stands between cells: one character, or "::"."""
    quote: str | None = ReadOptions.quote
    """What stands around a cell that holds a separator. "": nothing does."""
    encoding: str | None = ReadOptions.encoding
    """Encoding of the text, such as "utf-8", "utf-16" or "latin-1"."""
    header: bool | None = ReadOptions.header
    """Whether the first row names the columns; else they are column_1, column_2 and so on."""
    compression: Compression | None = ReadOptions.compression
    """How a file of text is compressed."""
    skip_lines: Natural | None = ReadOptions.skip_lines
    """Lines of text before the first row, such as comments."""
    missing: tuple[str, ...] = ReadOptions.missing
    """Cells of text that mean no value, such as "NA"; empty cells always do."""
    bad_rows: BadRows = ReadOptions.bad_rows
    """A row that cannot be read: refuse the file, or drop such rows and count them."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self.to_read_options()
        return self

    def to_read_options(self) -> ReadOptions:
        """The same as the value type the reader takes."""
        return ReadOptions(**self.model_dump())


class ReadConfigs(Settings):
    """How the files are written, for each of them."""

    events: ReadConfig = ReadConfig()
    """The log."""
    items: ReadConfig = ReadConfig()
    """The items."""
    users: ReadConfig = ReadConfig()
    """The users."""
    orders: ReadConfig = ReadConfig()
    """The orders."""


class UnfoldConfig(Settings):
    """What a layout other than plain rows is unfolded from; what is not said is found."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the plain rows = column of the file that it is made of, such as
    item_id = "item_ids"."""
    lists: tuple[str, ...] = Unfolding.lists
    """Columns of the layout "lists" that hold several values a cell and are taken apart
    together."""
    separator: str | None = Unfolding.separator
    """What stands between the values of a cell or of a line; " " is any white space, "json" a list
    of JSON."""
    missing: tuple[float, ...] = Unfolding.missing
    """Values of a matrix that mean that there was no event."""
    properties: tuple[str, ...] = Unfolding.properties
    """Properties of items that become columns. Not said: the 64 that most items have."""


class FeastConfig(Settings):
    """A Feast repository; a view that is not named is found by its keys."""

    repository: Path
    """Directory of feature_store.yaml."""
    events: str | None = None
    """View of the log."""
    items: str | None = None
    """View of the items."""
    users: str | None = None
    """View of the users."""
    as_of: Literal["training_end", "now"] = "training_end"
    """Which rows describe items and users: the newest that were known when the training part ends,
    or the newest there are, for views whose rows are dated when they were written and not when they
    began to hold."""


class DataConfig(Settings):
    """The files a run reads, or the Feast repository; paths are relative to the configuration."""

    events: Location | None = None
    """File of the log, a directory of such files, or a pattern such as "log/*.parquet"; or a URL
    of such, as "s3://bucket/log.parquet"."""
    items: Location | None = None
    """The same of the items. Not said: the items are those of the log, described by those of its
    columns that [data.item_columns] names."""
    users: Location | None = None
    """The same of the users. Not said: nothing is known of them."""
    feast: FeastConfig | None = None
    """A Feast repository instead of files."""
    orders: Path | None = None
    """File that says whose an order is and when it was, of the layout "order_lines"."""
    layout: Layout = Unfolding.layout
    """What a row of the log is. "rows": an event. "impressions": what was shown at once.
    "sequences": a user, then items in their order. "lists": several events, in cells of several
    values. "matrix": a user, with a column for each item. "order_lines": an item of an order."""
    unfold: UnfoldConfig = UnfoldConfig()
    """How rows of another layout become events."""
    item_layout: Literal["rows", "properties"] = "rows"
    """What a row of the items is. "rows": an item. "properties": one property of an item, as it was
    from one time on; the newest that was known when the training part ends counts."""
    item_unfold: UnfoldConfig = UnfoldConfig()
    """How rows of properties become items."""
    read: ReadConfigs = ReadConfigs()
    """How the files are written, where that is not to be found anew."""
    columns: EventColumnsConfig = EventColumnsConfig()
    """Which columns of the log play which role."""
    kinds: dict[str, float] = Field(default_factory=dict)
    """Kind of event = its weight: above 0 a like that counts so much, 0 nothing, below 0 a dislike.
    Not said: all kinds count 1."""
    rules: RulesConfig = RulesConfig()
    """What the rows of the log mean."""
    item_columns: EntityColumnsConfig = EntityColumnsConfig()
    """Which columns of the items play which role."""
    user_columns: EntityColumnsConfig = EntityColumnsConfig()
    """Which columns of the users play which role."""

    @model_validator(mode="after")
    def _files_or_views(self) -> Self:
        files = {"events": self.events, "items": self.items, "users": self.users}
        given = [name for name, path in files.items() if path is not None]
        if self.feast is not None and given:
            named = ", ".join(f"'data.{name}'" for name in given)
            raise ValueError(
                f"'data.feast' must not stand beside files, got {named}; views are named in "
                "[data.feast]"
            )
        if self.feast is None and self.events is None:
            raise ValueError(
                "missing setting 'data.events'; name the file of the log, or a Feast repository in "
                "[data.feast]"
            )
        if self.feast is None and self.items is None and self.item_columns.id:
            raise ValueError(
                f"'data.item_columns.id' must not stand without 'data.items', got "
                f"{self.item_columns.id!r}; name the file of the items, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _layouts_fit(self) -> Self:
        if self.layout == "properties":
            raise ValueError(
                "'data.layout' must be a layout of events, got 'properties', which is one of items;"
                " set data.item_layout"
            )
        if (self.layout == "order_lines") != (self.orders is not None):
            raise ValueError(
                "'data.orders' must name the file of the orders where 'data.layout' is "
                f"'order_lines' and only there, got {self.orders and str(self.orders)!r} with "
                f"layout {self.layout!r}"
            )
        if self.feast is not None and (self.layout, self.item_layout) != ("rows", "rows"):
            raise ValueError(
                "'data.layout' and 'data.item_layout' are of files and must not stand beside "
                "'data.feast'; remove them"
            )
        return self

    @model_validator(mode="after")
    def _keys_of_views(self) -> Self:
        if self.feast is None:
            return self
        entities = {"item_columns": self.item_columns, "user_columns": self.user_columns}
        given = [f"'data.{name}.id'" for name, columns in entities.items() if columns.id]
        given += [
            f"'data.columns.{name}'"
            for name in ("timestamp", "timestamp_format")
            if name in self.columns.model_fields_set
        ]
        if self.columns.timestamp_unit in ("order", "none"):
            given.append("'data.columns.timestamp_unit'")
        if self.read != ReadConfigs():
            raise ValueError(
                "'data.read' says how files are written and must not stand beside 'data.feast'; "
                "remove one"
            )
        if given:
            raise ValueError(
                f"ids and times of views are those of the registry, got {', '.join(given)} beside "
                "'data.feast'; leave out what is not data.columns.user or data.columns.item"
            )
        return self

    @model_validator(mode="after")
    def _rules_go_together(self) -> Self:
        self.to_event_rules()
        return self

    def target_weights(self) -> tuple[float, ...] | None:
        """Different weights of the kinds that are predicted, rising; None: they weigh the same."""
        wanted = self.rules.targets or tuple(self.kinds)
        weights = sorted({self.kinds[one] for one in wanted if self.kinds.get(one, 0.0) > 0})
        return tuple(weights) if len(weights) > 1 else None

    @property
    def takes_back(self) -> bool:
        """Whether rows of the log take back what was bought before."""
        return self.columns.quantity is not None and self.rules.negative_quantity == "cancel"

    def to_event_rules(self) -> EventRules:
        """Kinds and rules as the value type the tables take."""
        return EventRules(kinds=self.kinds, **dict(self.rules))

    def to_unfolding(self) -> Unfolding:
        """How the log is unfolded, as the value type that the tables take."""
        orders = {"orders": self.orders, "read_orders": self.read.orders.to_read_options()}
        return Unfolding(self.layout, **dict(self.unfold), **orders)  # type: ignore[arg-type]

    def to_item_unfolding(self) -> Unfolding:
        """The same of the items."""
        return Unfolding(self.item_layout, **dict(self.item_unfold))

    @property
    def shown(self) -> str:
        """What is read, for a message."""
        if self.feast is not None:
            return f"the Feast repository {self.feast.repository.name or self.feast.repository}"
        return ", ".join(
            location(path).name for path in (self.events, self.items, self.users) if path
        )

    def below(self, directory: Path) -> Self:
        """The same with paths that are relative taken from ``directory``."""
        found: dict[str, Any] = {
            name: directory / path
            for name in FILES
            if isinstance(path := getattr(self, name), Path)  # a URL is no path
        }
        if self.feast is not None:
            repository = directory / self.feast.repository
            found["feast"] = self.feast.model_copy(update={"repository": repository})
        return self.model_copy(update=found)
