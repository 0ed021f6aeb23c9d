"""What would have happened: estimates from logs, simulated worlds and experiment statistics."""

from __future__ import annotations

from recsys.simulation.diagnostics import (
    Reason,
    Verdict,
    WeightDiagnostics,
    support_coverage,
    weight_diagnostics,
)
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
from recsys.simulation.evaluate import evaluate_policies
from recsys.simulation.evaluation_table import Evaluation, EvaluationTable, UnusableError
from recsys.simulation.feedback_problems import FeedbackProblem, problems
from recsys.simulation.logged_feedback import LoggedFeedback
from recsys.simulation.readers import (
    FeedbackTable,
    from_impressions,
    read_feedback_parquet,
    read_open_bandit,
)
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
    "Evaluation",
    "EvaluationTable",
    "FeedbackProblem",
    "FeedbackTable",
    "LightGbmRewards",
    "LoggedFeedback",
    "LookupRewards",
    "Predicted",
    "Reason",
    "RewardModel",
    "UnusableError",
    "Verdict",
    "WeightDiagnostics",
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
    "evaluate_policies",
    "from_contributions",
    "from_impressions",
    "importance_weights",
    "ips",
    "marginal_weights",
    "mips",
    "prefix_cells",
    "problems",
    "ratio_estimate",
    "read_feedback_parquet",
    "read_open_bandit",
    "replay",
    "sampled_spread",
    "sg_dr",
    "sg_ips",
    "sndr",
    "snips",
    "snmips",
    "support_coverage",
    "switch_dr",
    "weight_diagnostics",
    "weight_spread",
]
