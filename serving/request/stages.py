"""The stages that may answer a request, each with what it needs and what it does without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys.config.serving import ServiceSettings
from serving.errors import NoGeneration, ServingError, StageUnavailable
from serving.models.live import BoundedCalls, LiveModel, LiveModels
from serving.request.reader import GenerationReader
from serving.request.selection import Named
from serving.request.snapshot import Snapshot, item_schema
from serving.request.work import Work, reason_of
from serving.store.candidate_codec import CandidateList

__all__ = ["Stages"]


class Stages:
    """Each stage gives entries that may be shown, best first, or none.

    Args:
        reader: the store, and what is remembered of it.
        models: the models in memory. None: there is no model.
        calls: where models are called. None with ``models``.
        settings: times and sizes.
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        models: LiveModels | None,
        calls: BoundedCalls | None,
        settings: ServiceSettings,
    ) -> None:
        self._reader = reader
        self._models = models
        self._calls = calls
        self._settings = settings

    def model(self, generation: str | None) -> LiveModel | None:
        """The model of a generation, or (None) the one that serves now."""
        return None if self._models is None else self._models.current(generation)

    def want(self, generation: str) -> None:
        """Keep the model of another generation, if models come and go."""
        if self._models is not None:
            self._models.want(generation)

    def live(self, work: Work) -> list[Named]:
        """What the model recommends for what the user just did."""
        calls = self._calls
        if calls is None or not work.did_something or work.local_only:
            return []
        model = self.model(work.view.snapshot.generation) or self.model(None)
        if model is None:
            return []
        selection, asked = work.selection, work.question()
        k = work.wanted
        found = calls.run(
            lambda: model.recommend(
                asked,
                k,
                exclude=selection.unwanted,
                only=selection.only,
                threshold=work.threshold,
            ),
            self._time_for_model(work),
        )
        work.whole = work.threshold
        if not found:
            work.missed.append("nothing_likely" if work.whole else "unknown_recent_items")
            return []
        return self._allowed(work, found)

    def cache(self, work: Work) -> list[Named]:
        """The user's list of the generation, ranked again where that is asked for."""
        if work.user_id is None:
            work.missed.append("no_user")
            return []
        snapshot = work.view.snapshot
        found = None if work.state is None else work.state.candidates
        if work.state is not None and work.state.problem is not None:
            work.broken.append(reason_of(work.state.problem))
        if found is None and (work.broken or work.view.problem or work.local_only):
            found = self._reader.remembered_user(snapshot, work.user_id)
        if found is None:
            if not work.broken:
                work.missed.append("unknown_user")
            return []
        return self._best(work, found)

    def previous(self, work: Work) -> list[Named]:
        """The user's list of the generation before."""
        previous = work.view.previous
        if previous is None or work.user_id is None or work.local_only or work.broken:
            return []
        try:
            snapshot = self._reader.snapshot(previous)
        except NoGeneration:
            return []
        state = self._reader.users(snapshot, [work.user_id])[0]
        if state.problem is not None:
            raise state.problem
        if state.candidates is None:
            return []
        work.generation = previous
        return self._allowed(work, snapshot.named(state.candidates))

    def neighbours(self, work: Work, label: str) -> list[Named]:
        """Items like the last one that the user met."""
        snapshot = work.view.snapshot
        met = [*work.met, *work.recent]
        known = [one for one in met if one in snapshot.rows]
        if not known:
            if met:
                work.missed.append("unknown_item")
            return []
        if work.local_only or work.broken:
            return []
        found = self._reader.neighbours(snapshot, known[-1])
        if found is None:
            work.missed.append("no_neighbours")
            return []
        return self._allowed(work, snapshot.named(found, label))

    def rank(self, work: Work, model: LiveModel, rows: np.ndarray) -> np.ndarray:
        """[C] scores of rows of the vocabulary by both ranking stages, within the deadline.

        Raises:
            ServingError: the model is too slow, busy or broken.
        """
        if self._calls is None:
            raise StageUnavailable("this process has no model", stage="live")
        snapshot, asked = work.view.snapshot, work.question()
        values = self._item_values(work, snapshot, model, rows)
        return self._calls.run(lambda: model.rank(asked, rows, values), self._time_for_model(work))

    # -- inside -------------------------------------------------------------------------------

    def _allowed(self, work: Work, offered: list[Named]) -> list[Named]:
        allowed = work.selection.allowed(offered)
        if offered and not allowed:
            work.missed.append("all_filtered")
        return allowed

    def _best(self, work: Work, found: CandidateList) -> list[Named]:
        snapshot = work.view.snapshot
        kept = work.selection.allowed_rows(found.item_index)
        if not kept.all():
            found = CandidateList(*(part[kept] for part in found))
        if found.item_index.size == 0:
            work.missed.append("all_filtered")
            return []
        found = self._reranked(work, found)
        return snapshot.named(CandidateList(*(part[: work.wanted] for part in found)))

    def _reranked(self, work: Work, found: CandidateList) -> CandidateList:
        model = None if work.local_only else self.model(work.view.snapshot.generation)
        if model is None or work.rerank == "never":
            return found
        if work.rerank == "fresh" and not work.did_something:
            return found
        try:
            with work.timed("rerank"):
                score = self.rank(work, model, found.item_index)
        except ServingError as error:  # the published order is better than another stage's
            work.broken.append(reason_of(error))
            return found
        order = np.argsort(-score, kind="stable")
        return CandidateList(
            found.item_index[order], score[order].astype(np.float32), found.source[order]
        )

    def _item_values(
        self, work: Work, snapshot: Snapshot, model: LiveModel, rows: np.ndarray
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
        ids = [snapshot.item_ids[row - 1] for row in rows.tolist()]
        try:
            with work.timed("item_features"):
                block = self._reader.item_block(snapshot, ids, schema, fields=model.item_fields)
        except ServingError:
            return None
        return None if not block.present.all() else block.values

    def _time_for_model(self, work: Work) -> float:
        return min(self._settings.live_timeout_s, work.left_s)
