"""One funnel, end to end: files, training, evaluation, answers, publishing, serving."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from recsys.bundle import Bundle, bundles, latest
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.errors import ArtifactError, ConfigError, LeakageError
from recsys.pipeline import evaluate, item_stages, ranking_stage, train
from recsys.pipeline import run as pipeline
from recsys.pipeline.fitness import Fitness, find_fitness
from recsys.recommender import Recommender
from recsys.recommender.features import FeatureInputs
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.towers.item_fields import FieldVocabulary
from serving import EmbeddedStore, RecommendRequest, SimilarRequest
from serving.assembly import open_service, open_store, store_directory
from serving.jobs.candidates import build_candidates
from serving.jobs.publish import publish
from serving.models.live import OneModel
from serving.models.loaded import LoadedModel

MOVIES = Path(__file__).resolve().parents[1] / "examples" / "data"
STAGES = [
    "content",
    "semantic-ids",
    "retrieval-past",
    "ranking",
    "retrieval",
    "index",
    "features",
]


def small_config(world: Path, output: Path, **changes: Any) -> Config:
    """Settings that train in two seconds; store and deadlines with room for a busy machine."""
    return Config.model_validate(
        {
            "seed": 7,
            "data": {
                "events": world / "ratings.parquet",
                "items": world / "movies.parquet",
                "columns": {"user": "userId", "item": "movieId", "weight": "rating"},
                "item_columns": {
                    "id": "movieId",
                    "title": "title",
                    "text": ("title", "tags"),
                    "list": ("genres",),
                },
            },
            "output": {"directory": output},
            "content": {"dim": 16},
            "semantic_ids": {"levels": 2, "codes": 16, "epochs": 3},
            "retrieval": {
                "dim": 16,
                "epochs": 2,
                "negatives": 32,
                "batch_size": 256,
                "history_length": 20,
            },
            "ranking": {
                "candidates_per_source": 30,
                "folds": 2,
                "gbdt": {"num_trees": 20, "min_data_in_leaf": 20},
                "listwise": {"epochs": 2, "dim": 8, "top": 20},
            },
            "candidates": {"k": 20, "batch_size": 25},
            "serving": {
                "deadline_s": 60,
                "live_timeout_s": 60,
                "store_timeout_s": 20,
                "head_ttl_s": 0.001,
            },
            "evaluation": {"ks": (5, 10), "bootstrap_samples": 50},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 people and the 150 films most rated, out of the bundled data."""
    directory = tmp_path_factory.mktemp("world")
    ratings = pl.read_parquet(MOVIES / "ratings.parquet")
    movies = pl.read_parquet(MOVIES / "movies.parquet")
    rated = ratings.group_by("movieId").len().sort("len", "movieId", descending=[True, False])
    movies = movies.join(rated.head(150), on="movieId", how="semi")
    ratings = ratings.join(movies, on="movieId", how="semi")
    people = ratings.group_by("userId").len().filter(pl.col("len").is_between(20, 50))
    ratings = ratings.join(people.sort("userId").head(60), on="userId", how="semi")
    ratings.write_parquet(directory / "ratings.parquet")
    movies.write_parquet(directory / "movies.parquet")
    return directory


@pytest.fixture
def output() -> Iterator[Path]:
    """An output directory whose store's socket fits into AF_UNIX's limit."""
    yield from short_directory()


@pytest.fixture(scope="module")
def shared_output() -> Iterator[Path]:
    yield from short_directory()


def short_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    yield directory
    EmbeddedStore.stop(directory / "store")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_store_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    monkeypatch.delenv("RECSYS_STORE_PASSWORD", raising=False)


@pytest.fixture(scope="module")
def config(world: Path, shared_output: Path) -> Config:
    return small_config(world, shared_output)


@pytest.fixture(scope="module")
def trained(config: Config) -> Bundle:
    return train(config)


@pytest.fixture(scope="module")
def filled(config: Config, trained: Bundle) -> Bundle:
    """The bundle with the batch job's lists."""
    build_candidates(config, trained)
    return Bundle.load(trained.path)


