"""Row-wise int8 serving copies of embedding tables: a scale and a bias per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header

__all__ = ["Int8Rows", "quantize_rows"]

_FORMAT = 1
_MAX_CODE = 255
_BLOCK_ROWS = 8192
ScaleDtype = Literal["float32", "float16"]


@dataclass(frozen=True, eq=False)
class Int8Rows:
    """A table of 8-bit rows; row r stands for ``code[r] * scale[r] + bias[r]``.

    Every element is within ``scale[r] / 2`` of the row that was quantised, plus float32 rounding
    of the row's largest magnitude. The zero padding row is exact; so is every constant row with
    float32 scales.
    A row of D float32 takes 4 D bytes; here it takes D + 8 (float32 scale and bias) or D + 4.

    Attributes:
        code: [N, D] uint8.
        scale: [N] float32 or float16, >= 0.
        bias: [N] of the dtype of ``scale``: the value of code 0.
    """

    code: Tensor
    scale: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return self.code.shape[0]

    @property
    def dim(self) -> int:
        """D, the width of a row."""
        return self.code.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes the three tensors hold."""
        return sum(t.numel() * t.element_size() for t in (self.code, self.scale, self.bias))

    def dequantize(self, index: Tensor | np.ndarray | None = None) -> Tensor:
        """Rows as float32.

        Args:
            index: integer rows, any shape. None: the whole table.

        Returns:
            [*index.shape, D] float32 ([N, D] for None).

        Raises:
            IndexError: a row lies outside the table.
        """
        if index is None:
            code, scale, bias = self.code, self.scale, self.bias
        else:
            rows = torch.as_tensor(index, dtype=torch.int64, device=self.code.device)
            if rows.numel() and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
                raise IndexError(
                    f"index must lie in 0..{len(self) - 1}: "
                    f"got {int(rows.min())}..{int(rows.max())}"
                )
            code, scale, bias = self.code[rows], self.scale[rows], self.bias[rows]
        return code.float() * scale.float().unsqueeze(-1) + bias.float().unsqueeze(-1)

    def dot(self, query: Tensor, *, block_rows: int = _BLOCK_ROWS) -> Tensor:
        """Dot products of queries with every row, without a float32 copy of the table.

        Uses ``q . (scale c + bias) = scale (q . c) + bias sum(q)``, so that only the codes of one
        block are widened to float32 at a time.

        Args:
            query: [Q, D] float.
            block_rows: rows widened at a time, >= 1.

        Returns:
            [Q, N] float32.

        Raises:
            ValueError: ``query`` is not [Q, D], or ``block_rows`` < 1.
        """
        if query.ndim != 2 or query.shape[1] != self.dim:
            raise ValueError(f"query must be [Q, {self.dim}], got shape {tuple(query.shape)}")
        if block_rows < 1:
            raise ValueError(f"block_rows must be >= 1, got {block_rows}")
        query = query.float()
        total = query.sum(dim=1, keepdim=True)  # [Q, 1]
        score = query.new_empty((query.shape[0], len(self)))
        for start in range(0, len(self), block_rows):
            stop = start + block_rows
            block = query @ self.code[start:stop].float().T  # [Q, block]
            block *= self.scale[start:stop].float()
            score[:, start:stop] = torch.addcmul(block, total, self.bias[start:stop].float())
        return score

    def dot_rows(self, query: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Dot products of each query with rows of its own, summed as `dot` sums them.

        Args:
            query: [Q, D] float32.
            index: [Q, C] integer rows in 0..N - 1.

        Returns:
            [Q, C] float32.

        Raises:
            IndexError: a row lies outside the table.
        """
        code, scale, bias = self.code.numpy(), self.scale.numpy(), self.bias.numpy()
        product = np.matmul(code[index].astype(np.float32), query[:, :, None])[:, :, 0]
        total = query.sum(axis=1, keepdims=True)
        score = product * scale[index].astype(np.float32) + total * bias[index].astype(np.float32)
        return np.asarray(score, dtype=np.float32)

    def save(self, directory: Path) -> None:
        """Write ``int8_rows.safetensors`` and ``int8_rows.json`` into ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {"code": self.code, "scale": self.scale, "bias": self.bias}
        save_file(
            {name: t.contiguous() for name, t in tensors.items()},
            directory / "int8_rows.safetensors",
        )
        header = {"num_rows": len(self), "dim": self.dim}
        write_header(directory / "int8_rows.json", _FORMAT, header)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format version, or the two disagree.
        """
        try:
            header = read_header(
                directory / "int8_rows.json", _FORMAT, remedy="quantise the table again"
            )
            tensors = load_file(directory / "int8_rows.safetensors")
        except FileNotFoundError as error:
            raise ArtifactError(f"no int8 rows in {directory}: {error}") from error
        rows = cls(**tensors)
        if tuple(rows.code.shape) != (header["num_rows"], header["dim"]):
            raise ArtifactError(
                f"{directory}: header says [{header['num_rows']}, {header['dim']}], "
                f"tensors are {tuple(rows.code.shape)}"
            )
        return rows


def quantize_rows(table: Tensor, *, scale_dtype: ScaleDtype = "float32") -> Int8Rows:
    """Quantise each row to 256 equal steps between its own minimum and maximum.

    With float16 scales the bias is rounded down and the scale up, so that the steps still cover
    the row and the error bound stays half a (slightly larger) step.

    Args:
        table: [N, D] float, finite, D >= 1.
        scale_dtype: how scale and bias are stored.

    Raises:
        ValueError: ``table`` is not [N, D >= 1], holds a NaN or infinity, does not fit float16
            when that is asked for, or ``scale_dtype`` is unknown.

    Source: the float32 format is that of fbgemm and ``torch.ops.quantized.
    embedding_bag_byte_prepack``: scale = (max - min) / 255, bias = min, codes rounded half to even.
    """
    if table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(f"table must be [N, D >= 1], got shape {tuple(table.shape)}")
    table = table.detach().float()
    finite = torch.isfinite(table).all(dim=1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten()
        raise ValueError(
            f"table must be finite: {bad.numel()} rows hold a NaN or infinity, "
            f"the first is row {int(bad[0])}"
        )
    if table.shape[0] == 0:
        low, scale = table.new_empty(0), table.new_empty(0)
    else:
        low = table.amin(dim=1)
        scale = (table.amax(dim=1) - low) / _MAX_CODE
    if scale_dtype == "float16":
        low, scale = _half_covering(table, low)
    elif scale_dtype != "float32":
        raise ValueError(f"scale_dtype must be 'float32' or 'float16', got {scale_dtype!r}")
    step = scale.float().unsqueeze(1)
    shifted = table - low.float().unsqueeze(1)
    code = torch.where(step > 0, shifted / step, torch.zeros_like(shifted))
    return Int8Rows(code.round().clamp(0, _MAX_CODE).to(torch.uint8), scale, low)


def _half_covering(table: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Bias rounded down and scale rounded up to float16: [N] each."""
    if table.numel() and float(table.abs().max()) > torch.finfo(torch.float16).max:
        raise ValueError(
            f"table must fit float16 (65504), got {float(table.abs().max()):.6g}; "
            "use scale_dtype='float32'"
        )
    bias = low.half()
    bias = torch.where(bias.float() > low, _next_half(bias, down=True), bias)
    exact = (table.amax(dim=1) - bias.float()) / _MAX_CODE if len(table) else low
    scale = exact.half()
    scale = torch.where(scale.float() < exact, _next_half(scale, down=False), scale)
    return bias, scale


def _next_half(values: Tensor, *, down: bool) -> Tensor:
    """The neighbouring float16, towards minus or plus infinity."""
    array = values.cpu().numpy()
    towards = np.float16(-np.inf if down else np.inf)
    return torch.from_numpy(np.nextafter(array, towards)).to(values.device)
