"""Jobs over all users: candidates, publishing, the gate, simulation, feature views.

May be imported by `cli`.
"""

from __future__ import annotations
