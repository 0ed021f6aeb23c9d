from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import CorruptValue
from serving.store.candidate_codec import decode_candidates, encode_candidates, encoded_size
from serving.store.id_list_codec import decode_ids, encode_ids


def test_bytes_by_hand():
    (value,) = encode_candidates(np.array([[7, 258, -1]]), np.array([[1.5, -2.0, 9.0]]), 3)
    # 1.5 = 0x3E00 and -2 = 0xC000 in half precision
    body = b"RCND\x02\x0a\x02\x00" + b"\x07\0\x02\x01" + b"\x00\x3e\x00\xc0" + b"\x33"
    assert value == body + struct.pack("<I", zlib.crc32(body))


def test_wide_bytes_by_hand():
    index = np.array([[2**24 + 1], [2**16 + 2]])
    first, second = encode_candidates(index, np.array([[1.5], [1.5]]), np.array([[16], [1]]))
    body = b"RCND\x02\x04\x01\x00" + b"\x01\0\0\x01" + b"\x00\x3e" + b"\x10"
    assert first == body + struct.pack("<I", zlib.crc32(body))
    body = b"RCND\x02\x0b\x01\x00" + b"\x02\0\x01" + b"\x00\x3e" + b"\x01"
    assert second == body + struct.pack("<I", zlib.crc32(body))


def test_version_1_is_still_read():
    body = b"RCND\x01\x00\x02\x00" + b"\x07\0\0\0\x02\x01\0\0" + b"\x00\x3e\x00\xc0" + b"\x03\x04"
    found = decode_candidates(body + struct.pack("<I", zlib.crc32(body)))
    assert found.item_index.tolist() == [7, 258]
    assert found.score.tolist() == [1.5, -2.0]
    assert found.source.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("largest", "source", "size"),
    [(65_535, 15, 462), (65_536, 15, 562), (2**24 - 1, 16, 612), (2**24, 0, 662), (2**24, 16, 712)],
)
def test_bytes_of_a_hundred_candidates(largest, source, size):
    index = np.arange(largest - 99, largest + 1)[None]
    (value,) = encode_candidates(index, np.linspace(1, 0, 100)[None], source)
    assert len(value) == encoded_size(100, num_items=largest, num_sources=source + 1) == size


@st.composite
def batches(draw):
    num_rows, width = draw(st.integers(1, 5)), draw(st.integers(0, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    item_index = np.full((num_rows, width), -1, dtype=np.int64)
    for row in item_index:
        count = rng.integers(0, width + 1)
        largest = 2 ** int(rng.choice([10, 16, 17, 24, 25, 32])) - 2
        row[:count] = rng.choice(largest, count, replace=False) + 1
    score = -np.sort(-rng.normal(scale=100, size=(num_rows, width)), axis=1)
    return item_index, score, rng.integers(0, rng.choice([1, 16, 256]), (num_rows, width))


@given(batches())
def test_round_trip(batch):
    item_index, score, source = batch
    for row, value in enumerate(encode_candidates(item_index, score, source)):
        found = decode_candidates(value)
        count = int((item_index[row] != -1).sum())
        assert len(value) <= encoded_size(count, num_items=2**32 - 1, num_sources=256)
        np.testing.assert_array_equal(found.item_index, item_index[row, :count])
        np.testing.assert_array_equal(found.source, source[row, :count])
        expected = score[row, :count].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(found.score, expected)
        assert (np.diff(found.score) <= 0).all()


@given(batches(), st.data())
def test_any_changed_byte_is_noticed(batch, data):
    value = encode_candidates(*batch)[0]
    at = data.draw(st.integers(0, len(value) - 1))
    flipped = value[at] ^ data.draw(st.integers(1, 255))
    with pytest.raises(CorruptValue):
        decode_candidates(value[:at] + bytes([flipped]) + value[at + 1 :])


def test_batch_equals_one_by_one():
    rng = np.random.default_rng(0)
    item_index = np.array([[3, 1, 2], [5, -1, -1], [-1, -1, -1], [9, 8, -1]])
    score = -np.sort(-rng.normal(size=(4, 3)), axis=1)
    whole = encode_candidates(item_index, score, 1)
    assert whole == [encode_candidates(item_index[[row]], score[[row]], 1)[0] for row in range(4)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "truncated: 0 bytes"),
        (b"RCND\x01\x00\x01", "truncated: 7 bytes"),
        (b"NOPE" + bytes(20), "not a candidate list"),
        (b"RCND\x03" + bytes(20), "version 3 and layout 0, this code reads up to version 2"),
        (b"RCND\x02\x01" + bytes(20), "version 2 and layout 1"),
        (b"RCND\x02\x0a\x05\x00" + bytes(10), "of 5 entries must have 35 bytes, got 18"),
        (b"RCND\x01\x00\x05\x00" + bytes(10), "of 5 entries must have 47 bytes, got 18"),
        (b"RCND\x01\x00\x00\x00" + bytes(4), "checksum"),
    ],
)
def test_what_cannot_be_read_says_why(value, message):
    with pytest.raises(CorruptValue, match=message):
        decode_candidates(value)


@pytest.mark.parametrize(
    ("item_index", "score", "source", "message"),
    [
        ([[1, 2]], [[1.0]], 0, r"share one \[Q, K\] shape"),
        ([[1, 2]], [[1.0, np.nan]], 0, "finite: broken in 1 of 1 rows, first in row 0"),
        ([[1], [2]], [[1.0], [np.inf]], 0, "finite: broken in 1 of 2 rows, first in row 1"),
        ([[1]], [[70000.0]], 0, "within .-65504"),
        ([[1, 2]], [[1.0, 2.0]], 0, "non-increasing"),
        ([[0]], [[1.0]], 0, r"1..2\*\*32"),
        ([[2**32]], [[1.0]], 0, r"1..2\*\*32"),
        ([[4, 4]], [[1.0, 1.0]], 0, "must not repeat"),
        ([[-1, 4]], [[1.0, 1.0]], 0, "padding"),
        ([[4]], [[1.0]], 256, "source must be in 0..255"),
    ],
)
def test_what_cannot_be_stored_is_refused(item_index, score, source, message):
    with pytest.raises(ValueError, match=message):
        encode_candidates(np.array(item_index), np.array(score), source)


def test_too_long_a_list_is_refused():
    wide = np.zeros((1, 65536), dtype=np.int64)
    with pytest.raises(ValueError, match="at most 65535 candidates, got 65536"):
        encode_candidates(wide, wide.astype(float))


@given(st.lists(st.text(max_size=8), max_size=20))
def test_ids_round_trip(ids):
    assert decode_ids(encode_ids(ids)) == ids


def test_ids_that_cannot_be_read_say_why():
    value = encode_ids(["a", "bé"])
    with pytest.raises(CorruptValue, match="truncated"):
        decode_ids(value[:5])
    with pytest.raises(CorruptValue, match="starts with b'XIDS'"):
        decode_ids(b"X" + value[1:])
    with pytest.raises(CorruptValue, match="version 9"):
        decode_ids(value[:4] + b"\x09" + value[5:])
    with pytest.raises(CorruptValue, match="checksum"):
        decode_ids(value[:-6] + value[-5:])
