"""A bundle's candidates into the store: all of them, what changed, and what a gate says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from features.tables import Vocabulary
from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.errors import ArtifactError
from serving.assembly import open_store
from serving.cli import app
from serving.connection.embedded import EmbeddedStore
from serving.errors import NoGeneration, PublishRefused
from serving.jobs.popular_segments import write_segments
from serving.jobs.publish import publish, publish_changes

ITEM_IDS = ["a", "b", "c", "d"]
LISTS = {"ann": [1, 2, 3], "bob": [2, 1, 4], "kim": [3, 4, 1]}


def write_lists(path: Path, lists: dict[str, list[int]]) -> None:
    """The files of `build_candidates` that hold users' lists."""
    index = np.array(list(lists.values()), dtype=np.int64)
    score = np.tile(np.linspace(1, 0.5, index.shape[1], dtype=np.float32), (len(index), 1))
    arrays = {"item_index": index, "score": score, "source": np.zeros(index.shape, np.uint8)}
    save_file(arrays, path / "lists.safetensors")
    pl.DataFrame({"user_id": list(lists)}).write_parquet(path / "users.parquet")


def fill(bundle: Bundle, lists: dict[str, list[int]]) -> Bundle:
    """Replace the candidates of a bundle."""
    with bundle.adding("candidates") as out:
        out.mkdir()
        write_lists(out, lists)
        near = {"item_index": np.array([[2], [1], [4], [3]]), "score": np.ones((4, 1), np.float32)}
        save_file(near, out / "neighbours.safetensors")
        frame = pl.DataFrame({"item_id": ITEM_IDS, "rate": [0.5, 0.25, 0.1, 0.0], "as_of": 0})
        frame.write_parquet(out / "item_features.parquet")
        popular = {"format": 1, "item_ids": ["c", "a"], "score": [1.0, 0.5]}
        (out / "popular.json").write_text(json.dumps(popular))
        segment = (np.array([2, 1]), np.array([1.0, 0.5], np.float32))
        write_segments(out / "popular_segments.parquet", {"paid": segment})
    return Bundle.load(bundle.path)


def make_bundle(home: Path, lists: dict[str, list[int]]) -> Bundle:
    with Bundle.create(home / "artifacts", config={}, data_fingerprint="d") as draft:
        (draft.path / "data").mkdir()
        (draft.path / "content").mkdir()
        Vocabulary.from_ids(pl.Series(ITEM_IDS)).save(draft.path / "data" / "items.parquet")
        save_file(
            {"vectors": np.ones((5, 2), np.float16)},
            draft.path / "content" / "vectors.safetensors",
        )
        (draft.path / "recommender.json").write_text('{"sources": ["two_tower"]}')
    return fill(draft.finished(), lists)


@pytest.fixture
def project(own_directory, monkeypatch):
    """A project with one bundle and a store of its own."""
    home = own_directory.parent
    monkeypatch.chdir(home)
    path = home / "recsys.toml"
    text = '[data]\nevents = "e.csv"\nitems = "i.csv"\n'
    path.write_text(text)
    yield SimpleNamespace(
        home=home,
        config=load_config(path),
        bundle=make_bundle(home, LISTS),
        settings=lambda more: (path.write_text(text + more), load_config(path))[1],
    )
    EmbeddedStore.stop(home / "artifacts" / "store")


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def items_of(store, generation, users):
    return {
        user: None if one is None else one.item_index.tolist()
        for user, one in zip(users, store.read_users(generation, users), strict=True)
    }


def test_a_bundle_is_published_with_its_segments(project):
    report = publish(project.config, project.bundle)
    store = open_store(project.config)
    generation = project.bundle.id
    assert (report.generation, report.num_users) == (generation, 3)
    assert items_of(store, generation, list(LISTS)) == LISTS
    assert store.manifest(generation).segments == ("paid",)
    assert store.popular_of(generation, ["paid"])["paid"].item_index.tolist() == [2, 1]
    assert store.popular(generation).item_index.tolist() == [3, 1]
    assert store.neighbours(generation, "a").item_index.tolist() == [2]


def test_changed_users_alone_are_published(project):
    publish(project.config, project.bundle)
    bundle = fill(project.bundle, {"ann": [1, 2, 3], "bob": [4, 1, 2], "zoe": [2, 3, 4]})
    with pytest.raises(PublishRefused, match="the changed users alone with `recsys publish --del"):
        publish(project.config, bundle)
    report = publish_changes(project.config, bundle)
    assert (report.num_changed, report.num_added, report.num_removed) == (1, 1, 1)
    assert (report.num_unchanged, report.num_users, report.revision) == (1, 3, 2)
    store = open_store(project.config)
    assert items_of(store, bundle.id, ["ann", "bob", "zoe", "kim"]) == {
        "ann": [1, 2, 3],
        "bob": [4, 1, 2],
        "zoe": [2, 3, 4],
        "kim": None,
    }
    assert store.head().epoch == 1
    again = publish_changes(project.config, bundle)
    assert (again.num_unchanged, again.revision, again.bytes_written) == (3, 2, 0)
    assert publish(project.config, bundle).refreshed


