"""Running feature state in Redis: one hash a group of events, one writer at a time.

{ns}:f:{tag}:writer           token of the process that may write
{ns}:f:{tag}:{plan}:u:<user>  hash of packed cells; see `features.online.features`

``{tag}`` is the namespace in braces, a hash tag of Redis Cluster: the state of one namespace lies
in one slot, so that a batch of updates is one step there as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from features.online.store import Field
from recsys.config.store import ConnectionOptions
from serving.connection.clients import store_errors
from serving.errors import StageUnavailable, WriterReplaced

if TYPE_CHECKING:
    import redis

__all__ = ["RedisStateStore"]

_AT_ONCE = 1_000

# KEYS: owner, then hashes. ARGV: token, seconds or '', then for each hash twice its number of
# fields and these with their values. Lua hands on no more than some thousands of values at once.
_WRITE = """
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
local at = 3
for k = 2, #KEYS do
  local last = at + ARGV[at]
  for from = at + 1, last, 1000 do
    redis.call('HSET', KEYS[k], unpack(ARGV, from, math.min(from + 999, last)))
  end
  if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[k], ARGV[2]) end
  at = last + 1
end
return 1
"""


class RedisStateStore:
    """A `features.StateStore` in Redis or Valkey.

    A batch of updates is one step of the server: readers see all of it or nothing. The process
    that made the newest store with ``writer=True`` is the one that may write; an older one is told
    so at its next write and has written nothing of it. So a restart needs no lease to run out, and
    two processes cannot undo each other's counts.

    Args:
        client: of a store of any kind; on a cluster all state of a namespace is on one node.
        namespace: first part of every key.
        writer: whether this process will update the state.
        expire_s: seconds after its last update at which a group is forgotten. None: never. No
            shorter than the longest window of the definitions; counts of all time begin again.

    Raises:
        ValueError: ``expire_s`` is not positive.
        StageUnavailable: the server does not answer.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str = ConnectionOptions.default("namespace"),
        *,
        writer: bool = False,
        expire_s: int | None = None,
    ) -> None:
        if expire_s is not None and expire_s <= 0:
            raise ValueError(f"expire_s must be > 0 seconds or None, got {expire_s}")
        self._client = client
        self._prefix = f"{namespace}:f:{{{namespace}}}:"
        self._owner = f"{self._prefix}writer"
        self._expire_s = expire_s
        self._token: bytes | None = None
        if writer:
            self._token = secrets.token_hex(8).encode()
            with store_errors("take over the feature state"):
                client.set(self._owner, self._token)

    def renew(self) -> None:
        """Make sure that this process may still write; after the server lost its data, it may.

        Raises:
            WriterReplaced: another process has become the writer.
            StageUnavailable: the server does not answer.
            ValueError: the store was made without ``writer=True``.
        """
        self._check_is_writer()
        with store_errors("take over the feature state"):
            self._client.set(self._owner, self._token, nx=True)  # type: ignore[arg-type]
            self._check_owner(self._client.get(self._owner))

    def read(self, fields: Sequence[Field]) -> list[bytes | None]:
        """The value of each (key, field), None where there is none."""
        asked: dict[str, list[str]] = {}
        for key, field in fields:
            asked.setdefault(key, []).append(field)
        found: dict[Field, bytes | None] = {}
        keys = list(asked)
        with store_errors("read feature state"):
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                pipeline = self._client.pipeline(transaction=False)
                for key in part:
                    pipeline.hmget(self._prefix + key, asked[key])
                for key, values in zip(part, pipeline.execute(), strict=True):
                    found.update(
                        ((key, field), value)
                        for field, value in zip(asked[key], values, strict=True)
                    )
        return [found[field] for field in fields]

    def read_all(self, keys: Sequence[str]) -> list[dict[str, bytes]]:
        """All fields of each key; none for an unknown key."""
        found: list[dict[str, bytes]] = []
        with store_errors("read feature state"):
            for start in range(0, len(keys), _AT_ONCE):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys[start : start + _AT_ONCE]:
                    pipeline.hgetall(self._prefix + key)
                found += [
                    {field.decode(): value for field, value in fields.items()}
                    for fields in pipeline.execute()
                ]
        return found

    def write(self, values: Mapping[Field, bytes]) -> None:
        """Set fields; all of them or, if it fails, none.

        Raises:
            WriterReplaced: another process has become the writer; nothing was written.
            StageUnavailable: the server does not answer, or has lost its data.
            ValueError: the store was made without ``writer=True``.
        """
        self._check_is_writer()
        by_key: dict[str, dict[str, bytes]] = {}
        for (key, field), value in values.items():
            by_key.setdefault(self._prefix + key, {})[field] = value
        values_of: list[bytes | str | int] = []
        for mapping in by_key.values():
            values_of.append(2 * len(mapping))
            for field_and_value in mapping.items():
                values_of += field_and_value
        expire_s = "" if self._expire_s is None else self._expire_s
        with store_errors("write feature state"):
            written: object = self._client.eval(
                _WRITE,
                1 + len(by_key),
                self._owner,
                *by_key,
                cast(bytes, self._token),
                expire_s,
                *values_of,
            )
        if written != 1:
            self._check_owner(written or None)

    def _check_is_writer(self) -> None:
        if self._token is None:
            raise ValueError("writer must be True to update feature state, got False")

    def _check_owner(self, found: object) -> None:
        if found is None:
            raise StageUnavailable(
                f"the store has lost the feature state under {self._prefix!r}; "
                "`recsys features follow` fills it again",
                stage="features",
            )
        if found != self._token:
            raise WriterReplaced(
                f"only one process may update the feature state under {self._prefix!r}, and "
                "another one has taken over; stop one of the two, nothing of this batch was written"
            )
