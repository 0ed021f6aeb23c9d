"""Items that nobody met yet, found by what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from features.tables import Histories
from recsys.files.damage import telling_damage
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.blocks import AskedRetriever
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.towers.vector_question import VectorQuestion
from recsys.topk import TopK, top_k

__all__ = ["NewItemsRetriever"]

_KIND = "new_items"
_TOWERS = "towers"


class NewItemsRetriever(AskedRetriever):
    """Towers that know the items' content alone, asked for items without a training event.

    No item has a row of its own in them: its vector is its projected content, and a history's what
    its items' contents add up to by recency. What projection, pools and residual layer learn from
    who met what (softmax over sampled items, a query never sees its own item) places an item that
    nobody met like any other. Only such items are found; all are scored, so that the ranker can
    compare. `recsys.retrieval.finishing.new_items.fit_new_items` makes one.

    Args:
        towers: that know content alone.
        is_new: [N + 1] bool, what may be found.
        name: how answers name this source.

    Attributes:
        name: how answers name this source.
        num_items: N.
        is_new: [N + 1] bool.

    Source: the protocol of SEMCo (arXiv 2604.12990): co-consumption without ids, a user is the mean
        of their items. Its hidden layers and sparse losses gained nothing over one projection and
        a softmax (`benchmarks/cold_items.py`).
    """

    def __init__(self, towers: TwoTowerRetriever, is_new: np.ndarray, *, name: str = _KIND) -> None:
        if is_new.shape != (towers.num_items + 1,):
            raise ValueError(
                f"is_new must be [N + 1] = {(towers.num_items + 1,)}, got {is_new.shape}"
            )
        self.name = name
        self.num_items = towers.num_items
        self.is_new = is_new
        self._towers = towers
        self._index = np.flatnonzero(is_new)
        self._vector = towers.item_vectors[self._index]

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> VectorQuestion:
        """See `recsys.retrieval.protocol.Retriever`; ``user_index`` is ignored."""
        histories.check_width(self.num_items)
        return VectorQuestion(self, self._towers.user_vectors(histories, moment))

    def search(self, query: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """The best ``k`` new items of each query vector [Q, D].

        Raises:
            ValueError: ``k`` < 1, or ``excluded`` is not [Q, N + 1].
        """
        wanted = (len(query), self.num_items + 1)
        if excluded is not None and excluded.shape != wanted:
            raise ValueError(f"excluded must be [Q, N + 1] = {wanted}, got {excluded.shape}")
        score = np.pad(query @ self._vector.T, ((0, 0), (1, 0)))
        hidden = None if excluded is None else np.pad(excluded[:, self._index], ((0, 0), (1, 0)))
        found = top_k(score, k, excluded=hidden)
        index = np.append(self._index, -1)  # place 0 is padding; -1 stays -1
        return TopK(index[np.where(found.item_index > 0, found.item_index - 1, -1)], found.score)

    def score_vectors(self, query: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[Q, C] float32 scores of items [Q, C] for query vectors [Q, D]; -inf for 0 and -1."""
        return self._towers.score_vectors(query, item_index)

    def save(self, directory: Path) -> None:
        """See `recsys.files.model_files.write_model`; the towers have a directory below."""
        write_model(directory, _KIND, {"name": self.name}, {"is_new": self.is_new})
        self._towers.save(directory / _TOWERS)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, or of another kind or format.
        """
        with telling_damage(directory):
            settings, tensors = read_model(directory, _KIND)
            return cls(TwoTowerRetriever.load(directory / _TOWERS), tensors["is_new"], **settings)
