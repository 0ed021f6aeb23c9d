"""Feast's online features straight from its Redis hashes: one round trip, columns out.

What to read is resolved once, by Feast itself, into a `ReadPlan`; a request then touches neither
the registry nor a message class for numbers. The view's ttl is applied and a row that is not there
is reported as such, both of which Feast's own Redis store leaves out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from features.feast.comparison import compare_with_feast
from features.feast.direct_plan import Ids, ReadPlan, ViewPlan, compile_plan
from features.feast.redis_reads import (
    HashRequest,
    read_hashes,
    read_hashes_async,
    require_bytes,
    stored_ids,
)
from features.packing.schema import FeatureBlock

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["AsyncDirectReader", "DirectReader", "ReadPlan", "ViewPlan", "compile_plan"]

log = logging.getLogger(__name__)


class _Reader:
    """What both readers share.

    Args:
        plan: from `compile_plan`.
        client: returns bytes; see `features.feast.redis_reads.read_hashes`.

    Raises:
        DataError: the client decodes replies.
    """

    def __init__(self, plan: ReadPlan, client: Any) -> None:
        require_bytes(client)
        self.plan = plan
        self._client = client

    @cached_property
    def _fields(self) -> list[bytes]:
        return [field for view in self.plan.views for field in view.fields]

    def _requests(self, ids: Ids) -> list[HashRequest]:
        keys = self.plan.keys.encode(self.plan.columns_of(ids))
        return [HashRequest(keys, self._fields)]


class DirectReader(_Reader):
    """Reads features of many ids in one round trip."""

    @classmethod
    def open(
        cls,
        store: FeatureStore,
        features: str | Sequence[str],
        client: Any,
        *,
        widths: Mapping[str, int] | None = None,
        exact: Collection[str] = (),
        sample: int = 20,
    ) -> DirectReader:
        """Compile a plan and compare ``sample`` stored entities with Feast's own answer.

        Args:
            store: the feature store.
            features: name of a feature service, or references "view:feature".
            client: for the same server as the store's; redis-py's ``Redis`` or ``RedisCluster``.
            widths: see `compile_plan`.
            exact: see `compile_plan`.
            sample: how many entities; 0 compares none.

        Raises:
            DataError: what cannot be read directly, or an answer differs from Feast's.
        """
        reader = cls(compile_plan(store, features, widths=widths, exact=exact), client)
        if sample:
            ids = stored_ids(client, reader.plan.keys, limit=sample)
            compared = reader.check(store, ids)
            log.info("direct read of %s: %d rows equal to Feast's", features, compared)
        return reader

    def read(self, ids: Ids, *, moment: datetime | None = None) -> dict[str, FeatureBlock]:
        """Features by view.

        Args:
            ids: [N], or by join key [N] each; unknown ids are no error.
            moment: UTC, with or without a zone: ages are taken at it, and a row of a later time
                is not present. None: the clock; rows of writers whose clock is ahead count.

        Returns:
            A block for each view: values as `ValueColumn` says, null where not present; present
            where there is a row within the view's ttl; age_s of every row that is there, also of
            one beyond the ttl or, negative, of a later one; NaN where there is none.

        Raises:
            DataError: ids that cannot be keys, or stored bytes that are not Feast's.
        """
        return self.plan.decode(read_hashes(self._client, self._requests(ids)), moment)

    def check(self, store: FeatureStore, ids: Ids) -> int:
        """Compare with ``store.get_online_features``, rows beyond their ttl left out.

        Returns:
            How many rows, counted by view, were there to be compared.

        Raises:
            DataError: a value differs.
        """
        return compare_with_feast(store, self.plan, self.plan.columns_of(ids), self.read(ids))


class AsyncDirectReader(_Reader):
    """A `DirectReader` over a client of ``redis.asyncio``."""

    async def read(self, ids: Ids, *, moment: datetime | None = None) -> dict[str, FeatureBlock]:
        """Features by view; see `DirectReader.read`."""
        return self.plan.decode(await read_hashes_async(self._client, self._requests(ids)), moment)
