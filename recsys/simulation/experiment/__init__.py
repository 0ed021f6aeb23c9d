"""The statistics of an experiment: how long it must run, and what it says.

Plan with `plan_proportion`, `plan_mean` or `plan_ratio`; read with `analyse`, which takes one row
for each unit (`read_units`) and returns an `ExperimentReport`. The pieces are plain functions on
arrays.

Imports `report`; may be imported by `trial` and `serving`.
"""

from __future__ import annotations

from recsys.simulation.experiment.analyse import analyse
from recsys.simulation.experiment.cuped import Adjusted, cuped
from recsys.simulation.experiment.effect import Effect, ratio_effect, welch
from recsys.simulation.experiment.guardrails import NonInferiority, non_inferior
from recsys.simulation.experiment.interleaving import (
    Interleaved,
    Preference,
    balanced,
    credit_balanced,
    credit_team_draft,
    preference,
    queries_needed,
    sensitivity,
    team_draft,
)
from recsys.simulation.experiment.metric import Metric
from recsys.simulation.experiment.moments import (
    Gap,
    RatioSums,
    Sums,
    gap,
    linearised,
    running_ratio_sums,
    running_sums,
    sums_by_unit,
)
from recsys.simulation.experiment.multiple import (
    dunnett,
    dunnett_critical,
    holm,
    many_to_one_loadings,
)
from recsys.simulation.experiment.page import report_input
from recsys.simulation.experiment.power import (
    Design,
    Plan,
    days_needed,
    detectable_effect,
    plan_mean,
    plan_proportion,
    plan_ratio,
    power_at,
)
from recsys.simulation.experiment.report import ExperimentReport, MetricResult, SliceResult
from recsys.simulation.experiment.sequential import (
    always_valid_p,
    choose_tau,
    confidence_sequence,
    log_likelihood_ratio,
    planned_error,
)
from recsys.simulation.experiment.slices import Shrunk, heterogeneity_p, shrink
from recsys.simulation.experiment.srm import (
    SampleRatio,
    sample_ratio,
    sample_ratio_by_slice,
    sample_ratio_p,
)
from recsys.simulation.experiment.units import UnitFrame, read_units

__all__ = [
    "Adjusted",
    "Design",
    "Effect",
    "ExperimentReport",
    "Gap",
    "Interleaved",
    "Metric",
    "MetricResult",
    "NonInferiority",
    "Plan",
    "Preference",
    "RatioSums",
    "SampleRatio",
    "Shrunk",
    "SliceResult",
    "Sums",
    "UnitFrame",
    "always_valid_p",
    "analyse",
    "balanced",
    "choose_tau",
    "confidence_sequence",
    "credit_balanced",
    "credit_team_draft",
    "cuped",
    "days_needed",
    "detectable_effect",
    "dunnett",
    "dunnett_critical",
    "gap",
    "heterogeneity_p",
    "holm",
    "linearised",
    "log_likelihood_ratio",
    "many_to_one_loadings",
    "non_inferior",
    "plan_mean",
    "plan_proportion",
    "plan_ratio",
    "planned_error",
    "power_at",
    "preference",
    "queries_needed",
    "ratio_effect",
    "read_units",
    "report_input",
    "running_ratio_sums",
    "running_sums",
    "sample_ratio",
    "sample_ratio_by_slice",
    "sample_ratio_p",
    "sensitivity",
    "shrink",
    "sums_by_unit",
    "team_draft",
    "welch",
]
