"""The model in process under a deadline: it may be slow or broken without hurting the request."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from serving.breaker import CircuitBreaker
from serving.errors import DeadlineExceeded, StageUnavailable

if TYPE_CHECKING:
    from recsys.recommender.explanation import ExplainedItem
    from recsys.recommender.past import FreshEvent

__all__ = ["BoundedCalls", "LiveModel", "LiveModels", "LiveQuestion", "OneModel"]

T = TypeVar("T")
_LATEST = 8
"""Calls that say whether the model hangs."""


@dataclass(frozen=True, slots=True)
class LiveQuestion:
    """Who asks a model, and what that user did just now.

    Attributes:
        user_id: None when nobody said.
        recent_items: what the request says the user just did, newest last; undated.
        fresh: what the service was told, oldest first; dated. What the model's log has already is
            ignored.
        moment_us: of the request, microseconds since the epoch. None: as of the log's end, or just
            after the newest fresh event.
    """

    user_id: str | None
    recent_items: Sequence[str] = ()
    fresh: Sequence[FreshEvent] = ()
    moment_us: int | None = None


class LiveModel(Protocol):
    """Recommends and ranks in process.

    Attributes:
        generation: of the bundle it was loaded from.
        as_of_us: microseconds since the epoch at which its log ends.
        item_fields: what it must be given of the packed item rows; () for a model that holds the
            values of its generation itself.
    """

    generation: str
    as_of_us: int
    item_fields: tuple[str, ...]

    def recommend(
        self,
        asked: LiveQuestion,
        k: int,
        *,
        exclude: Collection[str],
        only: Collection[str] | None,
        threshold: bool = False,
    ) -> list[tuple[str, float, str]]:
        """Best ``k`` as (item id, score, source), best first.

        Args:
            asked: by whom; items that the model does not know are ignored.
            k: how many.
            exclude: ids that must not be returned.
            only: return nothing outside these. None: no limit.
            threshold: return nothing that is not likely enough to be shown.
        """
        ...

    def rank(
        self,
        asked: LiveQuestion,
        item_index: np.ndarray,
        item_values: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """[C] scores of ``item_index`` [C], rows of the vocabulary of ``generation``.

        Args:
            asked: by whom.
            item_index: different ones.
            item_values: [C] each of ``item_fields``. None: what the model was loaded with.
        """
        ...

    def explain(self, asked: LiveQuestion, item_index: np.ndarray) -> list[ExplainedItem]:
        """Why items are scored as they are, in the order asked."""
        ...


class LiveModels(Protocol):
    """The models in memory."""

    def current(self, generation: str | None = None) -> LiveModel | None:
        """The model of a generation, or (None) the one that serves now; never waits."""
        ...

    def want(self, generation: str) -> None:
        """Keep the model of another generation as well, if models come and go; never waits."""
        ...


@dataclass(frozen=True, slots=True)
class OneModel:
    """A single model, whatever is served.

    Attributes:
        model: the model.
    """

    model: LiveModel

    def current(self, generation: str | None = None) -> LiveModel | None:
        """See `LiveModels`."""
        return self.model if generation in (None, self.model.generation) else None

    def want(self, generation: str) -> None:
        """See `LiveModels`; the one model stays."""


class BoundedCalls:
    """Makes calls on a few threads of its own and waits only so long.

    A call that misses its deadline runs on in its thread. When too many of the latest calls did,
    further ones are refused for a moment instead of waiting for threads that hang.

    Args:
        workers: calls at once, >= 1; further ones wait for their turn. A call computes, so more
            than there are processors make all of them slower.
        retry_after_s: how long to refuse.
        clock: seconds, only differences count.
    """

    def __init__(
        self,
        workers: int,
        *,
        retry_after_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="recsys-live")
        self._breaker = CircuitBreaker(retry_after_s, clock, window=_LATEST)

    def run(self, work: Callable[[], T], timeout_s: float) -> T:
        """What ``work`` returns within ``timeout_s``.

        Raises:
            DeadlineExceeded: it took longer, or its turn did not come.
            StageUnavailable: too many of the latest calls took too long, or it raised.
        """
        if not self._breaker.allow():
            raise StageUnavailable("the live model took too long again and again", stage="live")
        try:
            waiting = self._pool.submit(work)
        except RuntimeError as error:
            raise StageUnavailable("the live model is shut down", stage="live") from error
        try:
            found = waiting.result(timeout=max(timeout_s, 0.0))
        except TimeoutError as error:
            began = not waiting.cancel()
            self._breaker.failed()
            raise DeadlineExceeded(
                f"the live model {'took longer than' if began else 'was busy for'} "
                f"{timeout_s:.3f} s",
                stage="live",
            ) from error
        except Exception as error:
            self._breaker.succeeded()
            raise StageUnavailable(
                f"the live model failed: {type(error).__name__}: {error}", stage="live"
            ) from error
        self._breaker.succeeded()
        return found

    def close(self) -> None:
        """Take no further calls; running ones are left to end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
