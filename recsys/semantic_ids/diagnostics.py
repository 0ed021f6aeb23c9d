"""How healthy a set of codes is, measured on the whole catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.semantic_ids.quantizer import Quantizer

__all__ = ["Diagnostics", "PrefixDiagnostics", "diagnose", "perplexity"]


@dataclass(frozen=True)
class PrefixDiagnostics:
    """What items with the same first ``depth`` codes have in common.

    Shuffled figures are those of the same group sizes with items dealt at random: small groups
    look pure by chance, so a figure means nothing without its shuffled one.

    Attributes:
        depth: number of codes in the prefix.
        num_prefixes: distinct prefixes in use.
        cosine: mean cosine over pairs of items that share the prefix; NaN without such pairs.
        shuffled_cosine: the same for shuffled items.
        purity: share of items that carry their group's commonest label; None without labels.
        shuffled_purity: the same for shuffled items.
        corrected_purity: ``(purity - shuffled) / (1 - shuffled)``: 0 as chance, 1 perfect.
    """

    depth: int
    num_prefixes: int
    cosine: float
    shuffled_cosine: float
    purity: float | None
    shuffled_purity: float | None
    corrected_purity: float | None


@dataclass(frozen=True)
class Diagnostics:
    """Health of codes. Gate on perplexity and collisions, never on usage alone.

    Attributes:
        num_items: N.
        num_codes: V.
        usage: per level, share of codes that hold an item.
        perplexity: per level, exp of the codes' entropy: V when all hold equally many, 1 when one
            holds all. One crowded code beside singletons has usage 1 and perplexity near 1.
        collision_rate: 1 - distinct ids / N, before any tie digit.
        items_in_collision: share of items whose id another item has too.
        max_group: most items on one id.
        relative_error: squared reconstruction error over the vectors' variance (0 perfect, 1 no
            better than the mean).
        prefixes: one entry per depth.
    """

    num_items: int
    num_codes: int
    usage: tuple[float, ...]
    perplexity: tuple[float, ...]
    collision_rate: float
    items_in_collision: float
    max_group: int
    relative_error: float
    prefixes: tuple[PrefixDiagnostics, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a NaN becomes None."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    def problems(
        self, *, min_perplexity_share: float = 0.25, max_collision_rate: float = 0.2
    ) -> list[str]:
        """One sentence per reading that should stop a run; empty when healthy.

        Args:
            min_perplexity_share: of the largest possible perplexity, min(V, N), per level.
            max_collision_rate: before tie digits.
        """
        best = min(self.num_codes, self.num_items)
        found = [
            f"level {level} has collapsed: perplexity {value:.1f} of {best}, "
            f"want >= {min_perplexity_share * best:.1f}"
            for level, value in enumerate(self.perplexity)
            if value < min_perplexity_share * best
        ]
        if self.collision_rate > max_collision_rate:
            found.append(
                f"collision rate is {self.collision_rate:.3f}, want <= {max_collision_rate}; "
                "add a level or codes"
            )
        return found


def diagnose(
    codes: np.ndarray,
    vectors: np.ndarray,
    quantizer: Quantizer,
    *,
    rng: np.random.Generator,
    labels: Sequence[str] | None = None,
    num_shuffles: int = 5,
) -> Diagnostics:
    """Measure codes on the whole catalogue.

    Args:
        codes: [N, L] int64, as ``quantizer.assign(vectors)`` gave them (no tie digit).
        vectors: [N, D] float32.
        quantizer: decodes ``codes``.
        rng: deals the shuffled controls.
        labels: N categories (a main genre), for prefix purity.
        num_shuffles: controls averaged, >= 1.

    Raises:
        ValueError: lengths disagree, or there is no item.
    """
    if len(codes) != len(vectors) or len(codes) == 0:
        raise ValueError(
            f"codes must have one row per vector, at least one: got {len(codes)} rows "
            f"for {len(vectors)} vectors"
        )
    if labels is not None and len(labels) != len(codes):
        raise ValueError(f"labels must be one per item: got {len(labels)} for {len(codes)} items")
    num_items, num_levels = codes.shape
    count = np.stack(
        [np.bincount(codes[:, level], minlength=quantizer.num_codes) for level in range(num_levels)]
    )
    group_size = np.unique(codes, axis=0, return_counts=True)[1]
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    error = ((vectors - quantizer.decode(codes)).astype(np.float64) ** 2).sum()
    label_index = None if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    orders = [rng.permutation(num_items) for _ in range(num_shuffles)]
    return Diagnostics(
        num_items=num_items,
        num_codes=quantizer.num_codes,
        usage=tuple(float(u) for u in (count > 0).mean(axis=1)),
        perplexity=tuple(perplexity(row) for row in count),
        collision_rate=1 - len(group_size) / num_items,
        items_in_collision=float(group_size[group_size > 1].sum()) / num_items,
        max_group=int(group_size.max()),
        relative_error=float(error / max((centred**2).sum(), 1e-12)),
        prefixes=tuple(
            _prefix(codes[:, : depth + 1], unit, label_index, orders) for depth in range(num_levels)
        ),
    )


def perplexity(count: np.ndarray) -> float:
    """Exp of the entropy (nats) of counts: 4.0 for four equal ones.

    >>> perplexity(np.array([5, 5, 0]))
    2.0
    """
    share = count[count > 0] / count.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _prefix(
    prefix: np.ndarray, unit: np.ndarray, label: np.ndarray | None, orders: list[np.ndarray]
) -> PrefixDiagnostics:
    group = np.unique(prefix, axis=0, return_inverse=True)[1].ravel()
    shuffled_cosine = float(np.mean([_pair_cosine(group, unit[order]) for order in orders]))
    purity = shuffled = corrected = None
    if label is not None:
        purity = _purity(group, label)
        shuffled = float(np.mean([_purity(group, label[order]) for order in orders]))
        corrected = (purity - shuffled) / (1 - shuffled) if shuffled < 1 else 0.0
    return PrefixDiagnostics(
        depth=prefix.shape[1],
        num_prefixes=int(group.max()) + 1,
        cosine=_pair_cosine(group, unit),
        shuffled_cosine=shuffled_cosine,
        purity=purity,
        shuffled_purity=shuffled,
        corrected_purity=corrected,
    )


def _pair_cosine(group: np.ndarray, unit: np.ndarray) -> float:
    """Mean dot product over pairs within groups: (|sum|^2 - sum |x|^2) / pairs."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    ordered = unit[order].astype(np.float64)
    sums = np.add.reduceat(ordered, starts, axis=0)
    size = np.diff(starts, append=len(group))
    pairs = float((size * (size - 1)).sum())
    if pairs == 0:
        return float("nan")
    return float(((sums**2).sum() - (ordered**2).sum()) / pairs)


def _purity(group: np.ndarray, label: np.ndarray) -> float:
    cell, count = np.unique(np.stack([group, label]), axis=1, return_counts=True)
    commonest = np.zeros(int(group.max()) + 1, dtype=np.int64)
    np.maximum.at(commonest, cell[0], count)
    return float(commonest.sum()) / len(group)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and np.isnan(value) else value
