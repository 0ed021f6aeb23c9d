"""Two bundles, the gate between them, and a publish that asks for its verdict."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.bundle import Bundle, bundles
from recsys.errors import ArtifactError
from recsys.pipeline.evidence import read_evidence
from serving.cli import app
from serving.connection.embedded import EmbeddedStore
from serving.impressions.log import FEEDBACK_COLUMNS, IMPRESSION_COLUMNS
from serving.impressions.row_journal import new_stem
from serving.jobs.gate import find
from serving.jobs.gate_log import first_items

MOVIES = Path(__file__).resolve().parents[1] / "examples" / "data"


def write_world(directory: Path) -> None:
    """60 people and the 150 films most rated, out of the bundled data."""
    ratings = pl.read_parquet(MOVIES / "ratings.parquet")
    movies = pl.read_parquet(MOVIES / "movies.parquet")
    rated = ratings.group_by("movieId").len().sort("len", "movieId", descending=[True, False])
    movies = movies.join(rated.head(150), on="movieId", how="semi")
    ratings = ratings.join(movies, on="movieId", how="semi")
    people = ratings.group_by("userId").len().filter(pl.col("len").is_between(20, 50))
    ratings = ratings.join(people.sort("userId").head(60), on="userId", how="semi")
    ratings.write_parquet(directory / "ratings.parquet")
    movies.write_parquet(directory / "movies.parquet")


def settings(*, seed: int = 7, gate: str = "") -> str:
    """A configuration that trains in two seconds."""
    return f"""
seed = {seed}
[data]
events = "ratings.parquet"
items = "movies.parquet"
columns = {{ user = "userId", item = "movieId", weight = "rating" }}
item_columns = {{ id = "movieId", title = "title", text = ["title", "tags"], list = ["genres"] }}
[content]
dim = 16
[semantic_ids]
levels = 2
codes = 16
epochs = 1
[retrieval]
dim = 16
epochs = 1
negatives = 32
batch_size = 256
history_length = 20
[ranking]
candidates_per_source = 30
folds = 2
gbdt = {{ num_trees = 5, min_data_in_leaf = 20 }}
listwise = {{ epochs = 1, dim = 8, top = 20 }}
[candidates]
k = 20
batch_size = 25
[evaluation]
ks = [5, 10]
bootstrap_samples = 50
[store]
require_gate = true
[gate]
{gate}
"""


LENIENT = "min_users = 20\nmax_drop = 5.0\nslice_margin = 5.0\nmax_gain = 9.0"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Two trained bundles; the directory is short, for the store's socket."""
    directory = Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp"))
    write_world(directory)
    for seed in (7, 8):
        (directory / "recsys.toml").write_text(settings(seed=seed))
        result = run(directory, "train")
        assert result.exit_code == 0, result.output
    yield directory
    EmbeddedStore.stop(directory / "artifacts" / "store")
    shutil.rmtree(directory, ignore_errors=True)


def run(home: Path, *arguments: str):
    return CliRunner().invoke(app, [*arguments, "--config", str(home / "recsys.toml")])


def use(home: Path, gate: str) -> None:
    (home / "recsys.toml").write_text(settings(seed=8, gate=gate))


