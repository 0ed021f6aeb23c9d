"""Where the arithmetic of a training run is done."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from recsys.retrieval.training.options import Device

__all__ = ["move", "training_device"]


def training_device(name: Device) -> torch.device:
    """The device that ``name`` stands for; "auto" is CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device must be 'cpu' or 'auto' where torch sees no CUDA device, got 'cuda'; install "
            "a torch that is built for CUDA, or leave device alone"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@overload
def move(value: Tensor, device: torch.device) -> Tensor: ...
@overload
def move(value: None, device: torch.device) -> None: ...
def move(value: Tensor | None, device: torch.device) -> Tensor | None:
    """``value`` on ``device``; the same tensor where it is there already."""
    return None if value is None else value.to(device)
