"""What would have happened: estimates from logs, simulated worlds and experiment statistics."""

from __future__ import annotations

from recsys.simulation.embeddings import (
    estimated_marginal_weights,
    marginal_weights,
    prefix_cells,
)
from recsys.simulation.estimate import (
    Contributions,
    Estimate,
    bootstrap_estimates,
    from_contributions,
    ratio_estimate,
)
from recsys.simulation.estimators import (
    clipped_ips,
    dm,
    dr,
    dr_os,
    importance_weights,
    ips,
    mips,
    replay,
    sg_dr,
    sg_ips,
    sndr,
    snips,
    snmips,
    switch_dr,
)
from recsys.simulation.logged_feedback import LoggedFeedback
from recsys.simulation.reward_models import (
    CrossFitted,
    LightGbmRewards,
    LookupRewards,
    Predicted,
    RewardModel,
    cross_fit,
)
from recsys.simulation.slope import (
    choose_least_error,
    choose_lepski,
    choose_slope,
    sampled_spread,
    weight_spread,
)

__all__ = [
    "Contributions",
    "CrossFitted",
    "Estimate",
    "LightGbmRewards",
    "LoggedFeedback",
    "LookupRewards",
    "Predicted",
    "RewardModel",
    "bootstrap_estimates",
    "choose_least_error",
    "choose_lepski",
    "choose_slope",
    "clipped_ips",
    "cross_fit",
    "dm",
    "dr",
    "dr_os",
    "estimated_marginal_weights",
    "from_contributions",
    "importance_weights",
    "ips",
    "marginal_weights",
    "mips",
    "prefix_cells",
    "ratio_estimate",
    "replay",
    "sampled_spread",
    "sg_dr",
    "sg_ips",
    "sndr",
    "snips",
    "snmips",
    "switch_dr",
    "weight_spread",
]
