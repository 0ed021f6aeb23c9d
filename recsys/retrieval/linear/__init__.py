"""The linear item-item model: its system of equations, and three ways to solve it.

Knows arrays alone; may be imported by `retrieval`.
"""

from __future__ import annotations
