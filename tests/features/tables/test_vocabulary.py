from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import DataError, UnknownIdError, Vocabulary

IDS = st.lists(st.text(min_size=1, max_size=4), max_size=20)


@given(IDS, IDS)
def test_ids_to_indices_and_back(ids: list[str], others: list[str]) -> None:
    vocabulary = Vocabulary.from_ids(ids)
    assert vocabulary.ids(vocabulary.index(ids, missing="error")) == ids
    expected = [
        list(dict.fromkeys(ids)).index(other) + 1 if other in ids else 0 for other in others
    ]
    assert vocabulary.index(others).tolist() == expected


@given(IDS, IDS)
def test_extend_only_appends(ids: list[str], more: list[str]) -> None:
    old = Vocabulary.from_ids(ids)
    new = old.extend(more)
    np.testing.assert_array_equal(new.index(ids), old.index(ids))
    assert new == Vocabulary.from_ids(ids + more)
    assert len(new) == len(set(ids + more))
    assert (new.sha256 == old.sha256) == (len(new) == len(old))


def test_indices_are_int64_from_one_in_order_of_appearance() -> None:
    vocabulary = Vocabulary.from_ids(["b", "a", "b", "c"])
    index = vocabulary.index(["c", "nobody", "a", "b"])
    assert index.dtype == np.int64
    assert index.tolist() == [3, 0, 2, 1]
    assert (len(vocabulary), vocabulary.size) == (3, 4)
    assert vocabulary.to_series().to_list() == ["b", "a", "c"]
    assert repr(vocabulary).startswith("Vocabulary(3 ids, sha256 ")


def test_integers_and_arrays_are_ids_too() -> None:
    vocabulary = Vocabulary.from_ids(np.array([7, 5]))
    assert vocabulary.index([5, 7, 6]).tolist() == [2, 1, 0]
    assert vocabulary.index(pl.Series(["7", None])).tolist() == [1, 0]
    assert vocabulary.index([]).tolist() == []
    assert Vocabulary.from_ids([]).index(["a"]).tolist() == [0]


def test_unknown_id_can_raise() -> None:
    vocabulary = Vocabulary.from_ids(["a"])
    with pytest.raises(UnknownIdError, match="vocabulary of 1: 2 are not, first: 'x'"):
        vocabulary.index(["a", "x", "y"], missing="error")
    with pytest.raises(ValueError, match="missing must be 'zero' or 'error', got 'skip'"):
        vocabulary.index(["a"], missing="skip")  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [0, -1, 3])
def test_no_id_outside_the_rows(index: int) -> None:
    vocabulary = Vocabulary.from_ids(["a", "b"])
    with pytest.raises(IndexError, match=rf"index must be 1\.\.2, got {index}"):
        vocabulary.ids([1, index])


def test_index_is_one_dimensional() -> None:
    with pytest.raises(ValueError, match=r"one-dimensional, got shape \(1, 1\)"):
        Vocabulary.from_ids(["a"]).ids(np.ones((1, 1), dtype=np.int64))


@pytest.mark.parametrize("bad", ["", None])
def test_null_and_empty_ids_are_refused(bad: str | None) -> None:
    with pytest.raises(DataError, match="1 of 2 are, first at position 1"):
        Vocabulary.from_ids(["a", bad])  # type: ignore[list-item]
    with pytest.raises(DataError, match="ids must not be null or empty"):
        Vocabulary.from_ids(["a"]).extend([bad])  # type: ignore[list-item]


def test_digest_tells_boundaries_apart() -> None:
    assert Vocabulary.from_ids(["ab", "c"]).sha256 != Vocabulary.from_ids(["a", "bc"]).sha256
    assert Vocabulary.from_ids(["a", "b"]).sha256 != Vocabulary.from_ids(["b", "a"]).sha256
    # pinned: bundles compare digests across versions of this library
    assert (
        Vocabulary.from_ids(["a", "b"]).sha256
        == "637110927fec8dd0589706eb578f0398417f789ee0ed35fb79f55d8c6354450c"
    )


def test_save_and_load_keep_the_digest(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_ids(["ä", "b", "c"])
    vocabulary.save(tmp_path / "items.parquet")
    loaded = Vocabulary.load(tmp_path / "items.parquet")
    assert loaded == vocabulary
    assert loaded.sha256 == vocabulary.sha256
    assert loaded != Vocabulary.from_ids(["b"])


def test_load_refuses_what_it_did_not_write(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    with pytest.raises(FileNotFoundError, match="no such vocabulary"):
        Vocabulary.load(path)
    frame = pl.DataFrame({"id": ["a", "b"]})
    frame.write_parquet(path)
    with pytest.raises(DataError, match="must be a vocabulary of format 1, got format None"):
        Vocabulary.load(path)
    frame.write_parquet(path, metadata={"format": "1", "sha256": "0" * 64})
    with pytest.raises(DataError, match="the file was changed after it was written"):
        Vocabulary.load(path)
