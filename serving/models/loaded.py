"""A bundle's recommender as the model that the service calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.moments import EPOCH, microseconds
from serving.models.live import LiveQuestion

if TYPE_CHECKING:
    from recsys.recommender import Recommender
    from recsys.recommender.explanation import ExplainedItem

__all__ = ["LoadedModel", "load_model"]


class LoadedModel:
    """A `Recommender` as a `serving.models.live.LiveModel`.

    Args:
        recommender: the loaded bundle.

    Attributes:
        generation: of the bundle.
        as_of_us: microseconds since the epoch at which its log ends.
        item_fields: none; the bundle has what was packed.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.generation = recommender.generation
        self.as_of_us = microseconds(recommender.as_of)
        self.item_fields: tuple[str, ...] = ()

    def recommend(
        self,
        asked: LiveQuestion,
        k: int,
        *,
        exclude: Collection[str],
        only: Collection[str] | None,
        threshold: bool = False,
    ) -> list[tuple[str, float, str]]:
        """Best ``k`` as (item id, score, source); see `serving.models.live.LiveModel`."""
        slate = self._recommender.recommend(
            asked.user_id or "",
            k,
            exclude=exclude,
            only=only,
            recent_items=asked.recent_items,
            fresh=asked.fresh,
            moment=_moment(asked),
            diversity=0.0,  # the service applies the slate rule to every source alike
            threshold=threshold,
        )
        return [(str(item), float(score), str(source)) for item, score, source in slate.items]

    def rank(
        self,
        asked: LiveQuestion,
        item_index: np.ndarray,
        item_values: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """[C] scores of given items; see `serving.models.live.LiveModel`."""
        return self._recommender.live.rank_items(
            asked.user_id or "",
            item_index,
            asked.recent_items,
            fresh=asked.fresh,
            moment=_moment(asked),
            item_values=item_values,
        )

    def explain(self, asked: LiveQuestion, item_index: np.ndarray) -> list[ExplainedItem]:
        """Why items are scored as they are; see `serving.models.live.LiveModel`."""
        return self._recommender.live.explain(
            asked.user_id or "",
            item_index,
            asked.recent_items,
            fresh=asked.fresh,
            moment=_moment(asked),
        )


def load_model(bundle: Path) -> LoadedModel:
    """Read a bundle whose candidates are computed, and call it once, so that it is warm.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    from recsys.recommender import Recommender

    recommender = Recommender.load(bundle, mapped=True)
    recommender.ranker.gbdt.compile()
    model = LoadedModel(recommender)
    # The first calls compile and allocate; without these they would miss their deadline.
    first = recommender.item_ids.ids([1])
    asked = LiveQuestion(None, first)
    model.recommend(asked, 1, exclude=(), only=None)
    model.rank(asked, np.arange(1, min(10, len(recommender.item_ids)) + 1))
    return model


def _moment(asked: LiveQuestion) -> datetime | None:
    return None if asked.moment_us is None else EPOCH + timedelta(microseconds=asked.moment_us)
