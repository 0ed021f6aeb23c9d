"""From a slate to the answer that goes out, and to why items stand where they do."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving.messages import (
    MAX_K,
    ExplainRequest,
    Explanation,
    ItemExplanation,
    Recommendations,
    StageOutcome,
)
from serving.request.asked import Asked
from serving.request.cursor import encode_cursor
from serving.request.ladder import Slate
from serving.request.snapshot import Snapshot
from serving.telemetry.metrics import Telemetry
from serving.telemetry.text_log import log_event

if TYPE_CHECKING:
    from recsys.recommender.explanation import ExplainedItem

__all__ = ["answer_of", "explanation_of"]

log = logging.getLogger(__name__)

_FIRST_STAGES = ("cache", "live", "similar", "rank")


def answer_of(
    asked: Asked,
    slate: Slate,
    telemetry: Telemetry,
    *,
    request_id: str | None,
    debug: bool = False,
    paged: bool = False,
) -> Recommendations:
    """The answer, counted.

    Args:
        asked: the question.
        slate: what it gets.
        telemetry: where it is counted.
        request_id: of the request. None: a new one.
        debug: say which stages were tried.
        paged: there may be a next page.
    """
    broken = [*slate.broken]
    if asked.view.problem is not None:
        broken.insert(0, asked.view.problem)
    if asked.local_only:
        broken.insert(0, "overloaded")
    full = slate.items and slate.source in _FIRST_STAGES
    reason = next(iter([*broken, *(() if full else slate.missed)]), None)
    request_id = request_id or uuid.uuid4().hex
    if reason is not None:
        telemetry.fallback(slate.source, reason)
    _count(slate.outcomes, telemetry, request_id)
    telemetry.arms_answered(asked.policy.arms)
    return Recommendations(
        items=slate.items,
        source=slate.source,
        generation=slate.generation,
        request_id=request_id,
        degraded=bool(broken),
        reason=reason,
        filtered=slate.filtered,
        cursor=_next_page(asked, slate) if paged else None,
        arms=asked.policy.arms,
        policy=asked.policy.arm.policy,
        stages=slate.outcomes if debug else None,
    )


def _count(outcomes: Sequence[StageOutcome], telemetry: Telemetry, request_id: str) -> None:
    for outcome in outcomes:
        telemetry.stage_done(outcome.stage, outcome.ms / 1e3)
    if telemetry.is_slow(sum(outcome.ms for outcome in outcomes) / 1e3):
        stages = {one.stage: [round(one.ms, 2), one.outcome] for one in outcomes}
        log_event(log, "slow answer", level=logging.WARNING, request_id=request_id, stages=stages)


def _next_page(asked: Asked, slate: Slate) -> str | None:
    """The cursor of the page after this one; None when there is none."""
    snapshot, page, items = asked.view.snapshot, asked.page, slate.items
    if snapshot.manifest is None or snapshot.generation is None or slate.whole:
        return None
    if len(items) < asked.k or len(page.shown) + len(items) >= MAX_K:
        return None
    rows = {snapshot.rows[item.item_id] for item in items if item.item_id in snapshot.rows}
    shown = tuple(sorted(rows.union(page.shown)))
    return encode_cursor(page._replace(generation=snapshot.generation, shown=shown))


def explanation_of(
    request: ExplainRequest,
    snapshot: Snapshot,
    found: Sequence[ExplainedItem],
    shown: Recommendations,
) -> Explanation:
    """A model's account of single items beside what the service would show.

    Args:
        request: what was asked.
        snapshot: of the generation the model belongs to.
        found: what the model says of the items it knows.
        shown: the longest slate that the same user would get.
    """
    by_row = {one.item_index: one for one in found}
    place = {item.item_id: at for at, item in enumerate(shown.items, start=1)}
    items = []
    for item_id in request.item_ids:
        one = by_row.get(snapshot.rows.get(item_id, 0))
        if one is None:
            items.append(ItemExplanation(item_id, None, None, "unknown", {}, {}, {}, 0.0))
            continue
        held_back = None
        if not snapshot.is_alive(item_id):
            held_back = "hidden"
        elif one.seen:
            held_back = "seen"
        elif not one.candidate:
            held_back = "not_a_candidate"
        items.append(
            ItemExplanation(
                item_id,
                place.get(item_id),
                one.score,
                held_back,
                {
                    name: (score, rank if one.candidate else None)
                    for name, (score, rank) in one.retrieval.items()
                },
                one.features,
                one.contributions,
                one.base,
            )
        )
    return Explanation(
        tuple(items),
        snapshot.generation or "",
        request.request_id or shown.request_id,
        shown.source,
        shown.reason,
    )
