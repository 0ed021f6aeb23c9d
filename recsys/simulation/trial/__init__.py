"""Experiments on simulated people: arms, guardrails, rounds.

Imports the other folders of `simulation`; may be imported by `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.simulation.trial.experiment import Trial, run_trial

__all__ = ["Trial", "run_trial"]

__getattr__, __dir__ = lazy_names(__name__, __file__)
