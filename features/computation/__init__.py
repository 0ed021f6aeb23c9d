"""What a declared feature is worth at a moment, for training and live requests alike.

Imports `definitions` and `tables`; may be imported by `online`, `suggest` and the other packages.
"""

from __future__ import annotations

from features.computation.computer import (
    FeatureComputer,
    compute_features,
    item_features,
    request_features,
)

__all__ = ["FeatureComputer", "compute_features", "item_features", "request_features"]
