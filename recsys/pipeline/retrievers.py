"""The retrievers of a run by name: how each is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from features.tables import Histories
from recsys.bundle.left_out import LeftOut
from recsys.config import RetrievalConfig
from recsys.lookup import lookup
from recsys.pipeline.towers import ItemInputs, Plan, fit_towers
from recsys.progress import Progress
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport

__all__ = ["COUNTED", "Fitted", "fit_sources"]


class Fitted(NamedTuple):
    """What `fit_sources` made.

    Attributes:
        retrievers: in the order of the settings.
        towers: what was made of the towers among them. None: there are none.
    """

    retrievers: list[Retriever]
    towers: FinishedTowers | None

    def left_out(self, settings: RetrievalConfig) -> list[LeftOut]:
        """What the settings ask to make of the towers and there were too few users for."""
        if self.towers is None:
            return []
        made = {"light_user_tower": self.towers.light, "threshold_head": self.towers.head}
        reason = "left out: too few users have a past and something new among their candidates"
        return [
            LeftOut(name, reason)
            for name, one in made.items()
            if getattr(settings, name) and one is None
        ]

    def save(self, directory: Path) -> None:
        """Write each retriever into ``directory/<name>``; weights that two share, once."""
        owner: ItemItemRetriever | None = None
        for retriever in self.retrievers:
            if isinstance(retriever, ItemItemRetriever):
                owner = retriever if owner is None else owner
                shared = owner is not retriever and owner.has_weights_of(retriever)
                retriever.save(
                    directory / retriever.name, weights_of=owner.name if shared else None
                )
            else:
                retriever.save(directory / retriever.name)
        if self.towers is not None:
            self.towers.save(directory / self.towers.retriever.name)


@dataclass(frozen=True)
class _Run:
    histories: Histories
    items: ItemInputs
    settings: RetrievalConfig

    @cached_property
    def item_item(self) -> ItemItemRetriever:
        """Solved when first asked for: both item-item sources have the same weights."""
        settings = self.settings
        return ItemItemRetriever.fit(
            self.histories,
            self.items.num_items,
            l2=settings.item_item_l2,
            dropout=settings.item_item_dropout,
            item_power=settings.item_item_item_power,
            user_power=settings.item_item_user_power,
            dense_items=settings.item_item_dense_items,
            neighbours=settings.item_item_neighbours,
        )


def _fit_item_item(run: _Run, name: str, half_life: float | None) -> ItemItemRetriever:
    return run.item_item.asked_otherwise(name, half_life)


COUNTED: Mapping[str, Callable[[_Run], Retriever]] = {
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
"""Name in ``retrieval.sources`` -> how it is fitted, of all but the towers."""


def fit_sources(
    histories: Histories,
    items: ItemInputs,
    settings: RetrievalConfig,
    *,
    seed: int,
    plan: Plan | None = None,
    validation: Histories | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Fitted:
    """Fit every retriever of ``settings.sources``, in that order.

    Args:
        histories: training events, U rows.
        items: content, Semantic IDs and fields.
        settings: of the stage.
        seed: of the towers.
        plan: what the towers begin from and for how long they train. None: the settings say all.
        validation: later events of the same rows; chooses the towers' epoch.
        workers: processes that train the towers.
        progress: shows a bar.
        on_epoch: called after each epoch of the towers.

    Raises:
        ConfigError: an unknown source, or see `fit_towers`.
    """
    run = _Run(histories, items, settings)
    retrievers: list[Retriever] = []
    towers: FinishedTowers | None = None
    for name in settings.sources:
        if name == TwoTowerRetriever.name:
            towers = fit_towers(
                histories,
                items,
                settings,
                seed=seed,
                plan=plan,
                validation=validation,
                workers=workers,
                progress=progress,
                on_epoch=on_epoch,
            )
            retrievers.append(towers.retriever)
        else:
            retrievers.append(lookup(COUNTED, name, "retriever")(run))
    return Fitted(retrievers, towers)
