from __future__ import annotations

import time
from types import SimpleNamespace

from serving.errors import NoGeneration
from serving.events.feedback import checked_events
from serving.messages import (
    EventReport,
    Explanation,
    ItemExplanation,
    ItemsReport,
    Recommendations,
    RecommendedItem,
    StageOutcome,
)
from serving.store.manifest import Head
from serving.telemetry.metrics import Telemetry

ITEMS = tuple(
    RecommendedItem(f"i{place}", 1 - place / 100, "candidates") for place in range(1, 501)
)


class FakeService:
    """Answers everything at once and from memory; ``fail`` is raised instead, when it is set."""

    def __init__(self, fail=None):
        self.fail = fail
        self.asked = []
        self.telemetry = Telemetry()
        self.store = SimpleNamespace(generations=list, flip=self.flip, rollback=self.rollback)
        self.recorded = set()
        self.hidden = set()
        self.experiments = None

    def warm_up(self):
        pass

    def close(self):
        pass

    def not_ready(self):
        return None

    def served_generation(self):
        return "g1"

    def _note(self, asked):
        self.asked.append(asked)
        if self.fail is not None:
            raise self.fail

    def recommend(self, asked, *, local_only=False):
        self._note(asked)
        stages = (StageOutcome("cache", 0.5, "answered"),) if asked.debug else None
        return Recommendations(
            ITEMS[: asked.k],
            "cache",
            "g1",
            asked.request_id,
            degraded=local_only,
            reason="overloaded" if local_only else None,
            cursor="next",
            arms={"slate": "diverse"},
            stages=stages,
        )

    def recommend_many(self, asked, *, local_only=False):
        return [self.recommend(one, local_only=local_only) for one in asked]

    def similar(self, asked, *, local_only=False):
        self._note(asked)
        return Recommendations(ITEMS[: asked.k], "similar", "g1", asked.request_id)

    def rank(self, asked):
        self._note(asked)
        items = tuple(RecommendedItem(one, 0.5, "rank") for one in asked.item_ids[::-1])
        return Recommendations(items, "rank", "g1", asked.request_id)

    def explain(self, asked):
        self._note(asked)
        items = tuple(
            ItemExplanation(one, 1, 0.5, None, {"popular": (0.5, 3)}, {"age": None}, {"age": 1}, 0)
            for one in asked.item_ids
        )
        return Explanation(items, "g1", asked.request_id, "cache", None)

    def record(self, events):
        self._note(events)
        known = {one.identity for one in checked_events(events, time.time())}
        new = known - self.recorded
        self.recorded |= new
        return EventReport(len(new), len(events) - len(new), 0)

    def hide(self, item_ids):
        self._note(item_ids)
        return self._change(item_ids, self.hidden.add)

    def restore(self, item_ids):
        self._note(item_ids)
        return self._change(item_ids, self.hidden.discard)

    def _change(self, item_ids, change):
        known = {item.item_id for item in ITEMS}.intersection(item_ids)
        for one in known:
            change(one)
        return ItemsReport(len(known), tuple(one for one in item_ids if one not in known))

    def flip(self, generation, *, expected_epoch=None):
        self._note(generation)
        if generation != "g1":
            raise NoGeneration(f"generation {generation!r} is not in the store; there: g1")
        return Head("g1", "g0", 2, 1e9)

    def rollback(self):
        self._note(None)
        return Head("g0", "g1", 3, 1e9)
