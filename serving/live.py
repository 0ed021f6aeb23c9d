"""The live recommender under a deadline: it may be slow or broken without hurting the request."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError

from serving.errors import DeadlineExceeded, StageUnavailable
from serving.messages import LiveRecommender

__all__ = ["BoundedLive"]


class BoundedLive:
    """Calls a `LiveRecommender` on a few threads of its own and waits only so long.

    A call that misses its deadline runs on in its thread; when all threads are busy with such
    calls, further ones are refused at once instead of queued.

    Args:
        live: what is called.
        workers: calls at once, >= 1.
    """

    def __init__(self, live: LiveRecommender, *, workers: int) -> None:
        self._live = live
        self._free = threading.BoundedSemaphore(workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="recsys-live")

    def recommend(
        self,
        recent_item_ids: Sequence[str],
        k: int,
        *,
        user_id: str | None,
        exclude: Collection[str],
        only: Collection[str] | None,
        threshold: bool,
        timeout_s: float,
    ) -> list[tuple[str, float, str]]:
        """What the live recommender says within ``timeout_s``.

        Raises:
            DeadlineExceeded: it took longer.
            StageUnavailable: all workers are busy, or it raised.
        """
        if not self._free.acquire(blocking=False):
            raise StageUnavailable("all live workers are busy", stage="live")

        def call() -> list[tuple[str, float, str]]:
            try:
                return self._live.recommend(
                    recent_item_ids,
                    k,
                    user_id=user_id,
                    exclude=exclude,
                    only=only,
                    threshold=threshold,
                )
            finally:
                self._free.release()

        try:
            waiting = self._pool.submit(call)
        except RuntimeError as error:
            self._free.release()
            raise StageUnavailable("the live recommender is shut down", stage="live") from error
        try:
            return waiting.result(timeout=timeout_s)
        except TimeoutError as error:
            if waiting.cancel():
                self._free.release()
            raise DeadlineExceeded(
                f"the live recommender took longer than {timeout_s:.3f} s", stage="live"
            ) from error
        except Exception as error:
            raise StageUnavailable(
                f"the live recommender failed: {type(error).__name__}: {error}", stage="live"
            ) from error

    def close(self) -> None:
        """Take no further calls; running ones are left to end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
