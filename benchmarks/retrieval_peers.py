"""What a user would otherwise run: popularity, implicit's ALS and BPR, and a plain torch loop.

Every peer is fitted by `fit`, which calls ``on_epoch(number, seconds)`` after each pass over the
data; the clock stands still meanwhile, so the callback may evaluate. `user_vectors` [U, D] and
`item_vectors` [N + 1, D] are then the model as it stands; their product is the score.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from retrieval_data import topk_lists
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from features.tables import Histories

OnEpoch = Callable[[int, float], bool]
"""(epoch from 1, seconds of the epoch) -> whether to stop."""


class Peer(ABC):
    """A model that scores by the product of a user's and an item's vector."""

    @abstractmethod
    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Train for ``epochs`` passes, or until ``on_epoch`` says True."""

    @property
    @abstractmethod
    def user_vectors(self) -> np.ndarray:
        """[U, D] float32."""

    @property
    @abstractmethod
    def item_vectors(self) -> np.ndarray:
        """[N + 1, D] float32, row 0 padding."""

    def lists(self, users: np.ndarray, seen: Histories) -> np.ndarray:
        """[Q, K] int64: the best of the rows ``users`` without what they have ``seen``."""
        return topk_lists(self.user_vectors[users], self.item_vectors, seen.take(users))


class Popularity(Peer):
    """The same list for everyone."""

    def __init__(self, train: Histories, num_items: int) -> None:
        self._counts = np.bincount(train.item_index, minlength=num_items + 1)
        self._num_users = len(train)

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Nothing to learn."""
        on_epoch(1, 0.0)

    @property
    def user_vectors(self) -> np.ndarray:
        """[U, 1] ones."""
        return np.ones((self._num_users, 1), dtype=np.float32)

    @property
    def item_vectors(self) -> np.ndarray:
        """[N + 1, 1] counts."""
        return self._counts[:, None].astype(np.float32)


class _Stop(Exception):
    """Leaves implicit's loop from its callback."""


class Implicit(Peer):
    """A model of the library implicit.

    Attributes:
        model: unfitted, from `als` or `bpr`.
    """

    def __init__(
        self,
        train: Histories,
        num_items: int,
        model: AlternatingLeastSquares | BayesianPersonalizedRanking,
    ) -> None:
        self.model = model
        self._matrix = csr_matrix(train.to_csr(num_items))
        self._matrix.indices = self._matrix.indices.astype(np.int32)
        self._matrix.indptr = self._matrix.indptr.astype(np.int32)

    @classmethod
    def als(
        cls,
        train: Histories,
        num_items: int,
        *,
        alpha: float = 1.0,
        regularization: float = 0.01,
        dim: int = 64,
        threads: int = 1,
        seed: int = 0,
    ) -> Implicit:
        """Hu, Koren and Volinsky's alternating least squares; an epoch is an iteration."""
        model = AlternatingLeastSquares(
            factors=dim,
            alpha=alpha,
            regularization=regularization,
            num_threads=threads,
            random_state=seed,
        )
        return cls(train, num_items, model)

    @classmethod
    def bpr(
        cls,
        train: Histories,
        num_items: int,
        *,
        learning_rate: float = 0.01,
        regularization: float = 0.01,
        dim: int = 64,
        threads: int = 1,
        seed: int = 0,
    ) -> Implicit:
        """BPR by stochastic gradients, with an item bias and negatives drawn by popularity."""
        model = BayesianPersonalizedRanking(
            factors=dim,
            learning_rate=learning_rate,
            regularization=regularization,
            num_threads=threads,
            random_state=seed,
        )
        return cls(train, num_items, model)

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Run implicit's own loop."""

        def after(iteration: int, seconds: float, *_: object) -> None:
            if on_epoch(iteration + 1, seconds):
                raise _Stop

        self.model.iterations = epochs
        with threadpool_limits(1, "blas"):
            try:
                self.model.fit(self._matrix, show_progress=False, callback=after)
            except _Stop:
                return

    @property
    def user_vectors(self) -> np.ndarray:
        """[U, D] factors; BPR's last column is 1."""
        return np.asarray(self.model.user_factors)

    @property
    def item_vectors(self) -> np.ndarray:
        """[N + 1, D] factors; BPR's last column is the item's bias."""
        return np.asarray(self.model.item_factors)


