"""Item-item retrieval in closed form (EASE), asked with a recency-weighted history."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.linear.dense import solve_by_items, solve_by_users
from recsys.retrieval.linear.sparse import LONGEST, solve_by_neighbours
from recsys.retrieval.linear.system import ItemSystem
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.recency import check_half_life, recency_weights, weighted_cells
from recsys.retrieval.sparse_scores import sparse_scores

__all__ = ["ItemItemRetriever"]

KIND = "item_item"


class ItemItemRetriever(DenseRetriever):
    """The linear item-item model with a zero diagonal that minimises squared error: EASE and DAN.

    A history w scores ``w W``; see `recsys.retrieval.linear.system.ItemSystem` for what W
    minimises. It is kept in one of three forms:

        weights   W itself, [N + 1, N + 1]      exact; where there are more users than items
        solved    two matrices [U, N + 1]       the same model, where there are fewer
        data      W as compressed rows          big catalogues: each item explained by its nearest
                                                alone, see `recsys.retrieval.linear.sparse`

    X holds the square root of the largest weight of the events of a cell, in terms of the mean
    weight, so that X'X counts a pair of items by the geometric mean of their weights; it is 0 and 1
    where all weigh the same. The *asking* history is weighted by recency and weight. On MovieLens
    recency is worth +10% recall@20 over asking with ones (`benchmarks/funnel_quality.py`).

    Attributes:
        name: how answers name this source.
        num_items: N.
        half_life: of the asking history, in events; None: events count by their weight alone.
        weighted: events of the asking history count by their weight; not so in older models.

    Source: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8.
    """

    def __init__(
        self,
        *,
        name: str,
        num_items: int,
        half_life: float | None,
        tensors: dict[str, np.ndarray],
        weighted: bool = False,
    ) -> None:
        width = num_items + 1
        self.name = name
        self.num_items = num_items
        self.half_life = half_life
        self.weighted = weighted
        self._tensors = tensors
        self._items_by_users: csr_array | None = None
        self._sparse: csr_array | None = None
        if "data" in tensors:
            found = tensors["indptr"].size - 1
            self._sparse = csr_array(
                (tensors["data"], tensors["indices"], tensors["indptr"]), shape=(found, width)
            )
        elif "solved" in tensors:
            found = tensors["solved"].shape[1]
            ones = np.ones(tensors["column"].size, dtype=np.float32)  # before weights counted
            users_by_items = csr_array(
                (tensors.get("value", ones), tensors["column"], tensors["indptr"]),
                shape=(tensors["indptr"].size - 1, width),
            )
            self._items_by_users = users_by_items.T.tocsr()
        else:
            found = tensors["weights"].shape[1]
        if found != width:
            raise ValueError(f"tensors must be of {width} items, got {found}")

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        l2: float = CountingOptions.default("item_item_l2"),
        dropout: float = CountingOptions.default("item_item_dropout"),
        item_power: float = CountingOptions.default("item_item_item_power"),
        user_power: float = CountingOptions.default("item_item_user_power"),
        dense_items: int = CountingOptions.default("item_item_dense_items"),
        neighbours: int = CountingOptions.default("item_item_neighbours"),
        half_life: float | None = CountingOptions.default("half_life"),
        name: str = "item_item",
    ) -> Self:
        """Solve for the model of ``histories`` [U rows].

        The model is exact where a matrix [min(U, N), N] has at most ``dense_items ** 2`` entries:
        there time is cubic in the smaller number and memory 12 to 24 bytes an entry. Elsewhere it
        is the sparse one.

        Args:
            histories: U rows.
            num_items: N.
            l2: see `recsys.retrieval.linear.system.ItemSystem.of`, as the next three.
            dropout: 0 <= dropout < 1.
            item_power: 0..1.
            user_power: 0..1.
            dense_items: most items of a catalogue, met by no fewer users, that is solved exactly.
            neighbours: items that explain one, of the sparse model.
            half_life: of the asking history, in events, > 0; None: recency does not count.
            name: how answers name this source.

        Raises:
            ValueError: an argument is out of range, or an item is above N.
        """
        check_half_life(half_life)
        if dense_items < 0:
            raise ValueError(f"dense_items must be >= 0, got {dense_items}; 0 solves none exactly")
        exact = min(len(histories), num_items) * num_items <= dense_items**2
        system = ItemSystem.of(
            weighted_cells(histories if exact else histories.last(LONGEST), num_items),
            l2=l2,
            dropout=dropout,
            item_power=item_power,
            user_power=user_power,
        )
        if not exact:
            weights = solve_by_neighbours(system, neighbours)
            tensors = {
                "data": weights.data,
                "indices": weights.indices,
                "indptr": weights.indptr,
            }
        elif len(histories) <= num_items:
            tensors = solve_by_users(system)
        else:
            tensors = {"weights": solve_by_items(system)}
        return cls(
            name=name, num_items=num_items, half_life=half_life, weighted=True, tensors=tensors
        )

    def asked_otherwise(self, name: str, half_life: float | None) -> Self:
        """The same weights, not a copy, asked with another weight of recency.

        Raises:
            ValueError: half_life <= 0.
        """
        check_half_life(half_life)
        return type(self)(
            name=name,
            num_items=self.num_items,
            half_life=half_life,
            weighted=self.weighted,
            tensors=self._tensors,
        )

    def has_weights_of(self, other: object) -> bool:
        """Whether ``other`` is another of `asked_otherwise`, or what it was made from."""
        return isinstance(other, ItemItemRetriever) and other._tensors is self._tensors

    def score_all(self, histories: Histories, moment: np.ndarray | None = None) -> np.ndarray:
        """[Q, N + 1] float32; ``moment`` is not used. An empty history scores 0 everywhere."""
        weight = recency_weights(histories, self.half_life, weighted=self.weighted)
        if self._sparse is not None:
            return sparse_scores(histories, weight, self._sparse)
        scale = self._tensors.get("item_scale")
        if scale is not None:
            weight = weight * scale[histories.item_index]
        asked = histories.to_csr(self.num_items, weight)
        if self._items_by_users is None:
            return np.asarray(asked @ self._tensors["weights"], dtype=np.float32)
        own = asked.toarray()
        explained = (asked @ self._items_by_users).toarray() @ self._tensors["solved"]
        score = own - (own - explained) / self._tensors["scaled_diagonal"]
        return np.asarray(score if scale is None else score / scale, dtype=np.float32)

    def save(self, directory: Path, *, weights_of: str | None = None) -> None:
        """Write the settings and weights; see `recsys.files.model_files.write_model`.

        Args:
            directory: one model's own directory.
            weights_of: a directory beside it where the same weights are saved: they are read from
                there. None: they are written here.
        """
        settings: dict[str, Any] = {
            "name": self.name,
            "num_items": self.num_items,
            "half_life": self.half_life,
            "weighted": self.weighted,
        }
        if weights_of is not None:
            write_model(directory, KIND, settings | {"weights_of": weights_of}, {})
        else:
            write_model(directory, KIND, settings, self._tensors)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, KIND)
            owner = settings.pop("weights_of", None)
            if owner is not None:
                _, tensors = read_model(directory.with_name(owner), KIND)
            return cls(**settings, tensors=tensors)
