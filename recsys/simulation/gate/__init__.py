"""The decision whether a bundle may replace another, and its reasons.

Imports `estimates` and `report`; may be imported by `pipeline` and `serving`.
"""

from __future__ import annotations
