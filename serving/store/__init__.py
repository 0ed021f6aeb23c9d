"""Generations in the store: keys, values, publishing, the switch, what they weigh.

Imports `connection`; may be imported from everywhere above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from serving.store.generations import GenerationStore
    from serving.store.publication import PublishReport, UserBatch

__all__ = ["GenerationStore", "PublishReport", "UserBatch"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
