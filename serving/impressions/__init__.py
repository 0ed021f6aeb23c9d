"""What was shown and what came of it, as rows on disk that survive a crash.

Imports no other folder; may be imported by `telemetry`, `request` and above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from serving.impressions.attribution import join_feedback
    from serving.impressions.log import arm_of, read_feedback, read_impressions

__all__ = ["arm_of", "join_feedback", "read_feedback", "read_impressions"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
