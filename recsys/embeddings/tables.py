"""Id tables behind one seam: look rows up, update the touched ones, read the whole table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "EmbeddingTables",
    "LocalTables",
    "TableSpec",
    "check_full_state",
    "check_specs",
    "initial_state",
    "rowwise_adagrad_",
]


@dataclass(frozen=True)
class TableSpec:
    """One table; row 0 is padding, always zero and never trained.

    Attributes:
        name: its key in every mapping of the seam.
        num_embeddings: rows, the padding row included; >= 1.
        embedding_dim: D, >= 1.

    Raises:
        ValueError: a size is < 1 or the name is empty or holds a dot.
    """

    name: str
    num_embeddings: int
    embedding_dim: int

    def __post_init__(self) -> None:
        if not self.name or "." in self.name:
            raise ValueError(f"name must be a word without dots, got {self.name!r}")
        for field in ("num_embeddings", "embedding_dim"):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"{field} of table {self.name!r} must be >= 1, got {getattr(self, field)}"
                )


class EmbeddingTables(Protocol):
    """Several named tables, wherever their rows live.

    One training step is ``tables(index)``, a loss on the vectors, ``loss.backward()``,
    ``tables.step()``: then every looked-up row has moved by one row-wise Adagrad update and no
    other row has. A row looked up twice moves once, by the sum of its gradients.
    """

    specs: Mapping[str, TableSpec]

    def __call__(self, index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows ``index[name]`` (int64, any shape) of each named table: [..., D] float32."""
        ...

    def step(self) -> None:
        """Apply the gradients gathered since the last call and forget them."""
        ...

    def full_state(self) -> dict[str, Tensor]:
        """Copies of the whole tables, ``{name: [num_embeddings, D]}``, on the CPU."""
        ...

    def load_full_state(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite every table with ``state``, as `full_state` returned it.

        Raises:
            ValueError: a table is missing, unknown, of another shape, or has a non-zero row 0.
        """
        ...


class LocalTables:
    """Tables in this process's memory, updated lazily: only looked-up rows are touched.

    Args:
        specs: the tables; names must differ.
        learning_rate: of row-wise Adagrad, > 0.
        eps: added to the root of the accumulated squares, > 0.
        generator: draws the initial rows.
        std: standard deviation of the initial rows.
        device: where the rows and their updates live; indices may come from anywhere.

    Raises:
        ValueError: two tables share a name, or ``learning_rate`` or ``eps`` is not > 0.
    """

    def __init__(
        self,
        specs: Sequence[TableSpec],
        *,
        learning_rate: float,
        eps: float = 1e-8,
        generator: torch.Generator,
        std: float = 0.1,
        device: torch.device | None = None,
    ) -> None:
        self.specs = check_specs(specs)
        if not (learning_rate > 0 and eps > 0):
            raise ValueError(f"learning_rate and eps must be > 0, got {learning_rate} and {eps}")
        self.learning_rate = learning_rate
        self.eps = eps
        drawn = initial_state(specs, generator=generator, std=std)
        self.weight = {name: rows.to(device) for name, rows in drawn.items()}
        self.square_sum = {name: rows.new_zeros(len(rows)) for name, rows in self.weight.items()}
        self._looked_up: list[tuple[str, Tensor, Tensor]] = []

    def __call__(self, index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables`."""
        found = {}
        for name, wanted in index.items():
            weight = self.weight[name]
            row, place = wanted, None
            if not _ascending(wanted):
                row, place = torch.unique(wanted, return_inverse=True)
                place = place.to(weight.device)
            row = row.to(weight.device)
            vector = weight.index_select(0, row)
            if torch.is_grad_enabled():
                vector.requires_grad_()
                self._looked_up.append((name, row, vector))
            found[name] = vector if place is None else _gather(vector, place)
        return found

    @torch.no_grad()
    def step(self) -> None:
        """See `EmbeddingTables`."""
        touched: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, row, vector in self._looked_up:
            if vector.grad is not None:
                if len(row) and row[0] == 0:  # padding; rows ascend
                    vector.grad[0] = 0.0
                touched.setdefault(name, []).append((row, vector.grad))
        self._looked_up.clear()
        for name, parts in touched.items():
            row, grad = parts[0] if len(parts) == 1 else _summed(parts)
            rowwise_adagrad_(
                self.weight[name],
                self.square_sum[name],
                row,
                grad,
                learning_rate=self.learning_rate,
                eps=self.eps,
            )

    @torch.no_grad()
    def full_state(self) -> dict[str, Tensor]:
        """See `EmbeddingTables`."""
        return {name: weight.to("cpu", copy=True) for name, weight in self.weight.items()}

    @torch.no_grad()
    def load_full_state(self, state: Mapping[str, Tensor]) -> None:
        """See `EmbeddingTables`. The accumulated squares start again at zero."""
        check_full_state(self.specs, state)
        for name, weight in self.weight.items():
            weight.copy_(state[name])
            self.square_sum[name].zero_()


def _ascending(index: Tensor) -> bool:
    """Whether ``index`` is a vector of distinct rows in order, which need not be sorted again."""
    return index.ndim == 1 and len(index) > 0 and bool((index[1:] > index[:-1]).all())


def _gather(vector: Tensor, place: Tensor) -> Tensor:
    """``vector[place]``; the gradient of ``index_select`` is several times faster than its."""
    return vector.index_select(0, place.flatten()).view(*place.shape, vector.shape[1])


def _summed(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Distinct rows, and the sum of the gradients each of them got."""
    row, place = torch.unique(torch.cat([row for row, _ in parts]), return_inverse=True)
    grad = parts[0][1].new_zeros(len(row), parts[0][1].shape[1])
    return row, grad.index_add_(0, place, torch.cat([grad for _, grad in parts]))


def rowwise_adagrad_(
    weight: Tensor,
    square_sum: Tensor,
    row: Tensor,
    grad: Tensor,
    *,
    learning_rate: float,
    eps: float,
) -> None:
    """One row-wise Adagrad update of the rows ``row``, in place.

    ``s_r += mean_d(g_rd^2); w_r -= learning_rate * g_r / (sqrt(s_r) + eps)``: one number of
    optimiser state a row instead of Adam's 2 D.

    Args:
        weight: [N, D] float.
        square_sum: [N] float, the state s.
        row: [M] int64, distinct.
        grad: [M, D] float, gradient of each row.
        learning_rate: > 0.
        eps: > 0.

    Source: fbgemm's ``EXACT_ROWWISE_ADAGRAD``, which the sharded tables run fused; the two agree
        to float32 rounding (tested).
    """
    square_sum.index_add_(0, row, grad.square().mean(dim=1))
    scale = learning_rate / square_sum.index_select(0, row).sqrt_().add_(eps)
    moved = weight.index_select(0, row).addcmul_(scale[:, None], grad, value=-1.0)
    weight.index_copy_(0, row, moved)  # a third of the time of `index_add_`


def initial_state(
    specs: Sequence[TableSpec], *, generator: torch.Generator, std: float
) -> dict[str, Tensor]:
    """Normal rows of standard deviation ``std`` and a zero row 0, table by table in order."""
    state = {}
    for spec in specs:
        weight = torch.randn(spec.num_embeddings, spec.embedding_dim, generator=generator) * std
        weight[0] = 0.0
        state[spec.name] = weight
    return state


def check_specs(specs: Sequence[TableSpec]) -> dict[str, TableSpec]:
    """The specs by name; ValueError when two share one."""
    named = {spec.name: spec for spec in specs}
    if len(named) != len(specs):
        raise ValueError(f"table names must differ, got {[spec.name for spec in specs]}")
    return named


def check_full_state(specs: Mapping[str, TableSpec], state: Mapping[str, Tensor]) -> None:
    """Raise the ValueError of `EmbeddingTables.load_full_state` when ``state`` does not fit."""
    if set(state) != set(specs):
        raise ValueError(f"state must hold the tables {sorted(specs)}, got {sorted(state)}")
    for name, spec in specs.items():
        shape = (spec.num_embeddings, spec.embedding_dim)
        if tuple(state[name].shape) != shape:
            raise ValueError(
                f"table {name!r} must have shape {shape}, got {tuple(state[name].shape)}"
            )
        if bool(state[name][0].any()):
            raise ValueError(f"row 0 of table {name!r} must be zero (padding)")
