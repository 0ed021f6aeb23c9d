"""The log of a real shop, raw: from the file to recommendations, with nothing edited by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.config import load_config
from recsys.dataset import read_dataset
from serving.cli import app

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))
LOG = DATA / "online-retail-2010" / "transactions.parquet"

pytestmark = pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not there; set RECSYS_DATA")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_init_finds_what_its_rows_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = run("init", "--events", str(LOG))
    assert "no problems" in told
    config = load_config("recsys.toml")
    columns, rules = config.data.columns, config.data.rules
    assert (columns.user, columns.item, columns.timestamp) == (
        "Customer ID",
        "StockCode",
        "InvoiceDate",
    )
    assert (columns.quantity, columns.order) == ("Quantity", "Invoice")
    assert (rules.negative_quantity, rules.missing, rules.repeats) == ("cancel", "drop", "sum")
    assert config.data.item_columns.text == ("Description",)
    assert config.split.kind == "time"
    for count in (
        "107,927 rows without Customer ID",  # guests
        "9,839 rows of a quantity below 0 took back",  # returns of customers
        "12,326 rows below 0 are returns",
    ):
        assert count in told
    seen = json.loads(run("validate", "--json"))
    assert seen["valid"]
    data = read_dataset(config)
    log = data.interactions
    assert log.dislikes is not None
    assert set(log.dislikes["event"].unique()) == {"return"}
    bought = set(zip(log.frame["user_id"], log.frame["item_id"], strict=True))
    kept = log.dislikes.filter(log.dislikes["timestamp"] == log.dislikes["timestamp"].max()).select(
        "user_id", "item_id"
    )
    assert not bought & set(kept.iter_rows())  # nothing is left of what came back last
    assert data.items.frame["Description"].null_count() < 10


@pytest.mark.slow
def test_from_the_file_to_recommendations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small towers beside what `init` wrote; no line of [data] is touched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    run("init", "--events", str(LOG))
    with Path("recsys.toml").open("a") as file:
        file.write('[retrieval]\nsources = ["item_item", "co_occurrence", "popularity"]\n')
        file.write("[ranking.listwise]\nenabled = false\n")
    run("train")
    table = run("evaluate")
    assert "held out: everything from 2010-10-" in table
    run("candidates")
    try:
        run("publish")
        found = json.loads(run("recommend", "13085", "-k", "5", "--json"))
    finally:
        run("stop")
    assert len(found["items"]) == 5
