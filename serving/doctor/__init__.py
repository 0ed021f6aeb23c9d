"""Examinations of an installation and of a store, each problem with its remedy.

May be imported by `cli`.
"""

from __future__ import annotations
