"""What a declared feature is worth at a moment, for training and live requests alike.

Imports `definitions` and `tables`; may be imported by `online`, `suggest` and the other packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from features.computation.computer import (
        FeatureComputer,
        compute_features,
        item_features,
        request_features,
    )
    from features.computation.declarations import (
        definitions_sha256,
        dump_definitions,
        load_definitions,
    )

__all__ = [
    "FeatureComputer",
    "compute_features",
    "definitions_sha256",
    "dump_definitions",
    "item_features",
    "load_definitions",
    "request_features",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
