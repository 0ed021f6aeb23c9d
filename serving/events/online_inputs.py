"""Features of a live request from the running state, in one read of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from features.computation import FeatureComputer
from features.computation.requests import item_requests
from features.moments import EPOCH
from features.online.computation import StateComputation
from features.online.keys import CLOCK, StateKeys
from features.online.plan import plan_state
from features.online.store import Field, StateStore
from features.tables import ITEM
from serving.errors import StageUnavailable

__all__ = ["OnlineInputs"]


class OnlineInputs:
    """Reads the state that `serving.events.feature_follower` keeps; safe to share between threads.

    The state is as old as the follower is behind. What a user did just now is in the session at
    once: where features of the own events matter by the second, compute them from log and session
    (`features.FeatureComputer.live`) and take only the items' values from the state.

    Args:
        computer: definitions and tables, the same as the follower's.
        store: where the state lives.

    Attributes:
        state: name of the definitions' state.
    """

    def __init__(self, computer: FeatureComputer, store: StateStore) -> None:
        self._computer = computer
        self._store = store
        self._plan = plan_state(computer.definitions, computer.tables)
        self._keys = StateKeys(self._plan)
        self.state = self._plan.digest

    def features_for(
        self,
        user_id: str,
        item_ids: Sequence[str],
        moment: datetime,
        item_values: pl.DataFrame | Mapping[str, np.ndarray] | None = None,
        retrieval: Mapping[str, np.ndarray] | None = None,
    ) -> pl.DataFrame:
        """Features of one live request; see `features.OnlineFeatures.request_features`.

        Args:
            user_id: who asks; may be unknown.
            item_ids: C candidates.
            moment: UTC, no zone. Where the server's clock is ahead of this machine's, the newest
                event in the state is the moment.
            item_values: published values of the items. None: from the state, which has a key for
                each item; the read then takes milliseconds for every hundred of them.
            retrieval: see `features.request_features`.

        Returns:
            C rows in the order of ``item_ids``.

        Raises:
            DataError: a definition reads what the request does not bring.
            StageUnavailable: the store does not answer, or has no state of these definitions.
        """
        keys = [self._keys.clock[0], self._keys.everybody(), self._keys.user(user_id)]
        if item_values is None:
            keys += self._keys_of(item_ids)
        fetched = _Fetched(self._store, keys)
        moment = max(moment, self._newest(fetched))
        requests = self._computer.live_requests(user_id, item_ids, moment, retrieval)
        given = self._computer.live_values(item_ids, item_values)
        look = StateComputation(requests, self._computer.tables, fetched, self._plan)
        return self._computer.evaluate(requests, look, given)

    def item_values(self, item_ids: Sequence[str], moment: datetime) -> pl.DataFrame:
        """What depends on the items alone, as of now, to be published or given to `features_for`.

        Args:
            item_ids: N items.
            moment: as there.

        Returns:
            N rows: item_id and one Float32 column per definition.

        Raises:
            StageUnavailable: as there.
        """
        keys = [self._keys.clock[0], self._keys.everybody(), *self._keys_of(item_ids)]
        fetched = _Fetched(self._store, [*keys, self._keys.user("-")])
        moment = max(moment, self._newest(fetched))
        requests = item_requests(pl.Series(ITEM, item_ids, dtype=pl.String), moment)
        look = StateComputation(requests, self._computer.tables, fetched, self._plan)
        published = self._computer.published
        values = self._computer.evaluate(requests, look, {}, published)
        return values.select(ITEM, *(definition.name for definition in published))

    def _keys_of(self, item_ids: Sequence[str]) -> list[str]:
        """Keys of the items, and of the attributes' values that they have."""
        tables = self._computer.tables
        groups = [cell.group for cell in self._plan.cells]
        keys: list[str] = []
        if any(group.by == "item" for group in groups):
            keys += map(self._keys.item, item_ids)
        index = tables.item_ids.index(list(item_ids))
        for column in sorted({str(each.column) for each in groups if each.by == "attribute"}):
            attribute = tables.attribute(column)
            _, values = attribute.pairs(index[index > 0])
            names = (attribute.names[value - 1] for value in np.unique(values).tolist())
            keys += [self._keys.attribute(column, name) for name in names]
        return list(dict.fromkeys(keys))

    def _newest(self, fetched: StateStore) -> datetime:
        """When the newest event in the state arrived."""
        (clock,) = fetched.read([self._keys.clock])
        if clock is None:
            raise StageUnavailable(
                f"the store has no feature state {self.state} of these definitions; keep one with "
                "`recsys features follow`",
                stage="features",
            )
        (newest,) = CLOCK.unpack(clock)
        return EPOCH + timedelta(microseconds=newest)


class _Fetched:
    """Some keys of a store, read at once, and the store itself for any others."""

    def __init__(self, store: StateStore, keys: Sequence[str]) -> None:
        self._store = store
        self._fields = dict(zip(keys, store.read_all(keys), strict=True))

    def read(self, fields: Sequence[Field]) -> list[bytes | None]:
        found = self.read_all([key for key, _ in fields])
        return [values.get(name) for values, (_, name) in zip(found, fields, strict=True)]

    def read_all(self, keys: Sequence[str]) -> list[dict[str, bytes]]:
        missing = [key for key in keys if key not in self._fields]
        if missing:
            self._fields.update(zip(missing, self._store.read_all(missing), strict=True))
        return [self._fields[key] for key in keys]

    def write(self, values: Mapping[Field, bytes]) -> None:
        raise NotImplementedError("a request writes nothing")
