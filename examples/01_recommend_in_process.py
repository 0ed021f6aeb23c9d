"""Train a small funnel, ask it for films, and measure it.

Run: python examples/01_recommend_in_process.py [--data DIRECTORY]

The directory holds ratings.parquet and movies.parquet as examples/data does. Settings are far
smaller than the defaults, so that it ends within a minute; the numbers are lower for it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.pipeline import evaluate, train
from recsys.recommender import Recommender

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
DATA: Path = parser.parse_args().data


def settings(output: Path) -> Config:
    """Everything that is not named has the default of recsys/config/config.py."""
    return Config.model_validate(
        {
            "seed": 42,
            "data": {
                "events": DATA / "ratings.parquet",
                "items": DATA / "movies.parquet",
                "columns": {"user": "userId", "item": "movieId", "weight": "rating"},
                "item_columns": {
                    "id": "movieId",
                    "title": "title",
                    "text": ("title", "tags"),
                    "list": ("genres",),
                },
            },
            "output": {"directory": output},
            "semantic_ids": {"kind": "residual_kmeans", "codes": 64},
            "retrieval": {
                "sources": ("two_tower", "co_occurrence", "popularity"),
                "dim": 32,
                "epochs": 2,
                "negatives": 256,
            },
            "ranking": {
                "candidates_per_source": 60,
                "folds": 2,
                "gbdt": {"num_trees": 60, "learning_rate": 0.1},
                "listwise": {"enabled": False},
            },
            "evaluation": {"ks": (10,), "bootstrap_samples": 200},
        }
    )


def show(heading: str, recommender: Recommender, item_ids: list[str]) -> None:
    print(f"\n{heading}")
    for place, item_id in enumerate(item_ids, start=1):
        print(f"  {place}. {recommender.title(item_id)}")


with tempfile.TemporaryDirectory() as directory:
    config = settings(Path(directory))
    bundle = train(config)
    data = read_dataset(config)
    recommender = Recommender.load(bundle.path, interactions=data.interactions)

    user = data.user_list[0]
    slate = recommender.recommend(user, k=5)
    show(f"for user {user} ({slate.source}):", recommender, [one.item_id for one in slate.items])

    # Somebody new who just met the second film of the catalogue: no retraining.
    film = data.item_ids.ids([2])[0]
    slate = recommender.recommend("somebody new", k=5, recent_items=[film])
    heading = f"for somebody new who just saw {recommender.title(film)}:"
    show(heading, recommender, [one.item_id for one in slate.items])

    similar = recommender.similar(film, k=5)
    show(f"like {recommender.title(film)}:", recommender, [one.item_id for one in similar])

    print(f"\n{'system':<20}ndcg@10")
    for name, result in evaluate(config, bundle).items():
        interval = result.metrics["ndcg@10"]
        print(f"{name:<20}{interval.mean:.4f}  [{interval.low:.4f}, {interval.high:.4f}]")
