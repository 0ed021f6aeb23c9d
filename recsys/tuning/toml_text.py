"""TOML from plain values; the standard library only reads it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["to_toml"]

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


def to_toml(values: Mapping[str, Any]) -> str:
    """A TOML document of nested mappings; `tomllib.loads` gives them back.

    >>> print(to_toml({"seed": 1, "retrieval": {"loss": "bpr", "a.b": [1.0, True]}}))
    seed = 1
    <BLANKLINE>
    [retrieval]
    loss = "bpr"
    "a.b" = [1.0, true]
    <BLANKLINE>

    Args:
        values: text, finite numbers, booleans, lists of these, and mappings of all that. A list
            of mappings, not empty, becomes tables in double brackets.

    Raises:
        TypeError: something else, None included: TOML has no word for it.
        ValueError: a number is not finite.
    """
    return "\n".join(_lines(values, ())).lstrip("\n") + "\n"


def _lines(
    table: Mapping[str, Any], path: tuple[str, ...], *, headed: bool = False
) -> Iterator[str]:
    plain = {name: value for name, value in table.items() if not _holds_tables(value)}
    if path and not headed and (plain or not table):
        yield ""
        yield f"[{'.'.join(map(_key, path))}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_text(value)}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*path, name))
        elif _holds_tables(value):
            for one in value:
                yield ""
                yield f"[[{'.'.join(map(_key, (*path, name)))}]]"
                yield from _lines(one, (*path, name), headed=True)


def _holds_tables(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping)


def _key(name: str) -> str:
    return name if _BARE.match(name) else _quoted(name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"numbers of a configuration must be finite, got {value}")
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    raise TypeError(f"TOML takes text, numbers, true, false, lists and tables, got {value!r}")


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's; TOML wants this one character escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
