"""How the retrievers that count are fitted."""

from __future__ import annotations

from recsys.settings import (
    Closed01,
    Count,
    Natural,
    NonNegative,
    Positive,
    Settings,
    Share,
)

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
    """Events after which an event of the history weighs half (item_item, graph_filter, rp3beta,
    user_knn, popular_in_category)."""
    popularity_window_days: Positive = 180.0
    """Newest days that popularity counts."""
    learn_days: Positive | None = None
    """Newest days of the log that retrievers which count learn from. Not said: all."""
    learn_half_life_days: Positive | None = None
    """Days after which an event that they learn from weighs half. Not said: its age does not
    count."""
    ask_half_life_days: Positive | None = None
    """Days after which an event of the history they are asked with weighs half, in place of
    half_life. Not said: events count, not days."""
    buy_again_prior: NonNegative = 3.0
    """Weight of what is popular now among the items that a user met (buy_again)."""
    buy_again_due: NonNegative = 0.0
    """Exponent of how likely an item is wanted after so long, as its interval and the hazard of the
    log have it (buy_again)."""
    buy_again_recent_days: Positive = 30.0
    """Newest days that say what is popular now (buy_again)."""
    choose: bool = True
    """Whether those of these settings that are not given are chosen, for each retriever by itself,
    on the later part of what is learned from."""
