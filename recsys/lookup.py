"""Choosing things by name: one literal dict per choice and this one function."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from recsys.errors import ConfigError

T = TypeVar("T")


def lookup(choices: Mapping[str, T], name: str, kind: str) -> T:
    """Return ``choices[name]``, or raise a `ConfigError` that lists what is known.

    Args:
        choices: the literal dict that holds the implementations.
        name: the key asked for.
        kind: what is being chosen, for the message ("loss", "index", ...).

    Raises:
        ConfigError: ``name`` is not a key of ``choices``.
    """
    try:
        return choices[name]
    except KeyError:
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(choices))
        raise ConfigError(f"unknown {kind} {name!r}; known: {known}{hint}") from None
