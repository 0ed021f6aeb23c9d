"""The configuration of a run: one TOML file, checked before anything starts.

Sections are `recsys.settings.Settings`, one a stage, made of the options of the layers, which carry
every default, bound and meaning. Only the places that join the stages (`recsys.pipeline`,
`serving.cli`, examples) read them; layers take their own part. To add a setting, add a field with
its bound, default and meaning to the options of the layer that reads it, or to its section here if
none does: loading, messages, fingerprints and the page of settings follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import (
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from features.definitions import Definition
from features.whole_files import is_text
from recsys.config.data import FILES, DataConfig
from recsys.config.experiment_design import lay_out
from recsys.config.experiments import ExperimentConfig
from recsys.config.features import parsed_definitions, read_features_file
from recsys.config.gate_rules import GateRules
from recsys.config.impressions import ImpressionsConfig
from recsys.config.retrieval import RetrievalConfig
from recsys.config.sections import CandidatesConfig, OutputConfig, RankingConfig, SlateConfig
from recsys.config.serving import ServingConfig
from recsys.config.store import StoreConfig
from recsys.config.tuning import TuningConfig
from recsys.content.options import ContentOptions
from recsys.errors import ConfigError
from recsys.evaluation.options import EvaluationOptions, SplitOptions
from recsys.semantic_ids.options import SemanticIdOptions
from recsys.settings import Natural, Settings, explain

__all__ = ["Config", "load_config"]


class Config(Settings):
    """Everything a run can be told."""

    seed: Natural = 42
    """The one seed of the run; every stage derives its own generator from it."""
    data: DataConfig
    """What is read."""
    output: OutputConfig = OutputConfig()
    """Where results go."""
    split: SplitOptions = SplitOptions()
    """What is held out."""
    content: ContentOptions = ContentOptions()
    """Content vectors of the items."""
    semantic_ids: SemanticIdOptions = SemanticIdOptions()
    """Codes of the content vectors."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """The first stage."""
    ranking: RankingConfig = RankingConfig()
    """The second stage."""
    slate: SlateConfig = SlateConfig()
    """What may be shown."""
    features_file: Path | None = None
    """TOML file that ``features`` stand in. Not said: they stand in the configuration itself, or
    nowhere."""
    features: tuple[Definition, ...] | None = None
    """Definitions of the ranker's features, given as `features.load_definitions` takes them;
    `recsys.config.features` says what is added. Not said: the defaults."""
    candidates: CandidatesConfig = CandidatesConfig()
    """The nightly lists."""
    store: StoreConfig = StoreConfig()
    """Where they are published."""
    serving: ServingConfig = ServingConfig()
    """The processes that answer."""
    impressions: ImpressionsConfig = ImpressionsConfig()
    """The log of what was shown."""
    experiments: tuple[ExperimentConfig, ...] = ()
    """Experiments on live traffic."""
    evaluation: EvaluationOptions = EvaluationOptions()
    """What is measured."""
    gate: GateRules = GateRules()
    """What a bundle must fulfil to be promoted."""
    tuning: TuningConfig = TuningConfig()
    """What `recsys tune` searches."""

    _directory: Path = PrivateAttr(default_factory=Path)

    @field_validator("features", mode="plain")
    @classmethod
    def _known_definitions(cls, value: Any, info: ValidationInfo) -> tuple[Definition, ...] | None:
        retrieval, ranking = info.data.get("retrieval"), info.data.get("ranking")
        if value is None or retrieval is None or ranking is None:  # what is wrong there is told
            return None
        try:
            return parsed_definitions(
                value, retrieval.sources, retrieval_features=ranking.retrieval_features
            )
        except ValueError as error:
            file = info.data.get("features_file")
            raise ValueError(f"{file.name}: {error}" if file is not None else str(error)) from None

    @field_serializer("features")
    def _as_records(self, value: tuple[Definition, ...] | None) -> list[dict[str, Any]] | None:
        if value is None:
            return None
        from features.computation.declarations import dump_definitions

        return dump_definitions(value)

    @field_validator("experiments")
    @classmethod
    def _go_together(cls, value: tuple[ExperimentConfig, ...]) -> tuple[ExperimentConfig, ...]:
        lay_out([one.to_experiment() for one in value])
        return value

    @model_validator(mode="after")
    def _finds_what_is_shown(self) -> Self:
        retrieval = self.retrieval
        if "sources" not in retrieval.model_fields_set and self.slate.to_rule().excludes_all:
            kept = tuple(name for name in retrieval.sources if name != "buy_again")
            changed = retrieval.model_copy(update={"sources": kept})
            changed.model_fields_set.discard("sources")  # by default still
            self.__dict__["retrieval"] = changed
        return self

    @model_validator(mode="after")
    def _origins_are_moments(self) -> Self:
        if self.ranking.origins > 1 and not self.split.at_once:
            raise ValueError(
                f"ranking.origins must be 1 with split.kind = {self.split.kind!r}, got "
                f"{self.ranking.origins}; set split.kind = 'time', whose cut can lie earlier"
            )
        return self

    @model_validator(mode="after")
    def _file_is_read(self) -> Self:
        if self.features_file is not None and self.features is None:
            raise ValueError(
                f"features_file {str(self.features_file)!r} is read by load_config alone; give "
                "features as well"
            )
        return self

    def as_used(self) -> dict[str, Any]:
        """All settings, defaults included, as plain JSON values.

        Paths are relative to the configuration file, as they are in the file itself, so that the
        result means the same on another machine.
        """
        values = self.model_dump(mode="json")
        for section, name in (
            *((values["data"], name) for name in FILES),
            (values["content"], "text_model"),
            (values["output"], "directory"),
            (values["impressions"], "directory"),
            (values["impressions"], "feedback_directory"),
            (values, "features_file"),
            *((values["store"], f"tls_{name}_file") for name in ("ca", "cert", "key")),
            (values["data"]["feast"] or {}, "repository"),
        ):
            path = section.get(name)
            if path is not None and os.path.isabs(path) and self._directory.is_absolute():
                section[name] = Path(os.path.relpath(path, self._directory)).as_posix()
        return values

    def fingerprint(self) -> str:
        """Sha256 (hex) of the settings that can change a model.

        Where files lie and how they are written is left out (their content has a fingerprint of its
        own), and so is what only concerns publishing, serving and tuning.
        """
        values = self.as_used()
        for section in (
            "output",
            "store",
            "serving",
            "impressions",
            "experiments",
            "gate",
            "tuning",
            "features_file",
        ):
            del values[section]
        for name in (*FILES, "feast", "read"):
            del values["data"][name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: Path | str) -> Config:
    """Read a TOML file; relative paths in it are taken from the file's own directory.

    Raises:
        ConfigError: no such file, not TOML, or settings that are unknown, missing, of a wrong
            type or out of range. All of them are named, one a line. A features_file that cannot
            be read, or stands beside [[features]].
    """
    path = Path(path)
    if not is_text(str(path.absolute())):
        raise ConfigError(f"config file {path} must have a UTF-8 path; rename it or its directory")
    try:
        text = path.read_text(encoding="utf-8-sig")
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
    directory = path.absolute().parent
    features_file = values.get("features_file")
    if isinstance(features_file, str):
        if "features" in values:
            raise ConfigError(
                f"features_file {features_file!r} must not stand beside [[features]], got "
                f"{len(values['features'])} of these; keep the definitions in one place"
            )
        values["features"] = read_features_file(directory / features_file)
    try:
        # As JSON, because strict mode (no "64" for 64) still takes lists and text for paths there.
        config = Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error, Config)) from None
    config = config.model_copy(
        update={
            "data": config.data.below(directory),
            "content": config.content.below(directory),
            "store": config.store.below(directory),
            "output": OutputConfig(directory=directory / config.output.directory),
            "impressions": config.impressions.below(directory),
            "features_file": None if features_file is None else directory / features_file,
        }
    )
    config._directory = directory
    return config
