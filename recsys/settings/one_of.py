"""A setting that names an entry of a table; it is loaded only for a name that is not built in."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = ["OneOf"]


@dataclass(frozen=True)
class OneOf:
    """Stands in the annotation of a text that must be a key of a table.

    Entries that somebody else put into the table are known as well, so a loss or an index of one's
    own is configured by the name it has there.

    Attributes:
        table: "module:NAME" of the table; it may need libraries that a light verb does without.
        built_in: its keys, as the packages have them.
        besides: names that are no keys, of which whoever reads the setting makes one.
    """

    table: str
    built_in: tuple[str, ...]
    besides: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """All keys that the table has now, then what is known besides."""
        module, _, name = self.table.partition(":")
        table: Mapping[str, Any] = getattr(importlib.import_module(module), name)
        return (*table, *self.besides)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, value: str) -> str:
        if value in (*self.built_in, *self.besides) or value in (names := self.names()):
            return value
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        told = {"names": ", ".join(names), "hint": hint}
        raise PydanticCustomError("one_of", "must be one of {names}{hint}", told)
