"""What a publish has written so far, kept in the store beside what it writes.

The value is a line of JSON and then 16 bytes for each block of values: the block's checksum, put
there before the block is written. So every block but the last is known to be complete, and the
same input is told from another without keeping any of it.
"""

from __future__ import annotations

import json
from typing import Any, cast

import redis

__all__ = ["DIGEST_BYTES", "PublishMarker"]

DIGEST_BYTES = 16
KIND = "publish"
_MOST_AGE = 0.1  # of the time to live that a publish may be behind the attempt it continues
_APPEND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('APPEND', KEYS[1], ARGV[1])
"""


class PublishMarker:
    """Tells which blocks an earlier attempt wrote, and keeps track of this one.

    An attempt is continued while its values live at least nine tenths of ``ttl_s`` from now; an
    older one, or one of another ``ttl_s``, is written again.

    Attributes:
        expires_at: seconds since the epoch at which all values of the generation go; that of the
            attempt which is continued.
        has_strays: values of another input may be in the store.

    Args:
        client: the store.
        key: of the marker.
        now: seconds since the epoch, on the server.
        ttl_s: seconds that the generation is to live.
    """

    def __init__(self, client: redis.Redis, key: str, *, now: int, ttl_s: int) -> None:
        self._client = client
        self._key = key
        self._position = 0
        self.expires_at = now + ttl_s
        self.has_strays = False
        self._digests = bytearray()
        header, digests = _read(cast("bytes | None", client.get(key)))
        if header is not None:
            found = int(header["expires_at"])
            self.has_strays = bool(header["strays"])
            if now + (1 - _MOST_AGE) * ttl_s <= found <= now + ttl_s:
                self.expires_at = found
                self._digests[:] = digests
                return
            self.has_strays = True
        self._rewrite()

    def begin(self, digest: bytes) -> bool:
        """Note that the next block is about to be written.

        Args:
            digest: 16 bytes over its keys and values.

        Returns:
            True when an earlier attempt has written this very block whole.
        """
        start = self._position * DIGEST_BYTES
        end = start + DIGEST_BYTES
        self._position += 1
        known = bytes(self._digests[start:end])
        if known == digest:
            return len(self._digests) > end
        self._digests[start:] = digest
        if known:
            self.has_strays = True
            self._rewrite()
        else:
            self._append(digest)
        return False

    def finish(self) -> None:
        """Note that the input is at its end; what an earlier attempt had beyond it are strays."""
        if len(self._digests) > self._position * DIGEST_BYTES:
            self.has_strays = True
            del self._digests[self._position * DIGEST_BYTES :]
            self._rewrite()

    def _append(self, digest: bytes) -> None:
        length = cast(int, self._client.eval(_APPEND, 1, self._key, cast(Any, digest)))
        # 0: somebody removed the marker. Longer: a command whose reply was lost was sent again.
        if length != len(self._header()) + len(self._digests):
            self._rewrite()

    def _rewrite(self) -> None:
        value = self._header() + bytes(self._digests)
        self._client.set(self._key, value, exat=self.expires_at)

    def _header(self) -> bytes:
        header = {"kind": KIND, "expires_at": self.expires_at, "strays": self.has_strays}
        return json.dumps(header, sort_keys=True).encode() + b"\n"


def _read(value: bytes | None) -> tuple[dict[str, Any] | None, bytes]:
    """Header and digests; None for an absent, damaged or other value."""
    line, _, digests = (value or b"").partition(b"\n")
    try:
        header = json.loads(line)
        usable = header["kind"] == KIND and {"expires_at", "strays"} <= set(header)
    except (ValueError, KeyError, TypeError):
        return None, b""
    whole = len(digests) - len(digests) % DIGEST_BYTES
    return (header, digests[:whole]) if usable else (None, b"")
