"""RecBole 1.2.1's BPR, as a `worker` in RecBole's own environment.

RecBole needs older libraries than this repository. Make its environment once, and say where its
Python is:

    python3.11 -m venv recbole
    recbole/bin/pip install "torch==2.13.0" "numpy<2" "pandas<2.2" "scipy<1.12" \
        "scikit-learn<1.5" tqdm colorlog==4.7.2 colorama==0.4.4 pyyaml tensorboard tabulate \
        plotly texttable psutil
    recbole/bin/pip install --no-deps recbole==1.2.1 thop
    export RECSYS_RECBOLE_PYTHON=$PWD/recbole/bin/python

(ray, which RecBole also declares, serves its own parameter search only.) torch is the one the
other contenders run on, so that only RecBole's code makes the difference.

    recbole_bpr.py EVENTS --threads 2

EVENTS is an .npz with ``row`` [E], ``item_index`` [E], ``num_users`` and ``num_items``. It is
written as RecBole's atomic files to a temporary folder, and read, batched, sampled and trained by
RecBole's own loader, sampler and trainer. Vectors come back in the numbering of EVENTS.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from worker import Answers


def write_atomic(folder: Path, row: np.ndarray, item_index: np.ndarray) -> None:
    """The events as RecBole's train file; its validation and test are one event, never used."""
    header = "user_id:token\titem_id:token\n"
    pairs = zip(row.tolist(), item_index.tolist(), strict=True)
    lines = [f"{user}\t{item}\n" for user, item in pairs]
    (folder / "events").mkdir()
    (folder / "events" / "events.train.inter").write_text(header + "".join(lines))
    (folder / "events" / "events.none.inter").write_text(header + lines[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    events = np.load(arguments.events)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # RecBole leaves logs where it stands
        train(events, arguments)


def train(events: Mapping[str, np.ndarray], arguments: argparse.Namespace) -> None:
    """Hand the events to RecBole, then train epoch by epoch as told."""
    write_atomic(Path.cwd(), events["row"], events["item_index"])
    settings = {
        "data_path": str(Path.cwd()),
        "benchmark_filename": ["train", "none", "none"],
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": arguments.dim,
        "learning_rate": arguments.learning_rate,
        "train_batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
    }
    config = Config(model="BPR", dataset="events", config_dict=settings)
    init_seed(arguments.seed, reproducibility=True)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    torch.set_num_threads(arguments.threads)
    model = get_model("BPR")(config, train_data.dataset)
    trainer = Trainer(config, model)
    users, items = np.unique(events["row"]), np.unique(events["item_index"])
    user_place = dataset.token2id("user_id", users.astype(str))
    item_place = dataset.token2id("item_id", items.astype(str))

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        user = np.zeros((int(events["num_users"]), arguments.dim), dtype=np.float32)
        item = np.zeros((int(events["num_items"]) + 1, arguments.dim), dtype=np.float32)
        user[users] = model.user_embedding.weight.detach().numpy()[user_place]
        item[items] = model.item_embedding.weight.detach().numpy()[item_place]
        return user, item

    answers = Answers(vectors)
    epoch = 0
    while not answers.wait():
        start = time.perf_counter()
        trainer._train_epoch(train_data, epoch)
        epoch += 1
        answers.report(epoch, time.perf_counter() - start)


if __name__ == "__main__":
    main()
