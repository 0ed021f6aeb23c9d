"""The nightly job: every user's list into the bundle."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from features.tables import TIMESTAMP, USER
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset.user_events import USER_EVENTS, UserEvents
from recsys.files.headers import write_header
from recsys.progress import Progress
from serving.assembly import POPULAR
from serving.jobs.popular_segments import (
    POPULAR_SEGMENTS,
    popular_by_segment,
    segments_of,
    write_segments,
)
from serving.store.publication import NUM_NEIGHBOURS

if TYPE_CHECKING:
    from recsys.recommender import Recommender

__all__ = ["build_candidates"]

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
        ``popular.json``, ``user_events.bin`` (`recsys.dataset.user_events`), where definitions read
        the user table ``user_columns.parquet``, and with ``candidates.popular_segment``
        ``popular_segments.parquet``. Live requests take all but the lists from here.

    Raises:
        ConfigError: ``candidates.popular_segment`` is no usable column of the user table, or
            ``slate`` is not as the bundle was trained with.
        DataError: the files break a rule, or the user table lost a column that definitions read.
        ArtifactError: the bundle is incomplete.
    """
    from recsys.dataset import read_dataset
    from recsys.dataset.definitions import USER_COLUMNS, user_columns
    from recsys.pipeline.measuring import check_slate
    from recsys.recommender import Recommender

    progress = progress or Progress()
    check_slate(config, bundle)
    data = read_dataset(config)
    column = config.candidates.popular_segment
    segments = None if column is None else segments_of(data.users, column)
    recommender = Recommender.load(bundle.path)
    recommender.ranker.gbdt.compile()
    people = user_columns(data.users, recommender.features.computer.definitions)
    if people is not None:  # those who came after the training too
        recommender.features = recommender.features.with_users(people)
    users, events = data.user_list, data.interactions
    newest: Any = events.frame[TIMESTAMP].max()
    as_of = newest + timedelta(microseconds=1)
    moment = np.full(len(users), int(events.frame[TIMESTAMP].to_physical().max()) + 1)  # type: ignore[arg-type]
    histories = recommender.histories(events, users)
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
        popular = _popular(recommender, as_of)
        write_header(out / POPULAR, 1, popular, indent=None)
        if segments is not None:
            by_segment = popular_by_segment(
                events,
                segments,
                recommender.item_ids,
                (recommender.item_ids.index(popular["item_ids"]), np.asarray(popular["score"])),
                as_of=as_of,
                window_days=config.retrieval.popularity_window_days,
            )
            write_segments(out / POPULAR_SEGMENTS, by_segment)
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
        "item_ids": [item.item_id for item in slate],
        "score": [item.score / best for item in slate],
    }
