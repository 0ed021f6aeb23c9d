"""Actions in cells: Semantic-ID prefixes as embedding, and the weights of whole cells."""

from __future__ import annotations

import numpy as np

__all__ = ["estimated_marginal_weights", "marginal_weights", "prefix_cells"]


def prefix_cells(codes: np.ndarray, depth: int) -> np.ndarray:
    """The cell of every action: actions share one where their codes begin alike.

    Args:
        codes: [K, L] integers, one row an action; ``SemanticIds.codes[1:]`` for a catalogue. The
            tie digit means nothing: leave out its depth.
        depth: codes that count, 1..L.

    Returns:
        [K] int64 cells, 0..C - 1 without gaps.

    Raises:
        ValueError: not a table, or ``depth`` is out of range.
    """
    if codes.ndim != 2 or not 1 <= depth <= codes.shape[1]:
        raise ValueError(
            f"depth must be 1..L for codes [K, L], got depth {depth} and shape {codes.shape}"
        )
    cell = np.unique(codes[:, :depth], axis=0, return_inverse=True)[1]
    return cell.reshape(-1).astype(np.int64)


def marginal_weights(
    action: np.ndarray, logging: np.ndarray, target: np.ndarray, cell: np.ndarray
) -> np.ndarray:
    """``sum_{a in e_t} pi_e(a | x_t) / sum_{a in e_t} pi_0(a | x_t)``, e_t the logged cell.

    Exact where the logging policy is known for all actions.

    Args:
        action: [n] int64.
        logging: [n, K] float64, or [K] where it does not look at the context.
        target: the same.
        cell: [K] int64 of `prefix_cells`, or any other categories.

    Returns:
        [n] float64.

    Raises:
        ValueError: shapes disagree, or the log shows a cell that the logging policy never chooses.

    Source: Saito and Joachims, ICML 2022, section 3.
    """
    cells = int(cell.max()) + 1
    below = _cell_mass(logging, cell, cells, action)
    wrong = ~(below > 0)
    if wrong.any():
        raise ValueError(
            f"logging must give every logged cell a chance: {int(wrong.sum())} rows have none, "
            f"first row {int(wrong.argmax())}"
        )
    weight: np.ndarray = _cell_mass(target, cell, cells, action) / below
    return weight


def estimated_marginal_weights(
    weight: np.ndarray, cell: np.ndarray, *, stratum: np.ndarray | None = None
) -> np.ndarray:
    """The mean weight of the rounds with one cell, for `mips` when only propensities are logged.

    ``w(x, e) = E_{a ~ pi_0(. | x, e)}[w(x, a)]`` by the log's own means. Assumes that within a
    cell (and stratum) the expected weight does not depend on the context any more.

    Args:
        weight: [n] float64 of single actions, `importance_weights`.
        cell: [n] int64 of the logged action.
        stratum: [n] int64 group of contexts, such as a segment or the position; None: one group.

    Returns:
        [n] float64.

    Raises:
        ValueError: shapes disagree.
    """
    if weight.ndim != 1 or cell.shape != weight.shape:
        raise ValueError(
            f"cell must be [n] like weight, got {cell.shape} and weight {weight.shape}"
        )
    groups = [cell]
    if stratum is not None:
        if stratum.shape != weight.shape:
            raise ValueError(f"stratum must be [n] like weight, got {stratum.shape}")
        groups.append(stratum)
    row = np.unique(np.stack(groups, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    mean: np.ndarray = (np.bincount(row, weights=weight) / np.bincount(row))[row]
    return mean


def _cell_mass(policy: np.ndarray, cell: np.ndarray, cells: int, action: np.ndarray) -> np.ndarray:
    """[n] probability that the policy stays in the cell of the logged action."""
    if policy.shape[-1] != len(cell) or policy.ndim > 2:
        raise ValueError(
            f"a policy must be [n, K] or [K] with K = {len(cell)} cells, got shape {policy.shape}"
        )
    if policy.ndim == 1:
        mass: np.ndarray = np.bincount(cell, weights=policy, minlength=cells)[cell[action]]
        return mass
    if len(policy) != len(action):
        raise ValueError(
            f"a policy must have a row for each of {len(action)} rounds, got {len(policy)}"
        )
    order = np.argsort(cell, kind="stable")
    start = np.searchsorted(cell[order], np.arange(cells))
    found = np.empty(len(action))
    block = max(1, 4_000_000 // len(cell))
    for first in range(0, len(action), block):
        rows = slice(first, first + block)
        sums = np.add.reduceat(policy[rows][:, order], start, axis=1)
        found[rows] = np.take_along_axis(sums, cell[action[rows]][:, None], axis=1)[:, 0]
    return found