class TorchLoop(Peer):
    """Matrix factorisation as most people write it in torch.

    Two ``nn.Embedding`` tables, dense Adam, autograd, and negatives drawn uniformly for every
    positive on its own: [B, n] indices and a [B, n, D] gather. No negative is checked against the
    user's history. "softmax" and "directau" train on cosines; "directau" is scored by the raw
    product as in the authors' code, "softmax" by cosine.

    Attributes:
        user: table [U, D].
        item: table [N + 1, D], row 0 unused.

    Args:
        train: events.
        num_items: N.
        loss: "bpr", "softmax" or "directau".
        dim: D.
        batch_size: positives a step.
        num_negatives: of each positive ("softmax").
        learning_rate: of Adam.
        l2: penalty on the batch's vectors ("bpr").
        temperature: of "softmax".
        gamma: weight of DirectAU's uniformity.
        max_steps: steps that `fit` really runs an epoch, its seconds scaled to all steps; for
            timing only. None: all.
        seed: of weights, order and negatives.

    Source: BPR: Rendle et al., UAI 2009; DirectAU: Wang et al., KDD 2022, as published.
    """

    def __init__(
        self,
        train: Histories,
        num_items: int,
        *,
        loss: str,
        dim: int = 64,
        batch_size: int = 1024,
        num_negatives: int = 256,
        learning_rate: float = 1e-3,
        l2: float = 1e-4,
        temperature: float = 0.1,
        gamma: float = 1.0,
        max_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self._loss = {"bpr": self._bpr, "softmax": self._softmax, "directau": self._directau}[loss]
        self._cosine = loss == "softmax"
        self._generator = torch.Generator().manual_seed(seed)
        self.user = nn.Embedding(len(train), dim)
        self.item = nn.Embedding(num_items + 1, dim)
        for table in (self.user, self.item):
            nn.init.xavier_normal_(table.weight, generator=self._generator)
        self._adam = torch.optim.Adam(
            [*self.user.parameters(), *self.item.parameters()], lr=learning_rate
        )
        self._row = torch.from_numpy(train.rows)
        self._positive = torch.from_numpy(train.item_index)
        self._num_items = num_items
        self._batch_size, self._num_negatives = batch_size, num_negatives
        self._l2, self._temperature, self._gamma = l2, temperature, gamma
        self._max_steps = max_steps

    def fit(self, epochs: int, on_epoch: OnEpoch) -> None:
        """Run `train_epoch` until told to stop."""
        for epoch in range(1, epochs + 1):
            if on_epoch(epoch, self.train_epoch()):
                return

    def train_epoch(self) -> float:
        """One pass over the events in random order; its seconds."""
        start = time.perf_counter()
        order = torch.randperm(len(self._row), generator=self._generator)
        batches = torch.split(order, self._batch_size)
        steps = batches[: self._max_steps]
        for batch in steps:
            loss = self._loss(self._row[batch], self._positive[batch])
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
        return (time.perf_counter() - start) * len(batches) / len(steps)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randint(1, self._num_items + 1, shape, generator=self._generator)

    def _bpr(self, row: Tensor, positive: Tensor) -> Tensor:
        user, item = self.user(row), self.item(positive)
        negative = self.item(self._draw(len(row)))
        gap = (user * item).sum(dim=1) - (user * negative).sum(dim=1)
        penalty = user.square().sum() + item.square().sum() + negative.square().sum()
        return -F.logsigmoid(gap).mean() + self._l2 * penalty / (2 * len(row))

    def _softmax(self, row: Tensor, positive: Tensor) -> Tensor:
        user = F.normalize(self.user(row), dim=-1)
        item = F.normalize(self.item(positive), dim=-1)
        negative = F.normalize(self.item(self._draw(len(row), self._num_negatives)), dim=-1)
        own = (user * item).sum(dim=1, keepdim=True)  # [B, 1]
        other = torch.einsum("bd,bnd->bn", user, negative)
        logit = torch.cat([own, other], dim=1) / self._temperature
        return F.cross_entropy(logit, torch.zeros(len(row), dtype=torch.int64))

    def _directau(self, row: Tensor, positive: Tensor) -> Tensor:
        user = F.normalize(self.user(row), dim=-1)
        item = F.normalize(self.item(positive), dim=-1)
        align = (user - item).norm(dim=1).square().mean()
        uniform = [torch.pdist(side).square().mul(-2).exp().mean().log() for side in (user, item)]
        return align + self._gamma * (uniform[0] + uniform[1]) / 2

    @property
    def user_vectors(self) -> np.ndarray:
        """[U, D], unit rows for "softmax"."""
        return self._finished(self.user.weight)

    @property
    def item_vectors(self) -> np.ndarray:
        """[N + 1, D], unit rows for "softmax"."""
        return self._finished(self.item.weight)

    def _finished(self, weight: Tensor) -> np.ndarray:
        weight = weight.detach()
        return (F.normalize(weight, dim=1) if self._cosine else weight.clone()).numpy()
