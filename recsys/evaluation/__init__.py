"""Splits, metrics, intervals, slices and the report: how a recommender is judged offline.

Knows no model; may be imported by what trains, judges or simulates one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from recsys.evaluation.diagnostics import RetrieverDiagnostics, collapse, diagnose_retriever
    from recsys.evaluation.measure import DEFAULT_METRICS, compare, evaluate
    from recsys.evaluation.metrics import LIST_METRICS, USER_METRICS, MetricName, parse_metric
    from recsys.evaluation.popularity import cold_items, head_items, self_information
    from recsys.evaluation.report import write_html
    from recsys.evaluation.result import Evaluation, Exposure, SliceResult, comparison_table
    from recsys.evaluation.significance import (
        Difference,
        Interval,
        bootstrap_mean,
        bootstrap_means,
        paired_difference,
    )
    from recsys.evaluation.slices import Slice, item_slices, repeat_slices, user_slices
    from recsys.evaluation.splits import Split, leave_last_out, split_at, split_per_user
    from recsys.evaluation.truth import Judged, Truth, judge

__all__ = [
    "DEFAULT_METRICS",
    "LIST_METRICS",
    "USER_METRICS",
    "Difference",
    "Evaluation",
    "Exposure",
    "Interval",
    "Judged",
    "MetricName",
    "RetrieverDiagnostics",
    "Slice",
    "SliceResult",
    "Split",
    "Truth",
    "bootstrap_mean",
    "bootstrap_means",
    "cold_items",
    "collapse",
    "compare",
    "comparison_table",
    "diagnose_retriever",
    "evaluate",
    "head_items",
    "item_slices",
    "judge",
    "leave_last_out",
    "paired_difference",
    "parse_metric",
    "repeat_slices",
    "self_information",
    "split_at",
    "split_per_user",
    "user_slices",
    "write_html",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
