"""The reader of sequences: causal, blind to padding, and equal to a loop over pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from features.tables import Histories
from recsys.errors import ConfigError
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.towers.sequence import Noise, SequenceReader
from recsys.retrieval.towers.windows import begun_left, read_blocks

DIM, HEADS, LENGTH = 8, 2, 6
SECOND = 1_000_000
HOUR = 3_600 * SECOND


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(blocks: int = 2) -> SequenceReader:
    """A reader whose intervals say something."""
    reader = SequenceReader(
        DIM,
        blocks=blocks,
        heads=HEADS,
        history_length=LENGTH,
        generator=torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        reader.position_bias.copy_(drawn(*reader.position_bias.shape, seed=2))
        reader.time_bias.copy_(drawn(*reader.time_bias.shape, seed=3))
    return reader


def world(rows: int = 3, length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    vector = drawn(rows, length + 1, DIM, seed=4)
    gaps = torch.randint(
        0, 3 * HOUR, (rows, length + 1), generator=torch.Generator().manual_seed(5)
    )
    return vector, torch.ones(rows, length + 1, dtype=torch.bool), gaps.cumsum(dim=1)


def by_loops(reader: SequenceReader, vector: Tensor, time: Tensor) -> Tensor:
    """One history [T + 1, D], event by event and pair by pair."""
    x = list(vector)
    width = DIM // HEADS
    for number, block in enumerate(reader.blocks):
        normed = [
            one / (one.square().mean() + torch.finfo(one.dtype).eps).sqrt() * block.attention_norm
            for one in x
        ]
        parts = [(block.attention_in @ one).split(DIM) for one in normed]
        after = []
        for p in range(len(x)):
            heads = []
            for h in range(HEADS):
                cut = slice(h * width, (h + 1) * width)
                logits = []
                for q in range(p + 1):
                    gap = int(time[p] - time[q]) if q else 0
                    bucket = 0 if gap < SECOND else int(math.log2(gap / SECOND)) + 1
                    logit = parts[p][0][cut] @ parts[q][1][cut] / math.sqrt(width)
                    logit = logit + reader.position_bias[number, h, p - q]
                    logits.append(logit + reader.time_bias[number, h, bucket])
                share = torch.softmax(torch.stack(logits), dim=0)
                heads.append(sum(share[q] * parts[q][2][cut] for q in range(p + 1)))
            gate = torch.sigmoid(parts[p][3])
            one = x[p] + gate * (block.attention_out @ torch.cat(heads))
            norm = one / (one.square().mean() + torch.finfo(one.dtype).eps).sqrt()
            left, right, gate = (block.hidden_in @ (norm * block.hidden_norm)).split(
                [2 * DIM, 2 * DIM, DIM]
            )
            hidden = block.hidden_out @ (torch.nn.functional.silu(left) * right)
            after.append(one + torch.sigmoid(gate) * hidden)
        x = after
    out = torch.stack(x)
    norm = out / (out.square().mean(dim=1, keepdim=True) + torch.finfo(out.dtype).eps).sqrt()
    return norm * reader.norm @ reader.output_weight.T


def test_the_reader_is_the_loop_over_pairs() -> None:
    reader, (vector, real, time) = made(), world()
    found = reader(vector, real, time)
    for row in range(len(vector)):
        wanted = by_loops(reader, vector[row], time[row])
        torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_intervals_are_those_of_the_loop() -> None:
    vector, real, time = world(rows=1)
    gradients = []
    for looped in (False, True):
        reader = made()
        out = by_loops(reader, vector[0], time[0]) if looped else reader(vector, real, time)[0]
        (out * drawn(*out.shape, seed=6)).sum().backward()
        gradients.append([reader.position_bias.grad, reader.time_bias.grad])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-3)


def test_histories_a_few_at_a_time_are_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    vector, real, time = world(rows=5)
    real[1, 4:], real[3, 2:] = False, False
    found = []
    for cached in (2**18, 2 * HEADS * (LENGTH + 1) ** 2, 1):
        monkeypatch.setattr("recsys.retrieval.towers.sequence._CACHED", cached)
        reader, leaf = made(), vector.clone().requires_grad_()
        out = reader(leaf, real, time)
        wanted = [leaf, *reader.parameters()]
        found.append([out, *torch.autograd.grad((out * drawn(*out.shape)).sum(), wanted)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_one_row_alone_is_that_row(blocks: int) -> None:
    vector, real, time = world(rows=4)
    row = torch.tensor([LENGTH, 0, 3, 1])
    real[torch.arange(LENGTH + 1) > row[:, None]] = False
    reader, leaf = made(blocks), vector.clone().requires_grad_()
    whole = reader(leaf, real, time)[torch.arange(4), row]
    alone = reader(leaf, real, time, row=row)
    torch.testing.assert_close(alone, whole)
    wanted = [leaf, reader.time_bias, reader.position_bias]
    for one, two in zip(
        torch.autograd.grad((alone * drawn(4, DIM)).sum(), wanted),
        torch.autograd.grad((whole * drawn(4, DIM)).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_blocks_hold_windows_of_about_one_length() -> None:
    window = torch.zeros(7, 5, dtype=torch.int64)
    for row, length in enumerate((2, 5, 0, 1, 5, 3, 5)):
        window[row, 5 - length :] = 1
    window[1, 2] = 0  # hidden, not padding
    blocks = read_blocks(window, most=3, pairs=2 * 6**2)
    assert [block.tolist() for block in blocks] == [[1, 4], [6, 5], [0, 3, 2]]
    assert [len(block) for block in read_blocks(window, most=3, pairs=1)] == [1] * 7
    assert read_blocks(window[:0], most=3, pairs=1) == []


def test_what_comes_later_changes_nothing_before_it() -> None:
    reader, (vector, real, time) = made(), world()
    found = reader(vector, real, time)
    for place in range(1, LENGTH + 1):
        other, later = vector.clone(), time.clone()
        other[:, place:] = drawn(3, LENGTH + 1 - place, DIM, seed=7)
        later[:, place:] += HOUR
        again = reader(other, real, later)
        torch.testing.assert_close(again[:, :place], found[:, :place])
        assert not torch.allclose(again[:, place:], found[:, place:])


def test_padding_and_what_is_hidden_are_not_read() -> None:
    reader, (vector, real, time) = made(), world()
    found = reader(vector[:, :4], real[:, :4], time[:, :4])
    longer = reader(vector, real & (torch.arange(LENGTH + 1) < 4), time)
    torch.testing.assert_close(longer[:, :4], found)
    hidden = real.clone()
    hidden[:, 2] = False
    other = vector.clone()
    other[:, 2] = drawn(3, DIM, seed=8)
    first, second = reader(vector, hidden, time), reader(other, hidden, time)
    kept = torch.arange(LENGTH + 1) != 2
    torch.testing.assert_close(first[:, kept], second[:, kept])


def test_time_and_order_both_count() -> None:
    reader, (vector, real, time) = made(), world()
    found = reader(vector, real, time)[:, -1]
    stretched = reader(vector, real, time * 64)[:, -1]
    swapped = reader(vector[:, [0, 2, 1, 3, 4, 5, 6]], real, time)[:, -1]
    assert not torch.allclose(found, stretched)
    assert not torch.allclose(found, swapped)


def test_noise_is_drawn_by_its_generator() -> None:
    reader, (vector, real, time) = made(), world()

    def noisy(seed: int) -> Tensor:
        noise = Noise(0.5, torch.Generator().manual_seed(seed))
        out: Tensor = reader(vector, real, time, noise=noise)
        return out

    torch.testing.assert_close(noisy(1), noisy(1), rtol=0, atol=0)
    assert not torch.allclose(noisy(1), noisy(2))
    low = reader(vector, real, time, noise=Noise(0.0, torch.Generator(), low_precision=True))
    torch.testing.assert_close(low, reader(vector, real, time), atol=0.1, rtol=0.1)


def test_windows_begin_left() -> None:
    window = torch.tensor([[0, 0, 4, 1], [0, 7, 0, 2], [0, 0, 0, 0]])
    time = torch.tensor([[0, 0, 5, 6], [0, 1, 0, 3], [0, 0, 0, 0]])
    found, when, count = begun_left(window, time)
    assert found.tolist() == [[4, 1, 0], [7, 0, 2], [0, 0, 0]]
    assert when.tolist() == [[5, 6, 0], [1, 0, 3], [0, 0, 0]]
    assert count.tolist() == [2, 3, 0]
    empty = torch.zeros(2, 0, dtype=torch.int64)
    assert begun_left(empty, empty)[0].shape == (2, 0)


def retriever(**options: object) -> TwoTowerRetriever:
    shape = TowerOptions(dim=DIM, pooling="sequence", history_length=LENGTH).but(**options)
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(shape, content_dim=0, generator=generator)
    with torch.no_grad():
        tower.reader.time_bias.copy_(drawn(*tower.reader.time_bias.shape, seed=3))
    table = torch.randn(12, DIM, generator=generator)
    table[0] = 0.0
    return TwoTowerRetriever.from_tables(tower, {"item": table})


def histories(rows: list[list[int]]) -> Histories:
    counts = [len(row) for row in rows]
    flat = np.array([item for row in rows for item in row], dtype=np.int64)
    time = np.concatenate([np.arange(count) * HOUR for count in counts]).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(indptr, flat, time, np.ones(flat.size, dtype=np.float32))


def test_a_history_is_answered_alike_alone_and_among_others() -> None:
    model = retriever()
    asked = histories([[1, 2, 3], [], [4], [5, 6, 7, 8, 9, 10, 11, 1], [2, 2]])
    together = model.user_vectors(asked)
    for row in range(len(asked)):
        alone = model.user_vectors(asked.take([row]))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
    newest = model.user_vectors(histories([[7, 8, 9, 10, 11, 1]]))  # LENGTH of the eight
    np.testing.assert_allclose(newest[0], together[3], atol=1e-6)


def test_a_reader_is_saved_and_loaded(tmp_path: pytest.TempPathFactory) -> None:
    model, asked = retriever(), histories([[1, 2, 3], []])
    model.save(tmp_path)  # type: ignore[arg-type]
    loaded = TwoTowerRetriever.load(tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(loaded.user_vectors(asked), model.user_vectors(asked))


def test_a_sequence_wants_times_and_heads_that_fit() -> None:
    model = retriever()
    with pytest.raises(ValueError, match="time must be given to read a sequence"):
        model.encode_windows(torch.tensor([[1, 2]]))
    with pytest.raises(ConfigError, match="reader_heads must divide dim, got 3 with dim = 8"):
        TowerOptions(dim=8, pooling="sequence", reader_heads=3)
