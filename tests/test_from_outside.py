"""A loss, an index and a kind of feature of one's own, added from outside and trained with.

CONTRIBUTING says which files one of the packages' own takes; from outside it is one entry each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from features.computation.base import Computation
from features.computation.kinds import KINDS, Kind
from features.definitions import Definition
from recsys import Recommender, evaluate, load_config, train
from recsys.errors import ConfigError
from recsys.index import INDEXES, ExactIndex
from recsys.retrieval.training import TrainingOptions
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.objectives import OBJECTIVES, Objective
from tests.test_gate_end_to_end import settings, write_world


def hinge(batch: Batch) -> Tensor:
    """Each positive must stand above each shared negative by the temperature."""
    positive = (batch.query * batch.positive).sum(dim=1, keepdim=True)
    score = batch.query @ batch.negative.T
    losses = torch.relu(score - positive + batch.settings.temperature)
    losses = losses.masked_fill(batch.known_negatives(), 0.0)
    return (losses.mean(dim=1) * batch.weight).mean()


class Shelf(ExactIndex):
    """An index under another name that counts what it is asked."""

    kind = "shelf"
    asked = 0

    def search(self, query, k, *, excluded=None, allowed=None):
        """See `Index.search`."""
        type(self).asked += len(query)
        return super().search(query, k, excluded=excluded, allowed=allowed)


@dataclass(frozen=True, kw_only=True)
class IdLength(Definition):
    """How long an item's number is."""

    kind: ClassVar[str] = "id_length"

    base: int = 10

    @property
    def scope(self):
        return "item"


def id_length(computation: Computation, definition: IdLength) -> np.ndarray:
    item = computation.level("item").item.astype(np.float64)
    return np.floor(np.log(np.maximum(item, 1.0)) / np.log(definition.base)) + 1


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "hinge", Objective(hinge, searched=("temperature",)))
    monkeypatch.setitem(INDEXES, "shelf", Shelf)
    monkeypatch.setitem(KINDS, IdLength.kind, Kind(IdLength, id_length))


FEATURES = """
[[features]]
kind = "id_length"
name = "digits"
base = 2
[[features]]
kind = "count"
name = "popularity"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_world(tmp_path)
    text = settings().replace("[retrieval]\n", '[retrieval]\nloss = "hinge"\nindex = "shelf"\n')
    (tmp_path / "recsys.toml").write_text(text + FEATURES)
    return tmp_path


def test_a_run_is_trained_with_them(own: None, project: Path) -> None:
    config = load_config(project / "recsys.toml")
    bundle = train(config)
    names = [
        one["name"] for one in json.loads((bundle.path / "ranking/definitions.json").read_text())
    ]
    assert "digits" in names
    assert evaluate(config, bundle)["funnel"].users == 60
    asked = Shelf.asked
    recommender = Recommender.load(bundle.path)
    slate = recommender.recommend("2", k=5, recent_items=["25", "32"])
    assert len({item.item_id for item in slate.items}) == 5
    assert Shelf.asked > asked


def test_without_the_entries_their_names_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(project / "recsys.toml")
    told = str(caught.value)
    assert "retrieval.loss must be one of bpr, bsl, " in told
    assert "retrieval.index must be one of exact, annoy, got 'shelf'" in told
    with pytest.raises(ConfigError, match=r"loss must be one of .* got 'bprr'; did you mean 'bpr'"):
        TrainingOptions(loss="bprr")
