"""Processes: listening, workers, draining, the supervisor.

Imports `http`; may be imported by `cli`.
"""

from __future__ import annotations
