"""What was popular lately among the items of the kinds that a history is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import DenseRetriever
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.recency import check_half_life, recency_weights
from recsys.retrieval.source_options import PopularOptions

__all__ = ["PopularInCategoryRetriever"]

_KIND = "popular_in_category"


class PopularInCategoryRetriever(DenseRetriever):
    """Popularity within a category, by how much of the history is of that category.

    With the `PopularityRetriever`'s score s_i of item i, S_c its sum over the items of category c,
    S that over all items, w_c the weight of the events of category c in a history, weighted by
    recency and weight, and w that of all its events,

        ``score_i = (w_c + S_c / S) / (w + 1) * s_i / S_c``,  c the category of i

    So a history stands beside one event of what everybody meets: without one, the score is
    popularity itself.

    Attributes:
        name: how answers name this source.
        num_items: N.
        half_life: of the asking history, in events; None: events count by their weight alone.
    """

    def __init__(
        self,
        *,
        name: str,
        half_life: float | None,
        category: np.ndarray,
        popularity: PopularityRetriever,
    ) -> None:
        self.name = name
        self.num_items = popularity.num_items
        self.half_life = half_life
        self._category = category  # [N + 1] int64
        self._popularity = popularity
        ones = np.ones(category.size, dtype=np.float32)
        place = np.arange(category.size)
        self._of_category = csr_array((ones, (place, category)))  # [N + 1, number of categories]

    @classmethod
    def fit(
        cls,
        histories: Histories,
        category: np.ndarray,
        *,
        window_days: float | None = PopularOptions.default("recent_days"),
        half_life: float | None = CountingOptions.default("half_life"),
        name: str = _KIND,
    ) -> Self:
        """Keep the events of all ``histories``.

        Args:
            histories: training events.
            category: [N + 1] int64 >= 0, the category of each item, that of row 0 being ignored.
                Items of which it is unknown share a category of their own.
            window_days: newest days that count; None: everything before the moment.
            half_life: of the asking history, in events; None: events count by their weight alone.
            name: how answers name this source.

        Raises:
            ValueError: window_days <= 0, half_life <= 0, or categories are not as said.
        """
        check_half_life(half_life)
        if category.ndim != 1 or category.size < 1 or int(category.min()) < 0:
            raise ValueError(
                "category must be [N + 1] integers >= 0, one for each item and row 0, got shape "
                f"{category.shape} from {category.min(initial=0)}"
            )
        popularity = PopularityRetriever.fit(histories, category.size - 1, window_days=window_days)
        return cls(name=name, half_life=half_life, category=category, popularity=popularity)

    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        """[Q, N + 1] float32: shares of each row, which sum to at most 1."""
        popular = self._popularity.score_all(histories, moment).copy()
        popular[:, 0] = 0.0
        asked = histories.to_csr(self.num_items, recency_weights(histories, self.half_life))
        liked = (asked @ self._of_category).toarray()  # [Q, number of categories]
        in_category = popular @ self._of_category
        total = in_category.sum(axis=1, keepdims=True)
        chance = liked + in_category / np.where(total > 0, total, 1.0)
        chance /= liked.sum(axis=1, keepdims=True) + 1.0
        chance /= np.where(in_category > 0, in_category, 1.0)
        return np.asarray(popular * chance[:, self._category], dtype=np.float32)

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`; the popularity has a directory below."""
        settings = {"name": self.name, "half_life": self.half_life}
        write_model(directory, _KIND, settings, {"category": self._category})
        self._popularity.save(directory / self._popularity.name)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, _KIND)
            popularity = PopularityRetriever.load(directory / "popularity")
            return cls(**settings, category=tensors["category"], popularity=popularity)
