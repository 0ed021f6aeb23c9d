"""The example of declared features fits the bundled data and shows every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.computation import FeatureComputer
from features.computation.kinds import KINDS
from recsys.config import Config, load_config
from recsys.dataset import read_dataset
from recsys.dataset.definitions import find_definition_problems, ranker_definitions
from recsys.dataset.tables import open_tables

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The demo's configuration with the line that the example asks for."""
    directory = tmp_path_factory.mktemp("demo")
    (directory / "examples").symlink_to(ROOT / "examples")
    text = 'features_file = "examples/features.toml"\n' + (ROOT / "recsys.toml").read_text()
    (directory / "recsys.toml").write_text(text)
    return load_config(directory / "recsys.toml")


def test_it_shows_every_kind_that_can_be_trained_on(config: Config) -> None:
    shown = {record["kind"] for record in config.as_used()["features"]}
    of_repeats = {"interval", "basket_share"}  # nobody rates a film twice; see docs/logs.md
    assert shown == set(KINDS) - {"position", "text_match"} - of_repeats


def test_it_fits_the_bundled_data(config: Config) -> None:
    problems, described = find_definition_problems(config, open_tables(config))
    assert problems == []
    assert described is not None
    assert described["source"] == "features.toml"
    assert {"score__popularity", "liked_in_slate"} < set(described["own"])
    assert "rank__popularity" not in described["added"]


def test_every_feature_tells_some_rows_from_others(config: Config) -> None:
    data = read_dataset(config)
    definitions = ranker_definitions(config, data.items)
    rng = np.random.default_rng(0)
    log = data.interactions.frame
    asked = log.sample(20, seed=0)
    popular = log["item_id"].value_counts(sort=True)["item_id"].head(40)
    requests = (
        asked.select("user_id", pl.col("timestamp").alias("moment"))
        .with_row_index("request_id")
        .join(popular.to_frame(), how="cross")
    )
    read = {source for one in definitions for source in one.columns()}
    columns = [source.partition(".")[2] for source in read if source.startswith("request.")]
    requests = requests.with_columns(
        pl.Series(column, rng.random(requests.height)) for column in sorted(columns)
    )
    vectors = {"content": (data.item_ids, rng.normal(size=(data.num_items + 1, 4)))}
    computer = FeatureComputer(definitions, data.items, None, vectors)
    values = computer.compute(requests, data.interactions)
    for definition in definitions:
        found = values[definition.name].drop_nans()
        assert found.n_unique() > 1, definition.name
