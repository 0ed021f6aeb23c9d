"""Estimates for whole slates.

Imports `estimates`; may be imported by `serving`.
"""

from __future__ import annotations
