"""Where feature tables live: the protocol, Parquet directories, memory."""

from __future__ import annotations
