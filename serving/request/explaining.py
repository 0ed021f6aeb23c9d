"""A model's account of single items beside what the service would show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from serving.messages import ExplainRequest, Explanation, ItemExplanation, Recommendations
from serving.request.snapshot import Snapshot

if TYPE_CHECKING:
    from recsys.recommender.explanation import ExplainedItem

__all__ = ["explained"]


def explained(
    request: ExplainRequest,
    snapshot: Snapshot,
    found: Sequence[ExplainedItem],
    shown: Recommendations,
) -> Explanation:
    """The answer to ``request``.

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
