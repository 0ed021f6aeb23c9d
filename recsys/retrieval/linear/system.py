"""The equations of the linear item-item model: weighted squares, a penalty, two normalisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_array, diags_array

__all__ = ["ItemSystem"]


@dataclass(frozen=True)
class ItemSystem:
    """What an item-item model is solved from.

    ``B`` minimises ``|X - X B|^2 + sum_ij penalty_i B_ij^2`` with a zero diagonal; the model is
    ``W_ij = item_scale_i B_ij / item_scale_j``.

    Attributes:
        matrix: X, [U, N + 1] float64, sorted and without repeated cells.
        penalty: [N + 1] float64, > 0.
        item_scale: [N + 1] float64, > 0; 1 for an item nobody met. None: all are 1.
    """

    matrix: csr_array
    penalty: np.ndarray
    item_scale: np.ndarray | None

    @classmethod
    def of(
        cls,
        matrix: csr_array,
        *,
        l2: float,
        dropout: float = 0.0,
        item_power: float = 0.0,
        user_power: float = 0.0,
    ) -> Self:
        """The system of what users met, normalised as DAN does; without powers and dropout, EASE.

        With ``d_u = sum_i x_ui^2`` and ``d_i = sum_u x_ui^2``: the squares are
        ``X' D_U^-user_power X``, the penalty is ``l2 + dropout / (1 - dropout) d_i``, and
        ``W = D_I^item_power B D_I^-item_power``. The user power makes long histories count less,
        the item power lowers popular items, and dropout is the expected error when each item of a
        history is hidden with that probability.

        Args:
            matrix: [U, N + 1] float64, what users met; where all events weigh the same, 0 and 1.
            l2: > 0.
            dropout: 0 <= dropout < 1.
            item_power: 0..1.
            user_power: 0..1.

        Raises:
            ValueError: an argument is out of range.

        Sources: Steck, WWW 2019 (EASE); Steck, Autoencoders that don't overfit towards the
        Identity, NeurIPS 2020 (dropout as a penalty); Park, Yoon, Kim and Lee, Why is Normalization
        Necessary for Linear Recommenders?, SIGIR 2025 (DAN).
        """
        if not l2 > 0:
            raise ValueError(f"l2 must be > 0, got {l2}; 100 to 1000 is usual")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be >= 0 and < 1, got {dropout}; 0 turns it off")
        for name, power in (("item_power", item_power), ("user_power", user_power)):
            if not 0 <= power <= 1:
                raise ValueError(f"{name} must be 0..1, got {power}; 0 turns it off")
        matrix = csr_array(matrix, dtype=np.float64)
        squares = csr_array((matrix.data**2, matrix.indices, matrix.indptr), shape=matrix.shape)
        met = np.asarray(squares.sum(axis=0))
        if user_power:
            length = np.asarray(squares.sum(axis=1))
            length[length == 0] = 1.0
            matrix = csr_array(diags_array(length ** (-user_power / 2)) @ matrix)
        matrix.sort_indices()
        scale = np.where(met > 0, met, 1.0) ** item_power if item_power else None
        return cls(matrix, l2 + dropout / (1 - dropout) * met, scale)
