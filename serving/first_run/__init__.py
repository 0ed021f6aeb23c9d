"""A first configuration from the files that somebody has.

May be imported by `cli`.
"""

from __future__ import annotations