def test_a_delta_does_not_take_lists_from_too_many(project):
    publish(project.config, project.bundle)
    bundle = fill(project.bundle, {"ann": [1, 2, 3]})
    with pytest.raises(PublishRefused, match="removes 2 of 3 users, more than 50%"):
        publish_changes(project.config, bundle)
    assert items_of(open_store(project.config), bundle.id, list(LISTS)) == LISTS
    config = project.settings("[store]\nmax_user_drop = 1.0\n")
    assert publish_changes(config, bundle).num_users == 1


def test_a_publish_does_not_lose_too_many_users(project):
    publish(project.config, project.bundle)
    other = make_bundle(project.home, {"ann": [1, 2, 3]})
    with pytest.raises(PublishRefused, match="has 1 users against 3 served now, a fall of more"):
        publish(project.config, other)
    assert publish(project.settings("[store]\nmax_user_drop = 1.0\n"), other).num_users == 1


def test_a_delta_needs_the_published_bundle(project):
    with pytest.raises(NoGeneration, match="publish all of it once, without --delta"):
        publish_changes(project.config, project.bundle)
    publish(project.config, project.bundle)
    path = project.bundle.path / "data" / "items.parquet"
    Vocabulary.from_ids(pl.Series(["a", "b", "c", "x"])).save(path)
    manifest = json.loads((project.bundle.path / "manifest.json").read_text())
    del manifest["files"]["data/items.parquet"]
    (project.bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PublishRefused, match="another vocabulary than the bundle has; train a new"):
        publish_changes(project.config, Bundle.load(project.bundle.path))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, ArtifactError, r"has no gate.json, which store.require_gate asks for; have the"),
        ("{", ArtifactError, r"gate.json is damaged .*; have the bundle judged again"),
        ("[]", ArtifactError, r"gate.json is damaged"),
        ('{"format": 1}', ArtifactError, r"gate.json is damaged .no 'verdict'"),
        (
            '{"format": 2, "verdict": "PROMOTE"}',
            ArtifactError,
            "must have format 1, got 2",
        ),
        ('{"format": 1, "verdict": "HOLD"}', PublishRefused, "says 'HOLD', and store.require_gat"),
        ('{"format": 1, "verdict": "PROMOTE", "reason": "x"}', None, ""),
    ],
)
def test_a_gate_that_is_required(project, text, error, message):
    if text is not None:
        (project.bundle.path / "gate.json").write_text(text)
    config = project.settings("[store]\nrequire_gate = true\n")
    if error is None:
        assert publish(config, project.bundle).num_users == 3
        assert publish_changes(config, project.bundle).num_unchanged == 3
        return
    for job in (publish, publish_changes):
        with pytest.raises(error, match=message):
            job(config, project.bundle)
    assert not (project.home / "artifacts" / "store").exists()  # asked before anything else
    assert publish(project.config, project.bundle).num_users == 3


def test_the_verbs(project):
    first = project.bundle.id
    result = run("publish")
    assert result.exit_code == 0, result.output
    assert f"generation {first} is served (before: none): 3 users, 4 items" in result.stdout
    fill(project.bundle, {**LISTS, "bob": [4, 1, 2]})
    result = run("publish", "--delta")
    assert result.exit_code == 0, result.output
    assert "has revision 1: 1 users changed, 0 added, 0 removed, 2 as they were" in result.stdout
    assert json.loads(run("publish", "--delta", "--json").stdout)["num_unchanged"] == 3

    second = make_bundle(project.home, {**LISTS, "ann": [4, 3, 2], "zoe": [1, 2, 3]}).id
    assert "before: " + first in run("publish", "--bundle", second).stdout
    result = run("flip", first)
    assert f"generation {first} is served (before: {second})" in result.stdout
    assert json.loads(run("flip", second, "--json").stdout)["epoch"] == 4
    result = run("flip", "nothing")
    assert result.exit_code == 1
    assert "'nothing' is not in the store" in result.stderr
    rows = json.loads(run("generations", "--json").stdout)["generations"]
    assert {one["generation"]: one["revision"] for one in rows} == {first: 1, second: 0}


