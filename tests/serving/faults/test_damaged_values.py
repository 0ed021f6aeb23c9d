"""Whatever stands in the store is read or refused by name: no other error, no large allocation.

Three kinds of damage: any bytes, a good value with bytes changed, cut or put in, and a good value
changed with its checksum made to fit, as only another program's bug or a person would write it.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.packing import PackedField, PackedReader, PackedSchema
from serving.errors import CorruptValue, CursorMismatch
from serving.events.sessions import unpack_session
from serving.messages import RecommendRequest
from serving.request.cursor import Page, decode_cursor, encode_cursor
from serving.request.service import RecommendationService
from serving.store.candidate_codec import decode_candidates, encode_candidates
from serving.store.id_list_codec import decode_ids, encode_ids
from serving.store.manifest import Head, Manifest

many = settings(max_examples=150)

CANDIDATES = encode_candidates(
    np.array([[5, 70_000, 9], [1, 2, 3]]),
    np.array([[1.0, 0.5, 0.25], [3.0, 2.0, 1.0]]),
    np.array([[0, 1, 15], [0, 200, 1]]),
)
IDS = encode_ids(["i1", "ü", "", "😀" * 3])
HEAD = Head("g2", "g1", 3, 1.7e9).to_json()
MANIFEST = Manifest(
    generation="g2",
    published_at=1.7e9,
    expires_at=1_800_000_000,
    num_users=2,
    num_items=12,
    num_neighbours=0,
    k=3,
    num_empty=0,
    min_score=0.25,
    max_score=None,
    source_names=("tower",),
    vocabulary_sha256="v1",
    item_schema=None,
    content_sha256="c1",
).to_json()
CURSOR = encode_cursor(Page("g2", (1, 2, 300, 70_000), 1_700_000_000_000_000, 2**63))
SCHEMA = PackedSchema(
    (
        PackedField("price", "float16"),
        PackedField("year", "int32"),
        PackedField("kind", "category", values=("a", "b")),
        PackedField("vector", "float32", width=3),
    ),
    event_time=True,
)
ROW = SCHEMA.pack(
    {"price": [1.0], "year": [2000], "kind": ["b"], "vector": [[1.0, 2.0, 3.0]]},
    event_time=np.array([10**15]),
)[0]


def sealed(content):
    """``content`` with the checksum that fits it."""
    return content + struct.pack("<I", zlib.crc32(content))


@st.composite
def damaged(draw, values):
    """One of ``values`` with bytes changed, cut out or put in."""
    value = bytearray(draw(st.sampled_from(values)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(value)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "ones"]))
        if kind == "insert":
            value[place:place] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "cut":
            del value[place : place + draw(st.integers(1, 9))]
        elif kind == "ones":
            value[place : place + 4] = b"\xff" * len(value[place : place + 4])
        elif place < len(value):
            value[place] = draw(st.integers(0, 255))
    return bytes(value)


def any_bytes_like(*values):
    resealed = damaged([value[:-4] for value in values]).map(sealed)
    return st.one_of(st.binary(max_size=80), damaged(values), resealed)


def read(decode, value, refusal):
    """What ``decode`` makes of ``value``, or None; without taking more memory than it is worth."""
    tracemalloc.start()
    try:
        return decode(value)
    except refusal:
        return None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 200_000 + 100 * len(value)


@many
@given(any_bytes_like(*CANDIDATES))
@example(sealed(struct.pack("<4sBBH", b"RCND", 2, 4, 65_535)))
def test_candidates(value):
    found = read(decode_candidates, value, CorruptValue)
    if found is not None:
        assert found.item_index.shape == found.score.shape == found.source.shape


@many
@given(any_bytes_like(IDS))
@example(sealed(struct.pack("<4sB3xI", b"RIDS", 1, 2**32 - 1)))
@example(sealed(struct.pack("<4sB3xI2I", b"RIDS", 1, 2, 3, 1) + b"abc"))  # ends that fall
@example(sealed(struct.pack("<4sB3xI2I", b"RIDS", 1, 2, 1, 9) + b"abc"))  # ends outside
@example(sealed(struct.pack("<4sB3xI2I", b"RIDS", 1, 2, 1, 2) + b"abc"))  # text left over
@example(sealed(struct.pack("<4sB3xII", b"RIDS", 1, 1, 1) + b"\xff"))  # no text
def test_ids(value):
    found = read(decode_ids, value, CorruptValue)
    if found is not None:
        assert encode_ids(found)[12:-4] == value[12:-4]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def changed_json(draw, value):
    """A JSON object with fields of other kinds, left out, or more of them."""
    found = json.loads(value)
    for name in draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=3)):
        if draw(st.booleans()):
            found[name] = draw(json_values)
        else:
            found.pop(name, None)
    if draw(st.integers(0, 9)) == 0:
        found[draw(st.text(max_size=5))] = draw(json_values)
    return json.dumps(found).encode()


DEEP = b"[" * 100_000


@many
@given(st.binary(max_size=50) | damaged([HEAD]) | changed_json(HEAD))
@example(DEEP)
@example(b'{"generation": "g2", "previous": null, "epoch": NaN, "flipped_at": 1}')
@example(b'{"generation": "g 2", "previous": null, "epoch": 1, "flipped_at": 1}')
def test_heads(value):
    head = read(Head.from_json, value, CorruptValue)
    if head is not None:
        assert isinstance(head.generation, str)
        assert head.previous is None or isinstance(head.previous, str)
        assert type(head.epoch) is int
        assert isinstance(head.flipped_at, int | float)


@many
@given(st.binary(max_size=50) | damaged([MANIFEST]) | changed_json(MANIFEST))
@example(DEEP)
def test_manifests(value):
    found = read(Manifest.from_json, value, CorruptValue)
    if found is not None:
        for field in dataclasses.fields(found):
            given = getattr(found, field.name)
            whole = field.type == "int"
            assert not whole or type(given) is int, field.name
            assert field.type != "str" or isinstance(given, str), field.name
        assert all(isinstance(one, str) for one in found.source_names + found.segments)


@many
@given(st.binary(max_size=60) | damaged([ROW]))
@pytest.mark.parametrize("reader", [SCHEMA, PackedReader(SCHEMA)])
def test_item_rows(reader, value):
    found = read(lambda row: reader.unpack([row, None, ROW]), value, DataError)
    if found is not None:
        assert found.present.tolist() == [True, False, True]
        assert {name: len(column) for name, column in found.values.items()} == dict.fromkeys(
            ("price", "year", "kind", "vector"), 3
        )


@many
@given(json_values | changed_json(json.dumps(SCHEMA.to_dict())).map(json.loads))
@example({"format": 2, "fields": [{"name": "a", "width": 2**40}]})
@example({"format": 2, "fields": [{"name": "a", "default": "x"}]})
@example({"format": 2, "fields": [3]})
@example({"format": 2, "fields": 3})
@example({"format": 2, "fields": [{"name": "a", "dtype": ["float32"]}]})
@example({"format": 2, "fields": [{"name": "a", "dtype": "category", "values": [1, "b"]}]})
@example({"format": 2, "fields": [{"name": "a", "dtype": "category", "values": 3}]})
def test_schemas_of_item_rows(record):
    try:
        found = PackedSchema.from_dict(record)
    except DataError:
        return
    assert found.row_bytes > 0
    assert PackedSchema.from_dict(found.to_dict()).schema_id == found.schema_id


@many
@given(
    st.text(max_size=60)
    | damaged([CURSOR.encode()]).map(lambda value: value.decode("utf-8", "surrogateescape"))
)
@example("")
@example("\ud800")
@example("A" * 5000)
@example("AAAA" * 1000)
def test_cursors(text):
    page = read(decode_cursor, text, CursorMismatch)
    if page is not None:
        assert decode_cursor(encode_cursor(page)) == page


@many
@given(st.lists(st.tuples(st.binary(max_size=40), st.floats() | st.integers()), max_size=3))
def test_sessions(reply):
    found = read(unpack_session, reply, CorruptValue)
    assert found is None or len(found) <= len(reply)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("items", {"num_items": 10**9}),
        ("items", {"num_items": -1}),
        ("items", {"num_items": 3}),
        ("list", ([999, 1], [1.0, 0.5], [0, 0])),
        ("list", ([2**32 - 1], [1.0], [0])),
        ("list", ([1, 2], [1.0, 0.5], [99, 0])),
        ("popular", ([999], [1.0], [0])),
        ("manifest", {"item_schema": "["}),
        ("manifest", {"item_schema": '{"format": 9}'}),
        ("manifest", {"source_names": []}),
        ("manifest", {"k": 0, "expires_at": -5}),
    ],
)
def test_values_that_do_not_go_together(store, make, name, changed):
    """Each is whole in itself; the user gets a slate of what is there all the same.

    Only a vocabulary of another length is no use, as no index means what it meant: the previous
    generation answers.
    """
    make.publish(store, "g1", {"ann": [5, 6]})
    make.publish(store, "g2", {"ann": [7, 8]})
    if isinstance(changed, tuple):
        keys = {"list": store.keys.user("g2", "ann"), "popular": store.keys.popular("g2")}
        value = encode_candidates(*(np.array([column]) for column in changed))[0]
        store.client.set(keys[name], value)
    else:
        key = store.keys.manifest("g2")
        store.client.set(key, json.dumps({**json.loads(store.client.get(key)), **changed}))
    service = RecommendationService(store)
    answer = service.recommend(RecommendRequest("ann", k=2))
    assert len({item.item_id for item in answer.items}) == 2
    if name == "items":
        assert (answer.generation, answer.degraded) == ("g1", True)
    service.close()
