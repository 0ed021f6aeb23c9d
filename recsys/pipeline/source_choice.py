"""What the retrievers are set to, chosen on what came after what they learned from.

Each that counts is fitted on the past with one setting after the other, and judged alone on what
followed: ndcg of its lists, of users drawn once. Axis by axis the best alternative stays; the first
one, which is the configured one, stays where no other is better by more than luck. The towers of
``loss = "auto"`` are trained with one pair of a loss and a denoising after the other, and the best
stays. A setting that the configuration gives is not searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.tables import Histories
from recsys.bundle import Bundle
from recsys.config import RetrievalConfig
from recsys.config.retrieval import AUTO
from recsys.dataset import cut_histories
from recsys.errors import CollapseError
from recsys.evaluation import Truth, judge, paired_difference
from recsys.evaluation.metrics import ndcg
from recsys.files.headers import read_header, write_header
from recsys.pipeline.measuring import MEASURED_AT
from recsys.progress import Progress
from recsys.retrieval.aging import asked_by_days
from recsys.retrieval.protocol import Retriever
from recsys.settings.reference import toml_value

__all__ = [
    "AXES",
    "LOSSES",
    "Choices",
    "choose_loss",
    "choose_sources",
    "loss_of",
    "read_choices",
    "read_tried",
    "tried_losses",
    "write_choices",
]

CHOICES = "chosen.json"
FORMAT = 1
MOST_USERS = 2_000
"""Users that alternatives are judged on, drawn once."""
MOST_ITEMS = 10_000
"""Of larger catalogues little is fitted again: chosen is how histories are asked with, and up to
`MOST_ITEMS_OF_GRAPH` how wide the graph filter is."""
MOST_ITEMS_OF_GRAPH = 100_000
_LEVEL = 0.8
_RESAMPLES = 500

Alternative = Mapping[str, Any]
Choices = Mapping[str, Alternative]
"""Retriever -> the settings that differ from the configured ones."""
Tried = Mapping[str, float | None]
"""Loss and denoising -> validation recall@20 of the towers. None: the training failed."""

_ASKED: tuple[Alternative, ...] = (
    {},
    {"ask_half_life_days": 14.0},
    {"ask_half_life_days": 60.0},
    {"ask_half_life_days": 240.0},
)
_LEARNED: tuple[Alternative, ...] = (
    {},
    {"learn_half_life_days": 90.0},
    {"learn_half_life_days": 30.0},
    {"learn_days": 365.0},
    {"learn_days": 90.0},
    {"learn_days": 30.0},
)
AXES: Mapping[str, tuple[tuple[Alternative, ...], ...]] = {
    "item_item": (
        _ASKED,
        _LEARNED,
        (
            {},
            {
                "item_item_l2": 10.0,
                "item_item_dropout": 0.5,
                "item_item_item_power": 0.3,
                "item_item_user_power": 0.3,
            },
        ),
    ),
    "co_occurrence": (_ASKED, _LEARNED),
    "next_item": (_LEARNED,),
    "graph_filter": (
        (
            {},
            {
                "graph_rank": 512,
                "graph_plateau": 3.0,
                "graph_ideal_weight": 0.5,
                "graph_degree_power": 0.4,
            },
        ),
        _ASKED,
        _LEARNED,
    ),
    "rp3beta": (_ASKED, _LEARNED),
    "user_knn": (_ASKED, _LEARNED),
    "buy_again": (
        _ASKED,
        ({}, {"buy_again_due": 0.25}, {"buy_again_due": 1.0}),
        ({}, {"buy_again_prior": 1.0}, {"buy_again_prior": 10.0}),
    ),
    "popularity": (({}, {"popularity_window_days": 7.0}, {"popularity_window_days": 30.0}),),
}
"""Retriever -> what is searched, one after the other; the first of each is as configured."""
LOSSES: tuple[Alternative, ...] = (
    {"loss": "sampled_softmax", "denoising": "none"},
    {"loss": "sampled_softmax", "denoising": "truncated"},
    {"loss": "bsl", "denoising": "none"},
    {"loss": "directau", "denoising": "none", "distinct_items": True},
    {"loss": "directau", "denoising": "truncated", "distinct_items": True},
)
"""What ``loss = "auto"`` tries, in this order; see `benchmarks/retrieval_noise.py`."""
_FOLLOWS: Mapping[str, str] = {"item_item_all": "item_item"}
"""Retriever -> whose model it asks in another way, so that both learn from the same."""
_ASKING, _WIDTH = "ask_half_life_days", "graph_rank"


def choose_sources(
    past: Histories,
    future: Histories,
    settings: RetrievalConfig,
    fit: Callable[[str, RetrievalConfig], Retriever],
    *,
    num_items: int,
    together: bool,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Alternative]:
    """Choose the settings of every retriever that counts.

    Args:
        past: U rows that retrievers learn from.
        future: the same rows' later events.
        settings: as configured.
        fit: fits one retriever, by name, on the past.
        num_items: N.
        together: whether all users are asked at one moment.
        seed: of the draw of users, and of the resamples that tell a gain from luck.
        progress: shows a bar.

    Returns:
        Retriever -> changed settings; those that stay as configured are left out.
    """
    cut = cut_histories(past, future, together=together)
    users = np.flatnonzero((cut.history.counts > 0) & (cut.target.counts > 0))
    names = [name for name in settings.sources if name in AXES]
    if not settings.choose or not users.size or not names:
        return {}
    rng = np.random.default_rng(seed)
    if users.size > MOST_USERS:
        users = np.sort(rng.choice(users, MOST_USERS, replace=False))
    history, moment = cut.history.take(users), cut.moment[users]
    hidden = history.hidden_mask(num_items, moment)
    asked = _Asked(history, moment, hidden, Truth.from_histories(cut.target.take(users)))
    given, chosen_always = settings.model_fields_set, {_ASKING}
    if num_items <= MOST_ITEMS_OF_GRAPH:
        chosen_always.add(_WIDTH)
    chosen: dict[str, Alternative] = {}
    with (progress or Progress()).bar(len(names), "choose the retrievers' settings") as advance:
        for name in names:
            fitted = _Fitted(name, settings, fit)
            best: Alternative = {}
            value = asked.ndcg(fitted.with_changes(best))
            for axis in AXES[name]:
                for other in axis[1:]:
                    if given.intersection(other):
                        continue
                    if num_items > MOST_ITEMS and not chosen_always.intersection(other):
                        continue
                    tried = {**best, **other}
                    found = asked.ndcg(fitted.with_changes(tried))
                    gain = paired_difference(
                        found, value, rng=rng, resamples=_RESAMPLES, level=_LEVEL
                    )
                    if gain.low > 0:
                        best, value = tried, found
                    fitted.keep(best)
            if best:
                chosen[name] = best
            advance(1)
    for follower, leader in _FOLLOWS.items():
        learned = _learned(chosen.get(leader, {}))
        if follower in settings.sources and learned:
            chosen[follower] = learned
    return chosen


def choose_loss(
    settings: RetrievalConfig,
    measure: Callable[[RetrievalConfig], float],
    *,
    progress: Progress | None = None,
) -> tuple[Alternative, Tried]:
    """Choose the loss of the towers, and whether to denoise.

    Args:
        settings: as configured, with ``loss = "auto"``.
        measure: trains the towers on the past and says their recall on what followed.
        progress: is told what was tried.

    Returns:
        The changed settings of the best pair, the first of equal ones; and what every pair reached,
        None where its training failed.

    Raises:
        CollapseError: the vectors of every pair use too few of their dimensions.
        FloatingPointError: no loss stayed finite.
    """
    progress, given = progress or Progress(), settings.model_fields_set - {"loss"}
    tried: dict[str, float | None] = {}
    best: tuple[Alternative, float] | None = None
    failure: Exception | None = None
    for pair in LOSSES:
        changes = {name: value for name, value in pair.items() if name not in given}
        own = settings.model_copy(update=changes)
        name = own.loss if own.denoising == "none" else f"{own.loss}, {own.denoising}"
        if name in tried:  # they differ in what is given
            continue
        try:
            value = measure(own)
        except (CollapseError, FloatingPointError) as error:
            tried[name], failure = None, error
            progress.note(f"loss {name}: failed ({error})")
            continue
        tried[name] = value
        progress.note(f"loss {name}: validation recall@{MEASURED_AT} {value:.4f}")
        if best is None or value > best[1]:
            best = changes, value
    if best is None:
        raise failure or ValueError("LOSSES must hold a pair, got none")
    changed = ", ".join(f"{name} = {toml_value(value)}" for name, value in best[0].items())
    progress.note(f"chosen for the towers: {changed}")
    return best[0], tried


def loss_of(bundle: Bundle, settings: RetrievalConfig) -> Alternative:
    """What ``loss = "auto"`` is where nothing is chosen anew: that of an older bundle.

    Args:
        bundle: tells what its towers were trained with.
        settings: as configured.

    Returns:
        Changed settings, without those that are given; none unless the loss is "auto".
    """
    if settings.loss != AUTO:
        return {}
    used: Mapping[str, Any] = bundle.manifest.config["retrieval"]
    free = {name for pair in LOSSES for name in pair} - (settings.model_fields_set - {"loss"})
    return {name: used[name] for name in sorted(free) if name in used}


def write_choices(directory: Path, choices: Choices, tried: Tried | None = None) -> None:
    """Write `CHOICES` beside the retrievers of a stage: the settings, and what losses reached."""
    settings = {name: dict(changes) for name, changes in choices.items() if changes}
    write_header(directory / CHOICES, FORMAT, {"settings": settings, "tried": dict(tried or {})})


def read_choices(directory: Path) -> Choices:
    """The settings that `write_choices` wrote; nothing where nothing was chosen.

    Raises:
        ArtifactError: the file is damaged or of another format.
    """
    choices: Choices = _read(directory).get("settings", {})
    return choices


def read_tried(directory: Path) -> Tried:
    """What losses reached, as `write_choices` wrote it; nothing where none was chosen.

    Raises:
        ArtifactError: the file is damaged or of another format.
    """
    tried: Tried = _read(directory).get("tried", {})
    return tried


def tried_losses(directory: Path) -> list[str]:
    """What `read_tried` finds as a sentence; none where no loss was chosen."""
    tried = read_tried(directory)
    values = ("failed" if value is None else f"{value:.4f}" for value in tried.values())
    reached = ", ".join(map(" ".join, zip(tried, values, strict=True)))
    return [f"losses tried, by validation recall@{MEASURED_AT}: {reached}"] if tried else []


def _read(directory: Path) -> dict[str, Any]:
    path = directory / CHOICES
    return read_header(path, FORMAT, remedy="train again") if path.is_file() else {}


class _Asked(NamedTuple):
    """Users, what they did then, and what followed."""

    history: Histories
    moment: np.ndarray
    hidden: np.ndarray
    truth: Truth

    def ndcg(self, retriever: Retriever) -> np.ndarray:
        """[U] of the lists of one retriever alone."""
        lists = retriever.retrieve(
            self.history, MEASURED_AT, moment=self.moment, excluded=self.hidden
        )
        return ndcg(judge(lists, self.truth), MEASURED_AT)


class _Fitted:
    """One retriever with other settings; what only asks in another way is not fitted again."""

    def __init__(
        self, name: str, settings: RetrievalConfig, fit: Callable[[str, RetrievalConfig], Retriever]
    ) -> None:
        self._name = name
        self._settings = settings
        self._fit = fit
        self._known: dict[tuple[tuple[str, Any], ...], Retriever] = {}

    def with_changes(self, changes: Alternative) -> Retriever:
        """The retriever with some settings changed."""
        learned = _learned(changes)
        key = tuple(sorted(learned.items()))
        if key not in self._known:
            self._known[key] = self._fit(
                self._name, self._settings.model_copy(update={**learned, _ASKING: None})
            )
        days = changes.get(_ASKING, self._settings.ask_half_life_days)
        return self._known[key] if days is None else asked_by_days(self._known[key], days)

    def keep(self, changes: Alternative) -> None:
        """Forget all models but the one of these settings: each may take what memory there is."""
        key = tuple(sorted(_learned(changes).items()))
        self._known = {key: self._known[key]}


def _learned(changes: Alternative) -> dict[str, Any]:
    """Those of the settings that change what is learned."""
    return {key: value for key, value in changes.items() if key != _ASKING}
