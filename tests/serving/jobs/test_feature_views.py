from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from features import Histories, ParquetDirectory, Vocabulary, append_impressions
from features.errors import DataError
from recsys.bundle import Bundle
from recsys.config import Config, load_config
from recsys.dataset import read_dataset
from recsys.pipeline import train
from recsys.recommender import Recommender
from recsys.semantic_ids import SemanticIds
from serving.cli import app
from serving.jobs.candidates import build_candidates
from serving.jobs.feast_views import write_feast_views
from serving.jobs.feature_views import open_source, publish_features

CONFIG = """
seed = 7
[data]
events = "{directory}/events.parquet"
items = "{directory}/items.parquet"
[data.item_columns]
text = ["title"]
list = ["genres"]
[output]
directory = "{directory}/artifacts"
[content]
dim = 8
[semantic_ids]
levels = 2
codes = 8
epochs = 2
[retrieval]
dim = 8
epochs = 1
negatives = 16
batch_size = 128
history_length = 10
[ranking]
candidates_per_source = 10
folds = 2
[ranking.gbdt]
num_trees = 5
min_data_in_leaf = 5
[ranking.listwise]
epochs = 1
dim = 8
top = 10
[candidates]
k = 6
batch_size = 16
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world and its configuration."""
    directory = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 40, 900), rng.integers(0, 50, 900)
    pl.DataFrame(
        {
            "user_id": [f"u{one}" for one in users],
            "item_id": [f"i{one}" for one in items],
            "timestamp": 1_600_000_000 + np.arange(900) * 600,
        }
    ).write_parquet(directory / "events.parquet")
    pl.DataFrame(
        {
            "item_id": [f"i{one}" for one in range(50)],
            "title": [f"the {one % 9} of {one % 7}" for one in range(50)],
            "genres": [f"g{one % 3}|g{3 + one % 4}" for one in range(50)],
        }
    ).write_parquet(directory / "items.parquet")
    (directory / "recsys.toml").write_text(CONFIG.format(directory=directory))
    return directory


@pytest.fixture(scope="module")
def config(directory: Path) -> Config:
    return load_config(directory / "recsys.toml")


@pytest.fixture(scope="module")
def bundle(config: Config) -> Bundle:
    trained = train(config)
    build_candidates(config, trained)
    return Bundle.load(trained.path)


def read(source: ParquetDirectory, view: str) -> pl.DataFrame:
    return pl.concat(source.scan(view))


