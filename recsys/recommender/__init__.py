"""Both stages joined in process: a user to a slate, for lists and live requests.

May be imported by `pipeline`, `simulation.trial` and `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.recommender.recommender import Recommender
    from recsys.recommender.slates import Ranked, Slate, SlateItem

__all__ = ["Ranked", "Recommender", "Slate", "SlateItem"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