@pytest.fixture(scope="module")
def data(config: Config) -> Dataset:
    return read_dataset(config)


@pytest.fixture(scope="module")
def recommender(filled: Bundle, data: Dataset) -> Recommender:
    return Recommender.load(filled.path, interactions=data.interactions)


def seen_by(data: Dataset, user_id: str) -> set[str]:
    frame = data.interactions.frame
    return set(frame.filter(pl.col("user_id") == user_id)["item_id"])


def ids(items: Any) -> list[str]:
    return [item.item_id for item in items]


# -- training -------------------------------------------------------------------------------------


def test_the_bundle_is_whole_and_knows_where_it_came_from(
    trained: Bundle, config: Config, data: Dataset
) -> None:
    trained.verify()
    assert trained.manifest.data_fingerprint == data.fingerprint()
    assert trained.manifest.config == config.as_used()
    validation = trained.manifest.metrics["validation"]
    assert validation["users"] == 60
    assert latest(config.output.directory).id == trained.id
    assert not [path for path in trained.path.rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]


def test_the_bundle_says_how_its_vectors_are_compared(trained: Bundle) -> None:
    wanted = {"score": "cosine", "dim": 16, "pooling": "recency", "user_table": False}
    assert trained.towers() == wanted
    assert trained.manifest.lineage == {}
    fields = FieldVocabulary.load(trained.path / "fields")
    assert "genres" in fields.names
    assert "field" not in TwoTowerRetriever.load(trained.path / "retrieval/two_tower").tables


def test_noise_is_explained_for_every_training_event(half_done: Config, data: Dataset) -> None:
    bundle = train(half_done, explain_noise=True)
    bundle.verify()
    assert "retrieval/noise.parquet" in bundle.manifest.files
    found = pl.read_parquet(bundle.path / "retrieval/noise.parquet")
    events = data.split(half_done).train.frame
    key = ["user_id", "item_id", "timestamp"]
    assert found.select(key).sort(key).equals(events.select(key).sort(key))
    usual = found.group_by("user_id").agg(pl.col("noise").median())
    assert usual["noise"].to_numpy() == pytest.approx(0.5, abs=0.05)
    worst = found.sort("noise", descending=True).row(0, named=True)
    assert worst["loss"] > worst["usual_loss"]
    again = train(half_done)  # not asked for: not there
    assert "retrieval/noise.parquet" not in again.manifest.files


def test_noise_needs_towers(world: Path, output: Path) -> None:
    config = small_config(world, output, retrieval={"sources": ("popularity",)})
    with pytest.raises(ConfigError, match=r"include 'two_tower' for --explain-noise, got popular"):
        train(config, explain_noise=True)


def test_evaluation_reports_the_funnel_first(
    world: Path, trained: Bundle, config: Config, output: Path
) -> None:
    copy = output / trained.id
    shutil.copytree(trained.path, copy)
    found = evaluate(small_config(world, output), Bundle.load(copy))
    served = [name for name in config.retrieval.sources if name != "buy_again"]
    assert list(found) == ["funnel", "retrieval + trees", *served]
    bundle = Bundle.load(copy)
    bundle.verify()
    report = (copy / "report.html").read_text(encoding="utf-8")
    assert "funnel" in report
    assert "Training of the two towers" in report
    assert "Validation recall@20" in report
    assert set(json.loads((copy / "evaluation.json").read_text())) == set(found)
    table = bundle.manifest.metrics["test"]
    for name, result in found.items():
        for metric, interval in result.metrics.items():
            assert table[name][metric] == interval._asdict()
            assert 0.0 <= interval.low <= interval.mean <= interval.high <= 1.0
    assert bundle.manifest.metrics["validation"] == trained.manifest.metrics["validation"]
    again = evaluate(small_config(world, output), bundle)
    assert again["funnel"].metrics == found["funnel"].metrics


