"""The trained two-tower model as a retriever: encode a history, find its nearest items."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from features.tables import Histories
from recsys.embeddings.int8 import Int8Rows, quantize_rows
from recsys.errors import ArtifactError
from recsys.retrieval.towers.files import TowerFiles, read_towers, write_towers
from recsys.retrieval.towers.light_query import LightQuery
from recsys.retrieval.towers.model import TwoTower, lookup_in
from recsys.retrieval.towers.options import Score
from recsys.retrieval.towers.vector_question import VectorQuestion
from recsys.retrieval.towers.windows import latest_times, latest_window, read_blocks
from recsys.topk import TopK, stacked, top_k

__all__ = ["SearchesVectors", "TwoTowerRetriever"]

_SMALL = 1e-12  # torch's bound of a norm that is divided by
_QUERY_BLOCK = 4_096  # queries encoded at a time
_PAIR_BLOCK = 2**21  # pairs of events of those of a sequence


class SearchesVectors(Protocol):
    """What `TwoTowerRetriever` asks of an index over its `item_vectors`."""

    def search(self, query: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """The best ``k`` items of each query vector [Q, D]."""
        ...


class TwoTowerRetriever:
    """Scores items by the product (or cosine) of a history's vector and theirs.

    A `recsys.retrieval.protocol.Retriever`; `recsys.retrieval.training.train_two_tower` makes one.

    Args:
        tower: the dense weights.
        tables: whole id tables by name, row 0 zero.
        item_vector: [N + 1, D] float32 output of the item tower for every item, row 0 zero.
        score: "cosine": both sides are normalised, so an index over `item_vectors` by inner
            product or by angle gives the same order; "dot": neither is, and the length of an item
            vector acts as a prior for popular items.
        best_epoch: the epoch whose weights these are, from 1.

    Attributes:
        index: answers `retrieve` instead of the exact search when set.
        memory_mb: MB that one block of scores may take in the exact search.

    Raises:
        ValueError: ``score`` is unknown or ``item_vector`` has another width than the tower.
    """

    name = "two_tower"

    def __init__(
        self,
        tower: TwoTower,
        tables: Mapping[str, Tensor],
        item_vector: Tensor,
        *,
        score: Score = "cosine",
        best_epoch: int = 0,
    ) -> None:
        if score not in ("cosine", "dot"):
            raise ValueError(f"score must be 'cosine' or 'dot', got {score!r}")
        dim = tower.options.dim
        if item_vector.ndim != 2 or item_vector.shape[1] != dim:
            raise ValueError(
                f"item_vector must be [N + 1, {dim}], got shape {tuple(item_vector.shape)}"
            )
        self.tower = tower.eval()
        self.tables = dict(tables)
        self.score_kind = score
        self.best_epoch = best_epoch
        self.index: SearchesVectors | None = None
        self.memory_mb = 64
        self.int8: Int8Rows | None = None
        self._encoded = item_vector.detach().float().contiguous()
        self._scored = self._finish(self._encoded)

    @classmethod
    @torch.no_grad()
    def from_tables(
        cls,
        tower: TwoTower,
        tables: Mapping[str, Tensor],
        *,
        content: Tensor | None = None,
        prefix_tokens: Tensor | None = None,
        fields: Tensor | None = None,
        score: Score = "cosine",
        best_epoch: int = 0,
    ) -> Self:
        """Encode every item of the table ``item``, in blocks.

        Args:
            tower: the dense weights.
            tables: whole id tables by name.
            content: [N + 1, content_dim] float32, row 0 zero; as the tower needs it.
            prefix_tokens: [N + 1, L] int64, row 0 zero.
            fields: [N + 1, F] int64, row 0 zero; as the table ``field`` needs it.
            score: see the class.
            best_epoch: see the class.

        Raises:
            ValueError: ``content`` or ``fields`` is missing or unexpected.
        """
        if (fields is None) != ("field" not in tables):
            raise ValueError(
                f"fields must be given exactly when there is a table 'field': fields are "
                f"{'missing' if fields is None else 'given'}, the tables are {sorted(tables)}"
            )

        encoded = tower.catalogue(
            tables, content=content, prefix_tokens=prefix_tokens, fields=fields
        )
        return cls(tower, tables, encoded, score=score, best_epoch=best_epoch)

    @property
    def num_items(self) -> int:
        """N, without the padding row."""
        return len(self._scored) - 1

    @property
    def settings(self) -> dict[str, str | int | bool]:
        """What a reader of the vectors must know: ``score``, ``dim``, ``pooling``, ``user_table``.

        With ``score`` "cosine" the vectors are unit rows, with "dot" they are not; ``user_table``
        says whether `user_vectors` wants the rows of known users.
        """
        options = self.tower.options
        return {
            "score": self.score_kind,
            "dim": options.dim,
            "pooling": options.pooling,
            "user_table": options.use_user_id,
        }

    @property
    def item_vectors(self) -> np.ndarray:
        """[N + 1, D] float32 vectors to index by inner product; unit rows for a cosine."""
        return self._scored.numpy()

    @torch.no_grad()
    def user_vectors(
        self,
        histories: Histories,
        moment: np.ndarray | None = None,
        *,
        user_index: np.ndarray | None = None,
    ) -> np.ndarray:
        """Query vectors to compare with `item_vectors` by inner product.

        Args:
            histories: Q rows; an empty one gets what the model asks for without a history. A
                model without pooling only counts them.
            moment: [Q] int64 microseconds since the epoch; only events strictly before it are
                seen. None: all events.
            user_index: [Q] int64 rows of the user table (training row + 1), 0 = unknown: such a
                user is encoded from the history alone. Ignored by a model without that table.
                None: all unknown.

        Returns:
            [Q, D] float32; unit rows for a cosine.
        """
        seen = histories if moment is None else histories.before(moment)
        if self.tower.options.pooling == "none":
            window = torch.zeros(len(seen), 0, dtype=torch.int64)
        elif len(seen) == 1 and (light := self._light_query) is not None:
            return self._one_query(light, seen.item_index, user_index)
        else:
            window = latest_window(seen, self.tower.options.history_length)
        time = None
        if self.tower.options.pooling == "sequence":
            time = latest_times(seen, self.tower.options.history_length)
        index = None if user_index is None else torch.from_numpy(user_index)
        return self.encode_windows(window, time=time, user_index=index).numpy()

    def _one_query(
        self, light: LightQuery, items: np.ndarray, user_index: np.ndarray | None
    ) -> np.ndarray:
        """[1, D] of the one history whose items are seen."""
        user = None if user_index is None else self._user_rows(torch.from_numpy(user_index))
        seen = items[-self.tower.options.history_length :]
        query = light(seen, None if user is None else user[0].numpy())
        if self.score_kind == "cosine":
            query = query / max(float(np.linalg.norm(query)), _SMALL)
        return query[None].astype(np.float32, copy=False)

    @cached_property
    def _light_query(self) -> LightQuery | None:
        return LightQuery.of(self.tower, self._encoded)

    @torch.no_grad()
    def encode_windows(
        self, window: Tensor, *, time: Tensor | None = None, user_index: Tensor | None = None
    ) -> Tensor:
        """Query vectors [Q, D] of windows of items [Q, T], newest last, 0 = padding.

        A sequence wants the ``time`` [Q, T] of its events, int64 microseconds; ``user_index`` is as
        in `user_vectors`; `recsys.retrieval.towers.windows` makes windows.
        """
        found = self._encoded.new_zeros(len(window), self._encoded.shape[1])
        blocks = list(torch.split(torch.arange(len(window)), _QUERY_BLOCK))
        if time is not None:
            blocks = read_blocks(window, most=_QUERY_BLOCK, pairs=_PAIR_BLOCK)
        for block in blocks:
            user = None if user_index is None else self._user_rows(user_index[block])
            when = None if time is None else time[block]
            asked = (self._encoded, window[block])
            found[block] = self.tower.queries(*asked, time=when, user_vector=user)
        return self._finish(found)

    def _user_rows(self, index: Tensor) -> Tensor | None:
        """[Q, D] rows of the user table; None without one."""
        table = self.tables.get("user")
        return None if table is None else table[index]

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> VectorQuestion:
        """See `Retriever.ask`; ``user_index`` as in `user_vectors`."""
        histories.check_width(self.num_items)
        return VectorQuestion(self, self.user_vectors(histories, moment, user_index=user_index))

    def retrieve(
        self,
        histories: Histories,
        k: int,
        *,
        moment: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> TopK:
        """See `Retriever.retrieve`; ``user_index`` as in `user_vectors`."""
        question = self.ask(histories, moment=moment, user_index=user_index)
        return question.retrieve(k, excluded=excluded)

    def search(self, query: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """The best ``k`` items of each query vector [Q, D], as `user_vectors` gives them.

        Raises:
            ValueError: ``k`` < 1, or ``excluded`` is not [Q, N + 1].
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        if excluded is not None and excluded.shape != (len(query), self.num_items + 1):
            raise ValueError(
                f"excluded must have shape {(len(query), self.num_items + 1)}, got {excluded.shape}"
            )
        if self.index is not None:
            return self.index.search(query, k, excluded=excluded)
        block_rows = max(1, self.memory_mb * 2**20 // (4 * (self.num_items + 1)))
        parts = [
            top_k(
                self._all_scores(query[start : start + block_rows]),
                k,
                excluded=None if excluded is None else excluded[start : start + block_rows],
            )
            for start in range(0, len(query), block_rows)
        ]
        return stacked(parts, k)

    def score(
        self,
        histories: Histories,
        item_index: np.ndarray,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Retriever.score`; ``user_index`` as in `user_vectors`.

        Raises:
            ValueError: ``item_index`` is not [Q, C] or names an item above N.
        """
        return self.ask(histories, moment=moment, user_index=user_index).score(item_index)

    def score_vectors(self, query: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[Q, C] float32 scores of items [Q, C] for query vectors [Q, D]; -inf for 0 and -1.

        Raises:
            ValueError: ``item_index`` is not [Q, C] or names an item above N.
        """
        if item_index.ndim != 2 or len(item_index) != len(query):
            raise ValueError(
                f"item_index must have one row per history: got shape {item_index.shape} for "
                f"{len(query)} histories"
            )
        if item_index.size and int(item_index.max()) > self.num_items:
            raise ValueError(
                f"item_index must be at most {self.num_items}, got {int(item_index.max())}"
            )
        real = item_index > 0
        items = np.where(real, item_index, 0)
        if self.int8 is not None:
            score = self.int8.dot_rows(query, items)
        else:
            score = np.matmul(self.item_vectors[items], query[:, :, None])[:, :, 0]
        return np.where(real, score, -np.inf).astype(np.float32)

    def quantize(self) -> Self:
        """Serve `retrieve` and `score` from an int8 copy of the item vectors from now on."""
        self.int8 = quantize_rows(self._scored)
        return self

    @torch.no_grad()
    def encode_items(
        self,
        *,
        content: np.ndarray | None = None,
        prefix_tokens: np.ndarray | None = None,
        fields: np.ndarray | None = None,
    ) -> np.ndarray:
        """Vectors of items the model never saw, from what describes them.

        Args:
            content: [M, content_dim] float32.
            prefix_tokens: [M, L] int64, 0 = none.
            fields: [M, F] int64, 0 = missing.

        Returns:
            [M, D] float32, comparable with `item_vectors`.

        Raises:
            ValueError: nothing is given, the model has no table for it, or ``content`` is missing
                for a tower that has it.
        """
        tokens = {"prefix": prefix_tokens, "field": fields}
        for name, given in tokens.items():
            if given is not None and name not in self.tables:
                raise ValueError(
                    f"{name} tokens were given to a model without a table {name!r}; it has the "
                    f"tables {sorted(self.tables)}"
                )
        described = [given for given in (content, prefix_tokens, fields) if given is not None]
        if not described:
            raise ValueError("content, prefix_tokens or fields must be given to encode new items")

        encoded = self.tower.items(
            lookup_in(self.tables),
            torch.zeros(len(described[0]), dtype=torch.int64),
            content=None if content is None else torch.from_numpy(content).float(),
            prefix_tokens=None if prefix_tokens is None else torch.from_numpy(prefix_tokens).long(),
            fields=None if fields is None else torch.from_numpy(fields).long(),
        )
        return self._finish(encoded).numpy()

    def save(self, directory: Path) -> None:
        """Write the weights, the tables and the int8 copy, if there is one."""
        weights = (self.tower, self.tables, self._encoded)
        files = TowerFiles(*weights, self.score_kind, self.best_epoch, self.int8)
        write_towers(directory, self.name, files)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format, or the weights do not fit.
        """
        read = read_towers(directory, cls.name)
        vectors, epoch = read.item_vector, read.best_epoch
        try:
            retriever = cls(read.tower, read.tables, vectors, score=read.score, best_epoch=epoch)
        except ValueError as error:
            raise ArtifactError(
                f"{directory}: the tensors do not fit the settings ({error}); train again"
            ) from error
        retriever.int8 = read.int8
        return retriever

    def _finish(self, vector: Tensor) -> Tensor:
        return F.normalize(vector, dim=1) if self.score_kind == "cosine" else vector

    def _all_scores(self, query: np.ndarray) -> np.ndarray:
        vector = torch.from_numpy(query)
        score = vector @ self._scored.T if self.int8 is None else self.int8.dot(vector)
        return score.numpy()
