from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from features.tables.reading import ReadOptions
from recsys.config import Config, DataConfig, RetrievalConfig, load_config
from recsys.errors import ConfigError
from recsys.index import INDEXES
from recsys.retrieval.training import TrainingOptions
from recsys.retrieval.training.objectives import OBJECTIVES
from recsys.semantic_ids import QUANTIZERS
from recsys.semantic_ids.options import SemanticIdOptions
from recsys.settings import OneOf, Settings

MINIMAL = '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'
ROOT = Path(__file__).resolve().parents[3]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recsys.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    return str(caught.value)


def test_paths_are_taken_from_the_directory_of_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + '[output]\ndirectory = "out"\n'))
    assert config.data.events == tmp_path / "events.parquet"
    assert config.data.users is None
    assert config.output.directory == tmp_path / "out"
    assert config.as_used()["data"]["events"] == "events.parquet"
    assert config.as_used()["output"]["directory"] == "out"


def test_the_file_of_orders_moves_with_its_directory_as_the_others_do(tmp_path: Path) -> None:
    text = MINIMAL.replace("[data]\n", '[data]\nlayout = "order_lines"\norders = "orders.csv"\n')
    config = load_config(write(tmp_path, text))
    assert config.data.orders == tmp_path / "orders.csv"
    assert config.as_used()["data"]["orders"] == "orders.csv"
    (tmp_path / "other").mkdir()
    assert load_config(write(tmp_path / "other", text)).fingerprint() == config.fingerprint()


def test_a_directory_that_is_no_text_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / "d\udcff"
    odd.mkdir()
    with pytest.raises(ConfigError, match="must have a UTF-8 path; rename it or its directory"):
        load_config(write(odd, MINIMAL))


def test_a_url_is_no_path(tmp_path: Path) -> None:
    urls = ("s3://bucket/log/*.parquet", "https://host//a.csv?b=../c", "memory://users.csv")
    text = "[data]\n" + "".join(
        f'{name} = "{url}"\n' for name, url in zip(("events", "items", "users"), urls, strict=True)
    )
    config = load_config(write(tmp_path, text))
    assert (config.data.events, config.data.items, config.data.users) == urls
    used = config.as_used()["data"]
    assert (used["events"], used["items"], used["users"]) == urls
    assert config.data.shown == "*.parquet, a.csv, users.csv"
    assert config.fingerprint() == load_config(write(tmp_path, MINIMAL)).fingerprint()
    told = refused(tmp_path, "[data]\nevents = 3\nitems = 'i.csv'\n")
    assert told == "data.events must be text in quotes, got 3"


def test_how_files_are_written_is_read_and_changes_no_model(tmp_path: Path) -> None:
    said = '[data.read.events]\nseparator = "::"\nheader = false\nbad_rows = "drop"\n'
    config = load_config(write(tmp_path, MINIMAL + said))
    wanted = ReadOptions(separator="::", header=False, bad_rows="drop")
    assert config.data.read.events.to_read_options() == wanted
    assert config.data.read.items.to_read_options() == ReadOptions()
    assert config.fingerprint() == load_config(write(tmp_path, MINIMAL)).fingerprint()
    told = refused(tmp_path, MINIMAL + '[data.read.items]\nseparator = "ab"\n')
    assert "data.read.items: separator must be one ASCII character or '::', got 'ab'" in told


def test_a_byte_order_mark_is_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "recsys.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load_config(path).data.events == tmp_path / "events.parquet"


