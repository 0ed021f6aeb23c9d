"""Training elsewhere than on the CPU: nothing mixes devices, and the weights are the same.

No accelerator is needed: tensors "there" wrap a tensor here and refuse company from elsewhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from features.tables import Histories
from recsys.retrieval.sampling.hard_negatives import HardNegatives
from recsys.retrieval.towers import TowerOptions, TwoTowerRetriever
from recsys.retrieval.training import TrainingOptions
from recsys.retrieval.training import step as training_step
from recsys.retrieval.training.devices import training_device
from recsys.retrieval.training.inputs import TrainingInputs
from recsys.retrieval.training.objectives import OBJECTIVES
from recsys.retrieval.training.step import TrainingStep

aten = torch.ops.aten
THERE = torch.device("meta")  # a device that needs no driver; values are kept all the same
TRANSFERS = {aten._to_copy.default, aten.copy_.default}
MAY_INDEX_FROM_HERE = {aten.index.Tensor, aten.index_put_.default}
NUM_USERS, NUM_ITEMS = 40, 30


class There(Tensor):
    """A tensor of another device: its values are ``inner``'s, nobody else may see them."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        found = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=THERE
        )
        found.inner = inner
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class Driver(TorchDispatchMode):
    """Carries out what is asked of either device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


def carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = [value for value in tensors if isinstance(value, There)]
    here = [value for value in tensors if not isinstance(value, There) and value.ndim]
    if there and here and func not in TRANSFERS | MAY_INDEX_FROM_HERE:
        raise AssertionError(f"{func} is asked for tensors of two devices")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args_here, kwargs_here = tree_map(_inner, (args, kwargs))
    found = func(*args_here, **kwargs_here)
    name = func._schema.name.split("::")[1]
    if name.endswith("_") and not name.endswith("__") and isinstance(found, Tensor):
        return args[0]
    stays = bool(there) if wanted is None else torch.device(wanted) == THERE
    return tree_map(_wrapped, found) if stays else found


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, There) else value


def _wrapped(value: Any) -> Any:
    return There(value) if isinstance(value, Tensor) else value


def planted() -> Histories:
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 9, NUM_USERS)
    items = [rng.choice(NUM_ITEMS, size, replace=False) + 1 for size in counts]
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item_index=np.concatenate(items).astype(np.int64),
        timestamp=np.concatenate([np.arange(size) for size in counts]).astype(np.int64),
        weight=np.ones(counts.sum(), dtype=np.float32),
    )


def inputs(*, described: bool = False) -> TrainingInputs:
    if not described:
        return TrainingInputs(planted(), NUM_ITEMS)
    rng = np.random.default_rng(1)
    fields = rng.integers(0, 4, (NUM_ITEMS + 1, 4)) + np.arange(4) * 4
    content = rng.standard_normal((NUM_ITEMS + 1, 6)).astype(np.float32)
    fields[0], content[0] = 0, 0.0
    return TrainingInputs(planted(), NUM_ITEMS, content=content, fields=fields, num_field_tokens=16)


def trained(
    given: TrainingInputs, towers: TowerOptions, training: TrainingOptions, *, hard: bool
) -> TwoTowerRetriever:
    step = TrainingStep(given, towers, training, seed=0)
    if hard:
        step.hard = HardNegatives(np.tile(np.arange(1, 6, dtype=np.int32), (NUM_USERS, 1)))
    for epoch in (1, 2):
        step.epoch(epoch)
    found = step.retriever(2)
    assert found is not None
    return found


ROWS = TowerOptions(dim=8, use_user_id=True, pooling="none", id_dropout=0.0)
HISTORY = TowerOptions(dim=8, history_length=5, hidden_dim=4)
ATTENTION = TowerOptions(dim=8, history_length=5, hidden_dim=4, pooling="attention")
WAYS: dict[str, tuple[TowerOptions, dict[str, Any]]] = {
    **{loss: (ROWS, {"loss": loss}) for loss in OBJECTIVES if loss != "cm3"},
    "cm3": (HISTORY, {"loss": "cm3"}),
    "history": (HISTORY, {}),
    "attention": (ATTENTION, {"user_power": 0.5}),
    "masking": (HISTORY, {"masking_weight": 0.1, "masking_batch": 16}),
    "users together": (ROWS, {"events_per_user": 4, "loss": "bsl"}),
    "smoothing": (ROWS, {"smoothing": 0.2}),
    "streaming": (ROWS, {"loss": "in_batch_softmax", "frequency": "streaming"}),
    "queue": (ROWS, {"negative_source": "queue", "queue_size": 50}),
    "pld": (ROWS, {"denoising": "pld", "pool_size": 3}),
    "truncated": (ROWS, {"denoising": "truncated"}),
    "reweighted": (ROWS, {"denoising": "reweighted"}),
    "bfloat16": (ROWS, {"loss": "directau", "low_precision": True}),
    "auc beside": (ROWS, {"mann_whitney_weight": 0.2}),
    "distinct items": (ROWS, {"loss": "directau", "distinct_items": True}),
    "shared positives": (
        ROWS,
        {"loss": "bsl", "bsl_shared_positives": True},
    ),
    "focal": (ROWS, {"focal_gamma": 1.0}),
    "hard": (ROWS, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_training_there_gives_what_training_here_gives(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers, changed = WAYS[way]
    training = TrainingOptions(
        **{"batch_size": 32, "negatives": 8, "warmup_epochs": 1, "device": "cpu", **changed}
    )
    given = inputs(described=towers is not ROWS)
    here = trained(given, towers, training, hard=way == "hard")
    monkeypatch.setattr(training_step, "training_device", lambda _: THERE)
    with Driver():
        there = trained(given, towers, training, hard=way == "hard")
    np.testing.assert_allclose(there.item_vectors, here.item_vectors, rtol=1e-3, atol=1e-5)
    for name, rows in here.tables.items():
        torch.testing.assert_close(there.tables[name], rows, rtol=1e-3, atol=1e-5)


def test_a_compatible_model_trains_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    training = TrainingOptions(batch_size=32, negatives=8, compatibility_weight=0.5)
    old = trained(inputs(), ROWS, training, hard=False)
    given = dataclasses.replace(inputs(), old=old, start=old)
    here = trained(given, ROWS, training, hard=False)
    monkeypatch.setattr(training_step, "training_device", lambda _: THERE)
    with Driver():
        there = trained(given, ROWS, training, hard=False)
    np.testing.assert_allclose(there.item_vectors, here.item_vectors, rtol=1e-3, atol=1e-5)


def test_the_driver_refuses_mixed_devices() -> None:
    with Driver():
        there = torch.ones(3).to(THERE)
        with pytest.raises(AssertionError, match="two devices"):
            there + torch.ones(3)


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device("auto") == training_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device must be .cpu. or .auto.*got .cuda."):
        training_device("cuda")


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training_device("auto") == training_device("cuda") == torch.device("cuda")
    assert training_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("way", WAYS)
def test_training_on_cuda_gives_what_the_cpu_gives(way: str) -> None:
    towers, changed = WAYS[way]
    training = TrainingOptions(
        **{"batch_size": 32, "negatives": 8, "warmup_epochs": 1, "device": "cpu", **changed}
    )
    given = inputs(described=towers is not ROWS)
    here = trained(given, towers, training, hard=way == "hard")
    there = trained(given, towers, training.but(device="cuda"), hard=way == "hard")
    np.testing.assert_allclose(there.item_vectors, here.item_vectors, rtol=0.05, atol=0.01)
