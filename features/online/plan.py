"""Which running state definitions need: found by asking them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from features.computation.base import Computation
from features.computation.declarations import definitions_sha256
from features.computation.feature_tables import FeatureTables
from features.computation.grouped import Statistic
from features.computation.kinds import compute
from features.computation.pasts import Past
from features.computation.questions import Asked, Group
from features.definitions.columns import Definition, TextMatch
from features.tables.schema import ITEM

__all__ = ["CellPlan", "StatePlan", "pair_of", "plan_state"]


class CellPlan(NamedTuple):
    """What is kept of one kind of group.

    Attributes:
        group: which events.
        sums: counts and sums that are asked for.
        window_us: the longest window of a sum; None: no window is asked for.
        distinct: (of, longest window or None for all time) of every unique count.
    """

    group: Group
    sums: tuple[Statistic, ...]
    window_us: int | None
    distinct: tuple[tuple[str, int | None], ...]

    @property
    def bucket_us(self) -> int:
        """Width of a bucket of the windows: a refresh, or a moment of its own for every event."""
        return self.group.refresh_us or 1


class StatePlan(NamedTuple):
    """What is kept for a set of definitions.

    Attributes:
        cells: one entry for each kind of group, in a fixed order.
        pasts: (kind of event or None, how many of a user's newest events).
        digest: 16 hex digits that name the plan; state of another plan means something else.
    """

    cells: tuple[CellPlan, ...]
    pasts: tuple[tuple[str | None, int], ...]
    digest: str


def plan_state(definitions: Sequence[Definition], tables: FeatureTables) -> StatePlan:
    """The state that `features.online.features` keeps for the definitions.

    Every definition is computed once for a made-up row, by the code that computes it everywhere,
    and what it asks of the past is written down.
    """
    recorder = _Recorder(definitions, tables)
    for definition in definitions:
        if not definition.made_of:
            compute(recorder, definition)
    recorder.groups |= {pair_of(group) for group in recorder.groups if group.again}
    cells = []
    for group in sorted(recorder.groups, key=lambda each: tuple(str(part) for part in each)):
        sums = sorted({name for name, _ in recorder.sums.get(group, ()) if name[0] not in _TIMES})
        windows = [window for _, window in recorder.sums.get(group, ()) if window is not None]
        found: dict[str, int | None] = {}
        for of, window in sorted(recorder.distinct_asked.get(group, ()), key=str):
            longest = found.get(of, 0)
            found[of] = None if window is None or longest is None else max(window, longest)
        cells.append(CellPlan(group, tuple(sums), max(windows, default=None), tuple(found.items())))
    pasts: dict[str | None, int] = {}
    for event, last in recorder.asked_pasts:
        pasts[event] = max(last, pasts.get(event, 0))
    in_order = tuple(sorted(pasts.items(), key=str))
    named = [(each.group[: 4 + each.group.again], *each[1:]) for each in cells]  # as of old
    text = json.dumps([definitions_sha256(definitions), named, in_order])
    return StatePlan(tuple(cells), in_order, hashlib.sha256(text.encode()).hexdigest()[:16])


def pair_of(group: Group) -> Group:
    """The group that says when a user last met an item, for one that counts what came again."""
    return Group("user_item", None, group.event)


_TIMES = ("last", "first")


class _Recorder(Computation):
    """Answers "nothing happened" and remembers the questions."""

    def __init__(self, definitions: Sequence[Definition], tables: FeatureTables) -> None:
        texts = {each.query for each in definitions if isinstance(each, TextMatch)}
        read = {
            source.partition(".")[2]
            for each in definitions
            for source in each.columns()
            if source.startswith("request.")
        }
        item = tables.item_frame[ITEM].head(1).to_list() or ["-"]
        row = pl.DataFrame({name: ["" if name in texts else 0.0] for name in sorted(read)})
        super().__init__(
            tables,
            row,
            item_ids=tables.item_ids,
            user_ids=pl.Series(["-"]),
            item=tables.item_ids.index(item),
            user=np.ones(1, dtype=np.int64),
            moment=np.zeros(1, dtype=np.int64),
        )
        self.groups: set[Group] = set()
        self.sums: dict[Group, set[tuple[Statistic, int | None]]] = {}
        self.distinct_asked: dict[Group, set[tuple[str, int | None]]] = {}
        self.asked_pasts: set[tuple[str | None, int]] = set()

    def _values(
        self, group: Group, asked: Asked, statistic: Statistic, window_us: int | None
    ) -> np.ndarray:
        self.groups.add(group)
        self.sums.setdefault(group, set()).add((statistic, window_us))
        return np.zeros(asked.user.size)

    def _distinct_counts(
        self, group: Group, asked: Asked, of: str, window_us: int | None
    ) -> np.ndarray:
        self.groups.add(group)
        self.distinct_asked.setdefault(group, set()).add((of, window_us))
        return np.zeros(asked.user.size)

    def _newest(self, event: str | None, last: int) -> Past:
        self.asked_pasts.add((event, last))
        none = np.zeros((self.level("user").user.size, last), dtype=np.int64)
        return Past(none, none, none.astype(np.float64))
