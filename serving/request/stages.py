"""The stages that may answer a request, each with what it needs and what it does without."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recsys.config.serving import ServiceSettings
from serving.errors import NoGeneration, ServingError, StageUnavailable
from serving.models.live import BoundedCalls, LiveModel, LiveModels
from serving.request.asked import Asked
from serving.request.filters import Named
from serving.request.reader import GenerationReader
from serving.request.snapshot import Snapshot, item_schema
from serving.request.timings import Timings, reason_of
from serving.store.candidate_codec import CandidateList

if TYPE_CHECKING:
    from recsys.recommender.explanation import ExplainedItem

__all__ = ["Found", "Stages"]

_NO_REASONS: Mapping[str, str] = {}


class Found(NamedTuple):
    """What one stage has for a question.

    Attributes:
        entries: items that may be shown, best first.
        left_out: why by id, of items that may not.
        broken: reasons that make the answer a degraded one.
        missed: reasons why there are no entries.
        whole: the entries stand as they are, however few.
        generation: whose list it is. None: of the question's view.
    """

    entries: Sequence[Named] = ()
    left_out: Mapping[str, str] = _NO_REASONS
    broken: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    whole: bool = False
    generation: str | None = None


class Stages:
    """Each stage takes a question, the reasons why the answer is degraded so far, and timings.

    Args:
        reader: the store, and what is remembered of it.
        models: the models in memory. None: there is no model.
        settings: times and sizes.
        clock: seconds, only differences count.
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        models: LiveModels | None,
        settings: ServiceSettings,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._models = models
        self._settings = settings
        self._calls = None
        if models is not None:
            self._calls = BoundedCalls(
                settings.live_workers, retry_after_s=settings.retry_after_s, clock=clock
            )

    def close(self) -> None:
        """End the threads that call models."""
        if self._calls is not None:
            self._calls.close()

    def model(self, generation: str | None) -> LiveModel | None:
        """The model of a generation, or (None) the one that serves now."""
        return None if self._models is None else self._models.current(generation)

    def live(self, asked: Asked, broken: Sequence[str], timings: Timings) -> Found:
        """What the model recommends for what the user just did.

        Raises:
            ServingError: the model is too slow, busy or broken.
        """
        if self._calls is None or asked.local_only or not _did_something(asked):
            return _NOTHING
        model = self.model(asked.view.snapshot.generation) or self.model(None)
        if model is None:
            return _NOTHING
        filters = asked.filters
        offered = self._calls.run(
            lambda: model.recommend(
                asked.asker,
                asked.policy.wanted,
                exclude=filters.unwanted,
                only=filters.only,
                threshold=asked.threshold,
            ),
            self._time_for_model(asked),
        )
        if not offered:
            missed = "nothing_likely" if asked.threshold else "unknown_recent_items"
            return Found(missed=(missed,), whole=asked.threshold)
        return _allowed(asked, offered, whole=asked.threshold)

    def cache(self, asked: Asked, broken: Sequence[str], timings: Timings) -> Found:
        """The user's list of the generation, ranked again where that is asked for."""
        user_id, state, snapshot = asked.asker.user_id, asked.state, asked.view.snapshot
        if user_id is None:
            return Found(missed=("no_user",))
        found = None if state is None else state.candidates
        problems: tuple[str, ...] = ()
        if state is not None and state.problem is not None:
            problems = (reason_of(state.problem),)
        hurt = bool(broken or problems)
        if found is None and (hurt or asked.view.problem or asked.local_only):
            found = self._reader.remembered_user(snapshot, user_id)
        if found is None:
            return Found(broken=problems, missed=() if hurt else ("unknown_user",))
        found, left_out = asked.filters.allowed_list(found)
        if found.item_index.size == 0:
            return Found((), left_out, problems, ("all_filtered",))
        found, failed = self._reranked(asked, found, timings)
        k = asked.policy.wanted
        best = CandidateList(found.item_index[:k], found.score[:k], found.source[:k])
        return Found(snapshot.named(best), left_out, problems + failed)

    def previous(self, asked: Asked, broken: Sequence[str], timings: Timings) -> Found:
        """The user's list of the generation before.

        Raises:
            ServingError: the store is away or the value is damaged.
        """
        previous, user_id = asked.view.previous, asked.asker.user_id
        if previous is None or user_id is None or asked.local_only or broken:
            return _NOTHING
        try:
            snapshot = self._reader.snapshot(previous)
        except NoGeneration:
            return _NOTHING
        state = self._reader.users(snapshot, [user_id])[0]
        if state.problem is not None:
            raise state.problem
        if state.candidates is None:
            return _NOTHING
        return _allowed(asked, snapshot.named(state.candidates), generation=previous)

    def neighbours(
        self,
        asked: Asked,
        broken: Sequence[str],
        timings: Timings,
        label: str = "similar_to_last_item",
    ) -> Found:
        """Items like the last one that the user met.

        Raises:
            ServingError: the store is away or the value is damaged.
        """
        snapshot = asked.view.snapshot
        met = [*asked.met, *asked.asker.recent_items]
        known = [one for one in met if one in snapshot.rows]
        if not known:
            return Found(missed=("unknown_item",)) if met else _NOTHING
        if asked.local_only or broken:
            return _NOTHING
        found = self._reader.neighbours(snapshot, known[-1])
        if found is None:
            return Found(missed=("no_neighbours",))
        return _allowed(asked, snapshot.named(found, label))

    def rank(
        self, asked: Asked, model: LiveModel, item_index: np.ndarray, timings: Timings
    ) -> np.ndarray:
        """[C] scores of rows of the vocabulary by both ranking stages, within the deadline.

        Raises:
            ServingError: the model is too slow, busy or broken.
        """
        calls = self._bounded()
        values = self._item_values(asked.view.snapshot, model, item_index, timings)
        return calls.run(
            lambda: model.rank(asked.asker, item_index, values), self._time_for_model(asked)
        )

    def explain(
        self, asked: Asked, model: LiveModel, item_index: np.ndarray
    ) -> list[ExplainedItem]:
        """Why rows of the vocabulary are scored as they are.

        Raises:
            ServingError: the model is too slow, busy or broken.
        """
        return self._bounded().run(
            lambda: model.explain(asked.asker, item_index), self._settings.deadline_s
        )

    # -- inside -------------------------------------------------------------------------------

    def _bounded(self) -> BoundedCalls:
        if self._calls is None:
            raise StageUnavailable("this process has no model", stage="live")
        return self._calls

    def _reranked(
        self, asked: Asked, found: CandidateList, timings: Timings
    ) -> tuple[CandidateList, tuple[str, ...]]:
        """The list as the model orders it, and why it could not."""
        model = None if asked.local_only else self.model(asked.view.snapshot.generation)
        rerank = asked.policy.rerank
        if model is None or rerank == "never" or (rerank == "fresh" and not _did_something(asked)):
            return found, ()
        began = time.perf_counter()
        try:
            score = self.rank(asked, model, found.item_index, timings)
        except ServingError as error:  # the published order is better than another stage's
            return found, (timings.failed("rerank", began, error),)
        timings.ended("rerank", began)
        order = np.argsort(-score, kind="stable")
        ranked = CandidateList(
            found.item_index[order], score[order].astype(np.float32), found.source[order]
        )
        return ranked, ()

    def _item_values(
        self, snapshot: Snapshot, model: LiveModel, item_index: np.ndarray, timings: Timings
    ) -> Mapping[str, np.ndarray] | None:
        """Packed values of the store; None: the model takes its own, of the same generation."""
        manifest = snapshot.manifest
        if not model.item_fields or manifest is None or manifest.item_schema is None:
            return None
        try:
            schema = item_schema(manifest.item_schema)
        except ValueError:
            return None
        if not {field.name for field in schema.fields}.issuperset(model.item_fields):
            return None
        ids = [snapshot.item_ids[row - 1] for row in item_index.tolist()]
        began = time.perf_counter()
        try:
            block = self._reader.item_block(snapshot, ids, schema, fields=model.item_fields)
        except ServingError as error:
            timings.failed("item_features", began, error)
            return None
        timings.ended("item_features", began)
        return None if not block.present.all() else block.values

    def _time_for_model(self, asked: Asked) -> float:
        return min(self._settings.live_timeout_s, asked.deadline - asked.now())


_NOTHING = Found()


def _did_something(asked: Asked) -> bool:
    """The user did something that the published lists do not know."""
    return bool(asked.asker.recent_items or asked.asker.fresh)


def _allowed(
    asked: Asked, offered: list[Named], *, whole: bool = False, generation: str | None = None
) -> Found:
    entries, left_out = asked.filters.allowed(offered)
    missed = ("all_filtered",) if offered and not entries else ()
    return Found(entries, left_out, (), missed, whole, generation)
