"""Runs a function of a test file in several gloo processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunGroup = Callable[[str, int], None]

_PROLOGUE = """
import logging, sys
import torch
import torch.distributed as dist
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
logging.getLogger("torchrec").setLevel(logging.ERROR)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
"""
_EPILOGUE = "\ndist.barrier()\ndist.destroy_process_group()\n"


@pytest.fixture
def run_group(tmp_path: Path) -> RunGroup:
    """Run ``body`` (it sees rank, world, folder) in ``world`` processes; fail as they fail."""

    def run(body: str, world: int) -> None:
        root = str(Path(__file__).parents[3])
        env = {**os.environ, "PYTHONPATH": root, "GLOO_SOCKET_IFNAME": "lo"}
        program = _PROLOGUE + body + _EPILOGUE
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(rank), str(world), str(tmp_path)],
                env=env,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            said = [process.communicate(timeout=90)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        for process, text in zip(processes, said, strict=True):
            assert process.returncode == 0, text[-3000:]

    return run
