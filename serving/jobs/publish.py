"""The nightly job: a bundle's candidates into the store, all of them or what changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from features.packing import PackedField, PackedSchema
from features.tables import ITEM, USER, Vocabulary
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.errors import ArtifactError
from recsys.files.headers import read_header
from recsys.progress import Progress
from serving.assembly import CONTENT_FIELD, POPULAR, open_store
from serving.errors import NoGeneration, PublishRefused
from serving.jobs.popular_segments import POPULAR_SEGMENTS, read_segments
from serving.store import PublishReport
from serving.store.publication import DeltaReport

__all__ = ["GATE", "publish", "publish_changes"]

GATE = "gate.json"
PROMOTE = "PROMOTE"
BLOCK = 1000


def publish(config: Config, bundle: Bundle, *, progress: Progress | None = None) -> PublishReport:
    """Write a bundle's candidates to the store as a generation of the same id and flip to it.

    Args:
        config: names the store, and what a publish must fulfil.
        bundle: one that `serving.jobs.candidates.build_candidates` has filled.
        progress: shows a bar.

    Raises:
        ArtifactError: the bundle has no candidates or no verdict where one is required, or its
            files were changed.
        ServingError: a check failed, the store refused or went away; the served generation is what
            it was.
    """
    progress = progress or Progress()
    source = _checked(config, bundle)
    header = json.loads((bundle.path / "recommender.json").read_text())
    vocabulary = _vocabulary(bundle)
    item_ids: list[str] = vocabulary.to_series().to_list()
    lists = _Lists.read(source)
    near = load_file(source / "neighbours.safetensors")
    schema, item_rows = _pack_items(bundle, vocabulary)
    popular = json.loads((source / POPULAR).read_text())
    segments = read_segments(source / POPULAR_SEGMENTS)
    total = len(lists.users) + len(item_ids) + len(item_rows) + len(segments)
    with _publishing(progress, total) as on_progress:
        return open_store(config).publish(
            bundle.id,
            users=lists.batches(),
            item_ids=item_ids,
            popular=(
                vocabulary.index(popular["item_ids"]),
                np.asarray(popular["score"], dtype=np.float32),
            ),
            vocabulary_sha256=vocabulary.sha256,
            ttl_s=config.store.ttl_s,
            source_names=(*header["sources"], "similar"),
            item_rows=item_rows,
            item_schema=json.dumps(schema.to_dict()),
            neighbours=_batches(
                item_ids,
                near["item_index"],
                near["score"],
                np.full(near["item_index"].shape, len(header["sources"]), dtype=np.uint8),
            ),
            popular_segments=segments,
            max_user_drop=config.store.max_user_drop,
            on_progress=on_progress,
        )


def publish_changes(
    config: Config, bundle: Bundle, *, progress: Progress | None = None
) -> DeltaReport:
    """Bring the lists of a published bundle to what its candidates are now.

    Every list is compared with the one in the store, and those that differ are written; users who
    have none any more lose theirs. Items, item rows and neighbours stay as they were published.

    Args:
        config: see `publish`.
        bundle: a published one; its candidates may have been computed anew.
        progress: shows a bar.

    Raises:
        ArtifactError: as `publish`.
        ServingError: the bundle is not in the store, a check failed, or the store went away.
    """
    progress = progress or Progress()
    lists = _Lists.read(_checked(config, bundle))
    store = open_store(config)
    manifest = store.manifest(bundle.id)
    if manifest is None:
        raise NoGeneration(
            f"bundle {bundle.id} is not in the store, so nothing can be compared with it; publish "
            "all of it once, without --delta"
        )
    if manifest.vocabulary_sha256 != _vocabulary(bundle).sha256:
        raise PublishRefused(
            f"generation {bundle.id} was published with another vocabulary than the bundle has; "
            "train a new bundle and publish that"
        )
    with _publishing(progress, len(lists.users)) as on_progress:
        report = store.publish_delta(bundle.id, users=lists.batches(), on_progress=on_progress)
    if report.num_users == len(lists.users):
        return report
    wanted = set(lists.users)
    gone = {user for user in store.user_ids(bundle.id) if user not in wanted}
    last = store.publish_delta(
        bundle.id,
        removed=gone,
        expected_revision=report.revision,
        max_user_drop=config.store.max_user_drop,
    )
    return replace(
        report,
        revision=last.revision,
        num_users=last.num_users,
        num_removed=last.num_removed,
        seconds=report.seconds + last.seconds,
    )


@dataclass(frozen=True)
class _Lists:
    """Candidates of all users as the bundle has them."""

    users: list[str]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, source: Path) -> _Lists:
        users: list[str] = pl.read_parquet(source / "users.parquet")[USER].to_list()
        return cls(users, load_file(source / "lists.safetensors"))

    def batches(self) -> Iterator[tuple[list[str], np.ndarray, np.ndarray, np.ndarray]]:
        parts = self.arrays
        return _batches(self.users, parts["item_index"], parts["score"], parts["source"])


def _checked(config: Config, bundle: Bundle) -> Path:
    """The directory of the candidates, after the bundle was found whole and let through."""
    source = bundle.path / "candidates"
    if not (source / POPULAR).is_file():
        raise ArtifactError(
            f"bundle {bundle.id} has no candidates; run `recsys candidates` before `recsys publish`"
        )
    if config.store.require_gate:
        _check_gate(bundle)
    bundle.verify()
    return source


def _check_gate(bundle: Bundle) -> None:
    path = bundle.path / GATE
    if not path.is_file():
        raise ArtifactError(
            f"bundle {bundle.id} has no {GATE}, which store.require_gate asks for; have the bundle "
            "judged first (`recsys gate`), or set store.require_gate = false"
        )
    judgement = read_header(path, 1, remedy="have the bundle judged again")
    verdict = judgement.get("verdict")
    if verdict is None:
        raise ArtifactError(f"{path} is damaged (no 'verdict'); have the bundle judged again")
    about = judgement.get("bundle", bundle.id)
    if about != bundle.id:
        raise ArtifactError(
            f"{path} is about bundle {about}, not {bundle.id}; have this bundle judged "
            "(`recsys gate`)"
        )
    if verdict != PROMOTE:
        raise PublishRefused(
            f"{GATE} of bundle {bundle.id} says {verdict!r}, and store.require_gate asks for "
            f"{PROMOTE!r}; publish another bundle, or set store.require_gate = false"
        )


def _vocabulary(bundle: Bundle) -> Vocabulary:
    return Vocabulary.load(bundle.path / "data" / "items.parquet")


def _batches(
    ids: list[str], item_index: np.ndarray, score: np.ndarray, source: np.ndarray
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray, np.ndarray]]:
    for start in range(0, len(ids), BLOCK):
        part = slice(start, start + BLOCK)
        yield ids[part], item_index[part], score[part], source[part]


def _pack_items(bundle: Bundle, vocabulary: Vocabulary) -> tuple[PackedSchema, list[bytes]]:
    """Item features and the content vector (for diversity), in the vocabulary's order."""
    values = pl.read_parquet(bundle.path / "candidates" / "item_features.parquet").drop("as_of")
    wanted = pl.DataFrame({ITEM: vocabulary.to_series()})
    values = wanted.join(values, on=ITEM, how="left", maintain_order="left").drop(ITEM)
    content = load_file(bundle.path / "content" / "vectors.safetensors")["vectors"][1:]
    schema = PackedSchema(
        (
            *(PackedField(name) for name in values.columns),
            PackedField(CONTENT_FIELD, "float16", content.shape[1]),
        )
    )
    columns = {name: values[name].to_numpy() for name in values.columns}
    return schema, schema.pack({**columns, CONTENT_FIELD: content})


@contextmanager
def _publishing(progress: Progress, total: int) -> Iterator[Any]:
    written: dict[str, int] = {}
    with progress.bar(total, "publish", unit="value") as advance:

        def on_progress(stage: str, done: int) -> None:
            advance(done - written.get(stage, 0))
            written[stage] = done

        yield on_progress
