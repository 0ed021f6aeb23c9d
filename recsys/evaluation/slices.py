"""Groups of items and of users for which the numbers are reported on their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.tables import Histories
from recsys.evaluation.popularity import checked_popularity, cold_items, head_items
from recsys.evaluation.truth import Truth

__all__ = ["Slice", "item_slices", "repeat_slices", "user_slices"]


@dataclass(frozen=True)
class Slice:
    """A group of items or of users.

    The lists stay as they are; only the truth is restricted to the group. Recall on the tail is
    thus the share of the wanted tail items that the ordinary lists hold.

    Attributes:
        name: short, such as "tail items".
        description: who is in it, one sentence without a full stop.
        items: [N + 1] bool, True = in the slice. None: all items.
        users: [Q] bool, True = in the slice. None: all users.
        relevant: [E] bool of the relevant items of the truth, True = in the slice. None: all.
    """

    name: str
    description: str
    items: np.ndarray | None = None
    users: np.ndarray | None = None
    relevant: np.ndarray | None = None

    def of(self, truth: Truth) -> Truth:
        """``truth`` restricted to the slice, with the same Q rows."""
        return truth.only(items=self.items, users=self.users, relevant=self.relevant)


def item_slices(popularity: np.ndarray, *, head_fraction: float = 0.1) -> list[Slice]:
    """Head, tail and cold items; every item is in exactly one.

    Args:
        popularity: [N + 1] training counts.
        head_fraction: share of the catalogue that is head; see `head_items`.

    Raises:
        ValueError: as in `head_items`.
    """
    counts = checked_popularity(popularity)
    head, cold = head_items(counts, fraction=head_fraction), cold_items(counts)
    tail = ~head & ~cold
    tail[0] = False
    return [
        Slice("head items", f"the {head_fraction:.0%} of items with most training events", head),
        Slice("tail items", "all other items with at least one training event", tail),
        Slice("cold items", "items without any training event", cold),
    ]


def repeat_slices(truth: Truth, met: Histories) -> list[Slice]:
    """What users wanted again, and what was new to them; nothing where nobody wanted any again.

    Args:
        truth: Q rows.
        met: Q histories that the lists were made from.

    Raises:
        ValueError: another number of rows.
    """
    if len(met) != len(truth):
        raise ValueError(
            f"met must have one row per row of the truth: got {len(met)} for {len(truth)}"
        )
    width = 1 + max(int(one.item_index.max(initial=0)) for one in (met, truth))
    again = np.isin(truth.rows * width + truth.item_index, met.rows * width + met.item_index)
    if not again.any():
        return []
    return [
        Slice("repeats", "wanted items that their user had met before", relevant=again),
        Slice("new", "wanted items that their user had not met before", relevant=~again),
    ]


def user_slices(history_length: np.ndarray, truth: Truth) -> list[Slice]:
    """Users with short and with long histories, cut at the median of the users judged.

    Args:
        history_length: [Q] training events of each user.
        truth: Q rows; the median is over users with a relevant item.

    Raises:
        ValueError: not one length >= 0 per row of the truth.
    """
    length = np.asarray(history_length)
    if length.shape != (len(truth),):
        raise ValueError(
            f"history_length must have one entry per row of the truth: got shape {length.shape} "
            f"for {len(truth)} rows"
        )
    if length.size and not (length >= 0).all():
        raise ValueError(f"history_length must be >= 0, got {length.min()}")
    judged = length[truth.counts > 0]
    median = float(np.median(judged)) if judged.size else 0.0
    short = length <= median
    return [
        Slice("short histories", f"users with at most {median:g} training events", users=short),
        Slice("long histories", f"users with more than {median:g} training events", users=~short),
    ]
