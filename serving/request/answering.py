"""From finished work to the answer that goes out."""

from __future__ import annotations

import logging
import uuid

from serving.messages import MAX_K, Recommendations
from serving.request.cursor import encode_cursor
from serving.request.work import Work
from serving.telemetry.metrics import Telemetry
from serving.telemetry.text_log import log_event

__all__ = ["answer_of", "next_page"]

log = logging.getLogger(__name__)

_FIRST_STAGES = ("cache", "live", "similar", "rank")


def next_page(work: Work) -> str | None:
    """The cursor of the page after this one; None when there is none."""
    snapshot, page, items = work.view.snapshot, work.page, work.selection.items
    if snapshot.manifest is None or snapshot.generation is None or work.whole:
        return None
    if len(items) < work.k or len(page.shown) + len(items) >= MAX_K:
        return None
    rows = {snapshot.rows[item.item_id] for item in items if item.item_id in snapshot.rows}
    shown = tuple(sorted(rows.union(page.shown)))
    return encode_cursor(page._replace(generation=snapshot.generation, shown=shown))


def answer_of(
    work: Work,
    request_id: str | None,
    telemetry: Telemetry,
    *,
    debug: bool = False,
    cursor: str | None = None,
) -> Recommendations:
    """The answer, counted.

    Args:
        work: finished.
        request_id: of the request. None: a new one.
        telemetry: where it is counted.
        debug: say which stages were tried.
        cursor: of the next page.
    """
    broken = [*work.broken]
    if work.view.problem is not None:
        broken.insert(0, work.view.problem)
    if work.local_only:
        broken.insert(0, "overloaded")
    full = work.selection.items and work.source in _FIRST_STAGES
    missed = [] if full else work.missed
    reason = next(iter([*broken, *missed]), None)
    if reason is not None:
        telemetry.fallback(work.source, reason)
    request_id = request_id or uuid.uuid4().hex
    for outcome in work.outcomes:
        telemetry.stage_done(outcome.stage, outcome.ms / 1e3)
    if telemetry.is_slow(sum(outcome.ms for outcome in work.outcomes) / 1e3):
        stages = {one.stage: [round(one.ms, 2), one.outcome] for one in work.outcomes}
        log_event(log, "slow answer", level=logging.WARNING, request_id=request_id, stages=stages)
    telemetry.arms_answered(work.arms)
    return Recommendations(
        items=tuple(work.selection.items),
        source=work.source,
        generation=work.generation,
        request_id=request_id,
        degraded=bool(broken),
        reason=reason,
        filtered=work.selection.filtered,
        cursor=cursor,
        arms=work.arms,
        policy=work.arm.policy,
        stages=tuple(work.outcomes) if debug else None,
    )
