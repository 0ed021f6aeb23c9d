"""Public names are a promise: they are listed, and a change of the list is a decision.

After a deliberate change run this file as a program; it prints the new ``PUBLIC`` to paste here.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

PUBLIC: dict[str, list[str]] = {
    "features": [
        "Affinity",
        "Age",
        "Arrival",
        "CREATED",
        "Category",
        "Count",
        "DataError",
        "DayOfWeek",
        "Definition",
        "Divergence",
        "EVENT",
        "EventColumns",
        "FeatureBlock",
        "FeatureComputer",
        "FeatureSource",
        "Field",
        "Histories",
        "HourOfDay",
        "ITEM",
        "InMemorySource",
        "Interactions",
        "ItemTable",
        "LastNOverlap",
        "ListContains",
        "ListSize",
        "MeanWeight",
        "MemoryStateStore",
        "Migration",
        "NearCache",
        "OnlineFeatures",
        "PackedField",
        "PackedReader",
        "PackedSchema",
        "ParityReport",
        "ParquetDirectory",
        "Position",
        "Problem",
        "Rate",
        "Recency",
        "RetrievalRank",
        "RetrievalScore",
        "Session",
        "Similarity",
        "SlateRelative",
        "StateStore",
        "Suggestions",
        "TIMESTAMP",
        "TextMatch",
        "Trend",
        "USER",
        "UniqueCount",
        "UnknownIdError",
        "UpdateReport",
        "UserTable",
        "VectorComponent",
        "ViewDescription",
        "Vocabulary",
        "WEIGHT",
        "WriteReceipt",
        "append_impressions",
        "arrival",
        "check_parity",
        "compute_features",
        "default_definitions",
        "definitions_sha256",
        "dump_definitions",
        "find_problems",
        "item_features",
        "load_definitions",
        "migration",
        "read_interactions",
        "read_items",
        "read_users",
        "request_features",
        "suggest_definitions",
    ],
    "recsys": [
        "ArtifactError",
        "Bundle",
        "Config",
        "ConfigError",
        "LeakageError",
        "NotFittedError",
        "Recommender",
        "Slate",
        "SlateItem",
        "evaluate",
        "load_config",
        "train",
    ],
    "recsys.content": ["ContentEncoder", "encode_text"],
    "recsys.embeddings": [
        "EmbeddingTables",
        "Int8Rows",
        "LocalTables",
        "ShardedTables",
        "TableSpec",
        "quantize_rows",
    ],
    "recsys.evaluation": [
        "DEFAULT_METRICS",
        "Difference",
        "Evaluation",
        "Exposure",
        "Interval",
        "Judged",
        "LIST_METRICS",
        "MetricName",
        "RetrieverDiagnostics",
        "Slice",
        "SliceResult",
        "Split",
        "Truth",
        "USER_METRICS",
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
        "self_information",
        "split_at",
        "split_per_user",
        "user_slices",
        "write_html",
    ],
    "recsys.index": [
        "AnnoyIndex",
        "ExactIndex",
        "INDEXES",
        "Index",
        "Metric",
        "load_index",
        "make_index",
        "recall_against_exact",
    ],
    "recsys.ranking": [
        "Drawn",
        "build_slate",
        "epsilon_greedy",
        "plackett_luce",
        "seeded",
        "uniform_shuffle",
    ],
    "recsys.retrieval.losses": [
        "LOSSES",
        "PSL_SIGMAS",
        "bpr",
        "bsl",
        "calibrated_uniformity",
        "ccl",
        "cm3",
        "directau",
        "focal_weight",
        "fused_softmax",
        "fused_uniformity",
        "in_batch_softmax",
        "in_strips",
        "mann_whitney",
        "mawu",
        "psl",
        "sampled_softmax",
        "sl_at_k",
        "softmax_losses",
        "top_k_threshold",
        "uniformity",
        "unit_rows",
        "weighted_mean",
    ],
    "recsys.semantic_ids": [
        "Diagnostics",
        "EpochLosses",
        "QUANTIZERS",
        "Quantizer",
        "RQVAE",
        "ResidualKMeans",
        "SemanticIds",
        "add_tie_digit",
        "assign_unique",
        "diagnose",
        "load_quantizer",
        "move_to_free_codes",
    ],
    "recsys.simulation": [
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
    ],
    "serving": [
        "BundledPopular",
        "CandidateList",
        "EmbeddedStore",
        "Event",
        "ExplainRequest",
        "GenerationStore",
        "LiveModel",
        "RankRequest",
        "RecommendRequest",
        "RecommendationService",
        "Recommendations",
        "ServiceSettings",
        "ServingError",
        "SimilarRequest",
        "connect",
        "create_app",
        "redact",
        "vectors_of_field",
    ],
}

# Names that a package's __init__ uses itself and does not offer.
INTERNAL: dict[str, set[str]] = {"recsys.semantic_ids": {"read_header"}}


def packages() -> list[str]:
    """Packages of the house that list their public names."""
    files = [
        path
        for top in ("features", "recsys", "serving")
        for path in (ROOT / top).rglob("__init__.py")
    ]
    return sorted(
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in files
        if "__all__" in path.read_text(encoding="utf-8")
    )


def defined_names(module: ModuleType) -> set[str]:
    """Names in the module that its own package defines, underscores and submodules left out."""
    found = set()
    for name in dir(module):
        value = getattr(module, name)
        home = getattr(value, "__module__", None) or ""
        own = home == module.__name__ or home.startswith(f"{module.__name__}.")
        if own and not name.startswith("_") and not inspect.ismodule(value):
            found.add(name)
    return found


@pytest.mark.parametrize("package", packages())
def test_all_names_what_is_there(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert len(names) == len(set(names)), "a name is listed twice"
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == [], "listed but not there"
    internal = INTERNAL.get(package, set())
    assert sorted(defined_names(module) - set(names) - internal) == [], "there but not listed"


def test_the_public_names_are_the_pinned_ones() -> None:
    found = {name: sorted(importlib.import_module(name).__all__) for name in packages()}
    assert found == PUBLIC, "if this is meant, run this file and paste what it prints"


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(ROOT))
    for one in packages():
        listed = sorted(importlib.import_module(one).__all__)
        sys.stdout.write(f'    "{one}": {listed},\n'.replace("'", '"'))