def test_evaluation_refuses_data_and_splits_that_the_bundle_was_not_trained_with(
    world: Path, trained: Bundle, config: Config, tmp_path: Path
) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    pl.read_parquet(world / "ratings.parquet").head(500).write_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(ArtifactError, match="was trained on other data than"):
        evaluate(small_config(tmp_path, config.output.directory), trained)
    gone = pl.read_parquet(world / "movies.parquet").head(100)
    gone.write_parquet(tmp_path / "movies.parquet")
    ratings = pl.read_parquet(world / "ratings.parquet").join(gone, on="movieId", how="semi")
    ratings.write_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(ArtifactError, match="was trained on other data than"):
        evaluate(small_config(tmp_path, config.output.directory), trained)
    half = small_config(world, config.output.directory, split={"fraction": 0.5})
    with pytest.raises(ArtifactError, match="was trained with the split"):
        evaluate(half, trained)


def test_same_seed_same_lists_bit_for_bit(world: Path, filled: Bundle, output: Path) -> None:
    again = train(small_config(world, output))
    build_candidates(small_config(world, output), again)
    for name in (
        "content/vectors.safetensors",
        "candidates/lists.safetensors",
        "candidates/neighbours.safetensors",
        "retrieval/two_tower",
        "semantic-ids",
    ):
        first, second = filled.path / name, again.path / name
        pairs = (
            [(path, second / path.name) for path in sorted(first.glob("*.safetensors"))]
            if first.is_dir()
            else [(first, second)]
        )
        for left, right in pairs:
            arrays, others = load_file(left), load_file(right)
            assert list(arrays) == list(others)
            for key, array in arrays.items():
                assert array.tobytes() == others[key].tobytes(), f"{left.name}: {key}"


def test_another_seed_gives_other_lists(world: Path, filled: Bundle, output: Path) -> None:
    config = small_config(world, output, seed=8)
    bundle = train(config)
    build_candidates(config, bundle)
    mine, other = (
        load_file(path / "candidates/lists.safetensors") for path in (bundle.path, filled.path)
    )
    assert mine["score"].tobytes() != other["score"].tobytes()


@pytest.fixture
def half_done(world: Path, trained: Bundle, config: Config, output: Path) -> Config:
    """The stages of the shared run without its bundle."""
    shutil.copytree(config.output.directory / "work", output / "work")
    return small_config(world, output)