def test_what_is_read_back_is_the_bundle(config: Config, bundle: Bundle, tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    report = publish_features(config, bundle, source)
    assert report.generation == bundle.id
    assert report.skipped == {}
    assert {one.view for one in report.views if one.written} == {
        f"recsys_{name}" for name in ("user_vectors", "item_vectors", "semantic_ids", "candidates")
    }
    moment = datetime.fromisoformat(bundle.manifest.created_at)
    assert report.moment.replace(tzinfo=UTC) == moment
    assert all(
        read(source, one.view)["generation"].to_list() == [bundle.id] * one.rows
        for one in report.views
    )

    recommender = Recommender.load(bundle.path)
    assert recommender.towers is not None
    towers = recommender.towers.retriever
    items = read(source, "recsys_item_vectors")
    vocabulary = Vocabulary.load(bundle.path / "data" / "items.parquet")
    assert items["item_id"].to_list() == vocabulary.to_series().to_list()
    np.testing.assert_array_equal(items["vector"].to_numpy(), towers.item_vectors[1:])

    data = read_dataset(config)
    users = read(source, "recsys_user_vectors")
    assert users["user_id"].to_list() == data.user_list
    histories = Histories.from_interactions(data.interactions, data.user_list, data.item_ids)
    wanted = towers.user_vectors(histories, user_index=recommender.user_index(data.user_list))
    np.testing.assert_array_equal(users["vector"].to_numpy(), wanted)

    semantic = SemanticIds.load(bundle.path / "semantic-ids")
    codes = read(source, "recsys_semantic_ids")
    assert codes["item_id"].to_list() == list(semantic.item_ids)
    levels = [f"code_{level}" for level in range(semantic.num_levels)]
    np.testing.assert_array_equal(codes.select(levels).to_numpy(), semantic.codes[1:])
    assert codes["semantic_id"][0] == "-".join(map(str, semantic.codes[1].tolist()))

    lists = load_file(bundle.path / "candidates" / "lists.safetensors")
    published = read(source, "recsys_candidates")
    for row in (0, len(published) - 1):
        index = lists["item_index"][row]
        there = index > 0
        assert published["item_ids"][row].to_list() == vocabulary.ids(index[there])
        assert published["scores"][row].to_list() == lists["score"][row][there].tolist()
        assert set(published["sources"][row]) <= set(recommender.source_names)


def test_publishing_again_writes_nothing(config: Config, bundle: Bundle, tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    publish_features(config, bundle, source, prefix="mine_")
    before = {one.name: one.rows for one in source.describe()}
    again = publish_features(config, bundle, source, prefix="mine_")
    assert not any(one.written for one in again.views)
    assert {one.name: one.rows for one in source.describe()} == before
    assert set(before) == {one.view for one in again.views}


def test_the_verb(
    directory: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["features", "publish", "parquet:out", "-c", str(directory / "recsys.toml")]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "recsys_item_vectors" in first.stdout
    assert "written" in first.stdout
    second = CliRunner().invoke(app, [*command, "--json", "--bundle", bundle.id])
    found: dict[str, Any] = json.loads(second.stdout)
    assert found["generation"] == bundle.id
    assert {one["view"]: one["written"] for one in found["views"]} == {
        f"recsys_{name}": False
        for name in ("user_vectors", "item_vectors", "semantic_ids", "candidates")
    }
    assert {one["rows"] for one in found["views"]} == {40, 50}
    missing = CliRunner().invoke(app, [*command, "--bundle", "nothing"])
    assert missing.exit_code == 1
    assert "no bundle at" in missing.stderr


def test_what_the_bundle_lacks_is_said(config: Config, bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "artifacts" / bundle.id
    shutil.copytree(bundle.path, copy)
    shutil.rmtree(copy / "candidates")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"] = {
        name: record
        for name, record in manifest["files"].items()
        if not name.startswith("candidates/")
    }
    (copy / "manifest.json").write_text(json.dumps(manifest))
    report = publish_features(config, Bundle.load(copy), ParquetDirectory(tmp_path / "out"))
    assert report.skipped == {
        "recsys_candidates": "the bundle has no candidates; run `recsys candidates`"
    }
    assert len(report.views) == 3


def test_another_dimension_is_refused(config: Config, bundle: Bundle, tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    rows = pl.DataFrame(
        {"item_id": ["i1"], "timestamp": [datetime(2020, 1, 1)], "vector": [[1.0, 2.0]]},
        schema_overrides={"vector": pl.Array(pl.Float32, 2)},
    ).with_columns(generation=pl.lit("old"))
    source.write("recsys_item_vectors", rows)
    with pytest.raises(DataError, match="view 'recsys_item_vectors'"):
        publish_features(config, bundle, source)


def test_sources_by_name(tmp_path: Path) -> None:
    assert isinstance(open_source(str(tmp_path)), ParquetDirectory)
    source = open_source(f"parquet:{tmp_path}/deep")
    moment = datetime(2024, 1, 1) + timedelta(days=1)
    source.write("v", pl.DataFrame({"id": ["a"], "timestamp": [moment], "x": [1.0]}))
    assert (tmp_path / "deep" / "v").is_dir()


def test_a_feast_repository(directory: Path, bundle: Bundle, tmp_path: Path) -> None:
    feast = pytest.importorskip("feast", reason="the feast extra is not installed")
    (tmp_path / "feature_store.yaml").write_text(
        f"project: small\nprovider: local\nregistry: {tmp_path}/registry.db\n"
        f"online_store: {{type: sqlite, path: {tmp_path}/online.db}}\n"
        "entity_key_serialization_version: 3\n"
    )
    options = ["-c", str(directory / "recsys.toml")]
    done = CliRunner().invoke(app, ["features", "declare", str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    assert "now run `feast apply`" in done.stdout
    assert "recsys_impressions" in done.stdout

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own
        spec = importlib.util.spec_from_file_location("recsys_views", tmp_path / "recsys_views.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        store = feast.FeatureStore(repo_path=str(tmp_path))
        kinds = (feast.Entity, feast.FeatureView)
        store.apply([one for one in vars(module).values() if isinstance(one, kinds)])

        source = open_source(str(tmp_path))
        command = ["features", "publish", str(tmp_path), *options, "--json"]
        runs = [CliRunner().invoke(app, command) for _ in range(2)]
        assert [run.exit_code for run in runs] == [0, 0], runs[0].output
        written = [json.loads(run.stdout) for run in runs]
        assert [{one["written"] for one in each["views"]} for each in written] == [{True}, {False}]
        towers = Recommender.load(bundle.path).towers
        assert towers is not None
        items = Vocabulary.load(bundle.path / "data" / "items.parquet").to_series().to_list()
        block = source.latest("recsys_item_vectors", [items[0], "nobody", items[-1]])
        assert block.present.tolist() == [True, False, True]
        np.testing.assert_array_equal(
            np.stack(list(block.values["vector"][[0, 2]])),
            towers.retriever.item_vectors[[1, -1]],
        )
        lists = pl.concat(source.scan("recsys_candidates"))
        assert all(set(json.loads(one)) <= set(items) for one in lists["item_ids"])
        assert (
            lists["item_ids"]
            .str.json_decode(pl.List(pl.String))
            .list.len()
            .equals(lists["scores"].list.len(), null_equal=True)
        )
        shown = pl.DataFrame(
            {
                "user_id": ["u1"] * 4,
                "item_id": [items[0], items[1], items[0], items[1]],
                "timestamp": [datetime(2024, 1, 1)] * 4,
                "request_id": ["a", "a", "b", "b"],
                "position": [1, 2, 1, 2],
                "policy": ["ranker"] * 4,
                "propensity": [1.0] * 4,
                "generation": [bundle.id] * 4,
            }
        )
        receipt = append_impressions(source, shown, view="recsys_impressions")
        assert (receipt.rows, receipt.stores) == (4, ("offline",))
        append_impressions(source, shown.head(1), view="recsys_impressions")
        kept = pl.concat(source.scan("recsys_impressions"))
        assert kept["request_id"].sort().to_list() == ["a", "a", "a", "b", "b"]
        with pytest.raises(DataError, match="must be declared with online=True"):
            source.write("recsys_impressions", kept, to="online")
        codes = pl.concat(source.scan("recsys_semantic_ids")).sort("item_id")
        bundled = SemanticIds.load(bundle.path / "semantic-ids")
        assert dict(zip(codes["item_id"], codes["code_0"], strict=True)) == dict(
            zip(bundled.item_ids, bundled.codes[1:, 0].tolist(), strict=True)
        )


def test_feast_definitions_are_not_overwritten(tmp_path: Path) -> None:
    schemas = {"v": {"item_id": pl.String(), "timestamp": pl.Datetime("us"), "x": pl.Int32()}}
    with pytest.raises(DataError, match="must be a Feast repository, but has no feature_store"):
        write_feast_views(tmp_path, schemas, prefix="p_")
    (tmp_path / "feature_store.yaml").write_text("")
    for _ in range(2):  # unedited ones may be written again
        assert write_feast_views(tmp_path, schemas, prefix="p_") == ["v", "p_impressions"]
    assert pl.read_parquet(tmp_path / "data" / "v.parquet").columns == ["item_id", "timestamp", "x"]
    (tmp_path / "recsys_views.py").write_text("# edited")
    with pytest.raises(DataError, match=r"recsys_views.py must not be there or be unedited"):
        write_feast_views(tmp_path, schemas, prefix="p_")
