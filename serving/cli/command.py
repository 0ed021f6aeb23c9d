"""The `recsys` command.

Heavy imports are inside the verbs, so that `recsys --help` loads none of them, and come after the
configuration is read, so that a mistake in it is told at once.
"""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.api_keys import app as keys_app
from serving.cli.cache import app as cache_app
from serving.cli.config import app as config_app
from serving.cli.doctor import app as doctor_app
from serving.cli.experiments import app as experiments_app
from serving.cli.features import app as features_app
from serving.cli.init import init
from serving.cli.judging import backtest, gate
from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    BundleId,
    CompatibleWith,
    ConfigPath,
    ExplainNoise,
    Fresh,
    K,
    RefreshUsers,
    ShowProgress,
    StartFrom,
    Workers,
    checked_text,
    find_bundle,
    progress_of,
    read_config,
)
from serving.cli.output import INTERRUPTED, REFUSED, Output, reporting, say, table
from serving.cli.plan import plan
from serving.cli.serve import serve
from serving.cli.simulate import simulate
from serving.cli.store import app as store_app

if TYPE_CHECKING:
    from recsys.config import Config
    from serving.messages import Recommendations

__all__ = ["app", "main"]

app = typer.Typer(
    name="recsys",
    help="A recommender beside a feature store: train, publish, serve, measure.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ANY_ID = {"ignore_unknown_options": True}  # -1 is an id as well

app.add_typer(doctor_app, name="doctor")
app.add_typer(config_app, name="config")
app.add_typer(keys_app)
app.add_typer(features_app)
app.add_typer(experiments_app)
app.add_typer(store_app)
app.add_typer(cache_app)
app.command()(init)
app.command()(backtest)
app.command()(gate)
app.command()(plan)
app.command()(serve)
app.command()(simulate)


@app.command()
def validate(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check configuration and data; print all problems at once and change nothing."""
    with reporting(as_json) as out:
        from dataclasses import asdict

        from recsys.bundle.lines import features_line
        from serving.assembly import find_problems
        from serving.first_run.looking import look

        settings = read_config(config)
        from recsys.dataset.tables import open_tables

        tables = open_tables(settings)
        found = find_problems(settings, tables)
        problems, features = found.problems, found.features
        count = len(problems)
        verdict = f"{count} problem{'s' if count != 1 else ''}" if problems else "no problems"
        seen = look(tables)
        dropped = found.dropped if seen is None else []  # the look says it
        told = (*dropped, *found.notes, *(str(problem) for problem in problems))
        lines = [*(seen.lines() if seen is not None else ()), *told]
        lines.append(f"{verdict} in {settings.data.shown}")
        if features is not None:
            lines.append(f"ranker: {features_line(features)}")
        lines += [str(one) for one in found.left_out]
        out.emit(
            {
                "valid": not problems,
                "problems": [asdict(problem) for problem in problems],
                "dropped": found.dropped,
                "notes": found.notes,
                "left_out": [one._asdict() for one in found.left_out],
                "features": features,
                "preview": None if seen is None else seen.as_dict(),
            },
            "\n".join(lines),
        )
        if problems:
            raise typer.Exit(REFUSED)


@app.command()
def train(
    config: ConfigPath = DEFAULT_CONFIG,
    workers: Workers = 1,
    fresh: Fresh = False,
    start: StartFrom = None,
    refresh_users: RefreshUsers = None,
    compatible_with: CompatibleWith = None,
    explain_noise: ExplainNoise = False,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Run every stage from data to a bundle; a re-run resumes at the first unfinished one.

    A BUNDLE is an id, a path, or "newest".
    """
    with reporting(as_json) as out:
        import time

        from serving.cli.training_output import emit_trained

        settings = read_config(config)
        from recsys.pipeline import train as run
        from recsys.pipeline.lineage import open_lineage

        began = time.perf_counter()
        bundle = run(
            settings,
            workers=workers,
            fresh=fresh,
            lineage=open_lineage(
                settings.output.directory,
                start=start,
                refresh_users=refresh_users,
                compatible_with=compatible_with,
            ),
            explain_noise=explain_noise,
            progress=progress_of(out, progress),
        )
        emit_trained(out, bundle, _shown(bundle.path), time.perf_counter() - began)


@app.command()
def tune(
    config: ConfigPath = DEFAULT_CONFIG,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Budget.  [default: tuning.minutes]")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials of the study.  [default: tuning.trials]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be searched and stop.")
    ] = False,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Search settings of the towers on validation events; a re-run goes on with the study."""
    with reporting(as_json) as out:
        settings = read_config(config)
        wanted = {"minutes": minutes, "trials": trials}
        given = {name: value for name, value in wanted.items() if value is not None}
        tuning = settings.tuning.model_copy(update=given)
        settings = settings.model_copy(update={"tuning": tuning})
        from serving.cli.training_output import emit_space, emit_tuning

        if dry_run:
            emit_space(out, settings)
            return
        from recsys.tuning.search import tune as run

        try:
            found = run(settings, progress=progress_of(out, progress))
        except KeyboardInterrupt:
            say("interrupted: finished trials stay; the same command goes on", err=True)
            raise typer.Exit(INTERRUPTED) from None
        emit_tuning(out, found, _shown(found.path))


@app.command()
def evaluate(
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle on the held-out part; also writes report.html into the bundle."""
    with reporting(as_json) as out:
        import json

        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        from recsys.bundle import Bundle
        from recsys.evaluation import comparison_table
        from recsys.pipeline import evaluate as run

        found = run(settings, chosen, progress=progress_of(out, progress))
        report = chosen.path / "report.html"
        name, first = next(iter(found.items()))
        tables = [f"{name}\n{first.to_table()}", comparison_table(found)]
        notes = Bundle.load(chosen.path).manifest.metrics.get("notes", [])
        if told := [*notes, *(str(one) for one in chosen.left_out())]:
            tables.append("\n".join(told))
        if report.is_file():
            tables.append(f"report: {_shown(report)}")
        evaluations = {name: json.loads(result.to_json()) for name, result in found.items()}
        out.emit(
            {
                "bundle": chosen.id,
                "report": str(report),
                "evaluations": evaluations,
                "notes": notes,
            },
            "\n\n".join(tables),
        )


@app.command()
def candidates(
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Compute every user's list and write it into the bundle."""
    with reporting(as_json) as out:
        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        from serving.jobs.candidates import build_candidates

        path = build_candidates(settings, chosen, progress=progress_of(out, progress))
        out.emit(
            {"bundle": chosen.id, "path": str(path)},
            f"candidates of bundle {chosen.id}: {_shown(path)}",
        )


@app.command(context_settings=_ANY_ID)
def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="Id of the user.")],
    k: K = 10,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Recommendations for USER, as HTTP would answer."""
    with reporting(as_json) as out:
        from serving.assembly import met_before, open_service
        from serving.messages import RecommendRequest

        settings, user = read_config(config), checked_text("USER", user)
        with open_service(settings) as service:
            answer = service.recommend(RecommendRequest(user, k))
        met = met_before(settings, answer.generation, user)
        _emit_answer(out, settings, answer, {"user_id": user}, met)


@app.command(context_settings=_ANY_ID)
def similar(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Id of the item.")],
    k: K = 10,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Items like ITEM, as HTTP would answer."""
    with reporting(as_json) as out:
        from serving.assembly import open_service
        from serving.messages import SimilarRequest

        settings, item = read_config(config), checked_text("ITEM", item)
        with open_service(settings) as service:
            answer = service.similar(SimilarRequest(item, k))
        _emit_answer(out, settings, answer, {"item_id": item})


