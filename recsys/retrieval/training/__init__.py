"""Training of the towers, in one process or several.

Imports `towers`, `sampling` and `losses`; may be imported by `finishing` and `pipeline`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.retrieval.training.options import TrainingOptions
    from recsys.retrieval.training.train import train_two_tower

__all__ = ["TrainingOptions", "train_two_tower"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
