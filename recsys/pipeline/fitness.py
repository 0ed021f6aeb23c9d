"""What a run can be made of its data: the least each stage needs, before anything starts.

A stage that lacks what it needs is left out, and the run says so and goes on. Where there is
nothing to learn at all, that is a problem like any other of the data. `recsys validate` asks the
same question as `recsys train`.

- **content**, and with it **semantic ids**: two items that differ in what is said of them.
- **two_tower**: two users with events at different times, and events to choose the epoch on.
- **ranking**: two users who went on to an item that may be shown to them, and a past to find it by.
- **evaluation**: an event that is held out.

Some of it shows only in the work: vectors that collapse, candidates among which nobody wanted any.
Stages say that in a `recsys.bundle.left_out.LEFT_OUT` of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from features.definitions import Definition, RetrievalRank, RetrievalScore
from features.errors import Problem
from features.tables import EVENT, ITEM, TIMESTAMP, USER, Histories, Interactions
from recsys.bundle.left_out import LeftOut
from recsys.config import Config, RetrievalConfig
from recsys.content.variety import different_descriptions
from recsys.dataset import Dataset, cut_histories
from recsys.evaluation.splits import Split

__all__ = [
    "CONTENT",
    "EVALUATION",
    "RANKING",
    "TOWERS",
    "Fitness",
    "fields_problem",
    "find_fitness",
    "without",
]

CONTENT, RANKING, EVALUATION = "content", "ranking", "evaluation"
TOWERS, BUY_AGAIN, NEW_ITEMS = "two_tower", "buy_again", "new_items"
_LEAST_USERS = 2


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a run's data.

    Attributes:
        split: what is learned from, and what is held out.
        trained: U rows, what is learned from.
        again: that cut once more; see `recsys.dataset.Dataset.past_and_future`.
    """

    split: Split
    trained: Histories
    again: tuple[Interactions, Histories, Histories]


@dataclass(frozen=True, eq=False)
class Fitness:
    """What the data allow.

    Attributes:
        config: the configuration without what is left out.
        data: the run's.
        parts: of the data. None: there are problems.
        left_out: what is left out, and why.
        problems: why there is nothing to learn; empty where there is.
    """

    config: Config
    data: Dataset
    parts: Parts | None = None
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[Problem, ...] = ()

    def lacks(self, stage: str) -> bool:
        """Whether a stage is left out."""
        return any(one.stage == stage for one in self.left_out)

    def without_towers(self, reason: str) -> Fitness:
        """The same without towers that do not train on these data."""
        text = (
            f"left out: {reason}; retrieval.least_rank = 0 takes them as they are, a smaller "
            "retrieval.dim may do"
        )
        left_out = (*self.left_out, LeftOut(TOWERS, text))
        return replace(self, config=without(self.config, TOWERS), left_out=left_out)


def find_fitness(config: Config, data: Dataset) -> Fitness:
    """What can be made of a run's data with its settings.

    Args:
        config: the run.
        data: checked.
    """
    problems = _too_little(data)
    split = None if problems else data.split(config)
    if split is not None and not len(split.train):
        problems.append(_nothing_to_learn(config, data))
    if split is None or problems:
        return Fitness(config, data, problems=tuple(problems))
    trained = data.histories(split.train)
    again = data.past_and_future(split.train, trained, config.split)
    parts = Parts(split, trained, again)
    left_out = _of_items(config, data)
    if BUY_AGAIN in config.retrieval.sources and config.slate.to_rule().excludes_all:
        text = "left out: what it finds is what slate.repeats = 'exclude' never shows"
        left_out.append(LeftOut(BUY_AGAIN, text))
        config = without(config, BUY_AGAIN)
    if NEW_ITEMS in config.retrieval.sources and any(one.stage == CONTENT for one in left_out):
        left_out.append(LeftOut(NEW_ITEMS, "left out: it finds items by their content"))
        config = without(config, NEW_ITEMS)
    if TOWERS in config.retrieval.sources and config.retrieval.use_fields:
        from recsys.retrieval.towers.item_fields import FieldVocabulary

        told = fields_problem(config.retrieval, len(FieldVocabulary.fit(data.items).columns))
        if told is not None:
            problem = Problem("items", "*", "must fit the settings", 0, told, "Change one of them.")
            return Fitness(config, data, problems=(problem,))
    if TOWERS in config.retrieval.sources and (reason := _no_towers(parts)):
        left_out.append(LeftOut(TOWERS, f"left out: {reason}"))
        config = without(config, TOWERS)
    if reason := _no_ranking(parts, together=config.split.at_once):
        text = f"left out: {reason}; candidates are ordered by what the retrievers agree on"
        left_out.append(LeftOut(RANKING, text))
    if _no_evaluation(data, split.test):
        text = "left out: no user has an event that could be held out"
        left_out.append(LeftOut(EVALUATION, text))
    return Fitness(config, data, parts, tuple(left_out))


