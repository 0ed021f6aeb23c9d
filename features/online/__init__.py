"""Definitions as running state: updated event by event, equal to what the log says.

Imports `computation`; may be imported by `serving`.
"""

from __future__ import annotations
