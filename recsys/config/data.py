"""Where a run's data come from: files, or the views of a Feast repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from features.tables import ITEM, TIMESTAMP, USER, EventColumns
from recsys.config.base import Section

__all__ = ["DataConfig", "EntityColumnsConfig", "EventColumnsConfig", "FeastConfig"]


class EventColumnsConfig(Section):
    """Which columns of the event file play which role."""

    user: str = USER
    item: str = ITEM
    timestamp: str = TIMESTAMP
    event: str | None = None
    weight: str | None = None
    created: str | None = None
    event_id: str | None = None
    timestamp_unit: Literal["s", "ms", "us", "iso"] = "s"
    default_event: str = "interaction"

    def to_event_columns(self) -> EventColumns:
        """The same mapping as the value type the readers take."""
        values = self.model_dump()
        return EventColumns(unit=values.pop("timestamp_unit"), **values)


class EntityColumnsConfig(Section):
    """Columns of the item or user file; a role that is not named is found from the values."""

    id: str | None = None
    title: str | None = None
    text: tuple[str, ...] | None = None
    category: tuple[str, ...] | None = None
    list: tuple[str, ...] | None = None
    list_separator: Annotated[str, Field(min_length=1)] = "|"

    def to_options(self, default_id: str) -> dict[str, Any]:
        """Keyword arguments for `features.read_items` and `features.read_users`."""
        return {
            "id_column": self.id or default_id,
            "text_columns": self.text,
            "category_columns": self.category,
            "list_columns": self.list,
            "list_separator": self.list_separator,
        }


class FeastConfig(Section):
    """A Feast repository; a view that is not named is found by its keys.

    Attributes:
        as_of: which rows describe items and users. "training_end": the newest that were known when
            the training part ends. "now": the newest there are, for views whose rows are dated
            when they were written and not when they began to hold.
    """

    repository: Path
    events: str | None = None
    items: str | None = None
    users: str | None = None
    as_of: Literal["training_end", "now"] = "training_end"


class DataConfig(Section):
    """The files a run reads, or the Feast repository; paths are relative to the configuration."""

    events: Path | None = None
    items: Path | None = None
    users: Path | None = None
    feast: FeastConfig | None = None
    columns: EventColumnsConfig = EventColumnsConfig()
    item_columns: EntityColumnsConfig = EntityColumnsConfig()
    user_columns: EntityColumnsConfig = EntityColumnsConfig()

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
        missing = [name for name in ("events", "items") if files[name] is None]
        if self.feast is None and missing:
            named = " and ".join(f"'data.{name}'" for name in missing)
            raise ValueError(
                f"missing setting {named}; name the files, or a Feast repository in [data.feast]"
            )
        return self

    @model_validator(mode="after")
    def _keys_of_views(self) -> Self:
        if self.feast is None:
            return self
        entities = {"item_columns": self.item_columns, "user_columns": self.user_columns}
        given = [f"'data.{name}.id'" for name, columns in entities.items() if columns.id]
        if "timestamp" in self.columns.model_fields_set:
            given.append("'data.columns.timestamp'")
        if given:
            raise ValueError(
                f"ids and times of views are those of the registry, got {', '.join(given)} beside "
                "'data.feast'; leave out what is not data.columns.user or data.columns.item"
            )
        return self

    @property
    def shown(self) -> str:
        """What is read, for a message."""
        if self.feast is not None:
            return f"the Feast repository {self.feast.repository.name or self.feast.repository}"
        return ", ".join(path.name for path in (self.events, self.items, self.users) if path)

    def below(self, directory: Path) -> Self:
        """The same with paths that are relative taken from ``directory``."""
        names = ("events", "items", "users")
        found: dict[str, Any] = {
            name: directory / path for name in names if (path := getattr(self, name)) is not None
        }
        if self.feast is not None:
            repository = directory / self.feast.repository
            found["feast"] = self.feast.model_copy(update={"repository": repository})
        return self.model_copy(update=found)