def without(config: Config, source: str) -> Config:
    """The configuration without a retriever, and without the declared features of it."""
    retrieval = config.retrieval
    kept = tuple(name for name in retrieval.sources if name != source)
    features = config.features
    if features is not None:
        features = _not_of(features, source)
        if not features and not config.ranking.retrieval_features:
            features = None
    changed = {"retrieval": retrieval.model_copy(update={"sources": kept}), "features": features}
    return config.model_copy(update=changed)


def _too_little(data: Dataset) -> list[Problem]:
    problems = []
    if data.num_items < 2:
        names = ", ".join(data.items.ids) or "none"
        rule, remedy = "must be at least two, to choose from", "Add items, or events of others."
        problems.append(Problem("items", ITEM, rule, 0, names, remedy))
    if not len(data.interactions):
        rule, remedy = "must have events, to learn from", "Give a log with events."
        problems.append(Problem("events", USER, rule, 0, "there is none that counts", remedy))
    return problems


def _nothing_to_learn(config: Config, data: Dataset) -> Problem:
    rule = f"must leave events to learn from when split.kind is {config.split.kind!r}"
    first = f"all are held out, from {data.interactions.frame[TIMESTAMP][0]}"
    remedy = "Set split.kind = 'per_user', or give a longer log."
    if config.split.moment is not None:
        remedy = f"Set split.moment to a later time than {config.split.moment}."
    return Problem("events", "timestamp", rule, 0, first, remedy)


def _of_items(config: Config, data: Dataset) -> list[LeftOut]:
    different = different_descriptions(data.items)
    if different < 2:
        why = "left out: nothing is said of the items that tells them apart"
        return [LeftOut(CONTENT, why), LeftOut("semantic ids", f"{why}, so there are no vectors")]
    wanted = config.semantic_ids.codes
    if different < wanted:
        many = f"{different:,} codes a level in place of {wanted:,}"
        why = f"{many}, because the items have {different:,} different descriptions"
        return [LeftOut("semantic ids", why)]
    return []


def _no_towers(parts: Parts) -> str | None:
    trained, past, future = parts.trained, *parts.again[1:]
    start = np.zeros(len(trained), dtype=np.int64)
    known = trained.counts > 0
    start[known] = trained.timestamp[trained.indptr[:-1][known]]
    later = trained.timestamp > np.repeat(start, trained.counts)
    if trained.target is not None:
        later &= trained.target
    users = np.unique(trained.rows[later]).size
    if users < _LEAST_USERS:
        return (
            f"{_users(users)} an event to learn from after another one; the towers learn what "
            f"follows what, of {_LEAST_USERS} users or more"
        )
    if not past.item_index.size or not future.targets().item_index.size:
        return "there is no past and future in the part that is learned from to choose an epoch on"
    return None


def _no_ranking(parts: Parts, *, together: bool) -> str | None:
    cut = cut_histories(*parts.again[1:], together=together)
    past, future = cut.history, cut.target
    if not past.item_index.size:
        return "there is no past that candidates could be found by"
    held = np.ones(past.item_index.size, dtype=bool)
    if past.hidden_until is not None:
        held = past.hidden_until > np.repeat(cut.moment, past.counts)
    width = 1 + max(int(each.item_index.max(initial=0)) for each in (past, future))
    hidden = past.rows[held] * width + past.item_index[held]
    shown = ~np.isin(future.rows * width + future.item_index, hidden)
    users = np.unique(future.rows[shown]).size
    if users < _LEAST_USERS:
        kind = "new items" if past.hidden_until is None else "items that may be shown"
        return (
            f"{_users(users)} events of {kind} after a past, and the ranker is chosen on "
            f"{_LEAST_USERS} or more"
        )
    return None


def _no_evaluation(data: Dataset, held_out: Interactions) -> bool:
    kinds = data.targets
    frame = held_out.frame.filter(pl.col(EVENT).is_in(list(kinds))) if kinds else held_out.frame
    return frame.is_empty()


def _users(count: int) -> str:
    return "one user has" if count == 1 else "no user has" if not count else f"{count:,} users have"


def _not_of(definitions: tuple[Definition, ...], source: str) -> tuple[Definition, ...]:
    """The definitions that read nothing of a retriever."""
    gone = {f"{kind}__{source}" for kind in ("score", "rank", "share")}
    gone |= {
        one.name
        for one in definitions
        if isinstance(one, RetrievalScore | RetrievalRank)
        and one.retriever in (source, f"{source}_share")
    }
    return tuple(one for one in definitions if gone.isdisjoint((one.name, *one.made_of.values())))


def fields_problem(settings: RetrievalConfig, found: int) -> str | None:
    """Why the towers cannot have ``found`` fields of items as the settings ask; None: they can."""
    from recsys.retrieval.training.feature_masking import MIN_FIELDS

    if settings.use_fields and not found:
        return (
            "retrieval.use_fields must be false for a catalogue without category, list or number "
            "columns of two or more values; name some in data.item_columns"
        )
    if settings.use_fields and settings.masking_weight and found < MIN_FIELDS:
        return (
            f"retrieval.masking_weight must be 0 for a catalogue with fewer than "
            f"{MIN_FIELDS} fields, got {settings.masking_weight:g} with {found}; name "
            "more category or list columns in data.item_columns"
        )
    return None
