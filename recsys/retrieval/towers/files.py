"""Trained towers as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recsys.embeddings.int8 import Int8Rows
from recsys.errors import ArtifactError
from recsys.files.model_files import read_model, write_model
from recsys.retrieval.towers.model import TwoTower
from recsys.retrieval.towers.options import Score, TowerOptions

__all__ = ["TowerFiles", "read_towers", "write_towers"]

_RENAMED = {"embedding_dim": "dim", "user_table": "use_user_id"}  # files before 2026-12
_INT8 = "int8"


@dataclass(frozen=True, eq=False)
class TowerFiles:
    """What lies in the directory of a trained model.

    Attributes:
        tower: the dense weights.
        tables: whole id tables by name, row 0 zero.
        item_vector: [N + 1, D] float32 output of the item tower for every item, row 0 zero.
        score: how vectors are compared.
        best_epoch: the epoch whose weights these are, from 1.
        int8: row-wise copy of the item vectors. None: there is none.
    """

    tower: TwoTower
    tables: Mapping[str, Tensor]
    item_vector: Tensor
    score: Score
    best_epoch: int
    int8: Int8Rows | None


def write_towers(directory: Path, name: str, files: TowerFiles) -> None:
    """Write a model; ``name`` is what kind of model it says it is."""
    tensors = {f"tower.{key}": value for key, value in files.tower.state_dict().items()}
    tensors |= {f"table.{key}": value for key, value in files.tables.items()}
    tensors["item_vector"] = files.item_vector
    shape = dict(files.tower.options)
    shape["half_lives"] = [str(half_life) for half_life in shape["half_lives"]]  # "inf" too
    settings = {
        "towers": shape,
        "content_dim": files.tower.content_dim,
        "score": files.score,
        "best_epoch": files.best_epoch,
        "int8": files.int8 is not None,
    }
    arrays = {key: value.detach().numpy() for key, value in tensors.items()}
    write_model(directory, name, settings, arrays)
    if files.int8 is not None:
        files.int8.save(directory / _INT8)


def read_towers(directory: Path, name: str) -> TowerFiles:
    """Read what `write_towers` wrote.

    Raises:
        ArtifactError: a file is missing, of another format or kind, or the weights do not fit.
    """
    settings, arrays = read_model(directory, name)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    shape = {_RENAMED.get(key, key): value for key, value in settings["towers"].items()}
    shape["half_lives"] = tuple(float(half_life) for half_life in shape["half_lives"])
    tower = TwoTower(
        TowerOptions(**shape), content_dim=settings["content_dim"], generator=torch.Generator()
    )
    try:
        tower.load_state_dict(_below("tower.", tensors))
        item_vector = tensors["item_vector"]
    except (RuntimeError, KeyError) as error:
        raise ArtifactError(
            f"{directory}: the tensors do not fit the settings ({error}); train again"
        ) from error
    return TowerFiles(
        tower,
        _below("table.", tensors),
        item_vector,
        settings["score"],
        settings["best_epoch"],
        Int8Rows.load(directory / _INT8) if settings["int8"] else None,
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
