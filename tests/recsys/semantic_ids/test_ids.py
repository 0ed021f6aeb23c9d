from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError
from recsys.semantic_ids import SemanticIds
from recsys.semantic_ids.options import SemanticIdOptions

CODES = np.array([[1, 2, 0], [1, 2, 1], [0, 3, 0], [1, 0, 0]])


@pytest.fixture
def ids() -> SemanticIds:
    return SemanticIds.from_codes(CODES, list("abcd"), num_codes=(2, 4, 3), codebook="book")


def test_both_maps(ids: SemanticIds) -> None:
    assert len(ids) == 4
    assert ids.num_levels == 3
    assert ids.codes[0].tolist() == [-1, -1, -1]
    np.testing.assert_array_equal(ids.item_index(ids.codes[1:]), [1, 2, 3, 4])
    assert ids.item_index((0, 3, 0)) == 3
    assert ids.item_index((0, 3, 0)).shape == ()
    unknown = [[0, 0, 0], [-1, -1, -1], [2, 0, 0], [0, 3, 7], [1, 2, 1]]
    np.testing.assert_array_equal(ids.item_index(np.array([unknown])), [[-1, -1, -1, -1, 2]])
    with pytest.raises(ValueError, match=r"codes must be \[..., 3\], got shape \(2,\)"):
        ids.item_index((1, 2))


def test_codes_cannot_be_changed(ids: SemanticIds) -> None:
    with pytest.raises(ValueError, match="read-only"):
        ids.codes[1, 0] = 0


def test_prefix_tokens_by_hand(ids: SemanticIds) -> None:
    # Level 0: 1 + c0. Level 1: 1 + 2 + 4 c0 + c1.
    expected = [[0, 0], [2, 9], [2, 9], [1, 6], [2, 7]]
    assert ids.prefix_tokens(2).tolist() == expected
    assert ids.prefix_tokens(1).tolist() == [row[:1] for row in expected]
    assert ids.num_prefix_tokens(1) == 3
    assert ids.num_prefix_tokens(2) == 1 + 2 + 8
    for depth in (0, 3):
        with pytest.raises(ValueError, match=rf"depth must lie in 1\.\.2 .*got {depth}"):
            ids.prefix_tokens(depth)
    with pytest.raises(ValueError, match="rows_per_level must be >= 1, got 0"):
        ids.num_prefix_tokens(1, rows_per_level=0)


def test_wide_levels_are_hashed_into_their_own_rows() -> None:
    draw = np.random.default_rng(0)
    codes = np.unique(draw.integers(0, 256, (4000, 3)), axis=0)
    codes = np.concatenate([codes, np.zeros((len(codes), 1), dtype=np.int64)], axis=1)
    ids = SemanticIds.from_codes(
        codes, [str(i) for i in range(len(codes))], num_codes=(256, 256, 256, 4)
    )
    tokens = ids.prefix_tokens(3, rows_per_level=1000)
    assert ids.num_prefix_tokens(3, rows_per_level=1000) == 1 + 256 + 1000 + 1000
    for level, (low, high) in enumerate([(1, 257), (257, 1257), (1257, 2257)]):
        assert low <= tokens[1:, level].min() <= tokens[1:, level].max() < high
    # 4,000 prefixes into 1,000 rows: a fair hash leaves e^-4 = 1.8 % of them empty.
    assert 0.96 < len(np.unique(tokens[1:, 2])) / 1000 < 1
    # A power of two is no trap: the first code still decides (a modulo would drop it).
    folded = ids.prefix_tokens(2, rows_per_level=256)[1:, 1]
    same_last = codes[:, 1] == codes[0, 1]
    assert len(np.unique(folded[same_last])) > 5


