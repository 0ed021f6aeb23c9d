"""Embedding tables: in one process, sharded over several, and their compressed copies.

Imports `files`; may be imported by `retrieval.towers` and `retrieval.training`.
"""

from __future__ import annotations

from recsys.embeddings.int8 import Int8Rows, quantize_rows
from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import EmbeddingTables, LocalTables, TableSpec

__all__ = [
    "EmbeddingTables",
    "Int8Rows",
    "LocalTables",
    "ShardedTables",
    "TableSpec",
    "quantize_rows",
]
