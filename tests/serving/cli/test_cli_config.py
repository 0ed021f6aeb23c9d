"""`recsys config show` and `recsys config reference`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app

TEXT = """
seed = 7
[data]
events = "events.parquet"
items = "items.parquet"
[retrieval]
dim = 32
epochs = 15
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recsys.toml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    for name in ("RECSYS_STORE_URL", "RECSYS_STORE_PASSWORD", "RECSYS_DATA"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["config", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_not_as_by_default_is_marked() -> None:
    lines = run("show").splitlines()
    assert "seed = 7  # set" in lines
    assert "dim = 32  # set" in lines
    assert "epochs = 15" in lines, "said, and as by default"
    assert 'loss = "sampled_softmax"' in lines
    assert "# not said: users" in lines
    assert "[retrieval]" in lines


def test_only_what_is_changed() -> None:
    lines = run("show", "--changed").splitlines()
    assert [line for line in lines if "=" in line and not line.endswith("# set")] == []
    assert "dim = 32  # set" in lines
    assert "epochs" not in "\n".join(lines)


def test_as_json() -> None:
    values = json.loads(run("show", "--json"))
    assert values["settings"]["retrieval.dim"] == {"value": 32, "default": False}
    assert values["settings"]["retrieval.temperature"] == {"value": 0.1, "default": True}


def test_secrets_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_STORE_URL", "redis://:topsecret@host:6379/0")
    monkeypatch.setenv("RECSYS_STORE_PASSWORD", "topsecret")
    monkeypatch.setenv("RECSYS_API_KEYS_FILE", "/etc/keys")
    shown = run("show")
    assert "topsecret" not in shown
    assert "RECSYS_STORE_PASSWORD=(hidden)" in shown
    assert "RECSYS_STORE_URL=redis://:***@host" in shown
    assert "RECSYS_API_KEYS_FILE=/etc/keys" in shown


@pytest.mark.parametrize("url", ["top:secret", "redis://topsecret@[", "://:topsecret@"])
def test_a_malformed_url_gives_nothing_away(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RECSYS_STORE_URL", url)
    assert "secret" not in run("show")


def test_the_reference_names_every_section() -> None:
    page = run("reference")
    for title in ("## `[retrieval]`", "## `[[experiments]]`", "## `[[experiments.arms]]`"):
        assert title in page
    values = json.loads(run("reference", "--json"))
    assert values["gate"][0]["name"] == "metrics"
