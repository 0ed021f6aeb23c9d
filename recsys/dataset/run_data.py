"""A run's data: the checked tables, their split, and the moments questions are asked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl

from features.errors import DataError
from features.moments import microseconds
from features.tables import (
    ITEM,
    TIMESTAMP,
    USER,
    Histories,
    Interactions,
    ItemTable,
    Tables,
    UserTable,
    Vocabulary,
)
from features.tables.hashing import stable_hash, update_with_series
from features.tables.repeats import RepeatRule
from recsys.config import Config
from recsys.dataset.tables import cut_moment, open_tables, split_of
from recsys.evaluation.options import SplitOptions
from recsys.evaluation.splits import Split, split_per_user

_WIDE = (pl.Int128, pl.UInt128)  # numpy has no such integers

__all__ = [
    "Cut",
    "Dataset",
    "cut_histories",
    "dataset_of",
    "passed_over",
    "read_dataset",
    "table_fingerprint",
]


@dataclass(frozen=True)
class Dataset:
    """Everything read from the configured files or views.

    Attributes:
        interactions: the whole log.
        items: the catalogue; its order is the item vocabulary's.
        users: the user table, if one is configured.
        item_ids: N items, every one of the catalogue.
        user_ids: U users, in order of their first event; `continuing` puts others before.
        targets: kinds of events that are to be predicted. Empty: all.
        repeats: for how long what a user met is hidden from that user.
        told: what was dropped of the files and what is hardly meant, as sentences.
    """

    interactions: Interactions
    items: ItemTable
    users: UserTable | None
    item_ids: Vocabulary
    user_ids: Vocabulary
    targets: tuple[str, ...] = ()
    repeats: RepeatRule = field(default_factory=RepeatRule)
    told: tuple[str, ...] = ()

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
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        items = self.items
        digest = hashlib.sha256(self.interactions.fingerprint().encode())
        digest.update(self.item_ids.sha256.encode())
        _update_with_columns(digest, items.frame)
        # The same column is used in another way as text than as a category.
        roles = (
            items.text_columns,
            items.category_columns,
            items.list_columns,
            items.number_columns,
        )
        digest.update(json.dumps([items.frame.columns, *roles]).encode())
        if self.targets:
            digest.update(json.dumps(self.targets).encode())
        return digest.hexdigest()

    def histories(self, interactions: Interactions | None = None) -> Histories:
        """[U rows] of ``interactions``; None: of the whole log."""
        log = self.interactions if interactions is None else interactions
        return Histories.from_interactions(
            log, self.user_list, self.item_ids, targets=self.targets, repeats=self.repeats
        )

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
        return split_of(self.interactions, config.split)

    def past_and_future(
        self, learned: Interactions, histories: Histories, settings: SplitOptions
    ) -> tuple[Interactions, Histories, Histories]:
        """The training part cut once more, in the same way: what models are chosen on.

        Args:
            learned: the training part.
            histories: the same, U rows.
            settings: how it is cut.

        Returns:
            The log before the cut, the histories before it, and what followed.
        """
        if settings.kind == "time":
            moment = cut_moment(learned, settings.fraction)
            return learned.before(moment), *histories.at_moment(microseconds(moment))
        number = stable_hash(self.user_ids.to_series())
        log = split_per_user(learned, fraction=settings.fraction, min_events=1).train
        return log, *histories.head_fraction(settings.fraction, number=number)


@dataclass(frozen=True)
class Cut:
    """A question for each user: what follows this history?

    Attributes:
        history: U rows, what is known.
        target: U rows, what followed; empty where nothing did.
        moment: [U] int64 microseconds, when the question is asked; after the last history event.
    """

    history: Histories
    target: Histories
    moment: np.ndarray


def table_fingerprint(frame: pl.DataFrame) -> str:
    """Sha256 (hex) of the columns' names and values, in their order."""
    digest = hashlib.sha256(json.dumps(frame.columns).encode())
    _update_with_columns(digest, frame)
    return digest.hexdigest()


def _update_with_columns(digest: hashlib._Hash, frame: pl.DataFrame) -> None:
    for column in frame.iter_columns():
        _update_with_column(digest, column)


