"""Runs that continue a bundle: what they take over from it, and what must not come with it.

```
--from             every weight begins where the bundle's stands; ids are appended
--refresh-users    the item vectors, the index and the ranker stay; what makes queries is trained
--compatible-with  the vectors are new and stay comparable with the bundle's; ids are appended
```

The bundle was trained on its whole training part, so it has seen events that a run on later data
may want to hold out. Two things keep them apart:

- Of the parts that a run holds out for tests, none may lie in what the bundle was trained on. The
  bundle says for each user until when that went; data that only grew, with the split as it was,
  pass.
- The retrievers of the past, whose answers the ranker learns from, are trained from nothing, and
  without the older vectors. The bundle has seen the very events that are the ranker's labels:
  towers that began from it would rank those first, and the ranker would learn to trust a score
  that in service is never that good. What is made of the items alone, content, Semantic IDs and
  fields, saw no event and is taken over for both.

``--refresh-users`` trains no retrievers of the past, because the ranker stays the bundle's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.computation.declarations import load_definitions
from features.definitions import Definition
from features.tables import USER, Histories, Interactions, Vocabulary
from recsys.bundle import Bundle, latest
from recsys.bundle.left_out import LeftOut
from recsys.config import Config
from recsys.dataset import Dataset
from recsys.errors import ArtifactError, ConfigError
from recsys.files.provenance import fingerprint
from recsys.retrieval.towers import TwoTowerRetriever

__all__ = [
    "NEWEST",
    "Lineage",
    "numbered_as",
    "open_lineage",
    "trained_until",
    "write_trained_until",
]

NEWEST = "newest"
"""Stands for the newest bundle where an id is asked for."""

_TRAINED_UNTIL = "data/trained_until.parquet"
_TOWERS = f"retrieval/{TwoTowerRetriever.name}"
_READ = ("content", "data", "fields", "index", "ranking", "retrieval", "semantic-ids")


@dataclass(frozen=True, eq=False)
class Lineage:
    """The bundles that a run continues.

    Attributes:
        start: its towers are where training begins. None: from nothing.
        frozen_items: of ``start`` all but what makes queries stays as it is.
        old: its vectors are those the new ones stay comparable with. None: free.
    """

    start: Bundle | None = None
    frozen_items: bool = False
    old: Bundle | None = None

    @property
    def parent(self) -> Bundle | None:
        """The bundle whose numbering goes on."""
        return self.start or self.old

    @property
    def bundles(self) -> list[Bundle]:
        """All of them, each once."""
        found = {bundle.id: bundle for bundle in (self.start, self.old) if bundle is not None}
        return list(found.values())

    def record(self) -> dict[str, str]:
        """How the run continues which bundle: option of the command -> id."""
        first = "refresh-users" if self.frozen_items else "from"
        found = {first: self.start, "compatible-with": self.old}
        return {kind: bundle.id for kind, bundle in found.items() if bundle is not None}

    def fingerprint(self) -> str | None:
        """Sha256 (hex) of what stages may read of the bundles; None without any."""
        if self.parent is None:
            return None
        files = [
            None
            if bundle is None
            else {
                name: record.sha256
                for name, record in bundle.manifest.files.items()
                if name.split("/", 1)[0] in _READ
            }
            for bundle in (self.start, self.old)
        ]
        return fingerprint(self.frozen_items, files)

    def continued(self, data: Dataset) -> Dataset:
        """``data`` with its ids numbered on from the parent's.

        Raises:
            ArtifactError: the numbering of ``old`` does not go on in that of ``start``.
            DataError: an item of the parent is not in the catalogue, or with frozen items a new
                one is.
        """
        if self.parent is None:
            return data
        data = numbered_as(self.parent, data)
        for bundle in self.bundles:
            for side, ids in zip(("item", "user"), _vocabularies(bundle), strict=True):
                own = data.item_ids if side == "item" else data.user_ids
                if not own.to_series().head(len(ids)).equals(ids.to_series()):
                    raise ArtifactError(
                        f"the {side}s of bundle {bundle.id} must be the first ones of bundle "
                        f"{self.parent.id}; name bundles of one line"
                    )
        known = len(_vocabularies(self.parent)[0])
        if self.frozen_items and data.num_items > known:
            raise ConfigError(
                f"--refresh-users needs the items of bundle {self.parent.id}: "
                f"{data.num_items - known:,} of the catalogue are new, first "
                f"{data.item_ids.ids([known + 1])[0]!r}; use --from"
            )
        return data

    def check_towers(self, left_out: Iterable[LeftOut]) -> None:
        """Refuse data that the towers cannot be trained on: there is nothing else to continue.

        Raises:
            ConfigError: there are bundles, and the towers are left out.
        """
        for stage, reason in left_out if self.bundles else ():
            if stage == TwoTowerRetriever.name:
                raise ConfigError(f"a bundle is continued by its towers, which are {reason}")

    def check(self, config: Config, data: Dataset, held_out: Interactions) -> None:
        """Refuse settings that do not go on from the bundles, and events they have seen.

        Args:
            config: the run.
            data: numbered as `continued` does.
            held_out: the events of the test part.

        Raises:
            ConfigError: a setting must be as it was.
            ArtifactError: a bundle was trained on events that are held out now, is damaged, or
                has no towers.
        """
        if self.bundles and TwoTowerRetriever.name not in config.retrieval.sources:
            raise ConfigError(
                "retrieval.sources must include 'two_tower' to continue a bundle, got "
                f"{', '.join(config.retrieval.sources)}"
            )
        if self.bundles:
            asked = data.histories(held_out)
            for bundle in self.bundles:
                bundle.verify()
                _check_unseen(bundle, data, asked)
        if self.start is not None:
            sections = ["content", "semantic_ids", *(["ranking"] if self.frozen_items else [])]
            _check_sections(self.start, config, sections)
            _check_start(self.start, config)
            if self.frozen_items:
                was = self.start.manifest.config["retrieval"]["sources"]
                now = list(config.retrieval.sources)
                _check_pairs(self.start, {"sources": (was, now)}, "to go on with its ranker")
                _check_features(self.start, config)
        if self.old is not None:
            _check_comparable(self.old, config)

    def definitions(self) -> tuple[Definition, ...] | None:
        """Of the ranker that stays; None where one is trained."""
        if self.start is None or not self.frozen_items:
            return None
        path = self.start.file("ranking/definitions.json")
        return load_definitions(json.loads(path.read_text()))

    def start_towers(self) -> TwoTowerRetriever | None:
        """The towers that training begins from."""
        return None if self.start is None else _towers(self.start)

    def old_towers(self) -> TwoTowerRetriever | None:
        """The towers that the new ones stay comparable with."""
        return None if self.old is None else _towers(self.old)


def open_lineage(
    artifacts: Path,
    *,
    start: str | None = None,
    refresh_users: str | None = None,
    compatible_with: str | None = None,
) -> Lineage:
    """The bundles named on a command line.

    Args:
        artifacts: where bundles are looked for by their id.
        start: id or path of a bundle, or "newest". None: not asked for.
        refresh_users: the same.
        compatible_with: the same.

    Raises:
        ConfigError: ``refresh_users`` does not go with the others.
        ArtifactError: there is no such bundle.
    """
    if refresh_users is not None and (start is not None or compatible_with is not None):
        other = "--from" if start is not None else "--compatible-with"
        why = (
            "begins from its own bundle"
            if start is not None
            else "leaves the item vectors as they are, so its users are valid against them anyway"
        )
        raise ConfigError(f"--refresh-users must not be given with {other}: it {why}")
    first = refresh_users if start is None else start
    return Lineage(
        start=_opened(artifacts, first),
        frozen_items=refresh_users is not None,
        old=_opened(artifacts, compatible_with),
    )


def numbered_as(bundle: Bundle, data: Dataset) -> Dataset:
    """``data`` with the numbering of a bundle, new ids after it; see `Dataset.continuing`."""
    return data.continuing(*_vocabularies(bundle))


def write_trained_until(
    directory: Path, data: Dataset, trained: Histories, lineage: Lineage
) -> None:
    """Say in the bundle at ``directory`` until when each user's events were trained on.

    Args:
        directory: of the bundle.
        data: names the users.
        trained: U rows, the training part.
        lineage: bundles whose weights or vectors went in, with what they had seen.
    """
    until = np.full(len(trained), np.iinfo(np.int64).min)
    known = trained.counts > 0
    until[known] = trained.timestamp[trained.indptr[1:][known] - 1]
    for bundle in lineage.bundles:
        until = np.maximum(until, trained_until(bundle, data))
    pl.DataFrame({USER: data.user_ids.to_series(), "trained_until": until}).write_parquet(
        directory / _TRAINED_UNTIL
    )


def trained_until(bundle: Bundle, data: Dataset) -> np.ndarray:
    """[U] int64 microseconds of each user's last event that ``bundle`` was trained on.

    The smallest int64 for users without one.
    """
    found = pl.read_parquet(bundle.file(_TRAINED_UNTIL))
    until = np.full(data.user_ids.size, np.iinfo(np.int64).min)
    until[data.user_ids.index(found[USER])] = found["trained_until"].to_numpy()
    return until[1:]


def _check_unseen(bundle: Bundle, data: Dataset, held_out: Histories) -> None:
    asked = held_out.counts > 0
    first = held_out.timestamp[held_out.indptr[:-1][asked]]
    seen = int((first < trained_until(bundle, data)[asked]).sum())
    if seen:
        raise ArtifactError(
            f"bundle {bundle.id} was trained on events that are held out now, of {seen:,} of "
            f"{int(asked.sum()):,} users; keep the split it was trained with and data that only "
            "grew, or train from nothing"
        )


def _check_sections(bundle: Bundle, config: Config, sections: list[str]) -> None:
    """Settings that the bundle's parts were made with and that go on using them."""
    wanted, used = config.as_used(), bundle.manifest.config
    for section in sections:
        for name, was, now in _changed(used.get(section, {}), wanted[section], section):
            raise ConfigError(
                f"{name} must be {was!r} as in bundle {bundle.id}, whose {section} goes on being "
                f"used, got {now!r}; train from nothing to change it"
            )


