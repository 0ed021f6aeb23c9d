"""Bundles in the memory of a serving process.

Imports no other folder; may be imported by `telemetry`, `request` and above.
"""

from __future__ import annotations
