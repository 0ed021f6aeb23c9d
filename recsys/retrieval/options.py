"""How the retrievers that count are fitted."""

from __future__ import annotations

from recsys.settings import Closed01, Count, Natural, Positive, Settings, Share

__all__ = ["CountingOptions"]


class CountingOptions(Settings):
    """How the retrievers that count are fitted."""

    item_item_l2: Positive = 300.0
    """L2 of the item-item weights (item_item, item_item_all)."""
    item_item_dropout: Share = 0.0
    """Share of a history that the item-item weights are to do without; 0 with both powers: EASE."""
    item_item_item_power: Closed01 = 0.0
    """How far the item-item weights lower items that many met; 0: not."""
    item_item_user_power: Closed01 = 0.0
    """How much less the items of long histories count for the item-item weights; 0: no less."""
    item_item_dense_items: Natural = 20_000
    """Most items for which all pairs are solved (12 bytes each); above, each item's nearest."""
    item_item_neighbours: Count = 200
    """Nearest items that explain an item where not all pairs are solved."""
    half_life: Positive = 10.0
    """Events after which an event of the history weighs half (item_item)."""
    popularity_window_days: Positive = 180.0
    """Newest days that popularity counts."""
