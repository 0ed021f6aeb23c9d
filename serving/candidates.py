"""The nightly job: every user's list into the bundle, and the bundle into the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from features.histories import Histories
from features.packing import PackedField, PackedSchema
from features.schema import ITEM, TIMESTAMP, USER
from features.vocabulary import Vocabulary
from recsys.artifacts import Bundle
from recsys.config import Config
from recsys.errors import ArtifactError
from recsys.progress import Progress
from recsys.user_events import USER_EVENTS, UserEvents
from serving.assembly import CONTENT_FIELD, POPULAR, open_store
from serving.publication import NUM_NEIGHBOURS, PublishReport

if TYPE_CHECKING:
    from recsys.recommender import Recommender

__all__ = ["build_candidates", "publish"]

NUM_POPULAR = 500
BLOCK = 1000


def build_candidates(config: Config, bundle: Bundle, *, progress: Progress | None = None) -> Path:
    """Ask the funnel for every user of the log, as of just after its newest event.

    Users are worked through ``candidates.batch_size`` at a time, which bounds memory. Lists are
    ordered by score; the diversity rule is applied per request, when the store is read.

    Args:
        config: the run.
        bundle: a trained one; gets (or replaces) its directory ``candidates``.
        progress: shows a bar.

    Returns:
        The directory, which holds ``lists.safetensors`` (item_index, score, source, all [U, K]),
        ``users.parquet``, ``neighbours.safetensors``, ``item_features.parquet``,
        ``popular.json``, ``user_events.bin`` (`recsys.user_events`), and where definitions read
        the user table ``user_columns.parquet``. Live requests take all but the lists from here.

    Raises:
        DataError: the files break a rule, or the user table lost a column that definitions read.
        ArtifactError: the bundle is incomplete.
    """
    from recsys.dataset import read_dataset
    from recsys.ranker_definitions import USER_COLUMNS, user_columns
    from recsys.recommender import Recommender

    progress = progress or Progress()
    data = read_dataset(config)
    recommender = Recommender.load(bundle.path)
    people = user_columns(data.users, recommender.features.computer.definitions)
    if people is not None:  # those who came after the training too
        recommender.features = recommender.features.with_users(people)
    users, events = data.user_list, data.interactions
    newest: Any = events.frame[TIMESTAMP].max()
    as_of = newest + timedelta(microseconds=1)
    moment = np.full(len(users), int(events.frame[TIMESTAMP].to_physical().max()) + 1)  # type: ignore[arg-type]
    histories = Histories.from_interactions(events, users, recommender.item_ids)
    lists = []
    size = config.candidates.batch_size
    with progress.bar(len(users), "candidates", unit="user") as advance:
        for start in range(0, len(users), size):
            rows = np.arange(start, min(start + size, len(users)))
            lists.append(
                recommender.rank(
                    histories.take(rows),
                    users[start : start + size],
                    moment[rows],
                    events,
                    config.candidates.k,
                    diversity=0.0,
                )
            )
            advance(rows.size)
    values = recommender.features.computer.item_features(events, as_of)
    with bundle.adding("candidates") as out:
        out.mkdir()
        save_file(
            {
                "item_index": np.concatenate([part.item_index for part in lists]),
                "score": np.concatenate([part.score for part in lists]),
                "source": np.concatenate([part.source for part in lists]),
            },
            out / "lists.safetensors",
        )
        pl.DataFrame({USER: users}).write_parquet(out / "users.parquet")
        if people is not None:
            people.frame.write_parquet(out / USER_COLUMNS)
        save_file(_neighbours(recommender, progress), out / "neighbours.safetensors")
        values.with_columns(pl.lit(as_of).cast(pl.Datetime("us")).alias("as_of")).write_parquet(
            out / "item_features.parquet"
        )
        (out / POPULAR).write_text(json.dumps(_popular(recommender, as_of)) + "\n")
        UserEvents.write(out / USER_EVENTS, events, recommender.item_ids)
    return bundle.path / "candidates"


def _neighbours(recommender: Recommender, progress: Progress) -> dict[str, np.ndarray]:
    num_items = len(recommender.item_ids)
    index, score = [], []
    with progress.bar(num_items, "similar items", unit="item") as advance:
        for start in range(1, num_items + 1, BLOCK):
            block = np.arange(start, min(start + BLOCK, num_items + 1))
            top = recommender.similar_index(block, NUM_NEIGHBOURS)
            index.append(top.item_index)
            score.append(top.score)
            advance(block.size)
    return {"item_index": np.concatenate(index), "score": np.concatenate(score)}


def _popular(recommender: Recommender, as_of: datetime) -> dict[str, Any]:
    """What is popular just before ``as_of``; scores are shares of the most popular one."""
    slate = recommender.popular(NUM_POPULAR, as_of)
    best = max((item.score for item in slate), default=1.0) or 1.0
    return {
        "format": 1,
        "item_ids": [item.item_id for item in slate],
        "score": [item.score / best for item in slate],
    }


def publish(config: Config, bundle: Bundle, *, progress: Progress | None = None) -> PublishReport:
    """Write a bundle's candidates to the store as a generation of the same id and flip to it.

    Args:
        config: names the store.
        bundle: one that `build_candidates` has filled.
        progress: shows a bar.

    Raises:
        ArtifactError: the bundle has no candidates, or its files were changed.
        ServingError: the store refused or went away; the served generation is what it was.
    """
    progress = progress or Progress()
    source = bundle.path / "candidates"
    if not (source / POPULAR).is_file():
        raise ArtifactError(
            f"bundle {bundle.id} has no candidates; run `recsys candidates` before `recsys publish`"
        )
    bundle.verify()
    header = json.loads((bundle.path / "recommender.json").read_text())
    vocabulary = Vocabulary.load(bundle.path / "data" / "items.parquet")
    item_ids: list[str] = vocabulary.to_series().to_list()
    lists = load_file(source / "lists.safetensors")
    near = load_file(source / "neighbours.safetensors")
    users: list[str] = pl.read_parquet(source / "users.parquet")[USER].to_list()
    schema, item_rows = _pack_items(bundle, vocabulary)
    popular = json.loads((source / POPULAR).read_text())
    total = len(users) + len(item_ids) + len(item_rows)
    with _publishing(progress, total) as on_progress:
        return open_store(config).publish(
            bundle.id,
            users=_batches(users, lists["item_index"], lists["score"], lists["source"]),
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
            on_progress=on_progress,
        )


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
