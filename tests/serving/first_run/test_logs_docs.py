"""docs/logs.md says what the product does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.config import Config
from recsys.config.features import parsed_definitions
from recsys.dataset import read_dataset
from serving.cli import app

PAGE = (Path(__file__).parents[3] / "docs" / "logs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_its_features_of_what_comes_again_can_be_declared() -> None:
    last = {"kind": "recency", "name": "user_item_recency", "by": "user_item"}
    declared = [last, *tomllib.loads(blocks("toml")[2])["features"]]
    found = parsed_definitions(declared, ["popularity"], retrieval_features=False)
    assert [one.name for one in found] == [one["name"] for one in declared]


def test_its_rules_of_what_comes_again_are_settings(tmp_path: Path) -> None:
    text = blocks("toml")[1]
    config = Config.model_validate(
        {"data": {"events": tmp_path / "log.parquet"}, **tomllib.loads(text)}
    )
    rule = config.slate.to_rule()
    assert [rule.until_us(0, kind) for kind in ("view", "other")] == [0, 0]
    assert rule.until_us(0, "purchase") == 7 * 86_400_000_000


def test_its_rules_are_settings_and_do_what_it_says(tmp_path: Path) -> None:
    text = blocks("toml")[0]
    settings: dict[str, Any] = tomllib.loads(text)
    rows = [
        ("u", "a", 1, "view", 5.0, 1, "1"),
        ("u", "b", 2, "purchase", 4.0, 2, "2"),
        ("u", "c", 3, "purchase", 5.0, 1, "2"),
        ("u", "d", 4, "hide", 5.0, 1, None),
        ("u", "e", 5, "remove_from_cart", 5.0, 1, None),
        ("v", "a", 6, "purchase", 1.0, 1, None),
        ("v", "b", 7, "purchase", 5.0, 2, None),
        ("v", "b", 8, "purchase", 5.0, -2, None),
        (None, "b", 9, "purchase", 5.0, 1, None),
        ("v", "c", 10, "purchase", 3.0, 1, None),
    ]
    names = ["user_id", "item_id", "timestamp", "what", "stars", "pieces", "invoice"]
    log = pl.DataFrame(rows, schema=names, orient="row")
    log.with_columns(timestamp=pl.col("timestamp") + 1_700_000_000).write_parquet(
        tmp_path / "log.parquet"
    )
    pl.DataFrame({"item_id": ["a", "b"]}).write_parquet(tmp_path / "items.parquet")
    data = {"events": tmp_path / "log.parquet", "items": tmp_path / "items.parquet"}
    found = read_dataset(Config.model_validate({"data": {**data, **settings["data"]}}))
    likes = found.interactions.frame
    pairs = ["user_id", "item_id"]
    assert sorted(likes.select(pairs).rows()) == [("u", "a"), ("u", "b"), ("u", "c")]
    assert likes["weight"].sum() == pytest.approx(0.1 * 5 + 4 + 5)
    assert likes.filter(pl.col("event") == "purchase")["timestamp"].n_unique() == 1
    dislikes = found.interactions.dislikes
    assert dislikes is not None
    assert sorted(dislikes.select(*pairs, "event").rows()) == [
        ("u", "d", "hide"),
        ("v", "a", "dislike"),
        ("v", "b", "return"),
    ]
    assert found.targets == ("purchase",)
    assert sorted(found.items.ids) == ["a", "b", "c", "d"]


def test_its_commands_exist() -> None:
    text = blocks("")[0]
    for line in text.splitlines():
        for command in line.split("#")[0].split("&&"):
            verb = command.split()[1]
            assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0
    told = CliRunner().invoke(app, ["init", "--help"]).output
    for option in re.findall(r"--[a-z]+", text):
        assert option in told
