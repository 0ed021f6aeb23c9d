"""The feature definitions of a bundle with the tables they read, without its models."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from features.computation import FeatureComputer
from features.computation.declarations import load_definitions
from features.tables import ItemTable, UserTable, Vocabulary
from recsys.config.features import CONTENT
from recsys.dataset.definitions import USER_COLUMNS
from recsys.errors import ArtifactError
from recsys.files.headers import read_header
from recsys.files.mapped_arrays import map_arrays

__all__ = ["read_computer"]


def read_computer(bundle: Path) -> FeatureComputer:
    """What computes the features of a bundle's ranker.

    Raises:
        ArtifactError: a file is missing, or of another vocabulary.
    """
    try:
        header = read_header(bundle / "recommender.json", 1, remedy="run `recsys train`")
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no recommender in {bundle}: recommender.json is missing; run `recsys train`"
        ) from error
    item_ids = Vocabulary.load(bundle / "data" / "items.parquet")
    if item_ids.sha256 != header["items_sha256"]:
        raise ArtifactError(
            f"{bundle}/data/items.parquet is not the vocabulary the models were trained with; "
            "restore the bundle"
        )
    items = ItemTable(
        pl.read_parquet(bundle / "data" / "catalogue.parquet"),
        **{role: tuple(columns) for role, columns in header["item_columns"].items()},
    )
    content = map_arrays(bundle / "content" / "vectors.safetensors")["vectors"]
    return FeatureComputer(
        load_definitions(json.loads((bundle / "features" / "definitions.json").read_text())),
        items,
        _read_user_columns(bundle),
        {CONTENT: (item_ids, content)},
    )


def _read_user_columns(bundle: Path) -> UserTable | None:
    """What definitions read of the user table, newest first; None where they read nothing."""
    for part in ("candidates", "features"):
        path = bundle / part / USER_COLUMNS
        if path.is_file():
            return UserTable(pl.read_parquet(path))
    return None
