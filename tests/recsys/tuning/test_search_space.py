from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from recsys.config import Config, RetrievalConfig, TuningConfig, load_config
from recsys.config.tuning import UNSEARCHED, Dimension, step_of
from recsys.errors import ConfigError
from recsys.tuning.space import default_space, settings_now

MINIMAL = '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "recsys.toml"
    path.write_text(MINIMAL + text, encoding="utf-8")
    return load_config(path)


def space(tmp_path: Path, line: str) -> dict[str, Dimension]:
    return load(tmp_path, f"[tuning.space]\n{line}\n").tuning.space


def test_ranges_and_choices_are_read(tmp_path: Path) -> None:
    found = space(
        tmp_path,
        '"retrieval.temperature" = {low = 0.05, high = 0.2, log = true}\n'
        '"retrieval.loss" = {choices = ["bpr", "directau"]}\n'
        "retrieval.dim = {low = 32, high = 128}",
    )
    assert found == {
        "retrieval.temperature": Dimension(low=0.05, high=0.2, log=True),
        "retrieval.loss": Dimension(choices=("bpr", "directau")),
        "retrieval.dim": Dimension(low=32, high=128),
    }
    assert list(map(str, found.values())) == ["0.05 to 0.2, log", "bpr, directau", "32 to 128"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '"retrieval.temprature" = {low = 1, high = 2}',
            "unknown setting 'retrieval.temprature'; did you mean 'retrieval.temperature'?",
        ),
        (
            "temperature = {low = 1, high = 2}",
            "unknown setting 'temperature'; did you mean 'retrieval.temperature'?",
        ),
        ("split.zzz = {low = 1, high = 2}", "unknown setting 'split.zzz'; known: "),
        (
            'retrieval.index = {choices = ["exact", "annoy"]}',
            "'retrieval.index' does not change the towers",
        ),
        ("retrieval.dim = 3", "retrieval.dim must be a table with low and high, or with choices"),
        ("retrieval.dim = {low = 3, hi = 4}", "retrieval.dim has an unknown 'hi'; a table has low"),
        ("retrieval.dim = {low = 3}", "retrieval.dim must have low and high, or choices: high is"),
        ("retrieval.dim = {}", "retrieval.dim must have low and high, or choices: low is missing"),
        ("retrieval.dim = {low = 4, high = 9}", "retrieval.dim must be a multiple of 4, got 9"),
        (
            "retrieval.dim = {low = 4, high = 8, log = true}",
            "retrieval.dim.log must be false for multiples of 4",
        ),
        ("retrieval.dim = {low = 4, high = 4}", "retrieval.dim.low must be below its high 4, got"),
        ("retrieval.dim = {low = 0, high = 4}", "retrieval.dim must be >= 4, got 0"),
        ("retrieval.dim = {low = 1, high = 4.5}", "retrieval.dim must be a whole number, got 4.5"),
        ("retrieval.dim = {low = 1, high = true}", "retrieval.dim must be a whole number, got T"),
        ('retrieval.gamma = {low = "1", high = 2}', "retrieval.gamma must be a number, got '1'"),
        ("retrieval.gamma = {low = nan, high = 2}", "retrieval.gamma must be a finite number"),
        (
            "retrieval.gamma = {low = 0, high = 2, log = true}",
            "retrieval.gamma.low must be > 0 with log = true, got 0",
        ),
        (
            "retrieval.gamma = {low = 1, high = 2, log = 1}",
            "retrieval.gamma.log must be true or false, got 1",
        ),
        ("retrieval.score = {low = 1, high = 2}", "retrieval.score is no number: give it choices"),
        ("retrieval.use_user_id = {low = 0, high = 1}", "retrieval.use_user_id is no number"),
        (
            'retrieval.score = {choices = ["cosin", "dot"]}',
            "retrieval.score must be one of cosine, dot, got 'cosin'; did you mean 'cosine'?",
        ),
        ("retrieval.dim = {choices = [8, 0]}", "retrieval.dim must be >= 4, got 0"),
        ("retrieval.dim = {choices = [8]}", "retrieval.dim.choices must be a list of at least two"),
        ('retrieval.loss = {choices = "bpr"}', "retrieval.loss.choices must be a list of at least"),
        ("retrieval.dim = {choices = [8, 8]}", "retrieval.dim.choices must be distinct, got 8 twi"),
        (
            "retrieval.dim = {low = 1, high = 2, choices = [8, 9]}",
            "retrieval.dim must have either low and high, or choices, got both",
        ),
    ],
)
def test_a_refused_space_names_the_rule_and_the_value(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        space(tmp_path, line)
    assert f"tuning.space: {message}" in str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        space(tmp_path, "retrieval.dim = {low = 0, high = 0.5}\nzzz = 1")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("tuning.space: ") for line in lines)


