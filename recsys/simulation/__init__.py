"""What would have happened: estimates from logs, simulated worlds and experiment statistics."""

from __future__ import annotations

from recsys.simulation.estimate import (
    Estimate,
    bootstrap_estimates,
    from_contributions,
    ratio_estimate,
)
from recsys.simulation.logged_feedback import LoggedFeedback

__all__ = [
    "Estimate",
    "LoggedFeedback",
    "bootstrap_estimates",
    "from_contributions",
    "ratio_estimate",
]
