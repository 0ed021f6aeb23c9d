"""Declared features from the configuration through training to a live request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from features import load_definitions, suggest_definitions
from features.errors import DataError
from recsys.bundle import Bundle
from recsys.config import Config, load_config
from recsys.dataset import Dataset, read_dataset
from recsys.errors import ConfigError
from recsys.pipeline import evaluate, train
from recsys.pipeline import run as pipeline
from recsys.pipeline.lineage import Lineage
from recsys.pipeline.stages import StageEvent, run_stages
from recsys.recommender import Recommender
from recsys.tuning.toml_text import to_toml
from serving.jobs.candidates import build_candidates

DECLARED: list[dict[str, Any]] = [
    {"kind": "field", "name": "age", "table": "user", "column": "age", "default": -1.0},
    {"kind": "category", "name": "land", "table": "user", "column": "land", "values": ["p", "q"]},
    {"kind": "list_contains", "name": "jazz", "table": "user", "column": "likes", "value": "jazz"},
    {"kind": "hour_of_day", "name": "hour", "zone": "UTC", "zone_column": "zone"},
    {"kind": "field", "name": "price", "column": "price"},
    {"kind": "count", "name": "bought", "log": True, "refresh_s": 3600.0},
    {"kind": "affinity", "name": "tag_affinity", "column": "tags", "last": 5},
    {"kind": "slate_relative", "name": "popular_here", "of": "score__popularity"},
]
OF_USERS = ("age", "land", "jazz", "hour")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty users who each meet twelve of forty items, and what is known of both."""
    directory = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 10**9 + 5_000 * at + user)
        for user in range(30)
        for at, item in enumerate((rng.choice(20, 12, replace=False) * 2 + user % 2) % 40)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(directory / "events.parquet")
    pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(40)],
            "tags": [[f"t{n % 4}", f"t{n % 5}"] for n in range(40)],
            "price": [float(n % 9) for n in range(40)],
        }
    ).write_parquet(directory / "items.parquet")
    write_users(directory, 30)
    return directory


def write_users(directory: Path, number: int, *, older: int = 0, secret: str = "s") -> None:
    pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(number)],
            "age": [20 + n + older for n in range(number)],
            "land": ["pqr"[n % 3] for n in range(number)],
            "likes": [["jazz", "rock"][: n % 3] for n in range(number)],
            "zone": ["Asia/Kolkata" if n % 2 else None for n in range(number)],
            "secret": [f"{secret}{n}" for n in range(number)],
        }
    ).write_parquet(directory / "users.parquet")


def make_config(world: Path, output: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "data": {
            "events": world / "events.parquet",
            "items": world / "items.parquet",
            "users": world / "users.parquet",
            "item_columns": {"list": ("tags",)},
            "user_columns": {"category": ("land", "zone"), "list": ("likes",)},
        },
        "output": {"directory": output},
        "content": {"dim": 4},
        "semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 4},
        "retrieval": {"sources": ("co_occurrence", "popularity")},
        "ranking": {
            "candidates_per_source": 10,
            "folds": 2,
            "gbdt": {"num_trees": 5, "min_data_in_leaf": 5},
            "listwise": {"enabled": False},
        },
        "features": DECLARED,
        "candidates": {"k": 5},
        "evaluation": {"ks": (5,), "bootstrap_samples": 20},
    }
    return Config.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def config(world: Path, output: Path) -> Config:
    return make_config(world, output)


@pytest.fixture(scope="module")
def trained(config: Config) -> Bundle:
    return train(config)


@pytest.fixture(scope="module")
def data(config: Config) -> Dataset:
    return read_dataset(config)


