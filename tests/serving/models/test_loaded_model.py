from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np

from recsys.recommender.past import FreshEvent
from serving.models.live import LiveQuestion
from serving.models.loaded import LoadedModel


class FakeRecommender:
    generation = "g1"
    as_of = datetime(2024, 1, 1)
    features = SimpleNamespace(computer=SimpleNamespace(published=[SimpleNamespace(name="count")]))

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.live = self

    def recommend(self, user_id: str, k: int, **options: Any) -> Any:
        self.asked.append((user_id, k, options))
        return SimpleNamespace(items=(("a", np.float32(0.5), "two_tower"),))

    def rank_items(self, *arguments: Any, **options: Any) -> np.ndarray:
        self.asked.append((arguments, options))
        return np.ones(1)

    explain = rank_items


def test_the_recommender_is_asked_in_its_own_words() -> None:
    fake = FakeRecommender()
    model = LoadedModel(fake)  # type: ignore[arg-type]
    assert (model.generation, model.item_fields) == ("g1", ())
    assert model.as_of_us == 1_704_067_200_000_000
    nobody = LiveQuestion(None, ["x"])
    assert model.recommend(nobody, 3, exclude={"y"}, only=None) == [("a", 0.5, "two_tower")]
    options = {
        "exclude": {"y"},
        "only": None,
        "recent_items": ["x"],
        "fresh": (),
        "moment": None,
        "diversity": 0.0,
        "threshold": False,
    }
    assert fake.asked[0] == ("", 3, options)
    fresh = [FreshEvent("z", 1_704_067_300_000_000)]
    ann = LiveQuestion("ann", (), fresh, 1_704_067_201_000_000)
    model.recommend(ann, 1, exclude=(), only=["z"], threshold=True)
    assert fake.asked[1][2]["moment"] == datetime(2024, 1, 1, 0, 0, 1)
    assert fake.asked[1][2]["fresh"] is fresh
    assert fake.asked[1][2]["threshold"]
    index, values = np.array([3]), {"count": np.ones(1)}
    model.rank(ann, index, values)
    moment = datetime(2024, 1, 1, 0, 0, 1)
    assert fake.asked[2] == (
        ("ann", index, ()),
        {"fresh": fresh, "moment": moment, "item_values": values},
    )
    model.explain(nobody, index)
    assert fake.asked[3] == (("", index, ["x"]), {"fresh": (), "moment": None})
