"""Real questions asked before the first client may: caches, pools and code paths are warm then."""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from serving.errors import NoGeneration, ServingError
from serving.messages import RecommendRequest

__all__ = ["WarmUpReport", "replay", "sample_questions"]

log = logging.getLogger(__name__)

_ROUND = 20  # questions
_STEADY = 0.8  # of the median of the round before: no faster than that is steady
_RECENT = 3  # items of a question for the live path
_K = 20


class WarmUpReport(NamedTuple):
    """How a replay went.

    Attributes:
        questions: asked.
        failed: of those.
        seconds: of all.
        first_ms: median of the first round; 0.0 without a whole one.
        last_ms: median of the last round.
        steady: the last two rounds were no faster than the one before, by much.
    """

    questions: int
    failed: int
    seconds: float
    first_ms: float
    last_ms: float
    steady: bool


def sample_questions(
    bundle: Path, count: int = 200, *, seed: int = 0, live: bool = True
) -> list[RecommendRequest]:
    """Questions of users and about items that a bundle knows, drawn at random.

    Args:
        bundle: its directory; one without candidates gives none.
        count: at most.
        seed: of the draw.
        live: every other question says what the user just did.
    """
    import polars as pl

    draw = random.Random(seed)
    try:
        user_ids = pl.read_parquet(bundle / "candidates" / "users.parquet").to_series().to_list()
        item_ids = pl.read_parquet(bundle / "data" / "items.parquet").to_series().to_list()
    except (OSError, pl.exceptions.PolarsError) as error:
        log.warning("no questions to warm up with: %s", error)
        return []
    asked = draw.sample(user_ids, min(count, len(user_ids)))
    recent: list[Sequence[str]] = [
        draw.sample(item_ids, min(_RECENT, len(item_ids))) if live and number % 2 else ()
        for number in range(len(asked))
    ]
    return [
        RecommendRequest(str(user_id), _K, recent_items=tuple(map(str, items)))
        for user_id, items in zip(asked, recent, strict=True)
    ]


def replay(
    ask: Callable[[RecommendRequest], object],
    questions: Sequence[RecommendRequest],
    *,
    limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> WarmUpReport:
    """Ask ``questions`` in rounds, from the first again at the end, until the time is steady.

    Args:
        ask: the request path; must leave no trace, such as a logged impression.
        questions: none: nothing is asked.
        limit_s: no question is asked later than this.
        clock: seconds, only differences count.
    """
    began = clock()
    asked = failed = calm = 0
    medians: list[float] = []
    taken: list[float] = []
    while questions and calm < 2:
        now = clock()
        if now - began >= limit_s:
            break
        try:
            ask(questions[asked % len(questions)])
        except NoGeneration as error:
            log.warning("nothing to warm up with: %s", error)
            break
        except (ServingError, ValueError) as error:
            failed += 1
            log.debug("a question of the warm-up failed: %s", error)
        asked += 1
        taken.append(clock() - now)
        if len(taken) == _ROUND:
            median = statistics.median(taken)
            calm = calm + 1 if medians and median >= _STEADY * medians[-1] else 0
            medians.append(median)
            taken = []
    return WarmUpReport(
        questions=asked,
        failed=failed,
        seconds=clock() - began,
        first_ms=1000 * medians[0] if medians else 0.0,
        last_ms=1000 * medians[-1] if medians else 0.0,
        steady=calm >= 2,
    )
