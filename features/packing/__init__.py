"""Fixed-width rows of values, as the store keeps them, and their cache in a process.

Imports no other folder; may be imported from everywhere else.
"""

from __future__ import annotations

from features.packing.near_cache import NearCache
from features.packing.reader import Migration, PackedReader, migration
from features.packing.schema import FeatureBlock, PackedField, PackedSchema

__all__ = [
    "FeatureBlock",
    "Migration",
    "NearCache",
    "PackedField",
    "PackedReader",
    "PackedSchema",
    "migration",
]