def test_extend_never_changes_what_was(ids: SemanticIds) -> None:
    new = ids.extend(np.array([[0, 0, 0], [1, 2, 2]]), ["e", "f"], codebook="book")
    np.testing.assert_array_equal(new.codes[:5], ids.codes)
    np.testing.assert_array_equal(new.prefix_tokens(2)[:5], ids.prefix_tokens(2))
    assert new.num_prefix_tokens(2) == ids.num_prefix_tokens(2)
    np.testing.assert_array_equal(new.item_index(new.codes[1:]), np.arange(1, 7))
    assert (len(ids), len(new)) == (4, 6)
    with pytest.raises(ValueError, match="items 'a' and 'x' both have"):
        ids.extend(CODES[:1], ["x"], codebook="book")
    with pytest.raises(ValueError, match="'a' comes twice"):
        ids.extend(np.array([[0, 0, 0]]), ["a"], codebook="book")
    with pytest.raises(ValueError, match="codebook must be the one of the ids in use, 'book'"):
        ids.extend(np.array([[0, 0, 0]]), ["x"], codebook="other")
    with pytest.raises(ValueError, match=r"codes must be \[M, 3\], got shape \(1, 2\)"):
        ids.extend(np.array([[0, 0]]), ["x"], codebook="book")


def test_save_and_load_are_equal(ids: SemanticIds, tmp_path: Path) -> None:
    ids.save(tmp_path / "ids")
    again = SemanticIds.load(tmp_path / "ids")
    np.testing.assert_array_equal(again.codes, ids.codes)
    assert again.item_ids == ids.item_ids
    assert again.num_codes == ids.num_codes
    assert again.codebook == "book"


def test_no_items(tmp_path: Path) -> None:
    ids = SemanticIds.from_codes(np.empty((0, 2), dtype=np.int64), [], num_codes=(2, 2))
    assert ids.item_index(np.array([[0, 0]])).tolist() == [-1]
    assert ids.prefix_tokens(1).tolist() == [[0]]
    ids.save(tmp_path)
    assert len(SemanticIds.load(tmp_path)) == 0


def test_load_refuses_what_it_cannot_read(ids: SemanticIds, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no semantic ids"):
        SemanticIds.load(tmp_path)
    ids.save(tmp_path)
    path = tmp_path / "semantic_ids.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps(header | {"num_codes": [2, 2, 3]}))
    with pytest.raises(ArtifactError, match=r"is damaged: codes at level 1 must lie in 0\.\.1"):
        SemanticIds.load(tmp_path)
    path.write_text(json.dumps(header | {"format": 7}))
    with pytest.raises(ArtifactError, match="format 1, got 7"):
        SemanticIds.load(tmp_path)


def test_refuses_bad_codes() -> None:
    def build(codes: object, ids: str = "abcd", num_codes: tuple[int, ...] = (2, 4, 3)) -> None:
        SemanticIds.from_codes(np.array(codes), list(ids), num_codes=num_codes)

    with pytest.raises(ValueError, match=r"items 'a' and 'b' both have \[1, 2, 0\]; use assign"):
        build([[1, 2, 0], [1, 2, 0]], "ab")
    with pytest.raises(ValueError, match=r"codes at level 1 must lie in 0\.\.3, got 2\.\.9"):
        build([[1, 2, 0], [1, 9, 0]], "ab")
    with pytest.raises(ValueError, match="got 3 ids for 1 rows"):
        build([[1, 2, 0]], "abc")
    with pytest.raises(ValueError, match=r"codes must be \[N, 2\]"):
        build([[1, 2, 0]], "a", (2, 4))
    with pytest.raises(ValueError, match="codes must be integers, got float64"):
        build([[1.0, 2, 0]], "a")
    with pytest.raises(ValueError, match="'a' comes twice"):
        build([[1, 2, 0], [1, 2, 1]], "aa")
    with pytest.raises(ValueError, match="ids must fit 62 bits"):
        build([[1, 2, 0]], "a", (2**31, 2**31, 2**31))


def test_new_items_may_need_more_ties_than_there_were() -> None:
    old = SemanticIds.from_codes(np.array([[1, 0], [1, 1]]), ["a", "b"], num_codes=(3, 2))
    new = old.extend(np.array([[1, 2], [2, 0]]), ["c", "d"])
    assert new.num_codes == (3, 3)
    np.testing.assert_array_equal(new.prefix_tokens(1)[:3], old.prefix_tokens(1))
    assert new.item_index(np.array([[1, 1], [1, 2], [2, 0]])).tolist() == [2, 3, 4]


def test_codes_and_levels_must_make_a_number() -> None:
    with pytest.raises(ValueError, match=r"at most 2\*\*46, got 32768 codes in 4 levels"):
        SemanticIdOptions(codes=32_768, levels=4)
    assert SemanticIdOptions(codes=32_768, levels=3).levels == 3
