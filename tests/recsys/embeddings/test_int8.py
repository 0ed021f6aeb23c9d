from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recsys.embeddings.int8 import Int8Rows, quantize_rows
from recsys.errors import ArtifactError


@pytest.fixture
def table() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(3000, 64, generator=generator)
    table[0] = 0
    return table


def test_hand_numbers() -> None:
    # min -1, max 1.55: a step is 2.55 / 255 = .01; .004 above a step rounds down, .006 up.
    rows = quantize_rows(torch.tensor([[-1.0, 1.55, -0.996, -0.994]]))
    assert rows.code.tolist() == [[0, 255, 0, 1]]
    assert rows.scale.item() == pytest.approx(0.01)
    assert rows.bias.item() == -1.0
    assert rows.dequantize()[0].tolist() == pytest.approx([-1.0, 1.55, -1.0, -0.99], abs=1e-6)


def test_agrees_with_torchs_own_prepack(table: torch.Tensor) -> None:
    packed = torch.ops.quantized.embedding_bag_byte_prepack(table)
    theirs = torch.ops.quantized.embedding_bag_byte_unpack(packed)
    rows = quantize_rows(table)
    step = rows.scale.unsqueeze(1)
    # They divide by range + 1e-8, so an element at half a step may round to the neighbour.
    assert (packed[:, :64].int() - rows.code.int()).abs().max() <= 1
    assert ((theirs - rows.dequantize()).abs() <= step * 1.001).all()
    assert (packed[:, :64] == rows.code).float().mean() > 0.999


@pytest.mark.parametrize("scale_dtype", ["float32", "float16"])
def test_error_is_at_most_half_a_step(table: torch.Tensor, scale_dtype: str) -> None:
    table = table * torch.logspace(-3, 2, len(table)).unsqueeze(1) + 0.5
    rows = quantize_rows(table, scale_dtype=scale_dtype)  # type: ignore[arg-type]
    error = (rows.dequantize() - table).abs().amax(dim=1)
    rounding = 4 * torch.finfo(torch.float32).eps * table.abs().amax(dim=1)
    assert (error <= rows.scale.float() / 2 + rounding).all()
    assert rows.num_bytes == 3000 * (64 + (8 if scale_dtype == "float32" else 4))


def test_constant_rows_are_exact() -> None:
    rows = quantize_rows(torch.tensor([[0.0, 0.0], [0.3, 0.3], [-7.25, -7.25]]))
    assert torch.equal(rows.dequantize(), torch.tensor([[0.0, 0.0], [0.3, 0.3], [-7.25, -7.25]]))


def test_top_20_survives(table: torch.Tensor) -> None:
    query = torch.randn(200, 64, generator=torch.Generator().manual_seed(4))
    exact = (query @ table.T).topk(20, dim=1).indices
    found = quantize_rows(table).dot(query).topk(20, dim=1).indices
    overlap = (exact.unsqueeze(2) == found.unsqueeze(1)).any(dim=2).float().mean()
    assert overlap >= 0.95


@pytest.mark.parametrize("block_rows", [1, 7, 8192])
def test_dot_equals_the_dequantised_product(table: torch.Tensor, block_rows: int) -> None:
    rows = quantize_rows(table[:50] + 3.0)
    query = torch.randn(5, 64, generator=torch.Generator().manual_seed(4))
    expected = query.double() @ rows.dequantize().double().T
    torch.testing.assert_close(
        rows.dot(query, block_rows=block_rows).double(), expected, atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("scale_dtype", ["float32", "float16"])
def test_dot_rows_is_dot_at_those_rows(table: torch.Tensor, scale_dtype: str) -> None:
    rows = quantize_rows(table[:50], scale_dtype=scale_dtype)
    query = torch.randn(5, 64, generator=torch.Generator().manual_seed(4))
    index = np.random.default_rng(0).integers(0, 50, (5, 9))
    found = rows.dot_rows(query.numpy(), index)
    expected = np.take_along_axis(rows.dot(query).numpy(), index, axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError):
        rows.dot_rows(query.numpy(), np.full((5, 1), 50))


def test_dequantize_takes_any_index_shape(table: torch.Tensor) -> None:
    rows = quantize_rows(table)
    index = np.array([[0, 5], [2, 2999]])
    assert torch.equal(rows.dequantize(index), rows.dequantize()[torch.from_numpy(index)])
    assert torch.equal(rows.dequantize(np.array([0])), torch.zeros(1, 64))
    with pytest.raises(IndexError, match=r"0\.\.2999: got 3000\.\.3000"):
        rows.dequantize(np.array([3000]))
    with pytest.raises(IndexError, match=r"got -1\.\.2"):
        rows.dequantize(np.array([2, -1]))


def test_empty_table() -> None:
    for dtype in ("float32", "float16"):
        rows = quantize_rows(torch.empty(0, 4), scale_dtype=dtype)  # type: ignore[arg-type]
        assert rows.dot(torch.ones(2, 4)).shape == (2, 0)


def test_save_and_load_are_equal(table: torch.Tensor, tmp_path) -> None:
    rows = quantize_rows(table, scale_dtype="float16")
    rows.save(tmp_path / "t")
    again = Int8Rows.load(tmp_path / "t")
    for name in ("code", "scale", "bias"):
        assert torch.equal(getattr(rows, name), getattr(again, name))
    assert again.scale.dtype == torch.float16


def test_load_refuses_what_it_cannot_read(table: torch.Tensor, tmp_path) -> None:
    with pytest.raises(ArtifactError, match="no int8 rows"):
        Int8Rows.load(tmp_path)
    quantize_rows(table).save(tmp_path)
    header = json.loads((tmp_path / "int8_rows.json").read_text())
    (tmp_path / "int8_rows.json").write_text(json.dumps(header | {"num_rows": 2}))
    with pytest.raises(ArtifactError, match=r"header says \[2, 64\]"):
        Int8Rows.load(tmp_path)
    (tmp_path / "int8_rows.json").write_text(json.dumps(header | {"format": 2}))
    with pytest.raises(ArtifactError, match="format 1, got 2"):
        Int8Rows.load(tmp_path)


def test_refuses_bad_input(table: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"table must be \[N, D >= 1\], got shape \(3,\)"):
        quantize_rows(torch.ones(3))
    table[7, 1] = torch.nan
    with pytest.raises(ValueError, match="1 rows hold a NaN or infinity, the first is row 7"):
        quantize_rows(table)
    with pytest.raises(ValueError, match="scale_dtype must be"):
        quantize_rows(torch.ones(2, 2), scale_dtype="bf16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fit float16 .65504., got 1e\+06"):
        quantize_rows(torch.full((1, 2), 1e6), scale_dtype="float16")
    rows = quantize_rows(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"query must be \[Q, 3\], got shape \(2, 4\)"):
        rows.dot(torch.ones(2, 4))
    with pytest.raises(ValueError, match="block_rows must be >= 1, got 0"):
        rows.dot(torch.ones(2, 3), block_rows=0)
