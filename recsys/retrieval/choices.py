"""The retrievers of a bundle by name: how each is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recsys.files.damage import telling_damage
from recsys.lookup import lookup
from recsys.retrieval.aging import with_age
from recsys.retrieval.buy_again import BuyAgainRetriever
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.graph_filter import GraphFilterRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.new_items import NewItemsRetriever
from recsys.retrieval.popular_in_category import PopularInCategoryRetriever
from recsys.retrieval.popularity import PopularityRetriever
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.rp3beta import Rp3BetaRetriever
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.trending import TrendingRetriever
from recsys.retrieval.user_knn import UserKnnRetriever

__all__ = ["LOADERS", "load_sources"]


LOADERS: Mapping[str, Callable[[Path], Retriever]] = {
    "two_tower": TwoTowerRetriever.load,
    "item_item": ItemItemRetriever.load,
    "item_item_all": ItemItemRetriever.load,
    "co_occurrence": CoOccurrenceRetriever.load,
    "next_item": CoOccurrenceRetriever.load,
    "graph_filter": GraphFilterRetriever.load,
    "rp3beta": Rp3BetaRetriever.load,
    "user_knn": UserKnnRetriever.load,
    "popularity": PopularityRetriever.load,
    "popular_recent": PopularityRetriever.load,
    "popular_in_category": PopularInCategoryRetriever.load,
    "trending": TrendingRetriever.load,
    "buy_again": BuyAgainRetriever.load,
    "new_items": NewItemsRetriever.load,
}


def load_sources(directory: Path, names: Sequence[str]) -> list[Retriever]:
    """The retrievers saved as ``directory/<name>``.

    Raises:
        ConfigError: an unknown source.
        ArtifactError: one is missing or damaged.
    """
    found = []
    for name in names:
        load = lookup(LOADERS, name, "retriever")
        with telling_damage(directory / name):
            found.append(with_age(load(directory / name), directory / name))
    return found
