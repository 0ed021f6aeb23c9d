"""The features of a run's ranker: their definitions, and the tables they are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from features.computation import FeatureComputer
from features.computation.declarations import definitions_sha256
from features.definitions import Definition
from features.errors import DataError
from features.tables import UserTable
from recsys.config import Config
from recsys.config.features import CONTENT
from recsys.dataset import Dataset
from recsys.dataset.definitions import (
    USER_COLUMNS,
    definitions_problems,
    describe_definitions,
    ranker_definitions,
    user_columns,
)
from recsys.dataset.run_data import table_fingerprint
from recsys.files.provenance import fingerprint
from recsys.pipeline.lineage import Lineage

__all__ = ["RankerFeatures"]


@dataclass(frozen=True, eq=False)
class RankerFeatures:
    """What a run computes for its ranker.

    Attributes:
        definitions: those of the configuration; of the bundle where its ranker stays.
        users: what they read of the user table; None: nothing.
        data: the run's.
    """

    definitions: tuple[Definition, ...]
    users: UserTable | None
    data: Dataset

    @classmethod
    def of_run(cls, config: Config, data: Dataset, lineage: Lineage) -> Self:
        """The features of a run, checked against its tables before anything is trained.

        Raises:
            DataError: definitions read what the tables do not have; lists all of them.
        """
        definitions = lineage.definitions()
        source = f"bundle {lineage.start.id}" if lineage.start is not None else ""
        if definitions is None:
            definitions = ranker_definitions(config, data.items)
            source = str(describe_definitions(config, definitions)["source"])
        problems = definitions_problems(
            definitions, data.items, data.users, source=source, dim=config.content.dim
        )
        if problems:
            raise DataError(problems=problems)
        return cls(definitions, user_columns(data.users, definitions), data)

    def fingerprint(self) -> str:
        """Sha256 (hex) of the definitions and of the user columns; the rest is the data's."""
        users = None if self.users is None else table_fingerprint(self.users.frame)
        return fingerprint(definitions_sha256(self.definitions), users)

    def computer(self, content: np.ndarray) -> FeatureComputer:
        """The definitions over the run's tables.

        Args:
            content: [N + 1, D] vectors.
        """
        vectors = {CONTENT: (self.data.item_ids, content)}
        return FeatureComputer(self.definitions, self.data.items, self.users, vectors)

    def save_users(self, directory: Path) -> None:
        """Write what a live request needs of the user table."""
        if self.users is not None:
            self.users.frame.write_parquet(directory / USER_COLUMNS)
