"""Opens the logs and the experiments that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.config.config import Config
from serving.request.experiments import Experiments, KillSwitch
from serving.impressions.log import FeedbackLog, ImpressionLog
from serving.store.keys import Keys
from serving.impressions.row_log import RowLogLimits

if TYPE_CHECKING:
    import redis

__all__ = ["open_experiments", "open_feedback_log", "open_impression_log"]


def open_impression_log(config: Config) -> ImpressionLog | None:
    """The log of what is shown; None where the configuration wants none. Close it at the end.

    Raises:
        OSError: its directory cannot be made or written to.
    """
    if not config.impressions.enabled:
        return None
    directory, _ = config.impressions.directories(config.output.directory)
    return ImpressionLog(directory, _limits(config))


def open_feedback_log(config: Config) -> FeedbackLog | None:
    """The log of what users did; see `open_impression_log`."""
    if not config.impressions.enabled:
        return None
    _, directory = config.impressions.directories(config.output.directory)
    return FeedbackLog(directory, _limits(config))


def open_experiments(config: Config, client: redis.Redis) -> tuple[Experiments, KillSwitch]:
    """The experiments, obeying the switches in the store, and these switches.

    Args:
        config: the run's configuration.
        client: of the store.
    """
    key = Keys(config.store.namespace).experiments
    switch = KillSwitch(client, key, ttl_s=config.serving.head_ttl_s)
    declared = [one.to_experiment() for one in config.experiments]
    return Experiments(declared, stopped=switch.stopped), switch


def _limits(config: Config) -> RowLogLimits:
    section = config.impressions
    return RowLogLimits(
        rotate_s=section.rotate_minutes * 60,
        rotate_bytes=round(section.rotate_mb * 1e6),
        flush_s=section.flush_s,
        queue_rows=section.queue_rows,
        keep_days=section.keep_days,
        fsync=section.fsync,
    )
