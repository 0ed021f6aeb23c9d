from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

import recsys.pipeline
from features.errors import DataError, Problem
from recsys.bundle import Bundle
from recsys.errors import ArtifactError, CollapseError, ConfigError
from serving.cli import app
from serving.cli.output import reporting, table
from serving.errors import StageUnavailable

VERBS = [
    "validate",
    "train",
    "tune",
    "evaluate",
    "backtest",
    "candidates",
    "publish",
    "generations",
    "rollback",
    "serve",
    "recommend",
    "similar",
    "doctor",
    "stop",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small valid data set and its configuration, as the current one."""
    events = {
        "user_id": [1, 1, 2],
        "item_id": [10, 20, 10],
        "timestamp": [10**9 + i for i in range(3)],
    }
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    items = {"item_id": [10, 20], "title": ["Ten", None]}
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recsys.toml").write_text(
        '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'
        '[data.item_columns]\ntitle = "title"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    monkeypatch.delenv("RECSYS_STORE_URL", raising=False)
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def install(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    """Functions that stand in for those of a module; it is imported only if it is a package."""
    if name == "recsys.pipeline":
        for function, stand_in in functions.items():
            monkeypatch.setitem(vars(recsys.pipeline), function, stand_in)
        return
    module = types.ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def make_bundle(project: Path) -> Bundle:
    with Bundle.create(project / "artifacts", config={}, data_fingerprint="d") as draft:
        (draft.path / "model.txt").write_text("x")
        draft.metrics["recall@20"] = 0.5
    return draft.finished()


def test_help_lists_every_verb_in_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from serving.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: recsys" in done.stdout
    for verb in ("init", "plan", *VERBS):
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_config_and_json(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "--config" in result.output
    assert "--json" in result.output


def test_validate_accepts_good_data_and_changes_nothing(project: Path) -> None:
    before = sorted(path.name for path in project.iterdir())
    result = run("validate")
    assert result.exit_code == 0, result.output
    shown = result.output.splitlines()
    assert shown[0] == "3 rows of 2 users and 2 items"
    assert "events of described items: 100.00%" in shown
    verdict, ranker, *left_out = shown[-5:]
    assert verdict == "no problems in events.parquet, items.parquet"
    assert ranker == "ranker: 37 features: 16 defaults, 21 of retrieval"  # none of the towers
    assert [line.partition(", ")[0] for line in left_out] == [
        "semantic ids: 2 codes a level in place of 128",
        "two_tower: left out: no user has an event to learn from after another one; the towers "
        "learn what follows what",
        "ranking: left out: there is no past that candidates could be found by; candidates are "
        "ordered by what the retrievers agree on",
    ]
    values = json.loads(run("validate", "--json").output)
    assert (values["valid"], values["problems"]) == (True, [])
    assert [one["stage"] for one in values["left_out"]] == ["semantic ids", "two_tower", "ranking"]
    assert values["preview"]["rows"] == 3
    assert values["preview"]["sample"][0]["event"] == "interaction"
    assert values["features"]["source"] == "defaults"
    assert "item_count" in values["features"]["own"]
    assert "rank__popularity" in values["features"]["added"]
    assert sorted(path.name for path in project.iterdir()) == before


def test_validate_prints_all_problems_at_once(project: Path) -> None:
    events = pl.DataFrame({"user_id": [1, None], "item_id": [10, 99], "timestamp": [10**9, 10**9]})
    events.write_parquet(project / "events.parquet")
    result = run("validate")
    assert result.exit_code == 2
    assert "user_id" in result.output
    assert "99" in result.output
    assert "2 problems in events.parquet, items.parquet" in result.output
    values = json.loads(run("validate", "--json").output)
    assert not values["valid"]
    assert {problem["column"] for problem in values["problems"]} == {"user_id", "item_id"}


def test_validate_counts_the_rows_that_are_dropped(project: Path) -> None:
    (project / "events.csv").write_text(
        "user_id;item_id;timestamp\n1;10;1000000000\n1;20\n2;10;1000000002\n"
    )
    path = project / "recsys.toml"
    path.write_text(path.read_text().replace("events.parquet", "events.csv"))
    result = run("validate")
    assert result.exit_code == 2
    assert "events.csv: line 3 must have 3 cells like the first, got 2" in result.output
    with path.open("a") as file:
        file.write('[data.read.events]\nbad_rows = "drop"\n')
    result = run("validate")
    assert result.exit_code == 0, result.output
    told = "events.csv: 1 row dropped that cannot be read; first: line 3 must have 3 cells like the"
    assert told in result.output
    assert [told in one for one in json.loads(run("validate", "--json").output)["dropped"]] == [
        True
    ]


def test_validate_tells_of_tables_that_describe_nobody(project: Path) -> None:
    pl.DataFrame({"user_id": ["u1", "u2"]}).write_parquet(project / "users.parquet")
    path = project / "recsys.toml"
    path.write_text(path.read_text().replace("[data]", '[data]\nusers = "users.parquet"'))
    result = run("validate")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    verdict = "no problems in events.parquet, items.parquet, users.parquet"
    told = lines[lines.index(verdict) - 1]
    assert "users.parquet describes none of the 2 users of" in told
    assert "ids are 'u1', 'u2' there and '1', '2' in the log" in told
    assert json.loads(run("validate", "--json").output)["notes"] == [told]
    assert f"WARN  data: {told}" in run("doctor").stdout


def test_validate_checks_declared_features(project: Path) -> None:
    with (project / "recsys.toml").open("a") as file:
        file.write(
            '[[features]]\nkind = "field"\nname = "price"\ncolumn = "price"\n'
            '[[features]]\nkind = "count"\nname = "seen"\n'
        )
    result = run("validate")
    assert result.exit_code == 2
    problem, verdict, ranker = result.output.splitlines()[-3:]
    assert problem.startswith("[[features]]: column 'item.price' must exist: definition 'price'")
    assert verdict == "1 problem in events.parquet, items.parquet"
    assert ranker == "ranker: 27 features: 2 of [[features]], 25 of retrieval"
    told = run("doctor").stdout
    assert "FAIL  features: [[features]]: column 'item.price' must exist" in told
    items = pl.read_parquet(project / "items.parquet").with_columns(price=1.5)
    items.write_parquet(project / "items.parquet")
    assert run("validate").exit_code == 0
    assert "OK    features: 23 features: 2 of [[features]], 21 of" in run("doctor").stdout
    with (project / "recsys.toml").open("a") as file:
        file.write('[[features]]\nkind = "cuont"\nname = "x"\n')
    result = run("validate")
    assert result.exit_code == 2
    assert "error: features: definition 'x': unknown kind 'cuont'" in result.stderr


def test_validate_tells_columns_that_cannot_play_their_role(project: Path) -> None:
    with (project / "recsys.toml").open("a") as file:
        file.write('list = ["genres"]\n')
    result = run("validate")
    assert result.exit_code == 2
    assert "column 'genres' must exist" in result.output
    assert "1 problem in events.parquet" in result.output
    assert json.loads(run("validate", "--json").output)["features"] is None
    told = run("doctor").stdout
    assert "FAIL  data: " in told
    assert " features: " not in told


def test_a_mistake_in_the_configuration_is_a_message(project: Path) -> None:
    with (project / "recsys.toml").open("a") as file:
        file.write('[retrieval]\nlos = "bpr"\n')
    result = run("train")
    assert result.exit_code == 2
    assert "error: unknown setting 'retrieval.los'; did you mean 'loss'?" in result.stderr
    result = run("validate", "--json", "--config", "absent.toml")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "ConfigError"
    assert "absent.toml does not exist" in error["message"]


def test_train_hands_its_options_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(config: Any, **options: Any) -> Bundle:
        seen.update(options, config=config)
        return make_bundle(project)

    install(monkeypatch, "recsys.pipeline", train=train)
    result = run("train", "--workers", "2", "--fresh", "--progress", "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 0
    assert values["metrics"] == {"recall@20": 0.5}
    assert (seen["workers"], seen["fresh"], seen["progress"].enabled) == (2, True, True)
    assert (seen["lineage"].parent, seen["explain_noise"]) == (None, False)
    assert seen["config"].data.events == project / "events.parquet"
    assert f"artifacts/{values['bundle']}" in values["path"]
    assert "bundle 2" in run("train").stdout
    assert (seen["workers"], seen["fresh"], seen["progress"].enabled) == (1, False, False)
    assert run("train", "--workers", "0").exit_code == 2


def test_train_names_the_bundles_it_continues(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def train(config: Any, *, lineage: Any, explain_noise: bool, **options: Any) -> Bundle:
        seen.update(lineage=lineage, explain_noise=explain_noise)
        with Bundle.create(
            project / "artifacts", config={}, data_fingerprint="d", lineage=lineage.record()
        ) as draft:
            header = {"score": "dot", "dim": 8, "pooling": "none", "user_table": True}
            features = {"source": "features.toml", "own": ["age"], "added": ["rank__als"]}
            told = {"towers": header, "features": features, "told": ["u.csv describes none"]}
            (draft.path / "recommender.json").write_text(json.dumps(told))
            (draft.path / "retrieval").mkdir()
            (draft.path / "retrieval/noise.parquet").write_text("x")
        return draft.finished()

    install(monkeypatch, "recsys.pipeline", train=train)
    first = make_bundle(project)
    result = run("train", "--from", first.id, "--compatible-with", "newest", "--explain-noise")
    assert result.exit_code == 0, result.output
    assert seen["lineage"].start == seen["lineage"].old == first
    assert seen["explain_noise"]
    note, head, continued, towers, ranker, noise = result.stdout.splitlines()
    assert note == "u.csv describes none"
    assert head.startswith("bundle 2")
    assert continued == f"continues {first.id} (from), {first.id} (compatible-with)"
    assert towers == (
        "towers: served by dot product, 8 dimensions, pooling none, users with a row of their own"
    )
    assert ranker == "ranker: 2 features: 1 of features.toml, 1 of retrieval"
    assert noise.startswith("noise of every training event: artifacts/2")
    assert noise.endswith("/retrieval/noise.parquet; sort it by falling noise")
    values = json.loads(run("train", "--refresh-users", str(first.path), "--json").stdout)
    assert values["lineage"] == {"refresh-users": first.id}
    assert values["towers"]["score"] == "dot"
    assert values["told"] == ["u.csv describes none"]
    assert values["features"]["own"] == ["age"]
    assert seen["lineage"].frozen_items


def test_the_doctor_says_which_score_is_served(project: Path) -> None:
    with Bundle.create(project / "artifacts", config={}, data_fingerprint="d") as draft:
        header = {"score": "cosine", "dim": 8, "pooling": "recency", "user_table": False}
        (draft.path / "recommender.json").write_text(json.dumps({"towers": header}))
    told = run("doctor").stdout
    assert "OK    towers: served by cosine, 8 dimensions, pooling recency, users from their" in told


def test_train_refuses_options_that_contradict_each_other(project: Path) -> None:
    result = run("train", "--refresh-users", "a", "--from", "b")
    assert result.exit_code == 2
    assert "--refresh-users must not be given with --from" in result.stderr
    result = run("train", "--from", "nothing")
    assert result.exit_code == 1
    assert "no bundle at" in result.stderr


def test_evaluate_prints_tables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.evaluation import Evaluation, Truth
    from recsys.evaluation import evaluate as judge_lists
    from recsys.topk import TopK

    def measured(*rows: list[int]) -> Evaluation:
        lists = TopK(np.array(rows), np.zeros((len(rows), 2), dtype=np.float32))
        truth = Truth.from_lists([[1], [2]])
        counts, rng = np.array([0, 2, 1, 1]), np.random.default_rng(0)
        return judge_lists(lists, truth, popularity=counts, rng=rng, ks=(2,), resamples=20)

    def evaluate(config: Any, bundle: Bundle, *, progress: Any) -> dict[str, Evaluation]:
        (bundle.path / "report.html").write_text("<p>")
        return {"funnel": measured([1, 3], [2, 3]), "popularity": measured([1, 3], [1, 3])}

    install(monkeypatch, "recsys.pipeline", evaluate=evaluate)
    assert "no bundle in" in run("evaluate").stderr
    older, newer = make_bundle(project), make_bundle(project)
    ids = sorted([older.id, newer.id])
    result = run("evaluate", "--bundle", ids[0])
    assert "funnel\n2 users judged" in result.stdout
    lines = [row.split()[:3] for row in result.stdout.splitlines()]
    header = next(place for place, row in enumerate(lines) if row[:2] == ["system", "users"])
    assert lines[header + 1 : header + 3] == [
        ["funnel", "2", "1.0000"],
        ["popularity", "2", "0.5000"],
    ]
    assert f"report: artifacts/{ids[0]}/report.html" in result.stdout
    values = json.loads(run("evaluate", "--json").stdout)
    assert values["bundle"] == ids[1]
    assert values["evaluations"]["popularity"]["metrics"]["recall@2"]["mean"] == 0.5
    result = run("evaluate", "--bundle", "other")
    assert result.exit_code == 1
    assert "no bundle at" in result.stderr


def test_candidates_prints_where_they_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(project)

    def build_candidates(config: Any, bundle: Bundle, *, progress: Any) -> Path:
        return bundle.path / "candidates"

    install(monkeypatch, "serving.jobs.candidates", build_candidates=build_candidates)
    assert f"artifacts/{bundle.id}/candidates" in run("candidates").stdout
    assert json.loads(run("candidates", "--json").stdout)["bundle"] == bundle.id


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("c must be > 0"), 2),
        (DataError("d"), 2),
        (ArtifactError("a"), 1),
        (CollapseError("after epoch 2, step 9: users use 1.2 of 8 dimensions"), 1),
        (FloatingPointError("loss 'bpr' is nan at step 3; lower learning_rate"), 1),
        (StageUnavailable("store is down", stage="store"), 1),
        (FileNotFoundError(2, "no such file", "x"), 1),
        (ImportError("No module named 'ray'; install recsys-plugin[ray]"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_messages_and_exit_codes(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def train(*_: Any, **__: Any) -> Bundle:
        raise error

    install(monkeypatch, "recsys.pipeline", train=train)
    result = run("train")
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert result.stdout == ""
    if code == 130:
        assert "nothing half-written is left" in result.stderr
    else:
        assert str(error) in result.stderr
        assert "should not happen" not in result.stderr
        values = json.loads(run("train", "--json").stdout)
        assert values["error"]["type"] == type(error).__name__


def test_a_bug_shows_its_traceback_on_request(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: Any, **__: Any) -> Bundle:
        raise ZeroDivisionError("by zero")

    install(monkeypatch, "recsys.pipeline", train=train)
    result = run("train")
    assert result.exit_code == 1
    assert "ZeroDivisionError: by zero (this should not happen; set RECSYS_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("RECSYS_DEBUG", "1")
    assert "Traceback" in run("train").stderr


def test_problems_travel_in_the_json_error(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem("items", "id", "must exist", 0, "none", "Add it.")
    with pytest.raises(typer.Exit), reporting(True):
        raise DataError(problems=[problem])
    assert json.loads(capsys.readouterr().out)["error"]["problems"][0]["column"] == "id"


@pytest.mark.parametrize("verb", ["recommend", "similar"])
def test_an_id_may_begin_with_a_minus(project: Path, verb: str) -> None:
    try:
        result = run(verb, "-1")
    finally:
        assert run("stop").stdout == "store stopped\n"
    assert result.exit_code == 1
    assert "run `recsys candidates`, then `recsys publish`" in result.stderr
    assert run(verb, "1", "--konfig", "x").exit_code == 2


@pytest.mark.parametrize("verb", ["recommend", "similar"])
def test_an_id_that_is_no_text_is_refused(project: Path, verb: str) -> None:
    result = run(verb, "b\udcff", "--json")
    assert result.exit_code == 2
    message = json.loads(result.stdout)["error"]["message"]
    assert message.endswith("must be UTF-8 text, got 'b\\udcff'")


@pytest.mark.parametrize(
    ("arguments", "encoding", "told"),
    [
        (["validate", b"\xff"], "utf-8", "\\udcff"),
        (["validate", b"\xff"], "ascii", "?"),
        (
            ["validate", "-c", b"\xff.toml"],
            "utf-8",
            "config file \\udcff.toml must have a UTF-8 path",
        ),
        (["validate", "-c", "日.toml"], "latin-1", "config file \\u65e5.toml does not exist"),
        (["validate", "-c", "日.toml", "--json"], "latin-1", "config file \\u65e5.toml does not"),
        (["recommend", b"\xff"], "utf-8", "USER must be UTF-8 text, got '\\udcff'"),
        (["rollback", b"\xff"], "utf-8", "\\udcff"),
    ],
)
def test_arguments_of_any_bytes_are_told_in_any_encoding(
    project: Path, arguments: list[str | bytes], encoding: str, told: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from serving.cli import main; main()", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    said = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 2, said
    assert told in said
    assert "Traceback" not in said
    assert "should not happen" not in said


def test_what_the_terminal_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stdout)
    with reporting(False) as out:
        out.emit({}, table(["title"], [["日本 café \udc80"], ["two\nlines \x1b[31m"]]))
    with reporting(True) as out:
        out.emit({"title": "日本 \udc80"}, "")
    text = stdout.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]
    assert "\\u65e5\\u672c café \\udc80\ntwo lines  [31m\n" in text
    assert json.loads(text[text.index("{") :]) == {"title": "日本 \udc80"}


def test_a_full_disk_is_told_with_what_to_do(project: Path, capsys: Any) -> None:
    for error in (
        OSError(errno.ENOSPC, "No space left on device", "artifacts/a"),
        pl.exceptions.ComputeError("No space left on device (os error 28)"),
    ):
        with pytest.raises(typer.Exit) as caught, reporting(False):
            raise error
        assert caught.value.exit_code == 1
        told = capsys.readouterr().err
        assert told.startswith("error: No space left on device")
        assert "make room, or write elsewhere, and run the same command again" in told
        assert ("artifacts/a" in told) == isinstance(error, OSError)


def test_tables_align() -> None:
    assert table(["a", "long"], [["xyz", 1], ["w", 22]]) == "a    long\nxyz     1\nw      22"
    assert table(["a"], []) == "a"
    assert table(["a", "b"], [[None, 0.5]]) == "a       b\n   0.5000"


CHILD = """
import sys, time
from pathlib import Path
from recsys.pipeline.stages import Stage, run_stages
import recsys.pipeline
def train(config, **_):
    def slow(directory, progress):
        (directory / "half").write_text("x")
        print("running", flush=True)
        time.sleep(60)
    run_stages([Stage("slow", "s", slow)], config.output.directory / "work", code="c")
recsys.pipeline.train = train
from serving.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_half_written(project: Path, number: int) -> None:
    root = str(Path(__file__).resolve().parents[3])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, "train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(number)
        message = child.stderr.read()
    assert child.returncode == 130
    assert "the same command continues at the first unfinished stage" in message
    assert "Traceback" not in message
    assert [path.name for path in (project / "artifacts" / "work").iterdir()] == [".lock"]
