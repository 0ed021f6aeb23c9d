"""What is made of trained towers: averages, the light tower, thresholds.

Imports `training`; may be imported by `recommender` and `pipeline`.
"""

from __future__ import annotations
