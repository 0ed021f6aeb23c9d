from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from features.computation.declarations import load_definitions
from serving.cli import app

CONFIG = """
[data]
events = "{events}"
items = "items.parquet"
users = "users.parquet"
[data.item_columns]
text = ["title"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fifty users who each meet ten of thirty items, and a configuration."""
    rows = [
        (user, (user * 7 + at * 3) % 30, user * 10 + at) for user in range(50) for at in range(10)
    ]
    events = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user, _, _ in rows],
            "item_id": [f"i{item}" for _, item, _ in rows],
            "timestamp": [1_600_000_000 + 3_600 * time for _, _, time in rows],
        }
    )
    events.write_parquet(tmp_path / "events.parquet")
    events.write_csv(tmp_path / "events.csv")
    pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(30)],
            "title": [f"the {item}" for item in range(30)],
            "price": [float(item % 7) for item in range(30)],
            "constant": [1.0] * 30,
        }
    ).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame(
        {"user_id": [f"u{user}" for user in range(50)], "age": list(range(50))}
    ).write_parquet(tmp_path / "users.parquet")
    (tmp_path / "recsys.toml").write_text(CONFIG.format(events="events.parquet"))
    (tmp_path / "csv.toml").write_text(CONFIG.format(events="events.csv"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["features", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_suggest_writes_definitions_and_says_why(project: Path) -> None:
    code, text, _ = run("suggest", "--out", "features.toml", "--sample-events", "50")
    assert code == 0
    assert "a number with 7 values" in text
    assert "item.constant" in text
    assert "definitions: features.toml" in text
    definitions = load_definitions(tomllib.loads(Path("features.toml").read_text())["features"])
    assert {"price", "user_age", "item_count"} <= {one.name for one in definitions}


def test_suggest_as_json_agrees_for_parquet_and_csv(project: Path) -> None:
    code, text, _ = run("suggest", "--json", "--sample-events", "50")
    assert code == 0
    found = json.loads(text)
    assert found["file"] is None
    assert {one["name"] for one in found["left_out"]} >= {"item.constant", "item.title"}
    price = next(one for one in found["features"] if one["definition"]["name"] == "price")
    assert price["definition"] == {"kind": "field", "name": "price", "column": "price"}
    assert price["coverage"] == 1.0
    assert 0 < price["auc"] < 1
    assert price["users"] > 0
    assert (
        json.loads(run("suggest", "--json", "--sample-events", "50", "-c", "csv.toml")[1]) == found
    )


@pytest.mark.parametrize("config", ["recsys.toml", "csv.toml"])
def test_only_the_newest_events_are_read(project: Path, config: str) -> None:
    code, text, _ = run("suggest", "--json", "--max-events", "100", "-c", config)
    assert code == 0
    found = json.loads(text)
    # the newest hundred events are of ten users; a fifth of them is held out
    assert found["users"] == 2
    assert found["since"] == "2020-10-03T12:26:40"


def test_mistakes_are_told(project: Path) -> None:
    code, _, error = run("suggest", "-c", "nowhere.toml")
    assert code == 2
    assert "nowhere.toml" in error
    code, _, error = run("suggest", "--max-categories", "1")
    assert code == 2
    Path("events.parquet").unlink()
    code, _, error = run("suggest")
    assert code == 1
    assert "events.parquet: no such file" in error
    pl.DataFrame({"a": [1]}).write_parquet("events.parquet")
    code, _, error = run("suggest")
    assert code == 2
    assert "events.parquet" in error
    assert "user_id" in error


def test_help_of_the_group_is_light() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from serving.cli import app; "
        "result = CliRunner().invoke(app, ['features', '--help']); "
        "heavy = {'torch', 'numpy', 'polars', 'redis', 'fastapi', 'feast'}; "
        "found = sorted(heavy & set(sys.modules)); "
        "sys.exit(' '.join(found) or int('suggest' not in result.stdout))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parity_of_the_default_features(project: Path) -> None:
    code, text, _ = run("parity", "--requests", "20", "--candidates", "3")
    assert code == 0, text
    assert "60 rows" in text
    assert "left out, a retriever gives them with the request: score__" in text
    assert "online and offline are the same" in text


def test_parity_of_the_features_of_the_configuration(project: Path) -> None:
    declared = '[[features]]\nkind = "count"\nname = "met"\nby = "user_item"\n'
    Path("recsys.toml").write_text(
        declared
        + CONFIG.format(events="events.parquet")
        + "[ranking]\nretrieval_features = false\n"
    )
    found = json.loads(run("parity", "--requests", "5", "--json")[1])
    assert found["values"] == found["rows"] == 50
    assert found["left_out"] == []


FEATURES = """
[[features]]
kind = "count"
name = "met"
by = "user_item"

[[features]]
kind = "retrieval_score"
name = "score"
retriever = "towers"

[[features]]
kind = "slate_relative"
name = "score_rank"
of = "score"

[[features]]
kind = "position"
name = "shown_at"

[[features]]
kind = "similarity"
name = "like"
vectors = "content"

[[features]]
kind = "text_match"
name = "words"
column = "title"
"""


def test_parity_of_features_in_a_file(project: Path) -> None:
    Path("f.toml").write_text(FEATURES)
    code, text, _ = run("parity", "--features", "f.toml", "--requests", "5", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["equal"]
    assert found["rows"] == found["values"] == 50
    assert found["left_out"] == [
        "left out, a retriever gives them with the request: score, score_rank",
        "left out, they differ online by design: shown_at",
        "left out, they read vectors, which a bundle brings: like",
        "left out, they read the request: words",
    ]


def test_a_divergence_has_its_exit_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from features.online.cells import Cell

    monkeypatch.setattr(Cell, "add", lambda self, event, values: None)
    code, text, _ = run("parity", "--requests", "50")
    assert code == 2
    assert "values that differ: item_count " in text
    assert "the first in time: " in text
    code, text, _ = run("parity", "--requests", "50", "--json")
    first = json.loads(text)["first"]
    assert first["offline"] != first["online"]
    assert first["events"][-1]["timestamp"] < first["moment"].replace("T", " ")


def test_replay_fills_the_state_once(project: Path) -> None:
    try:
        code, text, _ = run("replay", "--batch", "128", "--json")
        assert code == 0, text
        first = json.loads(text)
        assert (first["applied"], first["duplicates"]) == (500, 0)
        again = json.loads(run("replay", "--json")[1])
        assert (again["applied"], again["duplicates"]) == (0, 500)
        assert again["state"] == first["state"]
    finally:
        CliRunner().invoke(app, ["stop"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one of the features must be computable from the log"),
        ('[[features]]\nkind = "cuont"\nname = "n"', "unknown kind 'cuont'.*did you mean 'count'"),
        ('[[features]]\nkind = "field"\nname = "n"\ncolumn = "prize"', "item.prize must exist"),
    ],
)
def test_mistakes_in_a_file_of_features(project: Path, text: str, message: str) -> None:
    Path("f.toml").write_text(text)
    code, _, error = run("parity", "--features", "f.toml")
    assert code == 2
    assert re.search(message, error), error


def test_a_file_of_features_that_is_not_there(project: Path) -> None:
    code, _, error = run("replay", "--features", "none.toml")
    assert code != 0
    assert "none.toml" in error
