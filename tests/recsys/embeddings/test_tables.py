from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recsys.embeddings.sharded import ShardedTables, plan_tables
from recsys.embeddings.tables import (
    LocalTables,
    TableSpec,
    initial_state,
    rowwise_adagrad_,
)

SPECS = [TableSpec("item", 11, 4), TableSpec("tag", 5, 8)]
RATE, EPS = 0.1, 1e-8


def test_rowwise_adagrad_by_hand() -> None:
    weight, squares = torch.zeros(3, 2), torch.zeros(3)
    grad = torch.tensor([[3.0, 4.0]])
    rowwise_adagrad_(weight, squares, torch.tensor([1]), grad, learning_rate=0.5, eps=1e-8)
    root = 12.5**0.5  # mean of 9 and 16
    torch.testing.assert_close(weight[1], -0.5 * grad[0] / root)
    assert squares.tolist() == [0.0, 12.5, 0.0]
    rowwise_adagrad_(weight, squares, torch.tensor([1]), 0 * grad, learning_rate=0.5, eps=1e-8)
    assert squares.tolist() == [0.0, 12.5, 0.0]


def test_wrong_arguments_are_named() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="num_embeddings of table 'a' must be >= 1"):
        TableSpec("a", 0, 4)
    with pytest.raises(ValueError, match="without dots"):
        TableSpec("a.b", 2, 4)
    with pytest.raises(ValueError, match="names must differ"):
        LocalTables([SPECS[0], SPECS[0]], learning_rate=RATE, generator=generator)
    with pytest.raises(ValueError, match="learning_rate and eps"):
        LocalTables(SPECS, learning_rate=0.0, generator=generator)
    with pytest.raises(ValueError, match="learning_rate and eps"):
        ShardedTables(SPECS, learning_rate=1.0, eps=0.0, generator=generator)
    with pytest.raises(RuntimeError, match="init_process_group"):
        ShardedTables(SPECS, learning_rate=RATE, generator=generator)
    with pytest.raises(ValueError, match="plan must place"):
        ShardedTables(SPECS, learning_rate=RATE, generator=generator, plan={"item": "row_wise"})
    with pytest.raises(ValueError, match=r"plan\['tag'\] must be"):
        ShardedTables(
            SPECS, learning_rate=RATE, generator=generator, plan={"item": "row_wise", "tag": "any"}
        )
    with pytest.raises(ValueError, match=r"same for all sharded tables, got .*'tag': 8"):
        ShardedTables(
            SPECS,
            learning_rate=RATE,
            generator=generator,
            plan={"item": "row_wise", "tag": "table_wise"},
        )
    with pytest.raises(ValueError, match="multiple of 4"):
        ShardedTables(
            [TableSpec("odd", 9, 6)],
            learning_rate=RATE,
            generator=generator,
            plan={"odd": "table_wise"},
        )


def test_large_tables_are_split_and_small_ones_copied() -> None:
    specs = [TableSpec("items", 100_000, 64), TableSpec("prefix", 300, 64)]
    assert plan_tables(specs) == {"items": "row_wise", "prefix": "replicated"}


_TRAIN = """
from safetensors.torch import load_file, save_file
from recsys.embeddings.sharded import ShardedTables
from recsys.embeddings.tables import TableSpec

specs = [TableSpec(name, 11, 4) for name in ("rows", "whole", "copy", "items")]
tables = ShardedTables(
    specs,
    learning_rate=0.1,
    generator=torch.Generator().manual_seed(0),
    plan={"rows": "row_wise", "whole": "table_wise", "copy": "replicated", "items": "row_wise"},
)
tables.load_full_state(load_file(f"{folder}/start.safetensors"))
for name, step in sorted(load_file(f"{folder}/steps.safetensors").items()):
    tables.learning_rate = 0.1 if name == "a" else 0.03
    mine = step[rank::world]
    found = tables({name: mine for name in ("rows", "whole", "copy")})
    assert not found["rows"][mine == 0].any()
    loss = sum(((vector - 1.0) ** 2).sum(dim=-1).mean() for vector in found.values())
    loss.backward()
    tables.step()
state = tables.full_state()
assert (rank == 0) == bool(state)
if rank == 0:
    save_file(state, f"{folder}/end-{world}.safetensors")
"""


def test_any_number_of_processes_trains_the_same_tables(run_group: object, tmp_path: Path) -> None:
    """One process, two and local tables end in the same rows, with a rate that falls."""
    from safetensors.torch import save_file

    specs = [TableSpec(name, 11, 4) for name in ("rows", "whole", "copy", "items")]
    start = initial_state(specs, generator=torch.Generator().manual_seed(5), std=0.5)
    # Row 0 is padding; in the last step the second process looks nothing but padding up.
    steps = {
        "a": torch.tensor([1, 2, 2, 7, 10, 3]),
        "b": torch.tensor([[2, 9], [2, 0], [1, 5], [10, 10]]),
        "c": torch.tensor([4, 0, 2, 0]),
    }
    save_file(start, tmp_path / "start.safetensors")
    save_file(steps, tmp_path / "steps.safetensors")
    local = LocalTables(specs, learning_rate=0.1, generator=torch.Generator())
    local.load_full_state(start)
    for name, step in sorted(steps.items()):
        local.learning_rate = 0.1 if name == "a" else 0.03
        found = local({name: step for name in ("rows", "whole", "copy")})
        sum(((vector - 1.0) ** 2).sum(dim=-1).mean() for vector in found.values()).backward()
        local.step()
    wanted = local.full_state()
    assert torch.equal(wanted["items"], start["items"])
    for world in (1, 2):
        (tmp_path / "store").unlink(missing_ok=True)
        run_group(_TRAIN, world)  # type: ignore[operator]
        found = load_file(tmp_path / f"end-{world}.safetensors")
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-5)
