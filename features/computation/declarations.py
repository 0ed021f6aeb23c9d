"""Definitions to and from plain dicts (JSON, TOML)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from features.computation.kinds import KINDS
from features.definitions.columns import Definition
from features.definitions.sets import check_definitions, nearest
from features.errors import DataError

__all__ = ["definitions_sha256", "dump_definitions", "load_definitions", "make_definition"]


def dump_definitions(definitions: Sequence[Definition]) -> list[dict[str, Any]]:
    """One plain dict per definition: its kind and the arguments that differ from the defaults."""
    dumped = []
    for definition in definitions:
        record: dict[str, Any] = {"kind": definition.kind}
        for field in dataclasses.fields(definition):
            value = getattr(definition, field.name)
            if value != field.default:
                record[field.name] = list(value) if isinstance(value, tuple) else value
        dumped.append(record)
    return dumped


def load_definitions(records: Sequence[Mapping[str, Any]]) -> tuple[Definition, ...]:
    """The definitions that `dump_definitions` or a person wrote.

    Raises:
        DataError: an unknown kind or argument (the message names the nearest known one), a
            missing argument, a value out of range, or a name used twice.
    """
    return check_definitions([make_definition(record) for record in records])


def make_definition(record: Mapping[str, Any]) -> Definition:
    """The definition of one record by itself.

    Raises:
        DataError: as `load_definitions`, but for names.
    """
    arguments = dict(record)
    label = f"definition {record.get('name', '?')!r}"
    kind = str(arguments.pop("kind", ""))
    if kind not in KINDS:
        raise DataError(f"{label}: unknown kind {kind!r}; {nearest(kind, KINDS)}")
    fields = {field.name: field for field in dataclasses.fields(KINDS[kind].definition)}
    for name in arguments:
        if name not in fields:
            raise DataError(f"{label}: {kind} has no {name!r}; {nearest(name, fields)}")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in arguments:
            raise DataError(f"{label}: {kind} needs {name!r}; add it")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in arguments.items()
    }
    return KINDS[kind].definition(**values)


def definitions_sha256(definitions: Sequence[Definition]) -> str:
    """Hex digest of the definitions in their order."""
    text = json.dumps(dump_definitions(definitions), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
