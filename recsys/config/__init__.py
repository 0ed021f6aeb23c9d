"""The settings of a run, checked before anything starts; see `recsys.config.config`.

May be imported by what joins the stages; losses, indexes and models take plain arguments.
"""

from __future__ import annotations

from recsys.config.config import (
    ArmConfig,
    CandidatesConfig,
    Config,
    DataConfig,
    EntityColumnsConfig,
    EventColumnsConfig,
    ExperimentConfig,
    FeastConfig,
    GateRules,
    ImpressionsConfig,
    OutputConfig,
    RankingConfig,
    RetrievalConfig,
    RetrieverName,
    ServingConfig,
    StoreConfig,
    TuningConfig,
    load_config,
)

__all__ = [
    "ArmConfig",
    "CandidatesConfig",
    "Config",
    "DataConfig",
    "EntityColumnsConfig",
    "EventColumnsConfig",
    "ExperimentConfig",
    "FeastConfig",
    "GateRules",
    "ImpressionsConfig",
    "OutputConfig",
    "RankingConfig",
    "RetrievalConfig",
    "RetrieverName",
    "ServingConfig",
    "StoreConfig",
    "TuningConfig",
    "load_config",
]