def _changed(
    was: Mapping[str, Any], now: Mapping[str, Any], prefix: str
) -> list[tuple[str, Any, Any]]:
    """Settings of both that differ; what one version does not have is no difference."""
    found: list[tuple[str, Any, Any]] = []
    for name in [name for name in was if name in now]:
        path = f"{prefix}.{name}"
        if isinstance(was[name], Mapping):
            found += _changed(was[name], now[name], path)
        elif was[name] != now[name]:
            found.append((path, was[name], now[name]))
    return found


def _check_features(bundle: Bundle, config: Config) -> None:
    """Definitions that are declared now must be those the bundle's ranker learned from."""
    was, now = bundle.manifest.config.get("features"), config.as_used()["features"]
    if was != now:
        raise ConfigError(
            f"features must be as in bundle {bundle.id}, whose ranker goes on being used, got "
            f"{_counted(now)} for {_counted(was)}; train from nothing to change them"
        )


def _counted(records: list[Any] | None) -> str:
    return "the defaults" if records is None else f"{len(records)} declared"


def _check_start(bundle: Bundle, config: Config) -> None:
    """The weights of the bundle's towers must fit the configured ones."""
    settings, towers = config.retrieval, _towers(bundle)
    was, now = towers.tower.options, settings
    pairs = {
        "dim": (was.dim, now.dim),
        "score": (towers.score_kind, settings.score),
        "pooling": (was.pooling, now.pooling),
        "hidden_dim": (was.hidden_dim, now.hidden_dim),
        "use_user_id": (was.use_user_id, now.use_user_id),
        "use_fields": ("field" in towers.tables, settings.use_fields),
    }
    if now.pooling in ("attention", "sequence"):
        pairs["history_length"] = (was.history_length, now.history_length)
    if now.pooling == "sequence":
        pairs["reader_blocks"] = (was.reader_blocks, now.reader_blocks)
        pairs["reader_heads"] = (was.reader_heads, now.reader_heads)
    _check_pairs(bundle, pairs, "to begin from its weights")


