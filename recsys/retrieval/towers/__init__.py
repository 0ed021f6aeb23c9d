"""The two towers: their shape, how they read a history, how they retrieve.

May be imported by `training`, `finishing` and what joins the stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.retrieval.towers.options import TowerOptions
    from recsys.retrieval.towers.retriever import TwoTowerRetriever

__all__ = ["TowerOptions", "TwoTowerRetriever"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
