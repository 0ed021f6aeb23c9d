"""Definitions as running state: updated event by event, equal to what the log says."""

from __future__ import annotations