def test_from_two_bundles_to_a_published_one(home, monkeypatch):
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    first, second = bundles(home / "artifacts")
    use(home, LENIENT)

    # Nothing is served: the incumbent cannot be meant, and publish asks for a verdict.
    result = run(home, "gate", "newest")
    assert result.exit_code == 1
    assert "no generation is served; name a bundle, or judge with --against none" in result.output
    for bundle in (first, second):
        assert run(home, "candidates", "--bundle", bundle.id).exit_code == 0
    refused = run(home, "publish", "--bundle", first.id)
    assert refused.exit_code == 1
    assert "has no gate.json, which store.require_gate asks for" in refused.output

    # The first publication stands alone.
    result = run(home, "gate", first.id, "--against", "none")
    assert result.exit_code == 0, result.output
    assert f"PROMOTE: bundle {first.id} against nothing" in result.stdout
    assert run(home, "publish", "--bundle", first.id).exit_code == 0

    # The second against what is served; --dry-run leaves no trace.
    result = run(home, "gate", "newest", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert not (second.path / "gate.json").exists()
    found = json.loads(result.stdout)
    assert (found["verdict"], found["bundle"], found["against"]) == ("PROMOTE", second.id, first.id)
    result = run(home, "gate", "newest", "--against", "served")
    assert result.exit_code == 0, result.output
    Bundle.load(second.path).verify()  # gate.json and the pages are recorded
    measured = Bundle.load(second.path).manifest.metrics["calibration"]
    assert read_evidence(Bundle.load(second.path)).calibration_error == measured["mean"]
    assert 0 <= measured["low"] <= measured["mean"] <= measured["high"] < 1
    assert measured["users"] == 60
    page = (second.path / "gate.html").read_text()
    assert "May this bundle take over?" in page
    assert "calibration error" in page
    assert json.loads((second.path / "gate_report.json").read_text())["decision"]["reasons"]
    assert run(home, "publish", "--bundle", second.id).exit_code == 0
    assert find_id(home, "served") == second.id
    assert find_id(home, "previous") == first.id

    # The defaults ask for more users than this world has.
    use(home, "")
    result = run(home, "gate", str(second.path), "--against", first.id)
    assert result.exit_code == 3, result.output
    assert "HOLD        too_few_users: Only" in result.stdout
    refused = run(home, "publish", "--bundle", second.id)
    assert refused.exit_code == 1
    assert "says 'HOLD', and store.require_gate asks for 'PROMOTE'" in refused.output

    # A verdict of another bundle is none.
    shutil.copy(first.path / "gate.json", second.path / "gate.json")
    refused = run(home, "publish", "--bundle", second.id)
    assert refused.exit_code == 1
    assert f"gate.json is about bundle {first.id}, not {second.id}" in refused.output


def find_id(home: Path, name: str) -> str:
    from recsys.config import load_config

    return find(load_config(home / "recsys.toml"), name).id


def test_evidence_of_a_bundle_and_what_is_suspicious(home):
    first, second = bundles(home / "artifacts")
    use(home, LENIENT)
    for bundle in (first, second):
        assert run(home, "evaluate", "--bundle", bundle.id).exit_code == 0
    evidence = read_evidence(Bundle.load(first.path))
    assert evidence.leakage == ()
    assert evidence.k == 10
    assert evidence.users.num_users <= 60
    assert {"head items", "tail items", "short histories"} <= set(evidence.slices)
    stored = json.loads((first.path / "evaluation.json").read_text())["funnel"]
    assert evidence.users.values["ndcg@10"].mean() == pytest.approx(
        stored["metrics"]["ndcg@10"]["mean"], abs=1e-12
    )
    assert evidence.slices["tail items"].values["recall@5"].mean() == pytest.approx(
        next(s for s in stored["slices"] if s["name"] == "tail items")["metrics"]["recall@5"][
            "mean"
        ],
        abs=1e-12,
    )
    # The same lists under another id: the change did not arrive.
    users = second.path / "evidence" / "users.parquet"
    with second.adding("evidence") as path:
        shutil.copytree(users.parent, path)
        shutil.copy(first.path / "evidence" / "users.parquet", path / "users.parquet")
    result = run(home, "gate", second.id, "--against", first.id, "--json")
    assert result.exit_code == 4, result.output
    assert "same_lists" in {reason["rule"] for reason in json.loads(result.stdout)["reasons"]}


def test_estimates_from_a_log(home, tmp_path):
    first, second = bundles(home / "artifacts")
    use(home, LENIENT)
    assert run(home, "evaluate", "--bundle", second.id).exit_code == 0
    line = {"policy": "x", "estimator": "snips", "low": 0.4, "high": 0.6}
    log = tmp_path / "estimates.json"

    def judged(candidate: list[dict], incumbent: list[dict]):
        log.write_text(json.dumps({"candidate": candidate, "incumbent": incumbent}))
        return run(home, "gate", second.id, "--against", first.id, "--log", str(log), "--dry-run")

    good = {**line, "value": 0.5, "verdict": "ok"}
    assert judged([good], [good]).exit_code == 0
    worse = {**good, "value": 0.2, "low": 0.1, "high": 0.3}
    assert judged([worse], [good]).exit_code == 3
    lost = judged([{**good, "verdict": "unusable", "note": "no overlap"}], [good])
    assert lost.exit_code == 3
    assert "The log cannot say what the candidate is worth: no overlap." in lost.stdout
    bad = judged([{**good, "value": "much"}], [good])
    assert bad.exit_code == 2
    assert "must hold lists of estimates under candidate and incumbent: candidate.0" in bad.output
    log.write_text("{}")
    bad = run(home, "gate", second.id, "--against", first.id, "--log", str(log))
    assert bad.exit_code == 2
    assert "must hold candidate and may hold incumbent" in bad.output


def write_log(home: Path, directory: Path, *, explore: bool) -> float:
    """40 requests a user; the second bundle's first items are worth .6, all others .2.

    Returns the mean reward.
    """
    first, second = (first_items(Bundle.load(one.path)) for one in bundles(home / "artifacts"))
    rng = np.random.default_rng(3)
    pool = sorted({*first.values(), *second.values()})
    users = np.repeat(sorted(first), 40)
    shown = rng.choice(pool, size=users.size) if explore else [first[user] for user in users]
    worth = np.where(
        [second[user] == item for user, item in zip(users, shown, strict=True)], 0.6, 0.2
    )
    bought = rng.random(users.size) < worth
    start = datetime(2026, 5, 1, tzinfo=UTC).replace(tzinfo=None)
    frame = pl.DataFrame(
        {
            "user_id": users,
            "item_id": shown,
            "timestamp": [start + timedelta(seconds=n) for n in range(users.size)],
            "request_id": [f"r{n}" for n in range(users.size)],
            "position": 1,
            "policy": "p",
            "propensity": 1 / len(pool) if explore else 1.0,
        }
    )
    for name, rows, columns in (
        ("impressions", frame, IMPRESSION_COLUMNS),
        ("feedback", frame.filter(pl.Series(bought)), FEEDBACK_COLUMNS),
    ):
        (directory / name).mkdir(parents=True)
        missing = [pl.lit(None).alias(one) for one in columns if one not in rows.columns]
        rows = rows.with_columns(missing).select(*columns).cast(columns)
        rows.write_parquet(directory / name / f"{new_stem(name)}-0.parquet")
    return float(bought.mean())


def test_an_impression_log(home, tmp_path):
    first, second = bundles(home / "artifacts")
    use(home, LENIENT)
    for bundle in (first, second):
        if not (bundle.path / "candidates").exists():
            assert run(home, "candidates", "--bundle", bundle.id).exit_code == 0

    def judged(log: Path, *more: str):
        return run(home, "gate", second.id, "--against", first.id, "--log", str(log), *more)

    write_log(home, tmp_path / "explored", explore=True)
    result = judged(tmp_path / "explored" / "impressions", "--json")
    assert result.exit_code == 0, result.output
    assert "value_held" in {one["rule"] for one in json.loads(result.stdout)["reasons"]}
    report = json.loads((second.path / "gate_report.json").read_text())
    (snips,) = [
        one
        for one in report["estimates"]
        if (one["policy"], one["estimator"]) == ("candidate", "snips")
    ]
    assert snips["verdict"] in ("ok", "weak")
    width = snips["high"] - snips["low"]  # the lists, and so the value, depend on the machine a bit
    assert snips["low"] - width < 0.6 < snips["high"] + width
    assert snips["lift"] > 0.5
    plan = report["power"]
    chances = dict(plan["lines"][1]["points"])
    assert [one["name"] for one in plan["lines"]] == [f"lift of {n}%" for n in (2, 5, 10)]
    assert max(n for n, chance in chances.items() if chance < 0.8) <= plan["marked_x"]
    assert min(n for n, chance in chances.items() if chance > 0.81) > plan["marked_x"]
    assert [one["policy"] for one in report["weights"]] == ["candidate", "incumbent"]
    assert any("what the first place is worth" in one for one in report["cannot_conclude"])

    # The other way round the candidate surely loses value.
    back = run(
        home, "gate", first.id, "--against", second.id, "--dry-run", "--json",
        "--log", str(tmp_path / "explored" / "impressions"),
    )  # fmt: skip
    assert back.exit_code == 3, back.output
    assert "value_drop" in {one["rule"] for one in json.loads(back.stdout)["reasons"]}

    # Without exploration the log says nothing, and the gate says that.
    write_log(home, tmp_path / "greedy", explore=False)
    result = judged(tmp_path / "greedy" / "impressions", "--dry-run")
    assert result.exit_code == 3, result.output
    assert "value_unknown: The log cannot say what the candidate is worth" in result.stdout
    empty = tmp_path / "empty" / "impressions"
    empty.mkdir(parents=True)
    result = judged(empty)
    assert result.exit_code == 2
    assert "must hold first places with a propensity" in result.output
    for name in ("impressions", "feedback"):
        for path in (tmp_path / "explored" / name).iterdir():
            pl.read_parquet(path).with_columns(user_id=pl.lit("x")).write_parquet(path)
    result = judged(tmp_path / "explored" / "impressions")
    assert result.exit_code == 2
    assert "is of a user they all have a list for" in result.output


@pytest.fixture
def later() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_an_incumbent_of_older_data_is_measured_on_todays(home, later):
    """Every user comes back for a new film and one that was there; a new user comes."""
    first, _ = bundles(home / "artifacts")
    (later / "artifacts").mkdir()
    shutil.copytree(first.path, later / "artifacts" / first.id)
    movies, ratings = (pl.read_parquet(home / f"{name}.parquet") for name in ("movies", "ratings"))
    new = movies.tail(1).with_columns(movieId=pl.lit(10**6).cast(movies.schema["movieId"]))
    pl.concat([movies, new]).write_parquet(later / "movies.parquet")
    end = int(ratings["timestamp"].max()) + 1000
    last = ratings.unique("userId", maintain_order=True).with_columns(
        movieId=pl.lit(10**6).cast(ratings.schema["movieId"]),
        timestamp=pl.lit(end).cast(ratings.schema["timestamp"]),
    )
    twin = ratings.filter(pl.col("userId") == ratings["userId"][0]).with_columns(
        userId=pl.lit(10**6).cast(ratings.schema["userId"])
    )
    pl.concat([ratings, last, twin]).write_parquet(later / "ratings.parquet")
    use(later, LENIENT)
    assert run(later, "train").exit_code == 0
    result = run(later, "gate", "newest", "--against", first.id, "--json")
    assert result.exit_code in (0, 3), result.output
    rules = {reason["rule"] for reason in json.loads(result.stdout)["reasons"]}
    assert not rules & {"other_data", "other_split", "other_users", "leakage"}
    report = json.loads((bundles(later / "artifacts")[-1].path / "gate_report.json").read_text())
    assert [one["name"] for one in report["effects"]] == ["ndcg@10", "recall@10"]
    assert report["facts"]["users judged"] > 55
    Bundle.load(later / "artifacts" / first.id).verify()  # nothing was written there

    # Where the incumbent was trained on what is held out now, it cannot be compared.
    (later / "recsys.toml").write_text(settings(seed=8, gate=LENIENT) + "[split]\nfraction = 0.3\n")
    assert run(later, "train").exit_code == 0
    result = run(later, "gate", "newest", "--against", first.id)
    assert result.exit_code == 4, result.output
    assert "The incumbent knows the answer, so nothing can be compared with it" in result.stdout

    # The configuration must be the candidate's.
    use(later, LENIENT)
    result = run(later, "gate", "newest", "--against", first.id)
    assert result.exit_code == 1
    assert "was trained with the split" in result.output
    gone = pl.col("movieId") != ratings["movieId"][0]
    for name in ("movies", "ratings"):
        path = later / f"{name}.parquet"
        pl.read_parquet(path).filter(gone).write_parquet(path)
    result = run(later, "gate", "newest", "--against", first.id)
    assert result.exit_code == 1
    assert "was trained on other data than" in result.output
    # Nor where a film that the incumbent knows is gone.
    (later / "recsys.toml").write_text(settings(seed=8, gate=LENIENT))
    assert run(later, "train").exit_code == 0
    result = run(later, "gate", "newest", "--against", first.id)
    assert result.exit_code == 1
    assert f"bundle {first.id} cannot be measured on today's data: items must hold" in result.output


def test_what_cannot_be_judged(home):
    first, _ = bundles(home / "artifacts")
    use(home, 'metrics = ["ndcg@99"]')
    result = run(home, "gate", first.id, "--against", first.id)
    assert result.exit_code == 1
    assert "candidate and incumbent must be two bundles" in result.output
    result = run(home, "gate", first.id, "--against", "none")
    assert result.exit_code == 2
    assert "gate.metrics must be measured for every system" in result.output
    result = run(home, "gate", "no-such-bundle", "--against", "none")
    assert result.exit_code == 1
    assert "no bundle at" in result.output


def test_damaged_evidence(home):
    first, _ = bundles(home / "artifacts")
    use(home, LENIENT)
    assert run(home, "evaluate", "--bundle", first.id).exit_code == 0
    header = first.path / "evidence" / "evidence.json"
    text = header.read_text()
    try:
        header.write_text("{")
        assert run(home, "gate", first.id, "--against", "none").exit_code == 1  # a checksum
        with pytest.raises(ArtifactError, match=r"evidence.json is damaged .*evaluate again"):
            read_evidence(Bundle.load(first.path))
        header.write_text(text.replace(first.id, "another"))
        with pytest.raises(ArtifactError, match="got 'another'; evaluate again"):
            read_evidence(Bundle.load(first.path))
        shutil.rmtree(header.parent)
        with pytest.raises(ArtifactError, match="measure it with `recsys evaluate` first"):
            read_evidence(Bundle.load(first.path))
    finally:
        assert run(home, "evaluate", "--bundle", first.id).exit_code == 0
