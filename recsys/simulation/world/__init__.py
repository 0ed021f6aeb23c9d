"""Simulated people whose taste is known, and what they do with a slate.

May be imported by `trial` and `pipeline`.
"""

from __future__ import annotations
