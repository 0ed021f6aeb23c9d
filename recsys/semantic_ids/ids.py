"""Semantic ids of a catalogue: item to codes, codes to item, prefix tokens; append-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header

__all__ = ["SemanticIds"]

_FORMAT = 1


class SemanticIds:
    """The ids of N items, both ways. Build with `from_codes`, grow with `extend`.

    Row i of ``codes`` belongs to item index i of the vocabulary (1..N); row 0 is padding and
    holds -1. The last level is the tie digit of `assign_unique`: it makes ids unique and means
    nothing, so prefixes stop before it.

    Attributes:
        codes: [N + 1, L] int64, read-only.
        num_codes: codes a level, the tie digit's included; decides every token number.
        item_ids: the N items' ids, in vocabulary order.
        codebook: fingerprint of the quantiser that assigned the codes.
    """

    def __init__(
        self, codes: np.ndarray, *, num_codes: Sequence[int], item_ids: Sequence[str], codebook: str
    ) -> None:
        self.codes = codes
        self.codes.flags.writeable = False
        self.num_codes = tuple(int(v) for v in num_codes)
        self.item_ids = tuple(item_ids)
        self.codebook = codebook
        key = _keys(codes[1:], self.num_codes)
        self._order = np.argsort(key, kind="stable")
        self._sorted_key = key[self._order]

    @classmethod
    def from_codes(
        cls,
        codes: np.ndarray,
        item_ids: Sequence[str],
        *,
        num_codes: Sequence[int],
        codebook: str = "",
    ) -> Self:
        """Ids from unique codes.

        Args:
            codes: [N, L] integers, distinct rows, tie digit last: see `assign_unique`.
            item_ids: N item ids, row i having vocabulary index i + 1.
            num_codes: L vocabulary sizes, the tie digit's last.
            codebook: ``quantizer.fingerprint``; codes of two codebooks never mix.

        Raises:
            ValueError: shapes disagree, a code is out of range, an item id comes twice, two items
                share an id, or ids do not fit 63 bits.
        """
        if codes.ndim != 2 or codes.shape[1] != len(num_codes) or len(num_codes) < 2:
            raise ValueError(
                f"codes must be [N, {len(num_codes)}], at least two levels with the tie digit: "
                f"got shape {codes.shape}"
            )
        if len(codes) != len(item_ids):
            raise ValueError(
                f"item_ids must be one per row of codes: got {len(item_ids)} ids for "
                f"{len(codes)} rows"
            )
        if not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(f"codes must be integers, got {codes.dtype}")
        if np.prod([float(v) for v in num_codes]) >= 2.0**62:
            raise ValueError(f"ids must fit 62 bits: the product of num_codes {tuple(num_codes)}")
        for level, size in enumerate(num_codes):
            column = codes[:, level]
            if len(column) and (column.min() < 0 or column.max() >= size):
                raise ValueError(
                    f"codes at level {level} must lie in 0..{size - 1}, "
                    f"got {column.min()}..{column.max()}"
                )
        if len(set(item_ids)) != len(item_ids):
            seen: set[str] = set()
            first = next(i for i in item_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise ValueError(f"item_ids must be distinct: {first!r} comes twice")
        padded = np.full((len(codes) + 1, len(num_codes)), -1, dtype=np.int64)
        padded[1:] = codes
        ids = cls(padded, num_codes=num_codes, item_ids=item_ids, codebook=codebook)
        equal = np.flatnonzero(ids._sorted_key[1:] == ids._sorted_key[:-1])
        if len(equal):
            one, two = sorted(ids._order[equal[0] : equal[0] + 2].tolist())
            raise ValueError(
                f"codes must be unique: items {item_ids[one]!r} and {item_ids[two]!r} both have "
                f"{codes[one].tolist()}; use assign_unique"
            )
        return ids

    def __len__(self) -> int:
        return len(self.codes) - 1

    @property
    def num_levels(self) -> int:
        """L, the tie digit included."""
        return len(self.num_codes)

    def item_index(self, codes: np.ndarray | Sequence[int]) -> np.ndarray:
        """Vocabulary indices of ids.

        Args:
            codes: [..., L] integers.

        Returns:
            [...] int64 (0-d for a single id), 1..N, or -1 where no item has that id.

        Raises:
            ValueError: the last axis is not L long.
        """
        wanted = np.asarray(codes)
        if wanted.ndim == 0 or wanted.shape[-1] != self.num_levels:
            raise ValueError(f"codes must be [..., {self.num_levels}], got shape {wanted.shape}")
        flat = wanted.reshape(-1, self.num_levels).astype(np.int64)
        found = np.full(len(flat), -1, dtype=np.int64)
        rows = np.flatnonzero(((flat >= 0) & (flat < np.array(self.num_codes))).all(axis=1))
        if len(rows) and len(self):
            key = _keys(flat[rows], self.num_codes)
            place = np.minimum(np.searchsorted(self._sorted_key, key), len(self) - 1)
            hit = self._sorted_key[place] == key
            found[rows[hit]] = self._order[place[hit]] + 1
        return found.reshape(wanted.shape[:-1])

    def prefix_tokens(self, depth: int, *, rows_per_level: int = 65536) -> np.ndarray:
        """Rows of one embedding table for each item's prefixes of length 1..depth.

        The token of prefix (c_0, .., c_l) is its mixed-radix number, after the tokens of all
        shorter prefixes; token 0 is padding. Where a level has more possible prefixes than
        ``rows_per_level``, a fixed 64-bit hash folds them (unrelated prefixes may then share a
        row). Tokens depend on the codes alone: a new item never moves an old one's.

        Args:
            depth: 1..L - 1 (the tie digit is no prefix).
            rows_per_level: table rows a level at most, >= 1.

        Returns:
            [N + 1, depth] int64 in ``0..num_prefix_tokens(depth) - 1``; row 0 is 0.

        Raises:
            ValueError: ``depth`` or ``rows_per_level`` is out of range.

        Source: prefix n-gram of Zheng et al. 2025 ("Enhancing Embedding Representation Stability
        in Recommendation Systems with Semantic ID"), with a mixing hash for its modulo, which
        would keep only the last, least meaningful codes.
        """
        rows = self._level_rows(depth, rows_per_level)
        tokens = np.zeros((len(self.codes), depth), dtype=np.int64)
        number = np.zeros(len(self), dtype=np.int64)
        possible, offset = 1, 1
        for level in range(depth):
            number = number * self.num_codes[level] + self.codes[1:, level]
            possible *= self.num_codes[level]
            folded = number if possible <= rows[level] else _mix(number) % rows[level]
            tokens[1:, level] = folded + offset
            offset += rows[level]
        return tokens

    def num_prefix_tokens(self, depth: int, *, rows_per_level: int = 65536) -> int:
        """Rows of the table that `prefix_tokens` indexes, padding row included."""
        return 1 + sum(self._level_rows(depth, rows_per_level))

    def _level_rows(self, depth: int, rows_per_level: int) -> list[int]:
        if not 1 <= depth < self.num_levels:
            raise ValueError(
                f"depth must lie in 1..{self.num_levels - 1} (the last level is the tie digit), "
                f"got {depth}"
            )
        if rows_per_level < 1:
            raise ValueError(f"rows_per_level must be >= 1, got {rows_per_level}")
        possible = np.cumprod([float(v) for v in self.num_codes[:depth]])
        return [int(min(p, rows_per_level)) for p in possible]

    def extend(self, codes: np.ndarray, item_ids: Sequence[str], *, codebook: str = "") -> Self:
        """New ids with items appended; every old row, id and token stays as it is.

        The tie digit takes more values where more items than before share their codes: no token
        is made of it.

        Args:
            codes: [M, L] of the new items; give ``codes[1:]`` as ``taken`` to `assign_unique`.
            item_ids: their M ids.
            codebook: fingerprint of the quantiser that assigned them.

        Raises:
            ValueError: another codebook, an id in use, or anything `from_codes` refuses.
        """
        if codebook != self.codebook:
            raise ValueError(
                f"codebook must be the one of the ids in use, {self.codebook[:12]!r}: got "
                f"{codebook[:12]!r}; codes of two fits mean different things"
            )
        if codes.ndim != 2 or codes.shape[1] != self.num_levels:
            raise ValueError(f"codes must be [M, {self.num_levels}], got shape {codes.shape}")
        ties = max(self.num_codes[-1], int(codes[:, -1].max(initial=-1)) + 1)
        return type(self).from_codes(
            np.concatenate([self.codes[1:], codes]),
            [*self.item_ids, *item_ids],
            num_codes=(*self.num_codes[:-1], ties),
            codebook=codebook,
        )

    def save(self, directory: Path) -> None:
        """Write ``semantic_ids.parquet`` (item_index, item_id, code_0..) and a JSON header.

        The one table is both maps: read by item, or by codes.
        """
        directory.mkdir(parents=True, exist_ok=True)
        columns = {f"code_{level}": self.codes[1:, level] for level in range(self.num_levels)}
        frame = pl.DataFrame(
            {
                "item_index": np.arange(1, len(self) + 1, dtype=np.int64),
                "item_id": pl.Series(self.item_ids, dtype=pl.String),
                **columns,
            }
        )
        frame.write_parquet(directory / "semantic_ids.parquet")
        header = {"num_codes": self.num_codes, "codebook": self.codebook}
        write_header(directory / "semantic_ids.json", _FORMAT, header)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format version, or breaks the rules of
                `from_codes`.
        """
        try:
            header = read_header(
                directory / "semantic_ids.json", _FORMAT, remedy="assign the ids again"
            )
            frame = pl.read_parquet(directory / "semantic_ids.parquet").sort("item_index")
        except FileNotFoundError as error:
            raise ArtifactError(f"no semantic ids in {directory}: {error}") from error
        names = [f"code_{level}" for level in range(len(header["num_codes"]))]
        try:
            return cls.from_codes(
                frame.select(names).to_numpy().astype(np.int64),
                frame["item_id"].to_list(),
                num_codes=header["num_codes"],
                codebook=header["codebook"],
            )
        except (ValueError, pl.exceptions.ColumnNotFoundError) as error:
            raise ArtifactError(f"{directory}/semantic_ids.parquet is damaged: {error}") from error


def _keys(codes: np.ndarray, num_codes: Sequence[int]) -> np.ndarray:
    """[N] int64 mixed-radix numbers of [N, L] codes."""
    key = np.zeros(len(codes), dtype=np.int64)
    for level, size in enumerate(num_codes):
        key = key * size + codes[:, level]
    return key


def _mix(number: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser of int64 numbers, as int64 >= 0: the same on every machine."""
    mixed = number.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(1)).astype(np.int64)
