"""How the retrievers that count are fitted."""

from __future__ import annotations

from recsys.settings import Positive, Settings

__all__ = ["CountingOptions"]


class CountingOptions(Settings):
    """How the retrievers that count are fitted."""

    item_item_l2: Positive = 300.0
    """L2 of the item-item weights (item_item, item_item_all)."""
    half_life: Positive = 10.0
    """Events after which an event of the history weighs half (item_item, graph_filter, rp3beta,
    user_knn, popular_in_category)."""
    popularity_window_days: Positive = 180.0
    """Newest days that popularity counts."""
