"""Id tables spread over the processes of a group, on TorchRec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.embeddings.tables import (
    TableSpec,
    check_full_state,
    check_specs,
    initial_state,
    rowwise_adagrad_,
)

__all__ = ["Placement", "ShardedTables", "plan_tables"]

Placement = Literal["row_wise", "table_wise", "replicated"]
_REPLICATED_BELOW = 65_536  # numbers in the table; a smaller one is cheaper to copy than to route
_PREFIX = "table_"  # TorchRec makes attributes of the names; "items" would hide a method


def plan_tables(specs: Sequence[TableSpec]) -> dict[str, Placement]:
    """Where each table goes: small ones on every process, the others split by rows."""
    return {
        spec.name: (
            "replicated"
            if spec.num_embeddings * spec.embedding_dim < _REPLICATED_BELOW
            else "row_wise"
        )
        for spec in specs
    }


class ShardedTables:
    """`EmbeddingTables` over all processes of the default group (gloo on CPU).

        row_wise    rows 0..N/2-1 on process 0, the rest on process 1: exchanged by all-to-all
        table_wise  the whole table on one process
        replicated  the whole table on every process, gradients averaged

    Each process looks up its own part of the batch; a row moves by the mean over processes of its
    gradients, so a mean loss over equal parts trains as one process on the whole batch would.
    Looking up, ``backward``, ``step`` and ``full_state`` talk to the other processes: all must
    call them, in the same order. Sharded rows move inside ``backward`` (fbgemm's fused update).

    Args:
        specs: the tables; names must differ, D a multiple of 4 and the same for all that are not
            replicated.
        learning_rate: of row-wise Adagrad, > 0.
        eps: added to the root of the accumulated squares, > 0.
        generator: draws the initial rows; the same seed on every process.
        std: standard deviation of the initial rows.
        plan: placement by table name. None: `plan_tables`.

    Raises:
        ImportError: torchrec or fbgemm is not installed.
        RuntimeError: ``torch.distributed`` has no process group yet.
        ValueError: names repeat, a D does not fit, or ``plan`` does not.
    """

    def __init__(
        self,
        specs: Sequence[TableSpec],
        *,
        learning_rate: float,
        eps: float = 1e-8,
        generator: torch.Generator,
        std: float = 0.1,
        plan: Mapping[str, Placement] | None = None,
    ) -> None:
        self.specs = check_specs(specs)
        self.plan = dict(plan_tables(specs) if plan is None else plan)
        self._learning_rate = learning_rate
        self.eps = eps
        if not (learning_rate > 0 and eps > 0):
            raise ValueError(f"learning_rate and eps must be > 0, got {learning_rate} and {eps}")
        _check_plan(self.specs, self.plan)
        if not dist.is_initialized():
            raise RuntimeError(
                "ShardedTables needs a process group; call torch.distributed.init_process_group"
            )
        state = initial_state(specs, generator=generator, std=std)
        replicated = [name for name, where in self.plan.items() if where == "replicated"]
        self.replica = {name: nn.Parameter(state[name]) for name in replicated}
        self.square_sum = {name: torch.zeros(len(state[name])) for name in replicated}
        self.sharded_names = [spec.name for spec in specs if spec.name not in self.replica]
        self._collection: Any = None
        if self.sharded_names:
            self._collection = _shard(
                [self.specs[name] for name in self.sharded_names],
                self.plan,
                learning_rate=learning_rate,
                eps=eps,
            )
        self.load_full_state(state)

    @property
    def learning_rate(self) -> float:
        """Of the next updates."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        if self._collection is not None:
            optimiser = self._collection.fused_optimizer
            for group in optimiser.param_groups:
                group["lr"] = value
            optimiser.step()  # updates nothing: hands the rate on to fbgemm

    def __call__(self, index: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `EmbeddingTables`; sharded tables left out of ``index`` are looked up empty."""
        found: dict[str, Tensor] = {}
        unique = {name: torch.unique(wanted, return_inverse=True) for name, wanted in index.items()}
        rows = self._lookup({name: row for name, (row, _) in unique.items()})
        for name, (_, place) in unique.items():
            found[name] = rows[name][place]
        return found

    def _lookup(self, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Vectors [M, D] of distinct rows [M] per table."""
        found = {
            name: F.embedding(row[name], weight, padding_idx=0)
            for name, weight in self.replica.items()
            if name in row
        }
        if self._collection is None:
            return found
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

        nothing = torch.zeros(0, dtype=torch.int64)
        wanted = [row.get(name, nothing) for name in self.sharded_names]
        jagged = self._collection(
            KeyedJaggedTensor(
                keys=[_PREFIX + name for name in self.sharded_names],
                values=torch.cat(wanted),
                lengths=torch.tensor([len(rows) for rows in wanted], dtype=torch.int64),
            )
        )
        for name, rows in zip(self.sharded_names, wanted, strict=True):
            # Row 0 is a real row for fbgemm: the mask keeps its output and its gradient at zero.
            found[name] = jagged[_PREFIX + name].values() * (rows > 0).unsqueeze(1)
        return {name: found[name] for name in row}

    @torch.no_grad()
    def step(self) -> None:
        """See `EmbeddingTables`."""
        for name, weight in self.replica.items():
            grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            dist.all_reduce(grad)
            grad = grad / dist.get_world_size()
            row = grad.any(dim=1).nonzero().flatten()
            rowwise_adagrad_(
                weight.data,
                self.square_sum[name],
                row,
                grad[row],
                learning_rate=self.learning_rate,
                eps=self.eps,
            )
            weight.grad = None

    @torch.no_grad()
    def full_state(self) -> dict[str, Tensor]:
        """The whole tables on process 0, an empty dict on the others."""
        first = dist.get_rank() == 0
        state = {name: weight.detach().clone() for name, weight in self.replica.items()}
        for name, shard in self._shards().items():
            spec = self.specs[name]
            whole = torch.empty(spec.num_embeddings, spec.embedding_dim) if first else None
            shard.gather(dst=0, out=whole)
            if whole is not None:
                state[name] = whole
        return {name: state[name] for name in self.specs} if first else {}

    @torch.no_grad()
    def load_full_state(self, state: Mapping[str, Tensor]) -> None:
        """See `EmbeddingTables`; every process passes the same whole tables.

        The accumulated squares of the fused update are kept: load before training.
        """
        check_full_state(self.specs, state)
        for name, weight in self.replica.items():
            weight.copy_(state[name])
            self.square_sum[name].zero_()
        for name, shard in self._shards().items():
            for part in shard.local_shards():
                start, size = part.metadata.shard_offsets[0], part.metadata.shard_sizes[0]
                part.tensor.copy_(state[name][start : start + size])

    def _shards(self) -> dict[str, Any]:
        """TorchRec's ShardedTensor of each sharded table."""
        if self._collection is None:
            return {}
        state = self._collection.state_dict()
        return {name: state[f"embeddings.{_PREFIX}{name}.weight"] for name in self.sharded_names}


def _check_plan(specs: Mapping[str, TableSpec], plan: Mapping[str, Placement]) -> None:
    if set(plan) != set(specs):
        raise ValueError(f"plan must place the tables {sorted(specs)}, got {sorted(plan)}")
    for name, where in plan.items():
        if where not in ("row_wise", "table_wise", "replicated"):
            raise ValueError(
                f"plan[{name!r}] must be 'row_wise', 'table_wise' or 'replicated', got {where!r}"
            )
        if where != "replicated" and specs[name].embedding_dim % 4:
            raise ValueError(
                f"embedding_dim of sharded table {name!r} must be a multiple of 4, got "
                f"{specs[name].embedding_dim}"
            )
    dims = {name: specs[name].embedding_dim for name in plan if plan[name] != "replicated"}
    if len(set(dims.values())) > 1:
        raise ValueError(
            f"embedding_dim must be the same for all sharded tables, got {dims}; replicate some"
        )


def _shard(
    specs: Sequence[TableSpec],
    plan: Mapping[str, Placement],
    *,
    learning_rate: float,
    eps: float,
) -> Any:
    """A TorchRec ShardedEmbeddingCollection with the fused row-wise Adagrad."""
    try:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.sharding_plan import (
            construct_module_sharding_plan,
            row_wise,
            table_wise,
        )
        from torchrec.distributed.types import ShardingEnv
        from torchrec.modules.embedding_configs import EmbeddingConfig
        from torchrec.modules.embedding_modules import EmbeddingCollection
    except ImportError as error:
        raise ImportError(
            "sharded tables need the extra 'torchrec'; `make setup` installs it with --no-deps "
            f"beside the CPU build of fbgemm ({error})"
        ) from error
    world_size = dist.get_world_size()
    # TorchRec's own data_parallel and dense kernels read out of bounds on CPU for ragged input
    # (torchrec 1.8.0, fbgemm 1.8.0), so sharded tables are always fused and small ones ours.
    placements = {
        _PREFIX + spec.name: row_wise(compute_kernel="fused")
        if plan[spec.name] == "row_wise"
        else table_wise(rank=order % world_size, compute_kernel="fused")
        for order, spec in enumerate(specs)
    }
    collection = EmbeddingCollection(
        tables=[
            EmbeddingConfig(
                name=_PREFIX + spec.name,
                num_embeddings=spec.num_embeddings,
                embedding_dim=spec.embedding_dim,
                feature_names=[_PREFIX + spec.name],
            )
            for spec in specs
        ],
        device=torch.device("meta"),
    )
    sharder = EmbeddingCollectionSharder(
        fused_params={
            "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            "learning_rate": learning_rate,
            "eps": eps,
        }
    )
    module_plan = construct_module_sharding_plan(
        collection,
        placements,
        sharder=sharder,
        world_size=world_size,
        local_size=world_size,
        device_type="cpu",
    )
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return sharder.shard(collection, module_plan, env, torch.device("cpu"))
