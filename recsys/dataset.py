"""A run's data: the checked tables, their split, and the moments questions are asked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl

from features.errors import DataError
from features.hashing import update_with_series
from features.histories import Histories
from features.interactions import Interactions, read_interactions
from features.schema import ITEM, USER
from features.tables import ItemTable, UserTable, read_items, read_users
from features.validation import find_problems
from features.vocabulary import Vocabulary
from recsys.config import Config
from recsys.evaluation.splits import Split, split_at, split_per_user

__all__ = ["Cut", "Dataset", "cut_histories", "read_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Everything read from the configured files.

    Attributes:
        interactions: the whole log.
        items: the catalogue; its order is the item vocabulary's.
        users: the user table, if one is configured.
        item_ids: N items, every one of the catalogue.
        user_ids: U users, in order of their first event; `continuing` puts others before.
    """

    interactions: Interactions
    items: ItemTable
    users: UserTable | None
    item_ids: Vocabulary
    user_ids: Vocabulary

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.item_ids)

    @property
    def user_list(self) -> list[str]:
        """[U] user ids; row r of every `Histories` of this data set is user r."""
        ids: list[str] = self.user_ids.to_series().to_list()
        return ids

    def fingerprint(self) -> str:
        """Sha256 (hex) of the log, and of the item ids with their columns and what these mean."""
        items = self.items
        digest = hashlib.sha256(self.interactions.fingerprint().encode())
        digest.update(self.item_ids.sha256.encode())
        for column in items.frame.iter_columns():
            _update_with_column(digest, column)
        # The same column is used in another way as text than as a category.
        roles = (
            items.text_columns,
            items.category_columns,
            items.list_columns,
            items.number_columns,
        )
        digest.update(json.dumps([items.frame.columns, *roles]).encode())
        return digest.hexdigest()

    def histories(self, interactions: Interactions | None = None) -> Histories:
        """[U rows] of ``interactions``; None: of the whole log."""
        log = self.interactions if interactions is None else interactions
        return Histories.from_interactions(log, self.user_list, self.item_ids)

    def continuing(self, item_ids: Vocabulary, user_ids: Vocabulary) -> Self:
        """The same data with ids numbered on from older vocabularies.

        A model of those keeps its rows. Users of them that are not in the log have an empty
        history.

        Args:
            item_ids: must all be in the catalogue; new ones come after them.
            user_ids: of the older log; new ones come after them.

        Raises:
            DataError: an older item is not in the catalogue any more.
        """
        own = self.items.frame[ITEM]
        gone = item_ids.to_series().filter(~item_ids.to_series().is_in(own.implode()))
        if len(gone):
            raise DataError(
                f"items must hold every item of the model that is continued: {len(gone):,} of "
                f"{len(item_ids):,} are not there, first {gone[0]!r}; put their rows back, or "
                "train anew"
            )
        items = item_ids.extend(own)
        order = np.argsort(items.index(own))
        return replace(
            self,
            items=replace(self.items, frame=self.items.frame[order]),
            item_ids=items,
            user_ids=user_ids.extend(self.user_ids.to_series()),
        )

    def split(self, config: Config) -> Split:
        """The held-out part the configuration asks for."""
        fraction = config.split.fraction
        if config.split.kind == "per_user":
            return split_per_user(self.interactions, fraction=fraction)
        times = self.interactions.frame["timestamp"]
        moment: Any = times[min(int(fraction * len(times)), len(times) - 1)]
        return split_at(self.interactions, moment)


@dataclass(frozen=True)
class Cut:
    """A question for each user: what follows this history?

    Attributes:
        history: U rows, what is known.
        target: U rows, what followed; empty where nothing did.
        moment: [U] int64 microseconds, when the question is asked: at the first target event, but
            after the last history event where the two share a timestamp.
    """

    history: Histories
    target: Histories
    moment: np.ndarray


def _update_with_column(digest: hashlib._Hash, column: pl.Series) -> None:
    """Feed a column of any type, with nulls, to ``digest``; the same in every polars version."""
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join("\x1f")
    elif not column.dtype.is_numeric():
        column = column.cast(pl.String)
    update_with_series(digest, column.is_null().cast(pl.UInt8))
    update_with_series(digest, column.fill_null("" if column.dtype == pl.String else 0))


def cut_histories(history: Histories, target: Histories) -> Cut:
    """Ask each user's question at the moment the target begins.

    A row without target is asked just after its history; one without either at 0.
    """
    last = np.zeros(len(history), dtype=np.int64)
    known = history.counts > 0
    last[known] = history.timestamp[history.indptr[1:][known] - 1] + 1
    first = np.zeros(len(target), dtype=np.int64)
    asked = target.counts > 0
    first[asked] = target.timestamp[target.indptr[:-1][asked]]
    return Cut(history, target, np.maximum(first, last))


def read_dataset(config: Config) -> Dataset:
    """Read and check the configured files.

    Raises:
        DataError: every problem of every file at once.
    """
    data = config.data
    item_options = data.item_columns.to_options(ITEM)
    user_options = data.user_columns.to_options(USER)
    problems = find_problems(
        data.events,
        data.items,
        data.users,
        columns=data.columns.to_event_columns(),
        item_column=item_options["id_column"],
        user_column=user_options["id_column"],
    )
    if problems:
        raise DataError(problems=tuple(problems))
    items = read_items(data.items, **item_options)
    interactions = read_interactions(
        data.events, columns=data.columns.to_event_columns(), items=items
    )
    users = None if data.users is None else read_users(data.users, **user_options)
    return Dataset(
        interactions=interactions,
        items=items,
        users=users,
        item_ids=Vocabulary.from_ids(items.frame[ITEM]),
        user_ids=Vocabulary.from_ids(interactions.frame[USER].unique(maintain_order=True)),
    )
