"""Feature definitions proposed from the data.

Imports `computation`; may be imported by `serving.cli`.
"""

from __future__ import annotations
