"""Metrics and the text log of a serving process.

May be imported by `request` and above.
"""

from __future__ import annotations