def test_an_absolute_path_stays_absolute(tmp_path: Path) -> None:
    text = f'[data]\nevents = "{tmp_path}/else/e.csv"\nitems = "i.csv"\nusers = "u.csv"\n'
    config = load_config(write(tmp_path, text))
    assert config.data.events == tmp_path / "else" / "e.csv"
    assert config.data.users == tmp_path / "u.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[retrieval]\nlos = "bpr"', "unknown setting 'retrieval.los'; did you mean 'loss'?"),
        (
            "[split]\ntemperature = 1.0",
            "unknown setting 'split.temperature'; did you mean 'retrieval.temperature'?",
        ),
        ("[split]\nzzz = 1", "unknown setting 'split.zzz'; known here: fraction, kind"),
        ("[retreival]\ndim = 1", "unknown setting 'retreival'; did you mean 'retrieval'?"),
        ("[ranking.gbdt]\nnum_tree = 1", "'ranking.gbdt.num_tree'; did you mean 'num_trees'?"),
        ("[retrieval]\ntemperature = 0", "retrieval.temperature must be > 0, got 0"),
        ("[retrieval]\ntemperature = nan", "retrieval.temperature must be a finite number"),
        ("[retrieval]\ngamma = -1.5", "retrieval.gamma must be >= 0, got -1.5"),
        ("[split]\nfraction = 1.0", "split.fraction must be < 1, got 1.0"),
        ("[serving]\nport = 70000", "serving.port must be <= 65535, got 70000"),
        ('[retrieval]\ndim = "64"', "retrieval.dim must be a whole number, got '64'"),
        ("[retrieval]\ndim = 6.5", "retrieval.dim must be a whole number, got 6.5"),
        ("[retrieval]\nuse_user_id = 1", "retrieval.use_user_id must be true or false, got 1"),
        ("[serving]\nhost = 1", "serving.host must be text in quotes, got 1"),
        ("[retrieval]\ndim = true", "retrieval.dim must be a whole number, got True"),
        (
            '[retrieval]\nloss = "directua"',
            "sl_at_k, auto, got 'directua'; did you mean 'directau'?",
        ),
        (
            '[retrieval]\nsources = ["popularity", "popularity"]',
            "each retriever may appear once, got popularity twice",
        ),
        ("[retrieval]\nsources = []", "needs at least one retriever, got none"),
        ('[retrieval]\nsources = ["two_tower"]', "must include 'popularity'"),
        ('[retrieval]\nsources = ["popularty"]', "did you mean 'popularity'?"),
        ("[evaluation]\nks = [5, 5]", "each cutoff may appear once, got 5 twice"),
        ("[evaluation]\nks = [0]", "evaluation.ks.0 must be >= 1, got 0"),
        ("[content]\ntext_weight = 0\nattribute_weight = 0", "must not both be 0"),
        ('[store]\nurl = "redis://u:secret@h"', "must not hold a password"),
        ('[store]\nurl = "http://h"', "must be 'embedded' or start with redis://"),
        ('[store]\nnamespace = "a b"', "store.namespace"),
    ],
)
def test_a_refused_setting_names_the_rule_and_the_value(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in refused(tmp_path, MINIMAL + text)


def test_a_password_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    assert "secret" not in refused(tmp_path, MINIMAL + '[store]\nurl = "redis://u:secret@h"')


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, 'seeds = 1\n[data]\nitems = "i"\n[split]\nfraction = 2.0\n')
    assert len(message.splitlines()) == 3
    assert "missing setting 'data.events'" in message
    assert "did you mean 'seed'?" in message


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    assert "missing setting 'data'" in refused(tmp_path, "seed = 1\n")


def test_a_value_where_a_section_belongs(tmp_path: Path) -> None:
    assert "split must be a table, got 3" in refused(tmp_path, "split = 3\n" + MINIMAL)


