"""Clients of the store: one server, Sentinel, cluster, embedded; bounded waits.

Imports no other folder; may be imported from everywhere in `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from serving.connection.clients import EMBEDDED, connect, redact
    from serving.connection.environment import URL_VARIABLE

__all__ = ["EMBEDDED", "URL_VARIABLE", "connect", "redact"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