def _update_with_column(digest: hashlib._Hash, column: pl.Series) -> None:
    """Feed a column of any type, with nulls, to ``digest``; the same in every polars version."""
    dtype, name = column.dtype, column.name
    if dtype == pl.List(pl.String):
        column = column.list.join("\x1f")
    elif isinstance(dtype, pl.List | pl.Array):
        lists = column.arr.to_list() if isinstance(dtype, pl.Array) else column
        update_with_series(digest, lists.list.len().fill_null(0))
        inner = lists.list.explode(keep_nulls=False, empty_as_null=False)
        _update_with_column(digest, inner.alias(name))
        column = lists.is_null()
    elif isinstance(dtype, pl.Struct):
        for field in column.struct.fields:
            _update_with_column(digest, column.struct.field(field).alias(f"{name}.{field}"))
        column = column.is_null()
    elif dtype == pl.Binary:
        column = column.bin.encode("hex")
    elif dtype == pl.Duration or dtype == pl.Time:
        column = column.to_physical()
    elif dtype.is_decimal() or dtype in _WIDE or not dtype.is_numeric():
        column = column.cast(pl.String)
    update_with_series(digest, column.is_null().cast(pl.UInt8))
    if column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    if column.dtype != pl.Null:
        update_with_series(digest, column.fill_null("" if column.dtype == pl.String else 0))


def passed_over(data: Dataset, user_ids: Sequence[str], moment: np.ndarray) -> np.ndarray | None:
    """What users met from a moment on and did not like: shown and left alone, or disliked.

    Args:
        data: the run's.
        user_ids: [Q].
        moment: [Q] int64 microseconds.

    Returns:
        [Q, N + 1] bool; None: the log knows nothing of that kind.
    """
    log = data.interactions
    parts = [part for part in (log.dislikes, log.neutral) if part is not None]
    if not parts:
        return None
    asked = pl.DataFrame({USER: pl.Series(user_ids, dtype=pl.String), "moment": moment})
    met = pl.concat([part.select(USER, ITEM, TIMESTAMP) for part in parts])
    met = met.join(asked.with_row_index("row"), on=USER)
    met = met.filter(pl.col(TIMESTAMP).to_physical() >= pl.col("moment"))
    found = np.zeros((len(user_ids), data.num_items + 1), dtype=bool)
    found[met["row"].to_numpy(), data.item_ids.index(met[ITEM])] = True
    found[:, 0] = False
    return found


def cut_histories(history: Histories, target: Histories, *, together: bool = False) -> Cut:
    """Ask each user's question about what is to be predicted.

    Args:
        history: U rows, what is known.
        target: U rows, what followed.
        together: all are asked just after the newest event that is known of anybody, as a nightly
            job asks; else each where the target begins, a row without target just after its
            history, and one without either at 0.
    """
    target = target.targets()
    if together:
        newest = int(history.timestamp.max(initial=-1)) + 1
        return Cut(history, target, np.full(len(history), newest, dtype=np.int64))
    last = np.zeros(len(history), dtype=np.int64)
    known = history.counts > 0
    last[known] = history.timestamp[history.indptr[1:][known] - 1] + 1
    first = np.zeros(len(target), dtype=np.int64)
    asked = target.counts > 0
    first[asked] = target.timestamp[target.indptr[:-1][asked]]
    return Cut(history, target, np.maximum(first, last))


def read_dataset(config: Config) -> Dataset:
    """Read and check the configured files or views.

    Raises:
        DataError: every problem of every table at once.
    """
    tables = open_tables(config)
    if tables.problems:
        raise DataError(problems=tables.problems)
    return dataset_of(tables, config.slate.to_rule())


def dataset_of(tables: Tables, repeats: RepeatRule) -> Dataset:
    """The data set of tables without problems.

    Args:
        tables: of the run.
        repeats: for how long what a user met is hidden from that user.

    Raises:
        DataError: a column cannot play the role it is given.
    """
    items, interactions = tables.item_table, tables.interactions
    parts = (interactions.frame, interactions.dislikes)
    users = pl.concat([part[USER] for part in parts if part is not None])
    return Dataset(
        interactions=interactions,
        items=items,
        users=tables.user_table,
        item_ids=Vocabulary.from_ids(items.frame[ITEM]),
        user_ids=Vocabulary.from_ids(users.unique(maintain_order=True)),
        targets=tables.rules.targets,
        repeats=repeats,
        told=(*tables.dropped, *tables.notes, *(one.told for one in tables.counts)),
    )
