"""The settings of a run, checked before anything starts; see `recsys.config.config`.

May be imported by what joins the stages; losses, indexes and models take plain arguments.
"""

from __future__ import annotations

from recsys.config.config import Config, load_config
from recsys.config.data import DataConfig, EntityColumnsConfig, EventColumnsConfig, FeastConfig
from recsys.config.experiments import ArmConfig, ExperimentConfig
from recsys.config.gate_rules import GateRules
from recsys.config.impressions import ImpressionsConfig
from recsys.config.retrieval import RetrievalConfig, RetrieverName
from recsys.config.sections import CandidatesConfig, OutputConfig, RankingConfig
from recsys.config.serving import ServingConfig
from recsys.config.store import StoreConfig
from recsys.config.tuning import TuningConfig

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
