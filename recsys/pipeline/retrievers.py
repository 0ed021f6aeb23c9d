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
from recsys.errors import ConfigError
from recsys.evaluation import cold_items
from recsys.lookup import lookup
from recsys.pipeline.source_choice import Choices
from recsys.pipeline.towers import ItemInputs, Plan, fit_towers
from recsys.progress import Progress
from recsys.retrieval.aging import AgedRetriever, asked_by_days, learned_part
from recsys.retrieval.buy_again import BuyAgainRetriever
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.finishing.new_items import fit_new_items
from recsys.retrieval.graph_filter import GraphFilterRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.new_items import NewItemsRetriever
from recsys.retrieval.popular_in_category import PopularInCategoryRetriever
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.rp3beta import Rp3BetaRetriever
from recsys.retrieval.sampling.frequency import item_counts
from recsys.retrieval.source_options import GraphOptions, NewItemOptions
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.retrieval.trending import TrendingRetriever
from recsys.retrieval.user_knn import UserKnnRetriever
from recsys.threads import torch_threads

__all__ = ["COUNTED", "Fitted", "fit_counted", "fit_sources"]


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
            inner = retriever.inner if isinstance(retriever, AgedRetriever) else retriever
            if owner is not None and owner.has_weights_of(inner):
                retriever.save(directory / retriever.name, weights_of=owner.name)  # type: ignore[call-arg]
                continue
            if owner is None and isinstance(inner, ItemItemRetriever):
                owner = inner
            retriever.save(directory / retriever.name)
        if self.towers is not None:
            self.towers.save(directory / self.towers.retriever.name)


@dataclass(frozen=True)
class _Run:
    histories: Histories
    items: ItemInputs
    settings: RetrievalConfig
    seed: int
    whole: Histories  # whatever part of it is learned from

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


def _fit_new_items(run: _Run) -> NewItemsRetriever:
    if run.items.content is None:
        raise ConfigError(
            "retrieval.sources must not have 'new_items' where nothing tells the items apart; "
            "leave it out, or name columns that do in data.item_columns"
        )
    with torch_threads(run.settings.num_threads):
        return fit_new_items(
            run.histories,
            run.items.content,
            is_new=cold_items(item_counts(run.whole.item_index, run.items.num_items)),
            options=run.settings.only(NewItemOptions),
            seed=run.seed,
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
    "buy_again": lambda run: BuyAgainRetriever.fit(
        run.histories,
        run.items.num_items,
        prior=run.settings.buy_again_prior,
        due=run.settings.buy_again_due,
        recent_days=run.settings.buy_again_recent_days,
    ),
    "graph_filter": lambda run: GraphFilterRetriever.fit(
        run.histories,
        run.items.num_items,
        half_life=run.settings.half_life,
        options=run.settings.only(GraphOptions),
    ),
    "rp3beta": lambda run: Rp3BetaRetriever.fit(
        run.histories,
        run.items.num_items,
        power=run.settings.walk_power,
        popularity_power=run.settings.walk_popularity_power,
        neighbours=run.settings.walk_neighbours,
        half_life=run.settings.half_life,
    ),
    "user_knn": lambda run: UserKnnRetriever.fit(
        run.histories,
        run.items.num_items,
        neighbours=run.settings.user_neighbours,
        half_life=run.settings.half_life,
    ),
    "popularity": lambda run: PopularityRetriever.fit(
        run.histories, run.items.num_items, window_days=run.settings.popularity_window_days
    ),
    "popular_recent": lambda run: PopularityRetriever.fit(
        run.histories,
        run.items.num_items,
        window_days=run.settings.recent_days,
        name="popular_recent",
    ),
    "popular_in_category": lambda run: PopularInCategoryRetriever.fit(
        run.histories,
        run.items.category(run.settings.category_column),
        window_days=run.settings.recent_days,
        half_life=run.settings.half_life,
    ),
    "trending": lambda run: TrendingRetriever.fit(
        run.histories,
        run.items.num_items,
        window_days=run.settings.trending_days,
        past_days=run.settings.trending_past_days,
    ),
    "new_items": _fit_new_items,
}
"""Name in ``retrieval.sources`` -> how it is fitted, of all but the towers."""


def fit_counted(
    name: str, histories: Histories, items: ItemInputs, settings: RetrievalConfig, *, seed: int
) -> Retriever:
    """Fit one retriever that counts.

    Args:
        name: in ``retrieval.sources``.
        histories: training events, U rows.
        items: content, Semantic IDs and fields.
        settings: of this retriever.
        seed: of what is trained.

    Raises:
        ConfigError: an unknown source.
    """
    return _fitted(name, _run_of(histories, items, settings, seed), settings)


def _run_of(histories: Histories, items: ItemInputs, settings: RetrievalConfig, seed: int) -> _Run:
    learned = learned_part(
        histories, days=settings.learn_days, half_life_days=settings.learn_half_life_days
    )
    return _Run(learned, items, settings, seed, histories)


def _fitted(name: str, run: _Run, settings: RetrievalConfig) -> Retriever:
    found = lookup(COUNTED, name, "retriever")(run)
    days = settings.ask_half_life_days
    return found if days is None else asked_by_days(found, days)


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
    choices: Choices | None = None,
) -> Fitted:
    """Fit every retriever of ``settings.sources``, in that order.

    Args:
        histories: training events, U rows.
        items: content, Semantic IDs and fields.
        settings: of the stage.
        seed: of what is trained.
        plan: what the towers begin from and for how long they train. None: the settings say all.
        validation: later events of the same rows; chooses the towers' epoch.
        workers: processes that train the towers.
        progress: shows a bar.
        on_epoch: called after each epoch of the towers.
        choices: settings of single retrievers that differ. None: none do.

    Raises:
        ConfigError: an unknown source, or see `fit_towers`.
    """
    runs: dict[str, _Run] = {}
    retrievers: list[Retriever] = []
    towers: FinishedTowers | None = None
    for name in settings.sources:
        own = settings.model_copy(update=dict((choices or {}).get(name, {})))
        if name == TwoTowerRetriever.name:
            towers = fit_towers(
                histories,
                items,
                own,
                seed=seed,
                plan=plan,
                validation=validation,
                workers=workers,
                progress=progress,
                on_epoch=on_epoch,
            )
            retrievers.append(towers.retriever)
        else:
            learns = own.model_copy(update={"ask_half_life_days": None}).fingerprint()
            if learns not in runs:
                runs[learns] = _run_of(histories, items, own, seed)
            retrievers.append(_fitted(name, runs[learns], own))
    return Fitted(retrievers, towers)