def test_a_space_that_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tuning.space: must be a table .* got 3"):
        load(tmp_path, "[tuning]\nspace = 3\n")
    with pytest.raises(ConfigError, match=r"tuning\.minutes must be > 0, got 0"):
        load(tmp_path, "[tuning]\nminutes = 0\n")


def test_the_space_changes_no_model_and_can_be_read_back(tmp_path: Path) -> None:
    plain = load(tmp_path, "")
    other = load(
        tmp_path,
        "[tuning]\nminutes = 3\n[tuning.space]\nretrieval.dim = {low = 4, high = 12}\n"
        "retrieval.score = {choices = ['dot', 'cosine']}\n",
    )
    assert other.fingerprint() == plain.fingerprint()
    assert Config.model_validate(other.as_used()).tuning == other.tuning
    assert TuningConfig(space=other.tuning.space) == other.tuning.model_copy(update={"minutes": 60})


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"temperature", "negatives", "negative_power"}),
        ({"loss": "bpr"}, {"temperature", "negatives", "negative_power"}),
        ({"loss": "directau"}, {"gamma"}),
        ({"loss": "in_batch_softmax"}, {"temperature"}),
        ({"loss": "mawu"}, {"mawu_user_gamma", "mawu_item_gamma"}),
        (
            {"loss": "directau", "denoising": "pld"},
            {"gamma", "temperature", "negatives", "negative_power", "denoise_temperature"},
        ),
        (
            {"loss": "bpr", "denoising": "truncated"},
            {"temperature", "negatives", "negative_power", "drop_rate"},
        ),
        (
            {"loss": "bpr", "denoising": "reweighted"},
            {"temperature", "negatives", "negative_power", "reweight_power"},
        ),
        (
            {"pooling": "sequence"},
            {"temperature", "negatives", "negative_power", "reader_dropout"},
        ),
    ],
)
def test_the_default_space_is_what_the_loss_reads(
    settings: dict[str, Any], names: set[str]
) -> None:
    found = default_space(RetrievalConfig(**settings))
    shared = {"learning_rate", "table_learning_rate", "user_power", "smoothing"}
    assert {name.removeprefix("retrieval.") for name in found} == names | shared
    for name, dimension in found.items():
        for end in (dimension.low, dimension.high):
            RetrievalConfig(**{name.removeprefix("retrieval."): end})


@pytest.mark.parametrize("loss", get_args(RetrievalConfig.model_fields["loss"].annotation))
def test_every_loss_has_a_default_space(loss: str) -> None:
    assert len(default_space(RetrievalConfig(loss=loss))) >= 5


def test_the_default_space_holds_the_defaults() -> None:
    for score, temperature in (("cosine", 0.1), ("dot", 1.0)):
        retrieval = RetrievalConfig(score=score, temperature=temperature)
        for name, dimension in default_space(retrieval).items():
            assert dimension.holds(getattr(retrieval, name.removeprefix("retrieval."))), name


def test_a_dimension_holds_its_ends_and_its_choices() -> None:
    inside = Dimension(low=1, high=3)
    assert [inside.holds(value) for value in (0.9, 1, 3, 3.1)] == [False, True, True, False]
    assert not inside.holds(None)  # a setting that is not said
    assert Dimension(choices=("a", "b")).holds("b")
    assert not Dimension(choices=("a", "b")).holds("c")


def test_settings_now_are_those_of_the_run(tmp_path: Path) -> None:
    text = "[retrieval]\ndim = 48\n[tuning.space]\nretrieval.dim = {low = 4, high = 88}\n"
    assert settings_now(load(tmp_path, text)) == {"retrieval.dim": 48}


def test_whole_numbers_are_told_from_others() -> None:
    assert step_of(RetrievalConfig, "dim") == 4
    assert step_of(RetrievalConfig, "epochs") == 1
    assert step_of(RetrievalConfig, "temperature") is None
    assert step_of(RetrievalConfig, "use_user_id") is None
    assert step_of(RetrievalConfig, "loss") is None


def test_the_settings_left_out_exist() -> None:
    assert set(UNSEARCHED) <= set(RetrievalConfig.model_fields)
