"""The first ranking stage: LightGBM LambdaMART."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header
from recsys.ranking.options import GbdtOptions

if TYPE_CHECKING:
    import lightgbm

    from recsys.ranking.quick_scorer import QuickScorer

__all__ = ["GbdtRanker"]

FORMAT = 1
_ONE_THREAD = 4096
"""Rows up to which further threads cost more than they bring, beside other requests above all."""


class GbdtRanker:
    """Scores rows of features; higher is better within a request.

    Attributes:
        feature_names: the columns, in order.

    Source: Burges, From RankNet to LambdaRank to LambdaMART, 2010, as LightGBM's ``lambdarank``.
    """

    def __init__(self, booster: lightgbm.Booster, feature_names: Sequence[str]) -> None:
        self._booster = booster
        self._scorer: QuickScorer | None = None
        self.feature_names = tuple(feature_names)

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        label: np.ndarray,
        request_index: np.ndarray,
        *,
        feature_names: Sequence[str],
        options: GbdtOptions | None = None,
        gains: Sequence[float] | None = None,
        seed: int = 0,
    ) -> Self:
        """Grow the trees.

        Args:
            features: [R, F] float32; NaN = missing.
            label: [R] int, gain 2**label - 1; requests without a positive teach nothing.
            request_index: [R] int, never falling: rows of one request stand together.
            feature_names: [F].
            options: None: the defaults.
            gains: what labels 1, 2, ... are worth where pairs are weighed. None: 2 ** label - 1.
            seed: of bagging and feature sampling; same seed, same trees.

        Raises:
            ValueError: shapes disagree, request_index falls, or no row has a positive label.
        """
        import lightgbm

        options = options or GbdtOptions()
        rows = features.shape[0]
        if features.ndim != 2 or features.shape[1] != len(feature_names):
            raise ValueError(
                f"features must be [R, F] with F = {len(feature_names)}, got {features.shape}"
            )
        if label.shape != (rows,) or request_index.shape != (rows,):
            raise ValueError(
                f"label and request_index must be [R] with R = {rows}, got {label.shape} and "
                f"{request_index.shape}"
            )
        if rows == 0 or not bool((label > 0).any()):
            raise ValueError(
                "label must have a positive somewhere, got none; are the targets among the "
                "candidates? raise ranking.candidates_per_source"
            )
        if bool((np.diff(request_index) < 0).any()):
            raise ValueError("request_index must not fall; sort the rows by request")
        _, group = np.unique(request_index, return_counts=True)
        values = dict(options)
        num_trees = values.pop("num_trees")
        parameters = {
            **values,
            "objective": "lambdarank",
            "lambdarank_truncation_level": values.pop("truncation_level"),
            "bagging_freq": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }
        parameters.pop("truncation_level")
        if gains is not None:
            parameters["label_gain"] = [0.0, *gains]
        data = lightgbm.Dataset(
            features,
            label,
            group=group,
            # LightGBM refuses characters of JSON in names; `gbdt.json` says which column is which.
            feature_name=[f"f{column}" for column in range(len(feature_names))],
            free_raw_data=True,
        )
        return cls(lightgbm.train(parameters, data, num_trees), feature_names)

    def compile(self) -> None:
        """Make `predict` many times as fast, for a second or two now; no score changes.

        Does nothing for trees that `recsys.ranking.quick_scorer.QuickScorer` does not know.
        """
        from recsys.ranking.quick_scorer import QuickScorer

        self._scorer = QuickScorer.of(self._booster)
        if self._scorer is not None:
            self._scorer(np.zeros((1, len(self.feature_names)), dtype=np.float32))

    def predict(self, features: np.ndarray, *, num_trees: int | None = None) -> np.ndarray:
        """[R] float64 scores of [R, F] features.

        Args:
            features: columns as in ``feature_names``.
            num_trees: use only the first so many. None: all.

        Raises:
            ValueError: another number of columns.
        """
        if features.ndim != 2 or features.shape[1] != len(self.feature_names):
            raise ValueError(
                f"features must be [R, {len(self.feature_names)}], got shape {features.shape}"
            )
        if features.shape[0] == 0:
            return np.empty(0)
        if self._scorer is not None and num_trees is None:
            return self._scorer(features)
        threads = {"num_threads": 1} if len(features) <= _ONE_THREAD else {}
        return np.asarray(self._booster.predict(features, num_iteration=num_trees, **threads))

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """[R, F + 1] float64: what each feature adds to each score, and last what none does.

        Args:
            features: as for `predict`.
        """
        return np.asarray(self._booster.predict(features, pred_contrib=True))

    def importance(self) -> dict[str, float]:
        """Total gain of each feature, largest first."""
        gain = self._booster.feature_importance("gain")
        order = np.argsort(-gain, kind="stable")
        return {self.feature_names[i]: float(gain[i]) for i in order}

    def save(self, directory: Path) -> None:
        """Write ``gbdt.txt`` (LightGBM's own text) and ``gbdt.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        text = self._booster.model_to_string()  # its own writing tells no full disk
        (directory / "gbdt.txt").write_text(text, encoding="utf-8")
        header = {"feature_names": list(self.feature_names)}
        write_header(directory / "gbdt.json", FORMAT, header)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or of another format.
        """
        import lightgbm

        try:
            header = read_header(directory / "gbdt.json", FORMAT, remedy="train again")
            text = (directory / "gbdt.txt").read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ArtifactError(
                f"no trees in {directory}: {Path(str(error.filename)).name} is missing; train again"
            ) from error
        return cls(lightgbm.Booster(model_str=text), header["feature_names"])