def live_and_training(
    recommender: Recommender, data: Dataset, user_id: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """[C] values by feature of one user's candidates: of a live request, and of a training row."""
    history = data.histories().take([data.user_list.index(user_id)])
    log = data.interactions
    moment = np.full(1, int(log.frame["timestamp"].to_physical().max()) + 1)  # type: ignore[arg-type]
    pool = recommender.pool(history, moment=moment, excluded=history.seen_mask(data.num_items))
    training = recommender.features.rows(pool, [user_id], moment, log)
    live = recommender.live.rows(pool, user_id, recommender.live.past(user_id))
    assert live.feature_names == training.feature_names
    return tuple(  # type: ignore[return-value]
        {name: rows.features[:, at] for at, name in enumerate(rows.feature_names)}
        for rows in (live, training)
    )


# -- the bundle -----------------------------------------------------------------------------------


def test_the_ranker_learns_from_the_declared_definitions(trained: Bundle) -> None:
    records = json.loads(trained.file("features/definitions.json").read_text())
    names = [one.name for one in load_definitions(records)]
    own = [record["name"] for record in DECLARED]
    assert names[: len(own)] == own
    assert {"content_similarity", "score__popularity", "rank__co_occurrence"} < set(names)
    assert not {"item_count", "price_count", "user_count"} & set(names)
    ranked = trained.manifest.metrics["validation"]["importance"]
    assert set(ranked) == set(names)


def test_the_bundle_keeps_the_definitions_and_says_where_they_stood(
    trained: Bundle, config: Config
) -> None:
    assert trained.manifest.config["features"] == config.as_used()["features"]
    features = trained.features()
    assert features is not None
    assert features["source"] == "[[features]]"
    assert features["own"] == [record["name"] for record in DECLARED]
    assert "share__popularity" in features["added"]


def test_a_log_that_says_when_its_events_arrived(world: Path, tmp_path: Path) -> None:
    """Arrivals without delay change no list; late ones do; the same event again counts once."""
    raw = pl.read_parquet(world / "events.parquet")
    lists = []
    for delay in (0, 60):
        again = pl.concat([raw, raw.head(40)])
        again = again.with_columns(
            created=pl.col("timestamp") + delay, event_id=pl.int_range(pl.len()) % raw.height
        )
        again.write_parquet(tmp_path / "events.parquet")
        data = make_config(world, tmp_path / str(delay)).data
        changed = data.model_copy(update={"events": tmp_path / "events.parquet"})
        config = make_config(world, tmp_path / str(delay)).model_copy(update={"data": changed})
        bundle = train(config)
        assert len(read_dataset(config).interactions) == raw.height
        build_candidates(config, bundle)
        lists.append(load_file(bundle.file("candidates/lists.safetensors")))
    plain = make_config(world, tmp_path / "plain")
    bundle = train(plain)
    build_candidates(plain, bundle)
    for name, expected in load_file(bundle.file("candidates/lists.safetensors")).items():
        np.testing.assert_array_equal(lists[0][name], expected)
    assert any((lists[1][name] != lists[0][name]).any() for name in lists[0])


def test_without_retrieval_features_the_declared_ones_are_all(world: Path, tmp_path: Path) -> None:
    ranking = make_config(world, tmp_path).ranking.model_dump() | {"retrieval_features": False}
    records = [record for record in DECLARED if record["kind"] != "slate_relative"]
    bundle = train(make_config(world, tmp_path, ranking=ranking, features=records))
    found = json.loads(bundle.file("features/definitions.json").read_text())
    assert [one["name"] for one in found] == [one["name"] for one in records]
    assert len(Recommender.load(bundle.path).recommend("", 5, recent_items=["i1"]).items) == 5


def test_definitions_that_do_not_fit_are_refused_before_anything_is_trained(
    world: Path, tmp_path: Path
) -> None:
    records = [
        {"kind": "field", "name": "a", "column": "prize"},
        {"kind": "field", "name": "b", "table": "user", "column": "secret"},
    ]
    with pytest.raises(DataError) as caught:
        train(make_config(world, tmp_path, features=records))
    assert [problem.column for problem in caught.value.problems] == ["item.prize", "user.secret"]
    assert list(tmp_path.iterdir()) == []


def test_what_suggest_writes_can_be_trained_on(world: Path, data: Dataset, tmp_path: Path) -> None:
    found = suggest_definitions(
        data.interactions, data.items, data.users, sample_events=50, rng=np.random.default_rng(0)
    )
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    (tmp_path / "features.toml").write_text(found.to_toml())
    values = make_config(world, tmp_path).model_dump(
        mode="json", exclude_defaults=True, exclude_none=True
    )
    del values["features"]
    values["data"] |= {name: f"{name}.parquet" for name in ("events", "items", "users")}
    text = to_toml({"features_file": "features.toml", **values})
    (tmp_path / "recsys.toml").write_text(text)
    bundle = train(load_config(tmp_path / "recsys.toml"))
    told = bundle.features()
    assert told is not None
    assert told["source"] == "features.toml"
    assert told["own"] == [one.definition.name for one in found.kept]
    assert "user_age" in told["own"]
    assert bundle.manifest.config["features_file"] == "features.toml"


# -- the user table -------------------------------------------------------------------------------


def test_the_bundle_holds_of_users_what_definitions_read(trained: Bundle) -> None:
    kept = pl.read_parquet(trained.file("features/user_columns.parquet"))
    assert kept.columns == ["user_id", "age", "land", "likes", "zone"]
    assert "features/user_columns.parquet" in trained.manifest.files


@pytest.mark.parametrize("user_id", ["u0", "u1", "u5"])
def test_a_live_request_has_the_values_of_training(
    trained: Bundle, data: Dataset, user_id: str, tmp_path: Path, config: Config
) -> None:
    copy = tmp_path / trained.id
    shutil.copytree(trained.path, copy)
    build_candidates(config, Bundle.load(copy))  # item values as of the end of the log
    live, training = live_and_training(
        Recommender.load(copy, interactions=data.interactions), data, user_id
    )
    for name, values in training.items():
        np.testing.assert_allclose(live[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    number = int(user_id[1:])
    assert set(live["age"]) == {20.0 + number}
    assert set(live["land"]) == {(1.0, 2.0, 0.0)[number % 3]}
    assert set(live["jazz"]) == {float(number % 3 > 0)}
    utc = (10**9 + 55_000 + 29) % 86_400 / 3600  # the newest event of the log
    assert live["hour"] == pytest.approx((utc + (5.5 if number % 2 else 0.0)) % 24, abs=1e-3)


def test_someone_unknown_has_the_values_of_someone_unknown(trained: Bundle, data: Dataset) -> None:
    recommender = Recommender.load(trained.path)
    history = data.histories().take([0])
    moment = np.full(1, 10**15)
    pool = recommender.pool(history, moment=moment)
    rows = recommender.live.rows(pool, "nobody", recommender.live.past("nobody"))
    value = {name: rows.features[:, at] for at, name in enumerate(rows.feature_names)}
    assert set(value["age"]) == {-1.0}
    assert set(value["land"]) == {0.0}
    assert np.isnan(value["jazz"]).all()


def test_candidates_know_the_users_of_today(world: Path, trained: Bundle, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    shutil.copytree(trained.path, tmp_path / trained.id)
    write_users(tmp_path / "world", 32, older=1)
    config, bundle = make_config(tmp_path / "world", tmp_path), Bundle.load(tmp_path / trained.id)
    build_candidates(config, bundle)
    bundle = Bundle.load(bundle.path)
    assert "candidates/user_columns.parquet" in bundle.manifest.files
    users = Recommender.load(bundle.path).features.computer.users
    assert users is not None
    assert dict(users.frame.select("user_id", "age").iter_rows())["u31"] == 52
    pl.read_parquet(tmp_path / "world/users.parquet").drop("age").write_parquet(
        tmp_path / "world/users.parquet"
    )
    with pytest.raises(DataError, match=r"definition 'age': user\.age must exist"):
        build_candidates(config, bundle)


def test_a_bundle_is_evaluated_with_its_users(config: Config, trained: Bundle) -> None:
    assert next(iter(evaluate(config, Bundle.load(trained.path)))) == "funnel"


# -- what runs again ------------------------------------------------------------------------------


class Again:
    """Trains with changed settings or users and names the stages that ran."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.output = directory / "world", directory / "out"
        self.events: list[StageEvent] = []
        monkeypatch.setattr(pipeline, "run_stages", self._watched)

    def __call__(self, **changes: Any) -> list[str]:
        self.events.clear()
        train(make_config(self.world, self.output, **changes))
        return [event.name for event in self.events if event.state == "finished"]

    def _watched(self, *arguments: Any, **options: Any) -> Any:
        return run_stages(*arguments, on_event=self.events.append, **options)


@pytest.fixture
def ran(
    world: Path, trained: Bundle, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Again:
    """After the shared run, whose stages are all there."""
    shutil.copytree(world, tmp_path / "world")
    shutil.copytree(output / "work", tmp_path / "out/work")
    return Again(tmp_path, monkeypatch)


def test_nothing_runs_again_for_the_same_definitions(ran: Again) -> None:
    assert ran() == []
    spelled = [{**dict(reversed(one.items())), "default": one.get("default")} for one in DECLARED]
    assert ran(features=spelled) == []


@pytest.mark.parametrize(
    "features",
    [
        None,
        DECLARED[:-1],
        [{**DECLARED[0], "default": 0.0}, *DECLARED[1:]],
        [DECLARED[1], DECLARED[0], *DECLARED[2:]],
    ],
    ids=["the defaults", "one less", "an argument", "the order"],
)
def test_a_changed_definition_runs_the_ranker_and_no_retriever(
    ran: Again, features: list[dict[str, Any]] | None
) -> None:
    assert ran(features=features) == ["ranking", "features"]


def test_only_columns_that_are_read_make_a_user_table_another(ran: Again) -> None:
    write_users(ran.world, 30, secret="x")
    assert ran() == []
    write_users(ran.world, 30, older=1)
    assert ran() == ["ranking", "features"]


def test_other_retrievers_run_all_that_learns_from_them(ran: Again) -> None:
    assert ran(retrieval={"sources": ("popularity", "co_occurrence")}) == [
        "retrieval-past",
        "ranking",
        "retrieval",
        "index",
        "features",
    ]


# -- a ranker that stays --------------------------------------------------------------------------


def test_a_ranker_that_stays_keeps_its_definitions(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    towers = {
        "sources": ("two_tower", "popularity"),
        "dim": 8,
        "epochs": 1,
        "negatives": 8,
        "batch_size": 64,
        "history_length": 5,
    }

    def config(**changes: Any) -> Config:
        return make_config(tmp_path / "world", tmp_path / "out", retrieval=towers, **changes)

    parent = train(config())
    lineage = Lineage(start=parent, frozen_items=True)
    definitions = load_definitions(json.loads(parent.file("ranking/definitions.json").read_text()))
    assert lineage.definitions() == definitions
    assert Lineage(start=parent).definitions() is None

    write_users(tmp_path / "world", 30, older=1)
    refreshed = train(config(), lineage=lineage)
    first, second = (
        {name: one.sha256 for name, one in bundle.manifest.files.items() if "ranking/" in name}
        for bundle in (parent, refreshed)
    )
    assert first == second
    users = pl.read_parquet(refreshed.file("features/user_columns.parquet"))
    assert dict(users.select("user_id", "age").iter_rows())["u3"] == 24

    with pytest.raises(ConfigError, match="got 1 declared for 8 declared; train from nothing"):
        train(config(features=DECLARED[:1]), lineage=lineage)
    with pytest.raises(ConfigError, match="got the defaults for 8 declared; train from nothing"):
        train(config(features=None), lineage=lineage)
    pl.read_parquet(tmp_path / "world/users.parquet").drop("land").write_parquet(
        tmp_path / "world/users.parquet"
    )
    columns = {"category": ("zone",), "list": ("likes",)}
    data = {**config().data.model_dump(), "user_columns": columns}
    with pytest.raises(DataError, match=f"bundle {parent.id}: column 'user.land' must exist"):
        train(config(data=data), lineage=lineage)
