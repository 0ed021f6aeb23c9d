from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save, save_file

from recsys.errors import ArtifactError
from recsys.files.mapped_arrays import map_arrays

ARRAYS = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=4),
    hnp.arrays(
        st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u4", "|u1", "|b1"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=5,
)


@settings(max_examples=60)
@given(arrays=ARRAYS)
def test_it_reads_what_safetensors_reads(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("m") / "a.safetensors"
    save_file(arrays, path, metadata={"made": "here"})
    mapped = map_arrays(path)
    plain = load_file(path)
    assert mapped.keys() == plain.keys()
    for name, array in mapped.items():
        assert array.dtype == plain[name].dtype
        assert array.flags.aligned
        np.testing.assert_array_equal(array, plain[name])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"v": np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    return path


def test_writing_reaches_neither_the_file_nor_another_reader(path):
    mine, theirs = map_arrays(path)["v"], map_arrays(path)["v"]
    torch.from_numpy(mine).add_(1)
    assert mine[0, 0] == 1
    assert theirs[0, 0] == 0
    assert load_file(path)["v"][0, 0] == 0


def test_a_file_may_be_replaced_and_removed_while_it_is_mapped(path):
    old = map_arrays(path)["v"]
    save_file({"v": np.full((2, 3), 9, np.float32)}, path.with_name("new"))
    path.with_name("new").replace(path)
    new = map_arrays(path)["v"]
    path.unlink()
    assert (old[1, 2], new[1, 2]) == (5, 9)
    with pytest.raises(FileNotFoundError):
        map_arrays(path)


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_within_its_bounds(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("m") / "a.safetensors"
    whole = bytearray(save({"v": np.arange(6, dtype=np.float32), "w": np.ones(2, np.int64)}))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole = whole[:at]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        arrays = map_arrays(path)
    except ArtifactError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(whole)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}, "is of type 'BF16'"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "lies at bytes 0..4"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "lies at bytes 4..12"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, "is damaged"),
        ({"dtype": "F32", "shape": [2]}, "data_offsets"),
        ({"dtype": "F32", "shape": [2**70], "data_offsets": [0, 8]}, "is damaged"),
        ([], "is damaged"),
    ],
)
def test_a_header_that_lies(tmp_path, entry, message):
    header = json.dumps({"v": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ArtifactError, match=message):
        map_arrays(path)


def test_an_odd_header_is_read_all_the_same(tmp_path):
    header = json.dumps({"v": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}).encode()
    header += b" " * (1 - len(header) % 2)  # the numbers begin at an odd byte
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.array([1.5, 2.5]).tobytes())
    assert map_arrays(path)["v"].tolist() == [1.5, 2.5]