@app.command()
def stop(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Stop the embedded store; its data stays."""
    with reporting(as_json) as out:
        from serving.assembly import store_directory
        from serving.connection.embedded import EmbeddedStore

        stopped = EmbeddedStore.stop(store_directory(read_config(config)))
        out.emit({"stopped": stopped}, "store stopped" if stopped else "no store was running")


def main() -> None:
    """Entry point of the `recsys` command."""
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # what is told of a wrong argument is printed as well
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="recsys")


def _shown(path: Path) -> str:
    """``path`` as a person would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _emit_answer(
    out: Output,
    config: Config,
    answer: Recommendations,
    asked: dict[str, str],
    met: frozenset[str] | None = None,
) -> None:
    """Print an answer; ``met`` are items that the user had, where that is told of each."""
    from dataclasses import asdict

    from serving.assembly import read_titles

    titles = read_titles(config)
    items, rows = [], []
    for rank, item in enumerate(answer.items, start=1):
        title, told, kind = titles.get(item.item_id), [], {}
        if met is not None:
            kind = {"new": item.item_id not in met}
            told = ["new" if kind["new"] else "again"]
        items.append({"rank": rank, **asdict(item), "title": title, **kind})
        rows.append([rank, item.item_id, title or "", item.score, item.source, *told])
    names = ["rank", "item", "title", "score", "source", *([] if met is None else ["met"])]
    reason = f" ({answer.reason})" if answer.reason else ""
    text = table(names, rows)
    values = {**asked, **asdict(answer), "items": items}
    out.emit(values, f"{text}\nfrom {answer.source}{reason}, generation {answer.generation}")