def _check_comparable(bundle: Bundle, config: Config) -> None:
    towers = _towers(bundle)
    pairs = {
        "dim": (towers.tower.options.dim, config.retrieval.dim),
        "score": (towers.score_kind, config.retrieval.score),
    }
    _check_pairs(bundle, pairs, "to be compared with its vectors")


def _check_pairs(bundle: Bundle, pairs: Mapping[str, tuple[Any, Any]], why: str) -> None:
    for name, (was, now) in pairs.items():
        if was != now:
            raise ConfigError(
                f"retrieval.{name} must be {was!r} as in bundle {bundle.id} {why}, got {now!r}; "
                "train from nothing to change it"
            )


def _towers(bundle: Bundle) -> TwoTowerRetriever:
    return TwoTowerRetriever.load(bundle.file(_TOWERS))


def _vocabularies(bundle: Bundle) -> tuple[Vocabulary, Vocabulary]:
    return (
        Vocabulary.load(bundle.file("data/items.parquet")),
        Vocabulary.load(bundle.file("data/users.parquet")),
    )


def _opened(artifacts: Path, name: str | None) -> Bundle | None:
    if name is None:
        return None
    if name == NEWEST:
        return latest(artifacts)
    path = Path(name)
    return Bundle.load(path if path.is_dir() else artifacts / name)
