"""How many threads a piece of torch work uses, and how they wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["torch_threads", "wait_asleep"]


def wait_asleep() -> None:
    """Let threads of OpenMP sleep while they wait for each other, unless the environment says how.

    Without it they spin: where another process wants the same core, the one that is waited for gets
    none, at each of thousands of small layers. Importing `recsys` calls this. It counts for what is
    loaded afterwards: a program that imports torch first sets ``OMP_WAIT_POLICY=passive`` itself.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Run the block with ``num_threads`` torch threads in this process.

    Small layers gain nothing from more than one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
