"""The search for settings: trials, their record, what the best of them are.

Imports `pipeline`; may be imported by `serving`.
"""

from __future__ import annotations
