"""The configuration of a run: one TOML file, checked before anything starts.

Sections are frozen pydantic models, one per stage; every default lives here and nowhere else.
Only the places that join the stages (`recsys.pipeline`, `serving.cli`, examples) read them; layers,
losses, indexes and metrics take plain arguments. To add a setting, add a field with its default
and its bound to the section of its stage: loading, messages and fingerprints follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from features.schema import ITEM, TIMESTAMP, USER, EventColumns
from recsys.config_errors import explain
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
    "OutputConfig",
    "RankingConfig",
    "RetrievalConfig",
    "Section",
    "SemanticIdsConfig",
    "ServingConfig",
    "SplitConfig",
    "StoreConfig",
    "TuningConfig",
    "load_config",
]

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Open01 = Annotated[float, Field(gt=0, lt=1)]
Closed01 = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def fingerprint(self) -> str:
        """Sha256 (hex) of the values; equal values give equal fingerprints in any process."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class EventColumnsConfig(Section):
    """Which columns of the event file play which role."""

    user: str = USER
    item: str = ITEM
    timestamp: str = TIMESTAMP
    event: str | None = None
    weight: str | None = None
    timestamp_unit: Literal["s", "ms", "us", "iso"] = "s"
    default_event: str = "interaction"

    def to_event_columns(self) -> EventColumns:
        """The same mapping as the value type the readers take."""
        values = self.model_dump()
        return EventColumns(unit=values.pop("timestamp_unit"), **values)


class EntityColumnsConfig(Section):
    """Columns of the item or user file; a role that is not named is found from the values."""

    id: str | None = None
    title: str | None = None
    text: tuple[str, ...] | None = None
    category: tuple[str, ...] | None = None
    list: tuple[str, ...] | None = None
    list_separator: Annotated[str, Field(min_length=1)] = "|"

    def to_options(self, default_id: str) -> dict[str, Any]:
        """Keyword arguments for `features.read_items` and `features.read_users`."""
        return {
            "id_column": self.id or default_id,
            "text_columns": self.text,
            "category_columns": self.category,
            "list_columns": self.list,
            "list_separator": self.list_separator,
        }


class DataConfig(Section):
    """The files a run reads; paths are relative to the configuration file."""

    events: Path
    items: Path
    users: Path | None = None
    columns: EventColumnsConfig = EventColumnsConfig()
    item_columns: EntityColumnsConfig = EntityColumnsConfig()
    user_columns: EntityColumnsConfig = EntityColumnsConfig()


class OutputConfig(Section):
    """Where bundles, unfinished stages and the embedded store live."""

    directory: Path = Path("artifacts")


class SplitConfig(Section):
    """What is held out for evaluation: each user's last events, or all events after a moment."""

    kind: Literal["per_user", "time"] = "per_user"
    fraction: Open01 = 0.8  # share of the events that is training data


class ContentConfig(Section):
    """Item content vectors: text and attributes, fused by weight."""

    dim: Count = 64
    text_weight: NonNegative = 1.0
    attribute_weight: NonNegative = 1.0

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.text_weight + self.attribute_weight == 0:
            raise ValueError("text_weight and attribute_weight must not both be 0")
        return self


class SemanticIdsConfig(Section):
    """Residual quantisation of the content vectors."""

    kind: Literal["rqvae", "residual_kmeans"] = "rqvae"
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    codes: Annotated[int, Field(ge=2, le=32_768)] = 128
    epochs: Count = 60
    batch_size: Count = 1024
    learning_rate: Positive = 1e-3


RetrieverName = Literal[
    "two_tower", "item_item", "item_item_all", "co_occurrence", "next_item", "popularity"
]


LossName = Literal[
    "bpr",
    "bsl",
    "ccl",
    "cm3",
    "directau",
    "in_batch_softmax",
    "mann_whitney",
    "mawu",
    "psl",
    "sampled_softmax",
    "sl_at_k",
]


