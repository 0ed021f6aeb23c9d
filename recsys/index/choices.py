"""The indexes by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.files.damage import telling_damage
from recsys.index.annoy import AnnoyIndex
from recsys.index.exact import ExactIndex
from recsys.index.files import read_description
from recsys.index.protocol import Index
from recsys.lookup import lookup

__all__ = ["INDEXES", "load_index", "make_index"]

INDEXES: dict[str, type[Index]] = {
    "exact": ExactIndex,
    "annoy": AnnoyIndex,
}
"""Name in ``retrieval.index`` -> the class. One more entry is one more index."""


def make_index(name: str, **settings: Any) -> Index:
    """An empty index of the kind ``name``; ``settings`` are its constructor's arguments.

    Raises:
        ConfigError: no index has this name.
    """
    return lookup(INDEXES, name, "index")(**settings)


def load_index(directory: Path) -> Index:
    """The index saved in ``directory``, of whatever kind it is.

    Raises:
        ArtifactError: there is no readable index.
        ConfigError: it is of a kind this version does not know.
    """
    kind = str(read_description(directory).get("kind"))
    index = lookup(INDEXES, kind, "index")
    with telling_damage(directory):
        return index.load(directory)
