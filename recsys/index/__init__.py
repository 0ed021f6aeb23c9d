"""Nearest-item search: exact and approximate behind one `Index` protocol.

Vectors are one row per vocabulary index, so row 0 is the padding row and is never returned.

Imports `files`; may be imported by `recommender` and `pipeline`.
"""

from __future__ import annotations

from recsys.index.annoy import AnnoyIndex
from recsys.index.choices import INDEXES, load_index, make_index
from recsys.index.exact import ExactIndex
from recsys.index.protocol import Index, Metric
from recsys.index.recall import recall_against_exact

__all__ = [
    "INDEXES",
    "AnnoyIndex",
    "ExactIndex",
    "Index",
    "Metric",
    "load_index",
    "make_index",
    "recall_against_exact",
]