def test_a_missing_file_and_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist; give one with --config"):
        load_config(tmp_path / "nowhere.toml")
    assert "is not TOML" in refused(tmp_path, "[data\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_cutoffs_are_sorted(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + "[evaluation]\nks = [20, 5]\n"))
    assert config.evaluation.ks == (5, 20)


def test_the_configuration_is_immutable() -> None:
    section = RetrievalConfig()
    with pytest.raises(ValidationError, match="frozen"):
        section.dim = 3  # type: ignore[misc]


def test_a_moment_of_the_split_is_utc_and_of_its_kind_alone(tmp_path: Path) -> None:
    text = MINIMAL + '[split]\nkind = "time"\n'
    plain = load_config(write(tmp_path, text))
    config = load_config(write(tmp_path, text + "moment = 2026-01-02T04:00:00+03:00\n"))
    assert config.split.moment == datetime(2026, 1, 2, 1)
    assert config.as_used()["split"]["moment"] == "2026-01-02T01:00:00"
    assert type(config.split)(**config.as_used()["split"]) == config.split
    assert load_config(write(tmp_path, text + "moment = 2026-01-02T01:00:00\n")) == config
    assert plain.fingerprint() != config.fingerprint()
    message = refused(tmp_path, MINIMAL + "[split]\nmoment = 2026-01-02T01:00:00\n")
    assert "moment must stand with kind = 'time', got 'per_user'" in message


def test_columns_become_the_value_type_of_the_readers(tmp_path: Path) -> None:
    text = MINIMAL + '[data.columns]\nuser = "u"\nweight = "stars"\ntimestamp_unit = "ms"\n'
    columns = load_config(write(tmp_path, text)).data.columns.to_event_columns()
    assert (columns.user, columns.item, columns.weight) == ("u", "item_id", "stars")
    assert columns.unit == "ms"


def test_item_columns_become_reader_options(tmp_path: Path) -> None:
    text = MINIMAL + '[data.item_columns]\nid = "movie"\ntext = ["title"]\n'
    options = load_config(write(tmp_path, text)).data.item_columns.to_options("item_id")
    assert options["id_column"] == "movie"
    assert options["text_columns"] == ("title",)
    assert options["list_columns"] is None
    assert (
        DataConfig(events=Path("e"), items=Path("i")).item_columns.to_options("item_id")[
            "id_column"
        ]
        == "item_id"
    )


def test_the_fingerprint_follows_what_can_change_a_model(tmp_path: Path) -> None:
    base = load_config(write(tmp_path, MINIMAL)).fingerprint()
    (tmp_path / "other").mkdir()
    moved = load_config(write(tmp_path / "other", MINIMAL + "[serving]\nport = 1\n"))
    assert moved.fingerprint() == base
    assert load_config(write(tmp_path, MINIMAL + "[retrieval]\ndim = 68\n")).fingerprint() != base
    assert load_config(write(tmp_path, "seed = 1\n" + MINIMAL)).fingerprint() != base


def test_sections_have_fingerprints_of_their_own() -> None:
    assert RetrievalConfig().fingerprint() == RetrievalConfig().fingerprint()
    assert RetrievalConfig().fingerprint() != RetrievalConfig(dim=32).fingerprint()
    assert isinstance(RetrievalConfig(), Settings)


def test_as_used_can_be_read_back(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert Config.model_validate(config.as_used()).fingerprint() == config.fingerprint()


def test_the_demo_configuration_is_valid() -> None:
    config = load_config(ROOT / "recsys.toml")
    assert config.data.events.is_file()
    assert config.data.items.is_file()


@pytest.mark.parametrize(
    ("section", "setting", "known"),
    [
        (SemanticIdOptions, "kind", set(QUANTIZERS)),
    ],
)
def test_the_choices_are_those_that_exist(
    section: type[Settings], setting: str, known: set[str]
) -> None:
    assert set(get_args(section.model_fields[setting].annotation)) == known


@pytest.mark.parametrize(("setting", "table"), [("loss", OBJECTIVES), ("index", INDEXES)])
def test_names_that_are_known_without_loading_are_those_of_the_table(
    setting: str, table: dict[str, object]
) -> None:
    metadata = RetrievalConfig.model_fields[setting].metadata
    (names,) = [one for one in metadata if isinstance(one, OneOf)]
    assert names.built_in == tuple(table)
    assert names.names() == (*table, *names.besides)
    assert names.besides == (("auto",) if setting == "loss" else ())


def test_every_denoising_can_be_trained_with() -> None:
    for name in get_args(RetrievalConfig.model_fields["denoising"].annotation):
        assert TrainingOptions(denoising=name).denoising == name


def test_an_id_of_items_needs_their_file() -> None:
    values = {"events": "e.csv", "item_columns": {"id": "sku"}}
    with pytest.raises(ValueError, match=r"'data.item_columns.id' must not stand without"):
        Config.model_validate({"data": values})
    named = Config.model_validate({"data": values | {"item_columns": {"title": "name"}}})
    assert named.data.item_columns.title == "name"


def test_times_that_do_not_go_together_are_refused() -> None:
    for columns, told in (
        ({"timestamp_format": "year"}, "format must be one of strftime"),
        ({"timestamp_unit": "none", "timestamp_format": "%Y"}, "must not stand beside the unit"),
        ({"timestamp_unit": "order", "created": "at"}, "created must not be named beside"),
    ):
        with pytest.raises(ValueError, match=told):
            Config.model_validate({"data": {"events": "e.csv", "columns": columns}})
    columns = {"timestamp_format": "%d/%m/%Y"}
    feast = {"feast": {"repository": "r"}, "columns": columns}
    with pytest.raises(ValueError, match=r"'data.columns.timestamp_format' beside 'data.feast'"):
        Config.model_validate({"data": feast})


def test_the_text_model_lies_beside_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "recsys.toml"
    content = '[content]\ntext_encoder = "sentence-transformers"\n'
    data = '[data]\nevents = "a.csv"\n'
    file.write_text(f'{data}{content}text_model = "models/mini"\n')
    config = load_config(file)
    assert config.content.text_model == tmp_path / "models" / "mini"
    assert config.as_used()["content"]["text_model"] == "models/mini"
    file.write_text(data + content)
    with pytest.raises(ConfigError, match="text_model must be the directory of a saved model"):
        load_config(file)
