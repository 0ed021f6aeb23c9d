"""The retrievers of a run by name: how each is fitted and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.histories import Histories
from recsys.config import RetrievalConfig
from recsys.lookup import lookup
from recsys.progress import Progress
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.towers import TowerOptions
from recsys.retrieval.training import train_two_tower
from recsys.retrieval.training_options import EpochReport, TrainingOptions
from recsys.retrieval.two_tower import TwoTowerRetriever
from recsys.threads import torch_threads

__all__ = ["SOURCES", "ItemInputs", "fit_sources", "load_sources"]


@dataclass(frozen=True)
class ItemInputs:
    """What is known of the items besides who met them.

    Attributes:
        content: [N + 1, D] float32 content vectors, row 0 zero.
        prefix_tokens: [N + 1, L] int64 Semantic-ID prefix tokens, row 0 zero.
        num_prefix_tokens: largest token of the table.
    """

    content: np.ndarray
    prefix_tokens: np.ndarray
    num_prefix_tokens: int

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.content) - 1


@dataclass(frozen=True)
class _Run:
    histories: Histories
    items: ItemInputs
    settings: RetrievalConfig
    validation: Histories | None
    epochs: int | None
    seed: int
    workers: int
    progress: Progress
    on_epoch: Callable[[EpochReport], None] | None


def _fit_two_tower(run: _Run) -> TwoTowerRetriever:
    settings = run.settings
    epochs = run.epochs or settings.epochs
    towers = TowerOptions(
        embedding_dim=settings.dim,
        history_length=settings.history_length,
        user_table=settings.use_user_id,
    )
    training = TrainingOptions(
        loss=settings.loss,
        score=settings.score,
        epochs=epochs,
        batch_size=settings.batch_size,
        num_negatives=settings.negatives,
        temperature=settings.temperature,
        gamma=settings.gamma,
        learning_rate=settings.learning_rate,
        denoising=settings.denoising,
        positive_half_life=settings.positive_half_life,
        patience=settings.patience,
    )
    with (
        run.progress.bar(epochs, "train the towers", unit="epoch") as advance,
        torch_threads(settings.num_threads),
    ):

        def report(epoch: EpochReport) -> None:
            advance(1)
            if run.on_epoch is not None:
                run.on_epoch(epoch)

        retriever = train_two_tower(
            run.histories,
            num_items=run.items.num_items,
            content=run.items.content,
            prefix_tokens=run.items.prefix_tokens,
            num_prefix_tokens=run.items.num_prefix_tokens,
            validation=run.validation,
            towers=towers,
            training=training,
            seed=run.seed,
            workers=run.workers,
            on_epoch=report,
        )
    return retriever.quantize() if settings.int8 else retriever


def _fit_item_item(run: _Run, name: str, half_life: float | None) -> ItemItemRetriever:
    return ItemItemRetriever.fit(
        run.histories,
        run.items.num_items,
        l2=run.settings.item_item_l2,
        half_life=half_life,
        name=name,
    )


SOURCES: Mapping[str, Callable[[_Run], Retriever]] = {
    "two_tower": _fit_two_tower,
    "item_item": lambda run: _fit_item_item(run, "item_item", run.settings.half_life),
    "item_item_all": lambda run: _fit_item_item(run, "item_item_all", None),
    "co_occurrence": lambda run: CoOccurrenceRetriever.fit(
        run.histories, run.items.num_items, direction="both", name="co_occurrence"
    ),
    "next_item": lambda run: CoOccurrenceRetriever.fit(
        run.histories, run.items.num_items, direction="forward", half_life=2.0, name="next_item"
    ),
    "popularity": lambda run: PopularityRetriever.fit(
        run.histories, run.items.num_items, window_days=run.settings.popularity_window_days
    ),
}
"""Name in ``retrieval.sources`` -> how it is fitted."""

LOADERS: Mapping[str, Callable[[Path], Retriever]] = {
    "two_tower": TwoTowerRetriever.load,
    "item_item": ItemItemRetriever.load,
    "item_item_all": ItemItemRetriever.load,
    "co_occurrence": CoOccurrenceRetriever.load,
    "next_item": CoOccurrenceRetriever.load,
    "popularity": PopularityRetriever.load,
}


def fit_sources(
    histories: Histories,
    items: ItemInputs,
    settings: RetrievalConfig,
    *,
    seed: int,
    validation: Histories | None = None,
    epochs: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> list[Retriever]:
    """Fit every retriever of ``settings.sources``, in that order.

    Args:
        histories: training events, U rows.
        items: content and Semantic IDs.
        settings: of the stage.
        seed: of the towers.
        validation: later events of the same rows; chooses the towers' epoch.
        epochs: instead of the configured number.
        workers: processes that train the towers.
        progress: shows a bar.
        on_epoch: called after each epoch of the towers.

    Raises:
        ConfigError: an unknown source.
    """
    run = _Run(
        histories,
        items,
        settings,
        validation,
        epochs,
        seed,
        workers,
        progress or Progress(),
        on_epoch,
    )
    return [lookup(SOURCES, name, "retriever")(run) for name in settings.sources]


def load_sources(directory: Path, names: Sequence[str]) -> list[Retriever]:
    """The retrievers saved as ``directory/<name>``.

    Raises:
        ConfigError: an unknown source.
        ArtifactError: one is missing or damaged.
    """
    return [lookup(LOADERS, name, "retriever")(directory / name) for name in names]
