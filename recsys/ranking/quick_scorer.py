"""Scores of boosted trees, many rows at a time, without following a single branch.

Every node of a tree says which leaves a row cannot reach once it fails the node's test. A row's
leaf is the leftmost one that no failed node rules out, so the tests may run in any order: node
after node over all rows, as comparisons and bit operations that processors do on 16 rows at once.

Sources: Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles
of regression trees", SIGIR 2015; "Exploiting CPU SIMD extensions to speed-up document scoring with
tree ensembles", SIGIR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numba
import numpy as np

if TYPE_CHECKING:
    import lightgbm

__all__ = ["QuickScorer"]

_ROWS_AT_ONCE = 512  # what they need of one tree stays in the first-level cache
_ZERO = np.float32(1e-35)  # LightGBM takes what is no larger for 0
_INFINITE = 1e300  # how LightGBM writes a threshold that only a missing value is above
_HASH = {np.uint32: 0x077CB531, np.uint64: 0x03F79D71B4CB0A89}
"""De Bruijn numbers: the highest bits of their product with 1 << i differ for every i."""


@dataclass(frozen=True)
class QuickScorer:
    """The trees as flat arrays; scores are LightGBM's own, to the last bit.

    Attributes:
        feature: [K] int64, the feature that each of the K nodes tests.
        threshold: [K] float32; a row fails the node whose feature is above it.
        nan_fails: [K] bool, a missing value fails the node.
        kept: [K] uint32 or uint64, the leaves of its tree, as bits from the left, that remain for
            a row that fails it.
        start: [T + 1] int64, where each tree's nodes begin.
        value: [T, 32 or 64] float64, the leaves' values, each where its bit is hashed to.
        nan_is_zero: [F] bool, a missing value of the feature counts as 0.
    """

    feature: np.ndarray
    threshold: np.ndarray
    nan_fails: np.ndarray
    kept: np.ndarray
    start: np.ndarray
    value: np.ndarray
    nan_is_zero: np.ndarray

    @classmethod
    def of(cls, booster: lightgbm.Booster) -> Self | None:
        """The trees of a model; None where it has some that only LightGBM scores.

        These are trees of more than 64 leaves, of categories, with linear leaves, or where zero
        counts as missing.

        Args:
            booster: a model of one score a row.
        """
        model = booster.dump_model()
        trees = [_Tree.of(tree["tree_structure"]) for tree in model["tree_info"]]
        if model["num_tree_per_iteration"] != 1 or model.get("average_output"):
            return None
        if not trees or not all(tree.plain and len(tree.values) <= 64 for tree in trees):
            return None
        missing = {(node.feature, node.missing) for tree in trees for node in tree.nodes}
        if len(missing) > len({feature for feature, _ in missing}):
            return None
        small = max(len(tree.values) for tree in trees) <= 32
        kind = np.uint32 if small else np.uint64
        width = 32 if small else 64
        value = np.zeros((len(trees), width))
        for at, tree in enumerate(trees):
            bits = np.left_shift(kind(1), np.arange(len(tree.values), dtype=kind))
            value[at, _hashed(bits)] = tree.values
        nan_is_zero = np.zeros(booster.num_feature(), dtype=bool)
        nan_is_zero[[feature for feature, how in missing if how == "None"]] = True
        nodes = [node for tree in trees for node in tree.nodes]
        every = (1 << width) - 1
        return cls(
            np.array([node.feature for node in nodes], dtype=np.int64),
            _at_most(np.array([node.threshold for node in nodes], dtype=np.float64)),
            np.array([not node.nan_passes for node in nodes], dtype=bool),
            np.array([every & ~node.ruled_out for node in nodes], dtype=kind),
            np.cumsum([0, *(len(tree.nodes) for tree in trees)]).astype(np.int64),
            value,
            nan_is_zero,
        )

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[R] float64 scores of [R, F] float32 features; NaN = missing."""
        score = np.zeros(features.shape[0])
        kind = self.kept.dtype.type
        _score(
            np.ascontiguousarray(features, dtype=np.float32),
            self.feature,
            self.threshold,
            self.nan_fails,
            self.kept,
            self.start,
            self.value,
            self.nan_is_zero,
            kind(_HASH[kind]),
            kind(27 if kind is np.uint32 else 58),
            score,
        )
        return score


@dataclass(frozen=True)
class _Node:
    feature: int
    threshold: float
    nan_passes: bool
    missing: str
    ruled_out: int


@dataclass(frozen=True)
class _Tree:
    nodes: list[_Node]
    values: list[float]
    plain: bool

    @classmethod
    def of(cls, structure: Mapping[str, Any]) -> _Tree:
        nodes: list[_Node] = []
        values: list[float] = []
        plain = True

        def walk(node: Mapping[str, Any]) -> int:
            """Bits of the leaves below."""
            nonlocal plain
            if "split_feature" not in node:
                plain &= "leaf_coeff" not in node
                values.append(node["leaf_value"])
                return 1 << (len(values) - 1)
            left = walk(node["left_child"])
            right = walk(node["right_child"])
            plain &= node["decision_type"] == "<=" and node["missing_type"] in ("None", "NaN")
            if plain:
                nodes.append(
                    _Node(
                        node["split_feature"],
                        node["threshold"],
                        node["missing_type"] == "None" or node["default_left"],
                        node["missing_type"],
                        left,
                    )
                )
            return left | right

        walk(structure)
        return cls(nodes, values, plain)


def _at_most(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 at or below each float64: what is above one is above the other."""
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
    infinite = threshold >= _INFINITE
    return np.where((rounded.astype(np.float64) > threshold) & ~infinite, below, rounded)


def _hashed(bits: np.ndarray) -> np.ndarray:
    kind = bits.dtype.type
    place: np.ndarray = (bits * kind(_HASH[kind])) >> kind(27 if kind is np.uint32 else 58)
    return place


@numba.njit(nogil=True)
def _score(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    features,
    feature,
    threshold,
    nan_fails,
    kept,
    start,
    value,
    nan_is_zero,
    hash_,
    shift,
    score,
):
    rows, width = features.shape
    columns = np.empty((width, _ROWS_AT_ONCE), dtype=np.float32)
    remaining = np.empty(_ROWS_AT_ONCE, dtype=kept.dtype)
    kind = kept.dtype.type
    one = kind(1)
    for begin in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - begin)
        for column in range(width):
            for row in range(count):
                cell = features[begin + row, column]
                if abs(cell) <= _ZERO or (nan_is_zero[column] and np.isnan(cell)):
                    cell = np.float32(0.0)
                columns[column, row] = cell
        for tree in range(start.size - 1):
            for row in range(count):
                remaining[row] = ~kind(0)
            for node in range(start[tree], start[tree + 1]):
                cells, limit, rest = columns[feature[node]], threshold[node], kept[node]
                if nan_fails[node]:
                    for row in range(count):
                        remaining[row] &= remaining[row] if cells[row] <= limit else rest
                else:
                    for row in range(count):
                        remaining[row] &= rest if cells[row] > limit else remaining[row]
            leaves = value[tree]
            for row in range(count):
                left = remaining[row]
                product = kind((left & (~left + one)) * hash_)  # compiled products are wider
                score[begin + row] += leaves[product >> shift]