def test_the_difference_of_two_generations(project):
    first = project.bundle.id
    publish(project.config, project.bundle)
    second = make_bundle(project.home, {**LISTS, "ann": [4, 3, 2], "zoe": [1, 2, 3]}).id
    publish(project.config, Bundle.load(project.home / "artifacts" / second))
    result = run("diff", first, second, "-k", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["A", first, "B", second]
    assert lines[2].split() == ["share", "of", "users", "only", "here", "0.000", "0.250"]
    assert "3 users of both compared (95% intervals):" in lines
    assert "share with a changed list       0.333" in lines
    assert "mean overlap@2                  0.667" in lines
    values = json.loads(run("diff", first, second, "--json").stdout)
    assert values["only_b"] == {"value": 0.25, "low": 0.25, "high": 0.25, "size": 4}
    assert values["scores"] == [{"low": 0.5, "high": 1.0}] * 2
    (project.home / "artifacts" / first / "candidates" / "users.parquet").unlink()
    scanned = json.loads(
        run("diff", first, second, "--sample", "2", "--seed", "1", "--json").stdout
    )
    assert scanned["num_compared"] == 2
    assert scanned["changed"]["low"] < scanned["changed"]["high"]
    assert run("diff", first, "nothing").exit_code == 1


def test_what_is_in_the_store(project):
    result = run("cache", "stats")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("no keys\n\nmemory: ")
    assert run("cache", "ttl", "--set", "90").exit_code == 1
    publish(project.config, project.bundle)
    lines = run("cache", "stats").stdout.splitlines()
    user = next(line.split() for line in lines if line.startswith("user "))
    assert user[1:4] == [project.bundle.id, "3", "0"]
    assert any(line.startswith("reads that found their key since the start: ") for line in lines)
    values = json.loads(run("cache", "stats", "--json", "--sample", "2", "--seed", "3").stdout)
    kinds = {one["kind"]: one for one in values["keys"]}
    assert kinds["user"]["bytes_each"]["size"] == 2
    assert 604_700 < kinds["user"]["last_expiry_s"] <= 604_800
    assert kinds["head"]["bytes_each"]["size"] == 1
    assert values["server"]["evicted"] == 0

    result = run("cache", "ttl", "--set", "90")
    assert result.stdout == f"generation {project.bundle.id} goes in 1 min 30 s\n"
    store = open_store(project.config)
    assert 80 < store._client.ttl(store.keys.user(project.bundle.id, "ann")) <= 90
    result = run("cache", "ttl", "--set", "86400", "--generation", project.bundle.id, "--json")
    assert json.loads(result.stdout)["generation"] == project.bundle.id
    assert store._client.ttl(store.keys.item(project.bundle.id, "a")) > 86_000
    assert run("cache", "ttl", "--set", "59").exit_code == 2
    result = run("cache", "ttl", "--set", "90", "--generation", "nothing")
    assert result.exit_code == 1
    assert "'nothing' is not in the store" in result.stderr


CONFIG = """
seed = 7
[data]
events = "{directory}/events.parquet"
items = "{directory}/items.parquet"
users = "{directory}/users.parquet"
[output]
directory = "{directory}/artifacts"
[data.item_columns]
text = ["title"]
[content]
dim = 8
[semantic_ids]
levels = 2
codes = 8
epochs = 1
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
enabled = false
[candidates]
k = 5
popular_segment = "plan"
"""


@pytest.mark.slow
def test_each_plan_has_its_own_favourites(own_directory):
    """Trained, computed and published: people of a plan mostly choose items of their half."""
    from recsys.pipeline import train
    from serving.jobs.candidates import build_candidates

    home = own_directory.parent
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        half = 20 * (user % 2)
        for place, item in enumerate(half + rng.choice(20, 12, replace=False)):
            moment = datetime(2026, 1, 1) + timedelta(hours=13 * place, minutes=user)
            rows.append((f"u{user:02d}", f"i{item:02d}", moment))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(home / "events.parquet")
    pl.DataFrame(
        {
            "item_id": [f"i{row:02d}" for row in range(40)],
            "title": [f"t {row}" for row in range(40)],
        }
    ).write_parquet(home / "items.parquet")
    plans = ["free" if row % 2 == 0 else "paid" for row in range(60)]
    pl.DataFrame({"user_id": [f"u{row:02d}" for row in range(60)], "plan": plans}).write_parquet(
        home / "users.parquet"
    )
    (home / "recsys.toml").write_text(CONFIG.format(directory=home))
    config = load_config(home / "recsys.toml")
    bundle = train(config)
    build_candidates(config, bundle)
    publish(config, Bundle.load(bundle.path))
    try:
        store = open_store(config)
        assert store.manifest(bundle.id).segments == ("free", "paid")
        lists = store.popular_of(bundle.id, ["free", "paid"])
        ids = store.item_ids(bundle.id)
        for plan, start in (("free", 0), ("paid", 20)):
            own = {f"i{row:02d}" for row in range(start, start + 20)}
            best = [ids[row - 1] for row in lists[plan].item_index.tolist()]
            assert set(best[:20]) == own
            assert sorted(best) == sorted(ids)  # then what is popular overall
            assert (np.diff(lists[plan].score) <= 0).all()
    finally:
        EmbeddedStore.stop(home / "artifacts" / "store")
