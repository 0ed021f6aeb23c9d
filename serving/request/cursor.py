"""The place between two pages of one answer.

A cursor names the generation that the pages come from, the items that were shown, and when the
first page was asked for; what the user does meanwhile does not move the pages. Nothing is stored:
the client carries it. A forged one can only change the forger's own answer.

```
version u8 | size of the generation's id u8 | its id | until u64 | question u64 | seed u64 |
number of shown items u16 | their sorted indices, each as what it adds to the one before, in
groups of 7 bits | crc32 of all of it
```
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from serving.errors import CursorMismatch
from serving.messages import RecommendRequest
from serving.store.keys import checked_generation

__all__ = ["MAX_CURSOR", "Page", "decode_cursor", "encode_cursor", "question_of"]

MAX_CURSOR = 4096
"""Most characters of a cursor."""
_VERSION = 1
_HEAD = struct.Struct("<BB")
_BODY = struct.Struct("<QQQH")
_CHECK = struct.Struct("<I")


class Page(NamedTuple):
    """Where the next page begins.

    Attributes:
        generation: all pages are of it.
        shown: rows of the vocabulary on the pages before, rising.
        until_us: when the first page was asked for, microseconds since the epoch.
        question: 64 bits that stand for what was asked.
        seed: 64 bits, of the draws of an exploring arm.
    """

    generation: str
    shown: tuple[int, ...]
    until_us: int
    question: int
    seed: int = 0


def question_of(request: RecommendRequest) -> int:
    """64 bits that stand for a request, whatever ``k``, page and request id."""
    only = None if request.only is None else sorted(request.only)
    asked = [
        request.user_id,
        sorted(request.exclude),
        only,
        list(request.recent_items),
        request.diversity,
        request.threshold,
        request.segment,
    ]
    text = json.dumps(asked, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def encode_cursor(page: Page) -> str:
    """The page as text that is safe in a URL."""
    generation = page.generation.encode()
    parts = [
        _HEAD.pack(_VERSION, len(generation)),
        generation,
        _BODY.pack(page.until_us, page.question, page.seed, len(page.shown)),
        _steps(page.shown),
    ]
    content = b"".join(parts)
    content += _CHECK.pack(zlib.crc32(content))
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(text: str) -> Page:
    """Read what `encode_cursor` gave.

    Raises:
        CursorMismatch: the text is no cursor, or was changed.
    """
    if len(text) > MAX_CURSOR:
        raise CursorMismatch(
            f"cursor must have at most {MAX_CURSOR} characters, got {len(text)}; take it from the "
            "answer as it is"
        )
    try:
        content = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", True)
        if zlib.crc32(content[: -_CHECK.size]) != _CHECK.unpack(content[-_CHECK.size :])[0]:
            raise ValueError("its checksum is another")
        version, size = _HEAD.unpack_from(content)
        if version != _VERSION:
            raise ValueError(f"it has version {version}, this code reads {_VERSION}")
        start = _HEAD.size + size
        generation = checked_generation(content[_HEAD.size : start].decode("ascii"))
        until_us, question, seed, count = _BODY.unpack_from(content, start)
        shown = _indices(content[start + _BODY.size : -_CHECK.size], count)
    except (ValueError, struct.error, binascii.Error) as error:
        raise CursorMismatch(
            f"cursor cannot be read ({error}); take it from the answer as it is, or ask for the "
            "first page without one"
        ) from error
    return Page(generation, shown, until_us, question, seed)


def _steps(rising: Sequence[int]) -> bytes:
    steps = bytearray()
    before = 0
    for index in rising:
        step, before = index - before, index
        while step >= 0x80:
            steps.append(step & 0x7F | 0x80)
            step >>= 7
        steps.append(step)
    return bytes(steps)


def _indices(steps: bytes, count: int) -> tuple[int, ...]:
    found: list[int] = []
    index = step = shift = 0
    for byte in steps:
        step |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            index += step
            found.append(index)
            step = shift = 0
        elif shift > 35:
            raise ValueError("an item index is too large")
    if shift or len(found) != count:
        raise ValueError(f"it names {count} items and holds {len(found)}")
    return tuple(found)
