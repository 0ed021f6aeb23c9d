"""Feature definitions in the configuration, before any data are read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from features import (
    Count,
    RetrievalScore,
    SlateRelative,
    default_definitions,
    dump_definitions,
)
from features.computation.declarations import make_definition
from features.errors import DataError
from recsys.config import Config, load_config
from recsys.config.features import combined_definitions, retrieval_definitions
from recsys.errors import ConfigError
from recsys.tuning.search import _run_with
from recsys.tuning.toml_text import to_toml
from tests.feature_world import ITEMS

MINIMAL = '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'
COUNT = '[[features]]\nkind = "count"\nname = "seen"\nwindow_days = 7\n'
SOURCES = ("two_tower", "popularity")
FROM_FILE = 'features_file = "features.toml"\n' + MINIMAL


def write(directory: Path, text: str, features: str | None = None) -> Path:
    path = directory / "recsys.toml"
    path.write_text(text, encoding="utf-8")
    if features is not None:
        (directory / "features.toml").write_text(features, encoding="utf-8")
    return path


def refused(directory: Path, text: str, features: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(directory, text, features))
    return str(caught.value)


def declared(**record: Any) -> str:
    return MINIMAL + to_toml({"features": [record]})


def test_definitions_stand_in_the_configuration_or_in_a_file(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL)).features is None
    inline = load_config(write(tmp_path, MINIMAL + COUNT))
    assert inline.features == (Count(name="seen", window_days=7),)
    record = {"kind": "count", "name": "seen", "window_days": 7}
    assert inline.as_used()["features"] == [record]
    apart = load_config(write(tmp_path, FROM_FILE, "# why\n" + COUNT))
    assert apart.features == inline.features
    assert (inline.features_file, apart.features_file) == (None, tmp_path / "features.toml")
    assert apart.as_used()["features_file"] == "features.toml"
    assert apart.fingerprint() == inline.fingerprint()


def test_the_fingerprint_follows_the_definitions_and_not_how_they_are_written(
    tmp_path: Path,
) -> None:
    base = load_config(write(tmp_path, MINIMAL + COUNT)).fingerprint()
    other_words = '[[features]]\nby = "item"\nname = "seen"\nwindow_days = 7\nkind = "count"\n'
    assert load_config(write(tmp_path, MINIMAL + other_words)).fingerprint() == base
    assert load_config(write(tmp_path, MINIMAL)).fingerprint() != base
    longer = MINIMAL + COUNT.replace("7", "8")
    assert load_config(write(tmp_path, longer)).fingerprint() != base


def test_a_configuration_as_used_holds_its_definitions(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FROM_FILE, COUNT))
    again = Config.model_validate(config.as_used())
    assert again.features == config.features
    assert again.fingerprint() == config.fingerprint()


def test_tuned_settings_keep_the_definitions(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FROM_FILE, COUNT))
    (tmp_path / "tuning").mkdir()
    text = to_toml(_run_with(config, {"retrieval.dim": 8}, tmp_path / "tuning"))
    tuned = load_config(write(tmp_path / "tuning", text))
    assert tuned.features == config.features
    assert tuned.features_file is None
    assert tomllib.loads(text)["retrieval"] == {"dim": 8}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "cuont", "name": "a"}, "'a': unknown kind 'cuont'"),
        ({"kind": "cuont", "name": "a"}, "did you mean 'count'?"),
        ({"kind": "count", "name": "a", "window_dys": 1}, "count has no 'window_dys'"),
        ({"kind": "field", "name": "a"}, "field needs 'column'; add it"),
        ({"kind": "count", "name": "a", "by": "itm"}, "by must be one of global, item"),
        ({"kind": "count", "name": "a", "window_days": "7"}, "window_days must be a number, got"),
        ({"kind": "count", "name": "a", "log": 1}, "log must be true or false, got 1"),
        ({"kind": "count", "name": 3}, "definition 3: name must be text in quotes, got 3"),
        ({"kind": "session", "name": "a", "last": 2.5}, "last must be a whole number, got 2.5"),
        ({"kind": "category", "name": "a", "column": "b", "values": "c"}, "values must be a list"),
        ({"kind": "slate_relative", "name": "a", "of": "rank__popularty"}, "'rank__popularity'?"),
    ],
)
def test_a_wrong_definition_is_refused_when_the_configuration_is_read(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    assert message in refused(tmp_path, declared(**record))
    told = refused(tmp_path, FROM_FILE, to_toml({"features": [record]}))
    assert told.startswith("features: features.toml: definition ")
    assert message in told


def test_all_arguments_of_a_wrong_type_are_told_at_once(tmp_path: Path) -> None:
    second = COUNT.replace("seen", "other").replace("7", "true")
    told = refused(tmp_path, MINIMAL + COUNT.replace("7", '"7"') + second)
    assert "'seen': window_days must be a number, got '7'\ndefinition 'other': " in told


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"kind": "position", "name": "a"},
            "position must not be a feature of the ranker: it learns from what the retrievers "
            "found, which was not shown anywhere; remove it",
        ),
        (
            {"kind": "text_match", "name": "a", "column": "title"},
            "text_match must not be a feature of the ranker: its requests hold a user and a "
            "moment, and no text 'query' to match; remove it",
        ),
        (
            {"kind": "retrieval_score", "name": "a", "retriever": "two_towr"},
            "got 'two_towr'; did you mean 'two_tower'?",
        ),
        (
            {"kind": "retrieval_rank", "name": "a", "retriever": "ann"},
            "popularity, buy_again, got 'ann'; or add it to retrieval.sources",
        ),
        (
            {"kind": "retrieval_rank", "name": "a", "retriever": "popularity_share"},
            "got 'popularity_share'; did you mean 'popularity'?",
        ),
    ],
)
def test_what_the_candidates_of_a_run_do_not_have_is_refused(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    assert message in refused(tmp_path, declared(**record))


@pytest.mark.parametrize(
    ("text", "features", "message"),
    [
        (FROM_FILE, None, "features_file .*features.toml does not exist; correct the path, or let"),
        (FROM_FILE, "", r"holds no \[\[features\]\] table; add one, or drop features_file"),
        (FROM_FILE, "seed = 1\n" + COUNT, r"must hold \[\[features\]\] tables alone, got seed"),
        (FROM_FILE, "[[features\n", "features.toml is not TOML: "),
        (FROM_FILE.replace("features.toml", "."), None, "features_file .* cannot be read: "),
        (FROM_FILE + COUNT, COUNT, r"must not stand beside \[\[features\]\], got 1 of these"),
        ("features_file = 3\n" + MINIMAL, None, "features_file must be .* in quotes, got 3"),
        (
            MINIMAL + '[features]\nkind = "age"\n',
            None,
            r"write each as \[\[features\]\], in double",
        ),
        ("features = 3\n" + MINIMAL, None, "definitions must be a list of tables"),
        ("features = [3]\n" + MINIMAL, None, "definitions must be a list of tables"),
        (
            "features = []\n" + MINIMAL + "[ranking]\nretrieval_features = false\n",
            None,
            "the ranker needs at least one definition, got none",
        ),
    ],
)
def test_where_definitions_can_stand(
    tmp_path: Path, text: str, features: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text, features))


def test_a_mistake_elsewhere_is_not_told_twice(tmp_path: Path) -> None:
    told = refused(tmp_path, MINIMAL + COUNT + "[retrieval]\ndim = 0\n")
    assert told == "retrieval.dim must be >= 4, got 0"


def test_a_features_file_is_read_by_load_config_alone() -> None:
    with pytest.raises(ValidationError, match=r"'x\.toml' is read by load_config alone"):
        Config.model_validate({"data": {"events": "e", "items": "i"}, "features_file": "x.toml"})


# -- what is added --------------------------------------------------------------------------------


def test_what_is_added_is_what_the_defaults_hold_of_retrievers() -> None:
    own = default_definitions(ITEMS)
    whole = default_definitions(ITEMS, SOURCES, vectors=("content",))
    shares = retrieval_definitions(SOURCES)[-2:]
    assert [one.name for one in shares] == ["share__two_tower", "share__popularity"]
    assert (*own, *retrieval_definitions(SOURCES)) == (*whole, *shares)


def test_declared_definitions_come_first_and_stand_in_for_added_ones() -> None:
    records = [
        {"kind": "slate_relative", "name": "best", "of": "score__two_tower", "how": "minus_mean"},
        {"kind": "similarity", "name": "content_similarity", "vectors": "content", "last": 3},
    ]
    definitions = combined_definitions(
        [make_definition(one) for one in records], SOURCES, retrieval_features=True
    )
    assert definitions[0] == SlateRelative(name="best", of="score__two_tower", how="minus_mean")
    assert dump_definitions(definitions[:2]) == records
    added = {one.name for one in definitions[2:]}
    assert added == {one.name for one in retrieval_definitions(SOURCES)} - {"content_similarity"}


def test_nothing_is_added_when_that_is_off() -> None:
    mine = RetrievalScore(name="mine", retriever="two_tower_share")
    assert combined_definitions([mine], SOURCES, retrieval_features=False) == (mine,)
    relative = SlateRelative(name="best", of="score__two_tower")
    with pytest.raises(DataError, match="of must name another definition"):
        combined_definitions([relative], SOURCES, retrieval_features=False)
