"""Slates that were shown, the probability of every place, and what every place earned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from features import ITEM, USER, DataError

__all__ = ["SlateFeedback"]

REQUEST, POSITION, PROPENSITY, REWARD = "request_id", "position", "propensity", "reward"


@dataclass(frozen=True)
class SlateFeedback:
    """Rounds of a log: one slate each, with a propensity and a reward for each of its places.

    The propensity of a place is ``P(item here | items above)``, as `recsys.ranking.exploration`
    draws and the impression log keeps it, so the product over a slate is that of the whole slate.
    Slates may differ in length: places that were not filled come last and hold action -1, reward 0
    and propensity 1.

    Attributes:
        action: [n, L] int64 in 0..K - 1, first place first, -1 where nothing was shown.
        reward: [n, L] float64.
        propensity: [n, L] float64 in (0, 1].
        num_actions: K.
        unit: [n] int64 user or session; rounds of one unit depend on each other. None: each round
            is its own unit.
        item_ids: [K] str; None: the items are called by their number.
        request_ids: [n] str; None: the rounds are.
        user_ids: [n] str or None for a request without a user; None: the units are.
    """

    action: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    num_actions: int
    unit: np.ndarray | None = None
    item_ids: np.ndarray | None = None
    request_ids: np.ndarray | None = None
    user_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.action.ndim != 2 or 0 in self.action.shape:
            raise ValueError(
                f"action must be [n, L] with n and L >= 1, got shape {self.action.shape}"
            )
        n = len(self.action)
        for name, dtype in (
            ("action", np.int64),
            ("reward", np.float64),
            ("propensity", np.float64),
        ):
            values = getattr(self, name)
            if values.shape != self.action.shape:
                raise ValueError(
                    f"{name} must have the shape of action, {self.action.shape}, got {values.shape}"
                )
            if values.dtype != dtype:
                raise TypeError(f"{name} must be {np.dtype(dtype)}, got {values.dtype}")
        for name, size in (
            ("unit", n),
            ("request_ids", n),
            ("user_ids", n),
            ("item_ids", self.num_actions),
        ):
            values = getattr(self, name)
            if values is not None and values.shape != (size,):
                raise ValueError(f"{name} must have shape ({size},), got {values.shape}")
        shown = self.action >= 0
        wrong = (self.action < -1) | (self.action >= self.num_actions)
        _refuse(wrong, self.action, f"action must be -1 or 0..{self.num_actions - 1}")
        _refuse(~shown[:, :1], self.action, "action must fill the first place of every slate")
        gap = np.zeros_like(shown)
        gap[:, 1:] = shown[:, 1:] & ~shown[:, :-1]
        _refuse(gap, self.action, "action must leave no place empty above a filled one")
        usable = (self.propensity > 0) & (self.propensity <= 1)
        _refuse(~usable, self.propensity, "propensity must be above 0 and at most 1")
        _refuse(~np.isfinite(self.reward), self.reward, "reward must be finite")
        _refuse(
            ~shown & (self.reward != 0), self.reward, "reward must be 0 where nothing was shown"
        )
        padded = ~shown & (self.propensity != 1)
        _refuse(padded, self.propensity, "propensity must be 1 where nothing was shown")

    def __len__(self) -> int:
        return len(self.action)

    @property
    def num_slots(self) -> int:
        """L, places of the longest slate."""
        return int(self.action.shape[1])

    @property
    def shown(self) -> np.ndarray:
        """[n, L] bool, where an item was shown."""
        return self.action >= 0

    def take(self, rows: np.ndarray) -> Self:
        """The rounds of ``rows``, [m] row numbers or [n] bool."""
        return type(self)(
            self.action[rows],
            self.reward[rows],
            self.propensity[rows],
            self.num_actions,
            unit=None if self.unit is None else self.unit[rows],
            item_ids=self.item_ids,
            request_ids=None if self.request_ids is None else self.request_ids[rows],
            user_ids=None if self.user_ids is None else self.user_ids[rows],
        )

    def beginning(self, slots: int) -> Self:
        """The first ``slots`` places of every slate; the value is then that of these places.

        Raises:
            ValueError: ``slots`` is not 1..L.
        """
        if not 1 <= slots <= self.num_slots:
            raise ValueError(f"slots must be 1..{self.num_slots}, got {slots}")
        return type(self)(
            self.action[:, :slots],
            self.reward[:, :slots],
            self.propensity[:, :slots],
            self.num_actions,
            unit=self.unit,
            item_ids=self.item_ids,
            request_ids=self.request_ids,
            user_ids=self.user_ids,
        )

    @classmethod
    def from_impressions(cls, impressions: pl.DataFrame, *, drop_incomplete: bool = False) -> Self:
        """Slates from rows of the impression log that were joined with their rewards.

        Give it what `serving.impressions.join_feedback` returns. A request is a slate; its user is
        the unit, and a request without a user is one of its own. The items that were shown are
        numbered in the order of their ids.

        Args:
            impressions: columns ``request_id``, ``user_id``, ``item_id``, ``position`` from 1,
                ``propensity`` and ``reward``; others are ignored.
            drop_incomplete: leave out requests that lack a place above one they have, or a
                propensity, instead of refusing them. Places lost below the last one that was
                logged cannot be seen, and a loss that depends on the items biases every estimate.

        Raises:
            DataError: a column is missing, there are no rows, a place came twice, a request is
                incomplete, a request has two users, or a value is null or out of range.
        """
        columns = (REQUEST, USER, ITEM, POSITION, PROPENSITY, REWARD)
        for name in columns:
            if name not in impressions.columns:
                raise DataError(
                    f"impressions must have the column {name!r}, got "
                    f"{', '.join(impressions.columns) or 'none'}; join the log with its rewards"
                )
        rows = impressions.select(
            pl.col(REQUEST, USER, ITEM).cast(pl.String),
            pl.col(POSITION).cast(pl.Int64),
            pl.col(PROPENSITY, REWARD).cast(pl.Float64),
        )
        for name in (REQUEST, ITEM, POSITION, REWARD):
            _refuse_rows(rows, pl.col(name).is_null(), f"{name} must not be null")
        place = pl.struct(REQUEST, POSITION)
        _refuse_rows(rows, ~place.is_first_distinct(), "a place of a request must come once")
        broken = (
            (pl.col(POSITION).min() != 1)
            | (pl.col(POSITION).max() != pl.len())
            | (pl.col(PROPENSITY).null_count() > 0)
        ).over(REQUEST)
        if drop_incomplete:
            rows = rows.filter(~broken)
        rule = "a request must have every place from 1 on, and each its propensity"
        _refuse_rows(rows, broken, f"{rule}; or leave these out by drop_incomplete=True")
        two = pl.col(USER).n_unique().over(REQUEST) > 1
        _refuse_rows(rows, two, "a request must have one user")
        if not len(rows):
            raise DataError("impressions must hold at least one complete slate, got none")
        rows = rows.with_columns(pl.col(REQUEST).rank("dense").cast(pl.Int64).alias("_round") - 1)
        rows = rows.with_columns(pl.col(ITEM).rank("dense").cast(pl.Int64).alias("_item") - 1)
        first = rows.filter(pl.col(POSITION) == 1).sort("_round")
        users = pl.coalesce(pl.lit("user ") + pl.col(USER), pl.lit("request ") + pl.col(REQUEST))
        unit = first.select(users.rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
        item_ids = rows[ITEM].unique().sort().to_numpy().astype(object)
        shape = (len(first), int(rows[POSITION].max()))  # type: ignore[arg-type]
        at = rows["_round"].to_numpy(), rows[POSITION].to_numpy() - 1
        action = np.full(shape, -1, dtype=np.int64)
        reward, propensity = np.zeros(shape), np.ones(shape)
        action[at] = rows["_item"].to_numpy()
        reward[at] = rows[REWARD].to_numpy()
        propensity[at] = rows[PROPENSITY].to_numpy()
        try:
            return cls(
                action,
                reward,
                propensity,
                len(item_ids),
                unit=unit.astype(np.int64),
                item_ids=item_ids,
                request_ids=np.asarray(first[REQUEST].to_list(), dtype=object),
                user_ids=np.asarray(first[USER].to_list(), dtype=object),
            )
        except ValueError as error:
            raise DataError(f"impressions, requests in the order of their ids: {error}") from error

    def to_frame(self) -> pl.DataFrame:
        """One row a place that was shown, with the columns that `from_impressions` reads."""
        row, slot = np.nonzero(self.shown)
        requests = self.request_ids
        if requests is None:
            requests = np.array([str(one) for one in range(len(self))], dtype=object)
        users = self.user_ids
        if users is None:
            known = self.unit if self.unit is not None else [None] * len(self)
            users = np.array([None if one is None else str(one) for one in known], dtype=object)
        items = self.item_ids
        if items is None:
            items = np.array([str(one) for one in range(self.num_actions)], dtype=object)
        return pl.DataFrame(
            {
                REQUEST: requests[row].tolist(),
                USER: users[row].tolist(),
                ITEM: items[self.action[row, slot]].tolist(),
                POSITION: slot.astype(np.int32) + 1,
                PROPENSITY: self.propensity[row, slot],
                REWARD: self.reward[row, slot],
            },
            schema_overrides={REQUEST: pl.String, USER: pl.String, ITEM: pl.String},
        )


def _refuse(wrong: np.ndarray, values: np.ndarray, rule: str) -> None:
    """Name the rounds that break a rule."""
    if wrong.any():
        row, slot = (int(one[0]) for one in np.nonzero(wrong))
        raise ValueError(
            f"{rule}; broken in {int(wrong.any(axis=1).sum())} of {len(wrong)} rounds, first: "
            f"{values[row, slot]} at place {slot + 1} of round {row}"
        )


def _refuse_rows(rows: pl.DataFrame, wrong: pl.Expr, rule: str) -> None:
    """Name the rows of a table that break a rule."""
    found = rows.with_row_index("_row").filter(wrong)
    if len(found):
        first = found.row(0, named=True)
        raise DataError(
            f"{rule}; broken in {len(found)} of {len(rows)} rows, first: row {first['_row']}, "
            f"request {first[REQUEST]!r}, position {first[POSITION]}"
        )
