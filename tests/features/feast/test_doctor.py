"""`recsys doctor feast` on a real repository: what it finds, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import DataError
from features.feast import doctor
from features.feast.doctor import FeastFinding, examine
from serving.cli import app

ONLINE = "features.feast.online_store.RecsysRedisOnlineStore"


def yaml_of(shop, **options) -> Path:
    """The repository's directory as the doctor wants it: one feature_store.yaml."""
    shop.reopened(**options)
    name = f"{options.get('online', 'redis')}-{options.get('offline', 'file')}.yaml"
    return shop.home / name


def by_check(findings) -> dict[str, FeastFinding]:
    return {finding.check: finding for finding in findings}


def fingerprint(shop) -> tuple[str, dict[bytes, object], list[str]]:
    registry = hashlib.sha256((shop.home / "registry.db").read_bytes()).hexdigest()
    contents = {
        key: (sorted(shop.client.hgetall(key).items()), shop.client.ttl(key))
        for key in shop.client.keys("*")
    }
    files = sorted(
        f"{path} {path.stat().st_mtime_ns}" for path in shop.home.rglob("*") if path.is_file()
    )
    return registry, contents, files


@pytest.fixture(scope="module")
def stock(shop):
    """Findings for Feast as it comes: Redis online, files offline; nothing may change."""
    path = yaml_of(shop)
    before = fingerprint(shop)
    findings = examine(path)
    assert fingerprint(shop) == before
    assert len(before[1]) == 38
    return by_check(findings)


def test_the_file_store_loses_the_slate(stock) -> None:
    finding = stock["slate"]
    assert finding.state == "FAIL"
    assert "user_stats: 10 rows went in, 1 came back" in finding.detail
    assert "feast#6787" in finding.upstream
    assert "DuckDB" in finding.remedy


def test_the_file_store_loses_rows_that_have_no_value(stock) -> None:
    finding = stock["rows without a value"]
    assert finding.state == "FAIL"
    assert "user_stats: 2 went in, 0 came back" in finding.detail
    assert "item_types: 1 went in, 0 came back" in finding.detail  # it has no ttl


def test_the_order_is_reported(stock) -> None:
    finding = stock["order"]
    assert finding.state == "WARN"
    assert "came back in another order" in finding.detail
    assert "row id" in finding.remedy


def test_an_old_row_that_is_served_is_a_failure(stock) -> None:
    finding = stock["ttl online"]
    assert finding.state == "FAIL"
    assert "1 of 37 rows are beyond their ttl and come back" in finding.detail
    assert "item_stats of item_id 4 is 40 days old, its ttl 30 days" in finding.detail
    assert finding.upstream == ("feast#6821", "feast#1802")


def test_a_missing_id_that_is_present(stock) -> None:
    finding = stock["missing id"]
    assert finding.state == "WARN"
    assert "answered PRESENT, with None" in finding.detail


def test_keys_and_values_are_compared(stock) -> None:
    assert stock["redis keys"].state == "OK"
    assert stock["redis keys"].detail == "keys and values of 39 rows are what Feast reads"
    assert stock["server"].detail.startswith("valkey ")


def test_the_registry_is_read_for_what_is_missing(stock) -> None:
    assert stock["views without ttl"].detail.startswith("item_types: a value holds for ever")
    created = stock["views without created column"].detail
    without = created.partition(":")[0].split(", ")
    assert sorted(without) == ["item_types", "pair_stats", "user_stats"]
    assert "views offline only" not in stock
    assert stock["registry"].detail == "4 views of project 'shop'"
    assert stock["feast"].state == "OK"


def test_the_drop_in_and_duckdb_mend_what_they_can(shop) -> None:
    found = by_check(examine(yaml_of(shop, online=ONLINE, offline="duckdb")))
    assert found["slate"].state == "OK"
    assert found["rows without a value"].state == "OK"
    assert found["ttl online"].detail == "1 rows beyond their ttl are not answered"
    assert found["missing id"].detail.endswith(": it is answered NOT_FOUND")
    assert found["redis keys"].state == "OK"
    assert [one.check for one in found.values() if one.state == "FAIL"] == []


def test_another_online_store_is_not_created_by_looking(shop) -> None:
    found = by_check(examine(yaml_of(shop, online="sqlite")))
    assert not (shop.home / "online.db").exists()
    assert found["missing id"].detail == "not tested: nothing is materialized yet"
    assert found["ttl online"].detail == "not tested: none of 0 rows is beyond its ttl"
    assert "only Redis" in found["server"].detail
    assert "redis keys" not in found