class Count:
    """Counts calls of a function of the pipeline, or of another module."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType = pipeline
    ) -> None:
        self.calls = 0
        original = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)


def test_finished_stages_are_taken_over(
    half_done: Config, trained: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrievers = Count(monkeypatch, "fit_sources")
    rankers = Count(monkeypatch, "fit_ranker", ranking_stage)
    bundle = train(half_done)
    assert (retrievers.calls, rankers.calls) == (0, 0)
    bundle.verify()
    mine = {name: record.sha256 for name, record in bundle.manifest.files.items()}
    assert mine == {
        name: record.sha256
        for name, record in trained.manifest.files.items()
        if not name.startswith("candidates/")
    }


def test_a_changed_setting_runs_its_stage_and_what_reads_it(
    half_done: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = half_done.ranking.model_copy(update={"candidates_per_source": 20})
    changed = half_done.model_copy(update={"ranking": ranking})
    retrievers = Count(monkeypatch, "fit_sources")
    rankers = Count(monkeypatch, "fit_ranker", ranking_stage)
    train(changed)
    assert (retrievers.calls, rankers.calls) == (0, 1)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_run_leaves_no_bundle_and_goes_on_where_it_was(
    half_done: Config, interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = half_done.output.directory / "work"
    shutil.rmtree(work / "ranking")
    with monkeypatch.context() as patch:

        def interrupted(*arguments: Any, **options: Any) -> None:
            raise interruption("in the middle of the ranking stage")

        patch.setattr(ranking_stage, "fit_ranker", interrupted)
        with pytest.raises(interruption):
            train(half_done)
    assert bundles(half_done.output.directory) == []
    assert not (work / "ranking").exists()
    assert not list(half_done.output.directory.rglob("*tmp-*"))
    content = Count(monkeypatch, "ContentEncoder", item_stages)
    retrievers = Count(monkeypatch, "fit_sources")
    rankers = Count(monkeypatch, "fit_ranker", ranking_stage)
    train(half_done).verify()
    assert (content.calls, retrievers.calls, rankers.calls) == (0, 0, 1)


def test_an_interruption_while_the_bundle_is_put_together_leaves_none(
    half_done: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.shutil, "copytree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(half_done)
    assert bundles(half_done.output.directory) == []
    assert [path.name for path in half_done.output.directory.iterdir()] == ["work"]


def test_fresh_runs_every_stage(half_done: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    retrievers = Count(monkeypatch, "fit_sources")
    content = Count(monkeypatch, "ContentEncoder", item_stages)
    train(half_done, fresh=True)
    assert (content.calls, retrievers.calls) == (1, 2)


def test_retrievers_that_saw_the_targets_are_a_leak(
    world: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(config: Config, data: Dataset) -> Fitness:
        found = find_fitness(config, data)
        assert found.parts is not None
        log, _, future = found.parts.again
        parts = replace(found.parts, again=(log, found.parts.trained, future))
        return replace(found, parts=parts)

    monkeypatch.setattr(pipeline, "find_fitness", leaking)
    with pytest.raises(LeakageError, match="targets are"):
        train(small_config(world, output))
    assert bundles(output) == []


def test_a_feature_made_from_the_label_is_a_leak(
    half_done: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(half_done.output.directory / "work" / "ranking")
    honest = FeatureInputs.rows

    def leaking(inputs: FeatureInputs, *arguments: Any, label: Any = None) -> Any:
        rows = honest(inputs, *arguments, label=label)
        rows.features[:, 3] = rows.label
        return rows

    monkeypatch.setattr(FeatureInputs, "rows", leaking)
    with pytest.raises(LeakageError, match=r"AUC 1\.0000"):
        train(half_done)
    assert bundles(half_done.output.directory) == []


def test_the_log_of_the_ranking_stage_holds_the_past_and_no_target(
    config: Config, data: Dataset
) -> None:
    run = pipeline._Run(find_fitness(config, data), config.output.directory / "work", 1)
    found, (past, _) = data.histories(run._past_log), run._past_and_future
    np.testing.assert_array_equal(found.indptr, past.indptr)
    np.testing.assert_array_equal(found.item_index, past.item_index)
    np.testing.assert_array_equal(found.timestamp, past.timestamp)


# -- answers in process ---------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_distinct_items_none_seen_scores_falling(
    recommender: Recommender, data: Dataset, k: int
) -> None:
    for user in data.user_list[:5]:
        slate = recommender.recommend(user, k)
        found, seen = ids(slate.items), seen_by(data, user)
        assert len(set(found)) == len(found) <= k
        assert not set(found) & seen
        scores = [item.score for item in slate.items]
        assert scores == sorted(scores, reverse=True)
        assert {item.source for item in slate.items} <= set(recommender.source_names)
        assert slate.source == "ranker"
        assert recommender.recommend(user, k) == slate
        if k < 30:
            assert len(found) == k


def test_filters(recommender: Recommender, data: Dataset) -> None:
    user = data.user_list[0]
    plain = ids(recommender.recommend(user, 10).items)
    without = ids(recommender.recommend(user, 10, exclude=[*plain[:2], "no such film"]).items)
    assert not set(without) & set(plain[:2])
    assert len(without) == 10
    only = [*plain[3:6], "no such film", next(iter(seen_by(data, user)))]
    assert set(ids(recommender.recommend(user, 10, only=only).items)) == set(plain[3:6])
    assert recommender.recommend(user, 10, only=["no such film"]).items == []
    assert recommender.recommend(user, 10, only=plain[:3], exclude=plain[:3]).items == []
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        recommender.recommend(user, 0)


def test_an_unknown_user_gets_what_is_popular(recommender: Recommender) -> None:
    slate = recommender.recommend("nobody", 5)
    assert slate.source == "popularity"
    popular = recommender.popular(5, recommender.as_of)
    assert ids(slate.items) == ids(popular)


def test_recent_items_count_at_once(recommender: Recommender, data: Dataset) -> None:
    films = data.item_ids.to_series().to_list()
    cold = recommender.recommend("nobody", 10)
    warm = recommender.recommend("nobody", 10, recent_items=[*films[:3], "no such film"])
    assert warm.source == "ranker"
    assert ids(warm.items) != ids(cold.items)
    assert not set(ids(warm.items)) & set(films[:3])
    other = recommender.recommend("nobody", 10, recent_items=films[60:63])
    assert ids(other.items) != ids(warm.items)
    unknown = recommender.recommend("nobody", 10, recent_items=["no such film"])
    assert unknown == cold
    user = data.user_list[0]
    usual = recommender.recommend(user, 10)
    after = recommender.recommend(user, 10, recent_items=ids(usual.items)[:2])
    assert not set(ids(after.items)) & set(ids(usual.items)[:2])


def test_diversity_keeps_the_best_first(recommender: Recommender, data: Dataset) -> None:
    user = data.user_list[1]
    plain, diverse = (recommender.recommend(user, 10, diversity=d) for d in (0.0, 0.9))
    assert diverse.items[0].item_id == plain.items[0].item_id
    assert len(set(ids(diverse.items))) == 10
    assert ids(diverse.items) != ids(plain.items)


def test_similar_items(recommender: Recommender, data: Dataset) -> None:
    film = data.item_ids.to_series()[0]
    near = recommender.similar(film, 5)
    assert len(set(ids(near))) == 5
    assert film not in ids(near)
    assert [item.score for item in near] == sorted((item.score for item in near), reverse=True)
    assert recommender.similar("no such film", 5) == []
    assert len(recommender.similar(film, 1000)) == data.num_items - 1


def test_titles(recommender: Recommender, data: Dataset) -> None:
    row = data.items.frame.row(0, named=True)
    assert recommender.title(row["item_id"]) == row["title"]
    assert recommender.title("no such film") == "no such film"


def test_without_the_log_only_recent_items_count(filled: Bundle, data: Dataset) -> None:
    alone = Recommender.load(filled.path)
    assert alone.recommend(data.user_list[0], 5).source == "popularity"
    film = data.item_ids.to_series()[3]
    assert alone.recommend(data.user_list[0], 5, recent_items=[film]).source == "ranker"


def test_live_features_equal_the_batch_features(recommender: Recommender, data: Dataset) -> None:
    """One user asked for in a batch and live, at the moment the item values were made for."""
    assert recommender.as_of - data.interactions.frame["timestamp"].max() == timedelta(
        microseconds=1
    )
    moment = np.full(1, int(data.interactions.frame["timestamp"].to_physical().max()) + 1)
    for row, user in enumerate(data.user_list[:6]):
        history = data.histories().take([row])
        seen = history.seen_mask(data.num_items)
        pool = recommender.pool(history, moment=moment, excluded=seen)
        batch = recommender.features.rows(pool, [user], moment, data.interactions)
        live = recommender.live.rows(pool, user, recommender.live.past(user))
        assert live.feature_names == batch.feature_names
        np.testing.assert_allclose(live.features, batch.features, rtol=1e-6, atol=1e-6)


def test_live_answers_equal_the_published_lists(
    recommender: Recommender, filled: Bundle, data: Dataset
) -> None:
    lists = load_file(filled.path / "candidates" / "lists.safetensors")
    for row in (0, 20, 59):
        published = lists["item_index"][row, :10]
        slate = recommender.recommend(data.user_list[row], 10, diversity=0.0)
        assert data.item_ids.index(ids(slate.items)).tolist() == published.tolist()


def test_a_whole_pool_is_ranked_as_recommend_ranks_it(
    recommender: Recommender, data: Dataset
) -> None:
    films = data.item_ids.to_series().to_list()
    for user in (data.user_list[3], "nobody"):
        recent = [film for film in films if film not in seen_by(data, user)][:2]
        slate = recommender.recommend(user, 10_000, recent_items=recent, diversity=0.0)
        index = data.item_ids.index([item.item_id for item in slate.items])
        shuffled = np.random.default_rng(0).permutation(index)
        score = recommender.live.rank_items(user, shuffled, recent)
        by_item = dict(zip(shuffled.tolist(), score.tolist(), strict=True))
        wanted = [item.score for item in slate.items]
        np.testing.assert_allclose([by_item[one] for one in index.tolist()], wanted, rtol=1e-6)
    assert recommender.live.rank_items("nobody", np.zeros(0, dtype=np.int64)).size == 0


def test_given_item_values_stand_for_those_of_the_bundle(
    recommender: Recommender, data: Dataset
) -> None:
    user, index = data.user_list[3], np.arange(1, 40)
    names = [one.name for one in recommender.features.computer.published]
    own = recommender.live.item_values(index)
    assert sorted(own) == sorted(names)
    score = recommender.live.rank_items(user, index)
    np.testing.assert_array_equal(recommender.live.rank_items(user, index, item_values=own), score)
    others = {name: np.full(index.size, np.nan, dtype=np.float32) for name in names}
    assert not np.array_equal(recommender.live.rank_items(user, index, item_values=others), score)


def test_a_mapped_log_answers_as_one_in_memory(
    recommender: Recommender, filled: Bundle, data: Dataset
) -> None:
    mapped = Recommender.load(filled.path, mapped=True)
    for user in (*data.user_list[:8], "nobody", ""):
        assert mapped.recommend(user, 10).items == recommender.recommend(user, 10).items


def test_an_explanation_adds_up(recommender: Recommender, data: Dataset) -> None:
    user = data.user_list[3]
    slate = recommender.recommend(user, 3, diversity=0.0)
    shown = data.item_ids.index([item.item_id for item in slate.items])
    met = data.item_ids.index(sorted(seen_by(data, user))[:1])
    asked = np.concatenate([shown, met])
    found = recommender.live.explain(user, asked)
    assert [one.item_index for one in found] == asked.tolist()
    for one in found:
        assert one.base + sum(one.contributions.values()) == pytest.approx(one.trees, abs=1e-6)
        sizes = [abs(value) for value in one.contributions.values()]
        assert sizes == sorted(sizes, reverse=True)
        assert set(one.contributions) == set(one.features)
        assert set(one.retrieval) == set(recommender.source_names)
    assert [one.candidate for one in found] == [True, True, True, False]
    assert [one.seen for one in found] == [False, False, False, True]
    placed = sorted(one.place for one in found[:3])
    assert placed[0] <= 2  # the met one may stand between them


def test_a_bundle_with_another_vocabulary_is_refused(trained: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / trained.id
    shutil.copytree(trained.path, copy)
    header = json.loads((copy / "recommender.json").read_text())
    (copy / "recommender.json").write_text(json.dumps({**header, "items_sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="not the vocabulary the models were trained with"):
        Recommender.load(copy)
    (copy / "recommender.json").unlink()
    with pytest.raises(ArtifactError, match=r"recommender\.json is missing; run `recsys train`"):
        Recommender.load(copy)


# -- publishing and serving -----------------------------------------------------------------------


@pytest.fixture
def published(world: Path, filled: Bundle, output: Path) -> Iterator[SimpleNamespace]:
    """The bundle in a store of its own, and the service on it."""
    config = small_config(world, output)
    shutil.copytree(filled.path, output / filled.id)
    bundle = Bundle.load(output / filled.id)
    report = publish(config, bundle)
    with open_service(config) as service:
        yield SimpleNamespace(config=config, bundle=bundle, report=report, service=service)


def test_published_lists_are_served(published: SimpleNamespace, data: Dataset) -> None:
    assert published.report.generation == published.bundle.id
    assert published.report.num_users == 60
    lists = load_file(published.bundle.path / "candidates" / "lists.safetensors")
    for row in (0, 30):
        user = data.user_list[row]
        answer = published.service.recommend(RecommendRequest(user, k=10))
        assert (answer.source, answer.degraded) == ("cache", False)
        assert answer.generation == published.bundle.id
        wanted = data.item_ids.ids(lists["item_index"][row, :10])
        assert ids(answer.items) == wanted
        assert not set(ids(answer.items)) & seen_by(data, user)
    answer = published.service.recommend(RecommendRequest("nobody", k=10))
    assert (answer.source, answer.reason, answer.degraded) == ("popular", "unknown_user", False)
    assert len(answer.items) == 10


def test_similar_items_are_served(
    published: SimpleNamespace, recommender: Recommender, data: Dataset
) -> None:
    film = data.item_ids.to_series()[0]
    answer = published.service.similar(SimilarRequest(film, k=5))
    assert ids(answer.items) == ids(recommender.similar(film, 5))


def test_diversity_is_applied_to_published_lists(published: SimpleNamespace, data: Dataset) -> None:
    plain, diverse = (
        published.service.recommend(RecommendRequest(data.user_list[0], k=10, diversity=d))
        for d in (0.0, 0.9)
    )
    assert ids(plain.items)[0] == ids(diverse.items)[0]
    assert ids(plain.items) != ids(diverse.items)


def test_the_model_answers_live_through_the_service(
    published: SimpleNamespace, recommender: Recommender, data: Dataset
) -> None:
    user, films = data.user_list[0], data.item_ids.to_series().to_list()
    recent = [film for film in films if film not in seen_by(data, user)][:2]
    with open_service(published.config, models=OneModel(LoadedModel(recommender))) as service:
        answer = service.recommend(RecommendRequest(user, k=5, recent_items=recent))
    assert (answer.source, answer.degraded) == ("live", False)
    direct = recommender.recommend(user, 5, recent_items=recent, diversity=0.0)
    assert ids(answer.items) == ids(direct.items)


def test_publishing_needs_candidates(world: Path, trained: Bundle, output: Path) -> None:
    shutil.copytree(trained.path, output / trained.id)
    shutil.rmtree(output / trained.id / "candidates", ignore_errors=True)
    with pytest.raises(ArtifactError, match=r"run `recsys candidates` before `recsys publish`"):
        publish(small_config(world, output), Bundle.load(output / trained.id))


def test_publishing_refuses_a_changed_file(published: SimpleNamespace) -> None:
    path = published.bundle.path / "candidates" / "lists.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"lists\.safetensors has another checksum"):
        publish(published.config, Bundle.load(published.bundle.path))


def test_a_second_generation_and_back(
    published: SimpleNamespace, world: Path, data: Dataset
) -> None:
    config = small_config(world, published.config.output.directory, seed=8)
    second = train(config)
    build_candidates(config, second)
    report = publish(config, Bundle.load(second.path))
    assert (report.generation, report.previous) == (second.id, published.bundle.id)
    request = RecommendRequest(data.user_list[0], k=10)
    assert wait_for(published.service, request, generation=second.id).source == "cache"
    store = open_store(config)
    assert store.rollback().generation == published.bundle.id
    answer = wait_for(published.service, request, generation=published.bundle.id)
    lists = load_file(published.bundle.path / "candidates" / "lists.safetensors")
    assert ids(answer.items) == data.item_ids.ids(lists["item_index"][0, :10])


def test_answers_go_on_without_the_store_and_recover(
    published: SimpleNamespace, data: Dataset
) -> None:
    service, directory = published.service, store_directory(published.config)
    known, other = RecommendRequest(data.user_list[0], k=10), RecommendRequest("nobody", k=10)
    before = service.recommend(known)
    service.recommend(other)
    os.kill(EmbeddedStore.pid(directory), 9)
    away = wait_for(service, known, degraded=True)
    assert ids(away.items) == ids(before.items)  # remembered
    assert away.reason is not None
    never_asked = service.recommend(RecommendRequest(data.user_list[40], k=10))
    assert (never_asked.degraded, never_asked.source) == (True, "popular")
    assert len(never_asked.items) == 10
    EmbeddedStore.ensure(directory)
    back = wait_for(service, RecommendRequest(data.user_list[40], k=10), degraded=False)
    assert (back.source, back.generation) == ("cache", published.bundle.id)


def test_a_process_that_starts_without_the_store_serves_the_bundles_popular_list(
    world: Path, filled: Bundle, output: Path
) -> None:
    config = small_config(world, output)
    shutil.copytree(filled.path, output / filled.id)
    with open_service(config) as service:  # the store is there and empty
        answer = service.recommend(RecommendRequest("1", k=10))
    assert (answer.degraded, answer.source) == (True, "popular")
    assert len(answer.items) == 10


def wait_for(service: Any, request: RecommendRequest, **wanted: Any) -> Any:
    """Ask until the answer has the ``wanted`` attributes: heads are cached for a moment."""
    until = time.monotonic() + 30
    while True:
        answer = service.recommend(request)
        if all(getattr(answer, name) == value for name, value in wanted.items()):
            return answer
        if time.monotonic() > until:
            pytest.fail(f"no answer with {wanted} within 30 s, last: {answer}")
        time.sleep(0.02)


# -- other ways to run it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"split": {"kind": "time"}},
        {"retrieval": {"dim": 8, "epochs": 1, "index": "annoy", "int8": False}},
        {"retrieval": {"sources": ("item_item", "popularity")}, "ranking": {"folds": 2}},
        {"semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 8}},
    ],
    ids=["split by time", "annoy", "no towers", "residual k-means"],
)
def test_other_settings_run_through(world: Path, output: Path, changes: dict[str, Any]) -> None:
    small = small_config(world, output)
    ranking = {**small.ranking.model_dump(), "listwise": {"enabled": False}}
    config = small_config(world, output, **{"ranking": ranking, **changes})
    bundle = train(config)
    assert next(iter(evaluate(config, bundle))) == "funnel"
    build_candidates(config, bundle)
    publish(config, Bundle.load(bundle.path))
    with open_service(config) as service:
        assert len(service.recommend(RecommendRequest("nobody", k=5)).items) == 5


def test_diversity_draws_from_below_the_first_k(trained: Bundle) -> None:
    recommender = Recommender.load(trained.path)
    recent = recommender.item_ids.ids([1, 2, 3])
    plain = recommender.recommend("", 5, recent_items=recent).items
    deep = recommender.recommend("", 50, recent_items=recent).items
    varied = recommender.recommend("", 5, recent_items=recent, diversity=0.9).items
    assert varied[0] == plain[0]
    assert set(varied) - set(plain), "something new enters the slate"
    assert set(varied) <= set(deep), "with its own score"


def test_the_configuration_knows_every_retriever() -> None:
    from typing import get_args

    from recsys.config import RetrieverName
    from recsys.pipeline.retrievers import COUNTED
    from recsys.retrieval.choices import LOADERS

    assert set(get_args(RetrieverName)) == {"two_tower", *COUNTED} == set(LOADERS)


@pytest.mark.slow
def test_two_processes_train_a_bundle_that_serves(world: Path, output: Path) -> None:
    config = small_config(world, output)
    bundle = train(config, workers=2)
    bundle.verify()
    log = read_dataset(config).interactions
    user = str(log.frame["user_id"][0])
    slate = Recommender.load(bundle.path, interactions=log).recommend(user, 10)
    assert len(slate.items) == 10
    again = small_config(world, output)
    assert next(iter(evaluate(again, bundle))) == "funnel"
