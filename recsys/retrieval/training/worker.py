"""One of several training processes: ``python -m recsys.retrieval.training.worker JOB RANK``.

Started by `recsys.retrieval.training.launch`, which keeps the standard input open: when it closes,
the parent is gone and the process ends too. Process 0 writes one line of JSON an epoch.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path

from recsys.errors import CollapseError

__all__ = ["main"]

_COLLECTIVE_TIMEOUT = timedelta(minutes=5)  # a peer that is silent for longer has died


def main(arguments: list[str]) -> int:
    """Train this process's share of the job; 0 when all went well."""
    directory, rank = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads((directory / "job.json").read_text())
    try:
        _train(directory, rank, job)
    except (CollapseError, FloatingPointError, ImportError, ValueError) as error:
        told = {"type": type(error).__name__, "message": str(error)}
        (directory / f"error-{rank}.json").write_text(json.dumps(told))
        raise
    return 0


def _train(directory: Path, rank: int, job: dict[str, object]) -> None:
    import torch
    import torch.distributed as dist

    from recsys.retrieval.training.epoch_report import EpochReport
    from recsys.retrieval.training.inputs import TrainingInputs
    from recsys.retrieval.training.launch import options_from_json
    from recsys.retrieval.training.run import run_training

    world = int(str(job["workers"]))
    torch.set_num_threads(int(str(job["threads"])))
    logging.getLogger("torchrec").setLevel(logging.ERROR)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{directory / 'rendezvous'}",
        rank=rank,
        world_size=world,
        timeout=_COLLECTIVE_TIMEOUT,
    )

    def tell(report: EpochReport) -> None:
        print(json.dumps(report._asdict()), flush=True)

    towers, training = options_from_json(job)
    retriever = run_training(
        TrainingInputs.load(directory / "inputs"),
        towers=towers,
        training=training,
        seed=int(str(job["seed"])),
        on_epoch=tell,
    )
    if retriever is not None:
        retriever.save(directory / "retriever")
    dist.barrier()
    dist.destroy_process_group()


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would trip the interpreter's exit
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
