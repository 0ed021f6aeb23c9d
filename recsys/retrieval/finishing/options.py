"""What is made of the trained towers besides the retriever itself."""

from __future__ import annotations

from recsys.settings import Count, Settings

__all__ = ["TowerExtras"]


class TowerExtras(Settings):
    """What is made of the trained towers besides the retriever itself."""

    light_user_tower: bool = False
    """Distil a user tower of two matrix products for live requests."""
    threshold_head: bool = False
    """Learn from which score on a candidate is worth showing."""
    soup: Count = 1
    """Branches trained from one start and averaged where that helps; 1: a plain training."""