def test_no_registry_is_not_made(shop, tmp_path) -> None:
    text = yaml_of(shop).read_text().replace(f"{shop.home}/registry.db", "none.db")
    (tmp_path / "feature_store.yaml").write_text(text)
    findings = examine(tmp_path)
    assert findings[-1].state == "FAIL"
    assert findings[-1].detail == f"there is no {tmp_path}/none.db"
    assert [path.name for path in tmp_path.iterdir()] == ["feature_store.yaml"]


def test_paths_of_a_repository_are_its_own_wherever_one_stands(shop, tmp_path, monkeypatch) -> None:
    text = yaml_of(shop, online="sqlite", offline="duckdb").read_text()
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    repository.mkdir()
    elsewhere.mkdir()
    (repository / "feature_store.yaml").write_text(text.replace(f"{shop.home}/", "data/"))
    (repository / "data").mkdir()
    shutil.copy(shop.home / "registry.db", repository / "data")
    monkeypatch.chdir(elsewhere)
    for asked in (repository, "../repository"):
        assert by_check(examine(asked))["registry"].detail == "4 views of project 'shop'"
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name for path in (repository / "data").iterdir()) == ["registry.db"]


def test_a_server_that_is_down_is_asked_once(shop, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("redis.retry.sleep", lambda _: None)
    text = yaml_of(shop, offline="duckdb").read_text()
    socket = text.partition("unix_socket_path=")[2].partition('"')[0]
    (tmp_path / "feature_store.yaml").write_text(text.replace(socket, str(tmp_path / "no.sock")))
    found = by_check(examine(tmp_path))
    assert found["server"].state == "FAIL"
    assert "no.sock" in found["server"].detail
    assert "ttl online" not in found
    assert found["slate"].state == "OK"


def test_a_check_that_cannot_be_run_stops_no_other(shop, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk\nfull")

    monkeypatch.setattr("features.feast.doctor_offline.source_times", broken)
    found = by_check(examine(yaml_of(shop)))
    for check in ("slate", "rows without a value", "order"):
        assert found[check].state == "WARN"
    assert found["slate"].detail == "could not be run: OSError: disk full"
    assert found["redis keys"].state == "OK"


def test_a_file_that_is_not_feasts(shop, tmp_path) -> None:
    with pytest.raises(DataError, match=r"repository must hold feature_store\.yaml, got"):
        examine(tmp_path)
    (tmp_path / "feature_store.yaml").write_text("project: 1x\n")
    finding = examine(tmp_path)[-1]
    assert (finding.state, finding.check) == ("FAIL", "repository")


def test_versions_that_feast_cannot_take(monkeypatch) -> None:
    have = {"feast": "0.68.0", "redis": "8.1.0", "pandas": "2.3.3", "protobuf": "7.0"}

    def version(name: str) -> str:
        if name not in have:
            raise doctor.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(doctor, "version", version)
    found = by_check(doctor._versions())
    assert found["feast"].state == "WARN"
    assert found["redis"].state == "FAIL"
    assert found["redis"].remedy == "pip install 'redis<8'"
    assert found["hiredis"].detail == "not installed"
    assert found["pandas"].state == "OK"


def test_a_finding_as_text() -> None:
    finding = FeastFinding("FAIL", "slate", "rows are lost", "do this", ("feast#1", "feast#2"))
    assert str(finding) == "FAIL  slate: rows are lost (feast#1, feast#2) -> do this"
    assert str(FeastFinding("OK", "feast", "0.67.0")) == "OK    feast: 0.67.0"


def test_the_command(shop, tmp_path) -> None:
    shutil.copy(yaml_of(shop, online=ONLINE, offline="duckdb"), tmp_path / "feature_store.yaml")
    run = CliRunner().invoke(app, ["doctor", "feast", str(tmp_path), "--json"])
    told = json.loads(run.stdout)
    assert run.exit_code == 0
    assert told["healthy"]
    assert {"state", "check", "detail", "remedy", "upstream"} == set(told["checks"][0])
    shutil.copy(yaml_of(shop), tmp_path / "feature_store.yaml")
    run = CliRunner().invoke(app, ["doctor", "feast", str(tmp_path)])
    assert run.exit_code == 1
    assert "FAIL  slate: rows of one key" in run.stdout
    run = CliRunner().invoke(app, ["doctor", "feast", str(tmp_path / "none")])
    assert run.exit_code == 2
    assert "repository must hold feature_store.yaml" in run.stderr


def test_help_imports_no_feast() -> None:
    code = "import sys, serving.cli; print('feast' in sys.modules, 'polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
