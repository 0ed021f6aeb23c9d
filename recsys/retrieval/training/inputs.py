"""What the two towers are trained on, in one object that can cross processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from features.tables import Histories
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.towers import TwoTowerRetriever

__all__ = ["TrainingInputs"]

_KIND = "two_tower_inputs"


@dataclass(frozen=True, eq=False)
class TrainingInputs:
    """What the towers are trained on.

    Attributes:
        histories: the training events of U users; the target of an example is one event, its
            query the same user's strictly older events.
        num_items: N.
        content: [N + 1, content_dim] float32, row 0 zero. None: no content.
        prefix_tokens: [N + 1, L] int64 Semantic-ID prefix tokens, row 0 zero. None: none.
        num_prefix_tokens: largest token the table must hold; 0 without ``prefix_tokens``.
        validation: held-out events of the same users, row by row. None: no early stopping.
        fields: [N + 1, F] int64 tokens of the items' categorical fields, row 0 zero. None: none.
        num_field_tokens: largest token of ``fields``; 0 without them.
        start: the model to begin from; its items and users are the first rows of these. None:
            fresh weights.
        frozen_items: train only what makes queries; needs ``start``.
        old: an older model whose vectors the new ones must stay comparable with; its items and
            users are the first rows of these. None: none.

    Raises:
        ValueError: shapes disagree, row 0 is not zero, or a model does not fit.
    """

    histories: Histories
    num_items: int
    content: np.ndarray | None = None
    prefix_tokens: np.ndarray | None = None
    num_prefix_tokens: int = 0
    validation: Histories | None = None
    fields: np.ndarray | None = None
    num_field_tokens: int = 0
    start: TwoTowerRetriever | None = None
    frozen_items: bool = False
    old: TwoTowerRetriever | None = None

    def __post_init__(self) -> None:
        if not self.histories.item_index.size:
            raise ValueError("histories must hold at least one event to train on, got none")
        for name in ("content", "prefix_tokens", "fields"):
            table = getattr(self, name)
            if table is None:
                continue
            if table.ndim != 2 or len(table) != self.num_items + 1:
                raise ValueError(
                    f"{name} must be [{self.num_items + 1}, ...], one row an item and row 0, got "
                    f"shape {table.shape}"
                )
            if table[0].any():
                raise ValueError(f"row 0 of {name} must be zero (padding)")
        for tokens, most, name in (
            (self.prefix_tokens, self.num_prefix_tokens, "num_prefix_tokens"),
            (self.fields, self.num_field_tokens, "num_field_tokens"),
        ):
            if tokens is not None and tokens.max() > most:
                raise ValueError(
                    f"{name} must be at least the largest token {tokens.max()}, got {most}"
                )
        if self.validation is not None and len(self.validation) != len(self.histories):
            raise ValueError(
                f"validation must have one row per history: got {len(self.validation)} for "
                f"{len(self.histories)}"
            )
        if self.frozen_items and self.start is None:
            raise ValueError("frozen_items must be False without start: nothing is trained yet")
        for name in ("start", "old"):
            model = getattr(self, name)
            if model is not None and model.num_items > self.num_items:
                raise ValueError(
                    f"{name} must not have more items than the data: got {model.num_items} and "
                    f"{self.num_items}; keep its ids and append the new ones"
                )

    def save(self, directory: Path) -> None:
        """Write everything into ``directory``, for the processes that train together."""
        tensors = _arrays("histories", self.histories)
        if self.validation is not None:
            tensors |= _arrays("validation", self.validation)
        for name in ("content", "prefix_tokens", "fields"):
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        models = [name for name in ("start", "old") if getattr(self, name) is not None]
        settings = {
            "num_items": self.num_items,
            "num_prefix_tokens": self.num_prefix_tokens,
            "num_field_tokens": self.num_field_tokens,
            "frozen_items": self.frozen_items,
            "models": models,
        }
        write_model(directory, _KIND, settings, tensors)
        for name in models:
            getattr(self, name).save(directory / name)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: see `recsys.files.model_files.read_model`.
        """
        settings, tensors = read_model(directory, _KIND)
        held_out = "validation.indptr" in tensors
        return cls(
            histories=_histories("histories", tensors),
            num_items=settings["num_items"],
            content=tensors.get("content"),
            prefix_tokens=tensors.get("prefix_tokens"),
            num_prefix_tokens=settings["num_prefix_tokens"],
            validation=_histories("validation", tensors) if held_out else None,
            fields=tensors.get("fields"),
            num_field_tokens=settings["num_field_tokens"],
            frozen_items=settings["frozen_items"],
            **{name: TwoTowerRetriever.load(directory / name) for name in settings["models"]},
        )


_COLUMNS = ("indptr", "item_index", "timestamp", "weight")


def _arrays(name: str, histories: Histories) -> dict[str, np.ndarray]:
    arrays = {f"{name}.{column}": getattr(histories, column) for column in _COLUMNS}
    return arrays if histories.target is None else {**arrays, f"{name}.target": histories.target}


def _histories(name: str, tensors: Mapping[str, np.ndarray]) -> Histories:
    indptr, item_index, timestamp, weight = (tensors[f"{name}.{column}"] for column in _COLUMNS)
    return Histories(indptr, item_index, timestamp, weight, tensors.get(f"{name}.target"))
