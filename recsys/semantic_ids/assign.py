"""Codes to ids without collisions: nearest free last code if asked, then a tie digit."""

from __future__ import annotations

import numpy as np

from recsys.semantic_ids.quantizer import Quantizer, check_codes

__all__ = ["add_tie_digit", "assign_unique", "move_to_free_codes"]


def assign_unique(
    vectors: np.ndarray,
    quantizer: Quantizer,
    *,
    num_ties: int | None = 256,
    reassign_last_level: bool = False,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """One id per vector, no two equal: the quantiser's codes and a tie digit.

    The tie digit is always there (0 where nothing collides), so ids of all generations have the
    same length. It carries no meaning: items that differ only there are alike.

    Args:
        vectors: [N, D] float32.
        quantizer: fitted.
        num_ties: size of the tie digit's vocabulary: most items that may share all codes. None:
            as many as do.
        reassign_last_level: first move colliding items to the nearest last-level code that nobody
            uses below their prefix (`move_to_free_codes`); the tie digit takes what is left.
        taken: [M, L + 1] ids of earlier items that must neither change nor be reused; None: none.

    Returns:
        [N, L + 1] int64, distinct, and distinct from ``taken``.

    Raises:
        ValueError: more than ``num_ties`` items share their codes, or ``taken`` has another width.
    """
    codes = quantizer.assign(vectors)
    if taken is not None and (taken.ndim != 2 or taken.shape[1] != quantizer.num_levels + 1):
        raise ValueError(
            f"taken must be [M, {quantizer.num_levels + 1}] (codes and tie digit), "
            f"got shape {taken.shape}"
        )
    if reassign_last_level:
        codes = move_to_free_codes(
            codes, vectors, quantizer, taken=None if taken is None else taken[:, :-1]
        )
    return add_tie_digit(codes, num_ties=num_ties, taken=taken)


def add_tie_digit(
    codes: np.ndarray, *, num_ties: int | None = 256, taken: np.ndarray | None = None
) -> np.ndarray:
    """Append a last code that counts 0, 1, 2, ... among rows with equal codes, in row order.

    >>> add_tie_digit(np.array([[3, 1], [3, 2], [3, 1]])).tolist()
    [[3, 1, 0], [3, 2, 0], [3, 1, 1]]

    Args:
        codes: [N, L] integers.
        num_ties: size of the digit's vocabulary, >= 1. None: as large as it takes.
        taken: [M, L + 1] ids in use; counting goes on above the largest digit of each group.

    Returns:
        [N, L + 1] int64.

    Raises:
        ValueError: a digit would reach ``num_ties``.

    Source: Rajput et al., NeurIPS 2023 (TIGER), section 3.1.
    """
    if num_ties is not None and num_ties < 1:
        raise ValueError(f"num_ties must be >= 1, got {num_ties}")
    num_taken = 0 if taken is None else len(taken)
    # Older ids first, so that the new rows of a group come after them.
    both = codes if taken is None else np.concatenate([taken[:, :-1], codes])
    group = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    old_group, new_group = group[:num_taken], group[num_taken:]
    first_free = np.zeros(len(both) + 1, dtype=np.int64)
    if taken is not None:
        np.maximum.at(first_free, old_group, taken[:, -1] + 1)
    digit = first_free[new_group] + _rank_within(new_group)
    if num_ties is not None and len(digit) and digit.max() >= num_ties:
        worst = int(digit.argmax())
        raise ValueError(
            f"num_ties must exceed the items that share one id: {int(digit[worst]) + 1} items have "
            f"the codes {codes[worst].tolist()}, the tie digit has {num_ties} values; "
            "use more levels or codes, reassign_last_level, or a larger num_ties"
        )
    return np.concatenate([codes, digit[:, None]], axis=1).astype(np.int64)


def move_to_free_codes(
    codes: np.ndarray,
    vectors: np.ndarray,
    quantizer: Quantizer,
    *,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """Move all but one item of each collision to the nearest unused last-level code.

    Within a group of equal codes the item nearest to its code keeps it; the others, nearest
    first, take the closest last-level code unused below the same prefix. An item stays, still
    colliding, when the prefix has no free code left. First L - 1 codes never change. Where
    moved, an id decodes to a farther vector than the quantiser would choose: this trades the
    last level's meaning for shorter ids.

    Args:
        codes: [N, L] int64, from ``quantizer.assign(vectors)``.
        vectors: [N, D] float32.
        quantizer: gives the last level's distances.
        taken: [M, L] codes of earlier items, which keep theirs.

    Returns:
        [N, L] int64.

    Source: the idea of LC-Rec (Zheng et al., ICDE 2024), which re-quantises each collision group
    with Sinkhorn; in groups of two to ten items, greedy nearest-free is as good and depends on
    nothing outside the prefix.
    """
    levels = quantizer.num_levels
    codes = check_codes(codes, num_levels=levels, num_codes=quantizer.num_codes)
    used: dict[bytes, set[int]] = {}
    earlier = np.empty((0, levels), dtype=np.int64) if taken is None else taken.astype(np.int64)
    both = np.concatenate([earlier, codes])
    group, size = np.unique(both, axis=0, return_inverse=True, return_counts=True)[1:]
    group = group.ravel()
    colliding = np.flatnonzero(size[group[len(earlier) :]] > 1)
    if len(colliding) == 0:
        return codes
    for row in both:
        used.setdefault(row[:-1].tobytes(), set()).add(int(row[-1]))
    has_owner = set(group[: len(earlier)].tolist())
    distance = quantizer.level_distances(vectors[colliding], levels - 1)  # [C, V]
    own = np.take_along_axis(distance, codes[colliding, -1:], axis=1)[:, 0]
    moved = codes.copy()
    for position in np.lexsort((colliding, own)):
        row = int(colliding[position])
        key = int(group[len(earlier) + row])
        if key not in has_owner:
            has_owner.add(key)
            continue
        busy = used[codes[row, :-1].tobytes()]
        if len(busy) == quantizer.num_codes:
            continue
        reach = distance[position].copy()
        reach[list(busy)] = np.inf
        moved[row, -1] = int(reach.argmin())
        busy.add(int(moved[row, -1]))
    return moved


def _rank_within(group: np.ndarray) -> np.ndarray:
    """[N] int64: how many earlier rows are in the same group."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    return rank
