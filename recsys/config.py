"""The configuration of a run: one TOML file, checked before anything starts.

Sections are frozen pydantic models, one per stage; every default lives in them and nowhere else.
Only the places that join the stages (`recsys.pipeline`, `serving.cli`, examples) read them; layers,
losses, indexes and metrics take plain arguments. To add a setting, add a field with its default
and its bound to the section of its stage, in `recsys.config_sections` or `recsys.config_retrieval`:
loading, messages and fingerprints follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from recsys.config_base import Count, Natural, Positive, Section
from recsys.config_errors import explain
from recsys.config_retrieval import LossName, RetrievalConfig, RetrieverName
from recsys.config_sections import (
    CandidatesConfig,
    ContentConfig,
    DataConfig,
    EntityColumnsConfig,
    EvaluationConfig,
    EventColumnsConfig,
    GbdtConfig,
    ListwiseConfig,
    OutputConfig,
    RankingConfig,
    SemanticIdsConfig,
    ServingConfig,
    SplitConfig,
    StoreConfig,
)
from recsys.errors import ConfigError
from recsys.search_space import Dimension, read_space

__all__ = [
    "CandidatesConfig",
    "Config",
    "ContentConfig",
    "DataConfig",
    "EntityColumnsConfig",
    "EvaluationConfig",
    "EventColumnsConfig",
    "GbdtConfig",
    "ListwiseConfig",
    "LossName",
    "OutputConfig",
    "RankingConfig",
    "RetrievalConfig",
    "RetrieverName",
    "Section",
    "SemanticIdsConfig",
    "ServingConfig",
    "SplitConfig",
    "StoreConfig",
    "TuningConfig",
    "load_config",
]


class TuningConfig(Section):
    """What `recsys tune` searches, and for how long."""

    minutes: Positive = 60.0  # of one call; it stops after the epoch that is then trained
    trials: Count = 100  # of a study, over all calls
    # Setting -> values; empty: search_space.default_space.
    space: dict[str, Dimension] = Field(default_factory=dict)

    @field_validator("space", mode="before")
    @classmethod
    def _searchable(cls, value: Any) -> Any:
        return read_space(value, RetrievalConfig)


class Config(Section):
    """Everything a run can be told.

    Attributes:
        seed: the one seed of the run; every stage derives its own generator from it.
    """

    seed: Natural = 42
    data: DataConfig
    output: OutputConfig = OutputConfig()
    split: SplitConfig = SplitConfig()
    content: ContentConfig = ContentConfig()
    semantic_ids: SemanticIdsConfig = SemanticIdsConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: RankingConfig = RankingConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    store: StoreConfig = StoreConfig()
    serving: ServingConfig = ServingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tuning: TuningConfig = TuningConfig()

    _directory: Path = PrivateAttr(default_factory=Path)

    def as_used(self) -> dict[str, Any]:
        """All settings, defaults included, as plain JSON values.

        Paths are relative to the configuration file, as they are in the file itself, so that the
        result means the same on another machine.
        """
        values = self.model_dump(mode="json")
        for section, name in (
            ("data", "events"),
            ("data", "items"),
            ("data", "users"),
            ("output", "directory"),
        ):
            path = values[section][name]
            if path is not None and os.path.isabs(path) and self._directory.is_absolute():
                values[section][name] = Path(os.path.relpath(path, self._directory)).as_posix()
        return values

    def fingerprint(self) -> str:
        """Sha256 (hex) of the settings that can change a model.

        Where files lie is left out (their content has a fingerprint of its own), and so is what
        only concerns publishing, serving and tuning.
        """
        values = self.as_used()
        for section in ("output", "store", "serving", "tuning"):
            del values[section]
        for name in ("events", "items", "users"):
            del values["data"][name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: Path | str) -> Config:
    """Read a TOML file; relative paths in it are taken from the file's own directory.

    Raises:
        ConfigError: no such file, not TOML, or settings that are unknown, missing, of a wrong
            type or out of range. All of them are named, one a line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"config file {path} does not exist; give one with --config, or copy recsys.toml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from error
    try:
        # As JSON, because strict mode (no "64" for 64) still takes lists and text for paths there.
        config = Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error, Config)) from None
    directory = path.absolute().parent
    data = config.data
    found = {
        "events": directory / data.events,
        "items": directory / data.items,
        "users": None if data.users is None else directory / data.users,
    }
    config = config.model_copy(
        update={
            "data": data.model_copy(update=found),
            "output": OutputConfig(directory=directory / config.output.directory),
        }
    )
    config._directory = directory
    return config