class RetrievalConfig(Section):
    """The two towers, their training, and which retrievers feed the ranker."""

    sources: tuple[RetrieverName, ...] = (
        "two_tower",
        "item_item",
        "item_item_all",
        "co_occurrence",
        "next_item",
        "popularity",
    )
    item_item_l2: Positive = 300.0
    half_life: Positive = 10.0  # events after which a history event weighs half, item_item
    popularity_window_days: Positive = 180.0
    dim: Count = 64
    loss: LossName = "sampled_softmax"
    temperature: Positive = 0.1
    gamma: NonNegative = 1.0  # weight of DirectAU's uniformity
    negatives: Count = 1024
    denoising: Literal["none", "pld", "truncated"] = "none"
    epochs: Count = 15
    patience: Natural = 4  # epochs without a better validation recall; 0: never stop early
    positive_half_life: Annotated[float, Field(gt=0)] = 1e9  # events; old positives weigh less
    batch_size: Count = 1024
    learning_rate: Positive = 2e-3
    history_length: Count = 100
    num_threads: Count = 1  # of torch while training; see recsys.threads
    use_user_id: bool = False
    score: Literal["cosine", "dot"] = "cosine"
    int8: bool = True  # serve from row-wise int8 copies of the item vectors
    index: Literal["exact", "annoy"] = "exact"

    @field_validator("sources")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _check_distinct(value, "retriever")
        if "popularity" not in value:
            raise ValueError(
                "must include 'popularity', which answers users without a history; got "
                f"{', '.join(value) or 'none'}"
            )
        return value


class GbdtConfig(Section):
    """LightGBM LambdaMART."""

    num_trees: Count = 200  # the most; fewer where they do better on held-out users
    learning_rate: Positive = 0.05
    num_leaves: Annotated[int, Field(ge=2)] = 15
    min_data_in_leaf: Count = 100
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    bagging_fraction: Annotated[float, Field(gt=0, le=1)] = 0.7
    lambda_l2: NonNegative = 10.0
    truncation_level: Count = 30
    max_bin: Annotated[int, Field(ge=3, le=255)] = 63
    num_threads: Count = 1


class ListwiseConfig(Section):
    """The neural stage that reorders the best of the trees' list."""

    enabled: bool = True
    top: Annotated[int, Field(ge=2)] = 50
    dim: Count = 32
    epochs: Count = 10
    learning_rate: Positive = 1e-3


class RankingConfig(Section):
    """From candidates to a slate."""

    candidates_per_source: Count = 150
    folds: Annotated[int, Field(ge=2, le=20)] = 4  # of users, to choose trees and network
    gbdt: GbdtConfig = GbdtConfig()
    listwise: ListwiseConfig = ListwiseConfig()
    diversity: Closed01 = 0.0  # 0: by score alone; 1: by difference from what is above alone


class CandidatesConfig(Section):
    """The batch job that writes one list per user."""

    k: Annotated[int, Field(ge=1, le=1000)] = 100
    batch_size: Count = 512  # users at a time


class StoreConfig(Section):
    """Where generations are published. ``RECSYS_STORE_URL`` in the environment goes first."""

    url: str = "embedded"
    namespace: Name = "recsys"
    ttl_s: Count = 7 * 24 * 3600

    @field_validator("url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if value == "embedded":
            return value
        parts = urlsplit(value)
        if parts.password:
            raise ValueError(
                "must not hold a password: set RECSYS_STORE_PASSWORD, or put the whole URL in "
                "RECSYS_STORE_URL"
            )
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(
                f"must be 'embedded' or start with redis://, rediss:// or unix://, got {value!r}"
            )
        return value


class ServingConfig(Section):
    """The HTTP process."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    live: bool = True  # answer requests that say what the user just did from the model itself
    deadline_s: Positive = 0.5  # of one request
    live_timeout_s: Positive = 0.3  # of the model within that
    store_timeout_s: Positive = 0.2  # of one read of the store
    head_ttl_s: Positive = 1.0  # how long a process may go on serving after a flip
    max_in_flight: Count = 32  # requests worked on at once


class EvaluationConfig(Section):
    """What is measured on the held-out part."""

    ks: tuple[Count, ...] = (5, 10, 20)
    bootstrap_samples: Count = 1000

    @field_validator("ks")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(_check_distinct(value, "cutoff")))


class TuningConfig(Section):
    """What `recsys tune` searches, and for how long."""

    minutes: Positive = 60.0  # of one call; it stops after the epoch that is then trained
    trials: Count = 100  # of a study, over all calls
    space: dict[str, Dimension] = {}  # setting -> values; empty: search_space.default_space

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


def _check_distinct(values: tuple[Any, ...], noun: str) -> tuple[Any, ...]:
    if not values:
        raise ValueError(f"needs at least one {noun}, got none")
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"each {noun} may appear once, got {twice[0]} twice")
    return values
