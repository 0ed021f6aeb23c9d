"""`recsys features follow`: the process that keeps feature state up to date."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    BundleId,
    ConfigPath,
    find_bundle,
    read_config,
)
from serving.cli.output import reporting

if TYPE_CHECKING:
    from pathlib import Path

    from recsys.config import Config
    from serving.events.feature_follower import FeatureFollower, FollowReport

__all__ = ["follow", "make_follower"]


def follow(
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when no event waits, instead of going on.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Events of one transaction.")] = 1_000,
    max_events: Annotated[
        int, typer.Option(min=2, help="Of the log, the newest, where there is no state yet.")
    ] = 5_000_000,
    as_json: AsJson = False,
) -> None:
    """Fold feedback events into the running feature state of a bundle's definitions.

    Without state it begins with the log. It ends on SIGTERM, and when another process takes over.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        from threading import Event

        from serving.errors import WriterReplaced

        stop = Event()
        follower = make_follower(
            settings, chosen.path, batch=batch, max_events=max_events, stop=stop
        )
        before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
        out.note(f"following feedback events for the definitions of {chosen.id}")
        replaced = None
        try:
            follower.run(once=once)
        except WriterReplaced as error:
            replaced = str(error)
        finally:
            signal.signal(signal.SIGTERM, before)
        out.emit(*_output(follower.report, replaced))


def make_follower(
    config: Config, bundle: Path, *, batch: int, max_events: int, stop: Any = None
) -> FeatureFollower:
    """A follower of the configured store's stream.

    Args:
        config: the run.
        bundle: directory of the bundle whose definitions have state.
        batch: events of one transaction.
        max_events: of the log, the newest.
        stop: see `serving.events.feature_follower.FeatureFollower`.
    """
    from recsys.dataset.tables import newest_events
    from recsys.recommender.computer import read_computer
    from serving.assembly import open_client
    from serving.events.event_stream import EventStream
    from serving.events.feature_follower import FeatureFollower
    from serving.events.feature_state import RedisStateStore
    from serving.store.keys import Keys

    client = open_client(config)
    namespace = config.store.namespace
    return FeatureFollower(
        EventStream(client, Keys(namespace)),
        lambda: RedisStateStore(client, namespace, writer=True),
        read_computer(bundle),
        lambda: newest_events(config, max_events).frame,
        batch=batch,
        rules=config.data.to_event_rules(),
        stop=stop,
    )


def _output(report: FollowReport, replaced: str | None) -> tuple[dict[str, Any], str]:
    update, seeded = report.update, report.seeded
    lost = 0 if report.position is None else report.position.lost
    lines = [
        f"{update.applied:,} events followed, {update.duplicates:,} known already, "
        f"{report.refused:,} no events, {lost:,} lost; {report.events_per_s:,.0f} a second"
    ]
    if seeded.applied:
        lines.insert(0, f"began with {seeded.applied:,} events of the log")
    if replaced is not None:
        lines.append(f"stopped: {replaced}")
    values = {
        "seeded": seeded._asdict(),
        "update": update._asdict(),
        "refused": report.refused,
        "lost": lost,
        "interruptions": report.interruptions,
        "events_per_s": report.events_per_s,
        "replaced": replaced,
    }
    return values, "\n".join(lines)
