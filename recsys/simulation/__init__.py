"""What would have happened: estimates from logs, simulated worlds and experiment statistics.

Hands on what its folders offer; may be imported by `serving`.
"""

from __future__ import annotations

from recsys.simulation.estimates.cells import (
    estimated_marginal_weights,
    marginal_weights,
    prefix_cells,
)
from recsys.simulation.estimates.diagnostics import (
    Reason,
    Verdict,
    WeightDiagnostics,
    support_coverage,
    weight_diagnostics,
)
from recsys.simulation.estimates.estimate import (
    Contributions,
    Estimate,
    bootstrap_estimates,
    from_contributions,
    ratio_estimate,
)
from recsys.simulation.estimates.estimators import (
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
from recsys.simulation.estimates.evaluate import evaluate_policies
from recsys.simulation.estimates.evaluation_table import Evaluation, EvaluationTable, UnusableError
from recsys.simulation.estimates.feedback_problems import FeedbackProblem, problems
from recsys.simulation.estimates.logged_feedback import LoggedFeedback
from recsys.simulation.estimates.readers import (
    FeedbackTable,
    from_impressions,
    read_feedback_parquet,
    read_open_bandit,
)
from recsys.simulation.estimates.reward_models import (
    CrossFitted,
    LightGbmRewards,
    LookupRewards,
    Predicted,
    RewardModel,
    cross_fit,
)
from recsys.simulation.estimates.slope import (
    choose_least_error,
    choose_lepski,
    choose_slope,
    sampled_spread,
    weight_spread,
)
from recsys.simulation.gate.decide import GateDecision, decide
from recsys.simulation.gate.evidence import Evidence, UserValues
from recsys.simulation.gate.reason import Reason as GateReason
from recsys.simulation.gate.report import gate_report
from recsys.simulation.report.page import report_page, write_report
from recsys.simulation.report.parts import (
    CurveLine,
    CurvePlot,
    DecisionPart,
    DiagnosticLine,
    EffectLine,
    EstimateLine,
    ReasonLine,
    ReportInput,
    TablePart,
    WeightsPart,
)
from recsys.simulation.slates.comparison import SlateComparison, compare_slates
from recsys.simulation.slates.estimators import (
    cascade_dr,
    independent_ips,
    prefix_weights,
    reward_interaction_ips,
    standard_slate_ips,
)
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import (
    EpsilonGreedyPolicy,
    FactoredPolicy,
    PlackettLucePolicy,
    SlatePolicy,
)
from recsys.simulation.slates.probabilities import (
    enumerate_slates,
    place_probabilities,
    sample_slates,
    slate_probability,
    slot_marginals,
)
from recsys.simulation.slates.pseudo_inverse import (
    factored_pseudo_inverse,
    pseudo_inverse,
    pseudo_inverse_weights,
)
from recsys.simulation.slates.rewards import SlotValues, cross_fitted_slot_values

__all__ = [
    "Contributions",
    "CrossFitted",
    "CurveLine",
    "CurvePlot",
    "DecisionPart",
    "DiagnosticLine",
    "EffectLine",
    "EpsilonGreedyPolicy",
    "Estimate",
    "EstimateLine",
    "Evaluation",
    "EvaluationTable",
    "Evidence",
    "FactoredPolicy",
    "FeedbackProblem",
    "FeedbackTable",
    "GateDecision",
    "GateReason",
    "LightGbmRewards",
    "LoggedFeedback",
    "LookupRewards",
    "PlackettLucePolicy",
    "Predicted",
    "Reason",
    "ReasonLine",
    "ReportInput",
    "RewardModel",
    "SlateComparison",
    "SlateFeedback",
    "SlatePolicy",
    "SlotValues",
    "TablePart",
    "UnusableError",
    "UserValues",
    "Verdict",
    "WeightDiagnostics",
    "WeightsPart",
    "bootstrap_estimates",
    "cascade_dr",
    "choose_least_error",
    "choose_lepski",
    "choose_slope",
    "clipped_ips",
    "compare_slates",
    "cross_fit",
    "cross_fitted_slot_values",
    "decide",
    "dm",
    "dr",
    "dr_os",
    "enumerate_slates",
    "estimated_marginal_weights",
    "evaluate_policies",
    "factored_pseudo_inverse",
    "from_contributions",
    "from_impressions",
    "gate_report",
    "importance_weights",
    "independent_ips",
    "ips",
    "marginal_weights",
    "mips",
    "place_probabilities",
    "prefix_cells",
    "prefix_weights",
    "problems",
    "pseudo_inverse",
    "pseudo_inverse_weights",
    "ratio_estimate",
    "read_feedback_parquet",
    "read_open_bandit",
    "replay",
    "report_page",
    "reward_interaction_ips",
    "sample_slates",
    "sampled_spread",
    "sg_dr",
    "sg_ips",
    "slate_probability",
    "slot_marginals",
    "sndr",
    "snips",
    "snmips",
    "standard_slate_ips",
    "support_coverage",
    "switch_dr",
    "weight_diagnostics",
    "weight_spread",
    "write_report",
]
