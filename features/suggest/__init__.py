"""Feature definitions proposed from the data."""

from __future__ import annotations
