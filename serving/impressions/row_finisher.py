"""The thread of a row log that makes Parquet files of full journals and keeps order."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving.impressions.row_journal import finish_journal
from serving.impressions.row_recovery import expire, recover

__all__ = ["Finisher", "Troubles"]

log = logging.getLogger(__name__)

_FINISH, _TIDY = "finish a file", "take over what is left or delete what is too old"
_PAUSE_S = 0.5


class Troubles:
    """Counts failures and tells of each kind once, and once more when it is over.

    Args:
        what: whose, for the log lines.
    """

    def __init__(self, what: str) -> None:
        self.count = 0
        self._what = what
        self._told: set[str] = set()

    def failed(self, doing: str, error: OSError) -> None:
        """Count a failure."""
        self.count += 1
        if doing not in self._told:
            self._told.add(doing)
            log.error("%s: cannot %s: %s", self._what, doing, error)

    def worked(self, doing: str) -> None:
        """Take note that something works."""
        if doing in self._told:
            self._told.discard(doing)
            log.warning("%s: can %s again", self._what, doing)


class Finisher:
    """Finishes journals in the order given, in the background.

    It also takes over what dead processes left and deletes files that are too old: at its start
    and after each journal.

    Args:
        directory: of the log.
        name: of the log.
        keep_days: files older than this are deleted. None: never.
        clock: seconds, only differences count.
        on_finished: told how many rows its process has in Parquet files, before the journal goes.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        keep_days: float | None,
        clock: Callable[[], float],
        on_finished: Callable[[int], None],
    ) -> None:
        self.files = 0
        self.lost_before = 0
        self.troubles = Troubles(f"{name} log in {directory}")
        self._directory, self._name = directory, name
        self._keep_s = None if keep_days is None else keep_days * 86_400.0
        # Age is told by this and the monotonic clock: a wall clock that jumps deletes nothing.
        self._began = time.time() - clock()
        self._clock = clock
        self._on_finished = on_finished
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-finisher", daemon=True)
        self._thread.start()

    def finish(self, path: Path) -> None:
        """Have a closed journal finished."""
        self._waiting.put(path)

    def close(self, timeout_s: float) -> bool:
        """Finish what was given and stop; False when that took longer than allowed."""
        self._waiting.put(None)
        self._thread.join(timeout_s)
        done = not self._thread.is_alive()
        self._stop.set()
        return done

    def _run(self) -> None:
        self._tidy()
        while (path := self._waiting.get()) is not None:
            while not self._finish(path):
                if self._stop.wait(_PAUSE_S):
                    return
            self._tidy()

    def _finish(self, path: Path) -> bool:
        try:
            finished = finish_journal(path)
            self._on_finished(finished.through)
            path.unlink()
        except OSError as error:
            self.troubles.failed(_FINISH, error)
            return False
        self.files += finished.rows > 0
        self.troubles.worked(_FINISH)
        return True

    def _tidy(self) -> None:
        try:
            for loss in recover(self._directory, self._name):
                self.lost_before += loss.lost
                log.warning(
                    "%s log in %s: process %s died; of %d rows it had accepted %d were lost",
                    self._name,
                    self._directory,
                    loss.process,
                    loss.accepted,
                    loss.lost,
                )
            if self._keep_s is not None:
                expire(self._directory, self._name, self._began + self._clock() - self._keep_s)
        except OSError as error:
            self.troubles.failed(_TIDY, error)
        else:
            self.troubles.worked(_TIDY)
