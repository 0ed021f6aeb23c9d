"""The first ranking stage where nothing could be learned: what the retrievers agree on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from recsys.files.headers import read_header, write_header

__all__ = ["ShareFusion"]

FORMAT = 1


class ShareFusion:
    """Sums what share of its best candidate's score each retriever gives a candidate.

    A retriever that knows nothing of a user gives all candidates the same, and decides nothing.

    Args:
        feature_names: the columns, in order.
        shares: those of them that are summed.

    Raises:
        ValueError: a share is no column.

    Source: Fox and Shaw, Combination of Multiple Searches, TREC-2, 1994 (CombSUM).
    """

    def __init__(self, feature_names: Sequence[str], shares: Sequence[str]) -> None:
        unknown = [name for name in shares if name not in feature_names]
        if unknown or not shares:
            raise ValueError(
                f"shares must be among the features {', '.join(feature_names)}, got "
                f"{', '.join(unknown) or 'none'}"
            )
        self.feature_names = tuple(feature_names)
        self.shares = tuple(shares)
        self._columns = [self.feature_names.index(name) for name in shares]

    def compile(self) -> None:
        """Nothing is to be made faster."""

    def predict(self, features: np.ndarray, *, num_trees: int | None = None) -> np.ndarray:
        """[R] float64 scores of [R, F] features; a missing share is 0.

        Args:
            features: columns as in ``feature_names``.
            num_trees: there are none; ignored.

        Raises:
            ValueError: another number of columns.
        """
        return np.asarray(self._parts(features).sum(axis=1))

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """[R, F + 1] float64: what each feature adds to each score, and last what none does."""
        found = np.zeros((len(features), len(self.feature_names) + 1))
        found[:, self._columns] = self._parts(features)
        return found

    def importance(self) -> dict[str, float]:
        """1 for each share: all count the same."""
        return dict.fromkeys(self.shares, 1.0)

    def save(self, directory: Path) -> None:
        """Write ``fusion.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        header = {"feature_names": list(self.feature_names), "shares": list(self.shares)}
        write_header(directory / "fusion.json", FORMAT, header)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is none.
            ArtifactError: the file is damaged or of another format.
        """
        header = read_header(directory / "fusion.json", FORMAT, remedy="train again")
        return cls(header["feature_names"], header["shares"])

    def _parts(self, features: np.ndarray) -> np.ndarray:
        if features.ndim != 2 or features.shape[1] != len(self.feature_names):
            raise ValueError(
                f"features must be [R, {len(self.feature_names)}], got shape {features.shape}"
            )
        return np.nan_to_num(features[:, self._columns].astype(np.float64))
