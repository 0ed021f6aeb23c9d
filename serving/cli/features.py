"""`recsys features`: verbs about feature definitions.

Heavy imports are inside the verbs, as in `serving.cli.command`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.follow import follow
from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    BundleId,
    ConfigPath,
    ShowProgress,
    find_bundle,
    progress_of,
    read_config,
)
from serving.cli.output import REFUSED, reporting, table

if TYPE_CHECKING:
    from features.online.parity import ParityReport
    from features.suggest.suggestions import Suggestions

__all__ = ["app"]

app = typer.Typer(
    name="features",
    help="Feature definitions: suggest and check them, replay their state, publish vectors.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(follow)

DefinitionsFile = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="FILE",
        help="TOML with [[features]].  [default: those of the ranker]",
    ),
]
MaxEvents = Annotated[
    int, typer.Option(min=2, help="Read only so many events, the newest; bounds the memory.")
]


@app.command()
def suggest(
    config: ConfigPath = DEFAULT_CONFIG,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the definitions as TOML; replaces FILE."),
    ] = None,
    max_events: MaxEvents = 5_000_000,
    sample_events: Annotated[
        int, typer.Option(min=1, help="Events that coverage and AUC are measured on.")
    ] = 2_000,
    max_categories: Annotated[
        int, typer.Option(min=2, help="A column of more categories is not turned into codes.")
    ] = 200,
    as_json: AsJson = False,
) -> None:
    """Propose feature definitions from the data, each with its reason."""
    with reporting(as_json) as out:
        settings = read_config(config)
        import numpy as np

        from features.suggest.suggestions import suggest_definitions as run
        from features.whole_files import whole_file
        from recsys.dataset.tables import newest_events, open_tables

        tables = open_tables(settings)
        found = run(
            newest_events(settings, max_events),
            tables.item_table,
            tables.user_table,
            sample_events=sample_events,
            max_categories=max_categories,
            rng=np.random.default_rng(settings.seed),
        )
        if out_file is not None:
            with whole_file(out_file) as draft:
                draft.write_text(found.to_toml(), encoding="utf-8")
        out.emit(_values(found, out_file), _text(found, out_file))


@app.command()
def publish(
    to: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="feast:REPOSITORY, parquet:DIRECTORY, or the path of either."
        ),
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    prefix: Annotated[str, typer.Option(help="Of the views' names.")] = "recsys_",
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle's vectors, semantic ids and candidates as feature views.

    Views that have the bundle's rows are left alone. In a Feast repository the views must be
    declared: `recsys features declare` writes their definitions.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        from serving.jobs.feature_views import open_source, publish_features

        shown = progress_of(out, progress)
        report = publish_features(settings, chosen, open_source(to), prefix=prefix, progress=shown)
        rows = [
            [one.view, one.rows, "written" if one.written else "was there"] for one in report.views
        ]
        skipped = [f"{view}: left out, {reason}" for view, reason in report.skipped.items()]
        out.emit(
            {
                "generation": report.generation,
                "timestamp": report.moment.isoformat(),
                "views": [one._asdict() for one in report.views],
                "skipped": report.skipped,
            },
            "\n".join([table(["view", "rows", ""], rows), *skipped]),
        )


@app.command()
def declare(
    repository: Annotated[
        Path, typer.Argument(metavar="REPOSITORY", help="Directory with feature_store.yaml.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    prefix: Annotated[str, typer.Option(help="Of the views' names.")] = "recsys_",
    as_json: AsJson = False,
) -> None:
    """Write Feast definitions of what `publish` writes; then run `feast apply`."""
    with reporting(as_json) as out:
        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        from serving.jobs.feast_views import DEFINITIONS_FILE, declared_id_types, write_feast_views
        from serving.jobs.feature_views import view_schemas

        schemas = view_schemas(settings, chosen, prefix=prefix)
        types = declared_id_types(repository)
        views = write_feast_views(repository, schemas, prefix=prefix, id_types=types)
        path = repository / DEFINITIONS_FILE
        out.emit(
            {"file": str(path), "views": views},
            f"{path}: {', '.join(views)}\nnow run `feast apply` in {repository}",
        )


@app.command()
def parity(
    config: ConfigPath = DEFAULT_CONFIG,
    definitions: DefinitionsFile = None,
    requests: Annotated[
        int, typer.Option(min=1, help="Moments of the log at which values are compared.")
    ] = 300,
    candidates: Annotated[int, typer.Option(min=1, help="Items compared at each moment.")] = 10,
    max_events: MaxEvents = 200_000,
    as_json: AsJson = False,
) -> None:
    """Replay the log event by event and compare every feature with its offline value.

    Exit code 2 and the first value that differs, with the events behind it, if one does.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        from recsys.dataset.tables import newest_events, open_tables
        from serving.jobs.feature_replay import declared_definitions, replay_parity

        tables = open_tables(settings)
        chosen, left_out = declared_definitions(definitions, settings, tables)
        report = replay_parity(
            newest_events(settings, max_events).frame,
            tables,
            chosen,
            num_requests=requests,
            candidates=candidates,
            seed=settings.seed,
        )
        out.emit(*_parity_output(report, left_out))
        if not report.equal:
            raise typer.Exit(REFUSED)


@app.command()
def replay(
    config: ConfigPath = DEFAULT_CONFIG,
    definitions: DefinitionsFile = None,
    max_events: MaxEvents = 5_000_000,
    batch: Annotated[int, typer.Option(min=1, help="Events of one transaction.")] = 1_000,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Fill the running feature state in the store from the log; known events are skipped."""
    with reporting(as_json) as out:
        settings = read_config(config)
        from recsys.dataset.tables import newest_events, open_tables
        from serving.jobs.feature_replay import declared_definitions, fill_state

        tables = open_tables(settings)
        chosen, left_out = declared_definitions(definitions, settings, tables)
        shown = progress_of(out, progress)
        filled = fill_state(
            settings,
            newest_events(settings, max_events).frame,
            tables,
            chosen,
            batch,
            progress=shown,
        )
        rate = filled.update.applied / max(filled.seconds, 1e-9)
        out.emit(
            {**filled.update._asdict(), "state": filled.state, "seconds": filled.seconds},
            f"state {filled.state}: {filled.update.applied:,} events applied, "
            f"{filled.update.duplicates:,} known already, {rate:,.0f} a second\n"
            + "\n".join(left_out),
        )


def _parity_output(report: ParityReport, left_out: list[str]) -> tuple[dict[str, object], str]:
    update, first = report.update, report.first
    lines = [
        f"{report.rows:,} rows, {report.values:,} values compared; {update.applied:,} events "
        f"replayed, {update.late:,} of them late, {update.duplicates:,} duplicates",
        *left_out,
    ]
    values: dict[str, object] = {
        "equal": report.equal,
        "rows": report.rows,
        "values": report.values,
        "differing": report.differing,
        "update": update._asdict(),
        "left_out": left_out,
    }
    if first is None:
        lines.append("online and offline are the same")
    else:
        counts = ", ".join(f"{name} {number:,}" for name, number in report.differing.items())
        lines += [f"values that differ: {counts}", f"the first in time: {first}"]
        values["first"] = {
            "definition": first.definition.name,
            "user": first.user,
            "item": first.item,
            "moment": first.moment.isoformat(),
            "offline": first.offline,
            "online": first.online,
            "events": [
                {name: str(value) for name, value in event.items()}
                for event in first.events.to_dicts()
            ],
        }
    return values, "\n".join(lines)


def _values(found: Suggestions, out_file: Path | None) -> dict[str, object]:
    from features.computation.declarations import dump_definitions

    records = dump_definitions([one.definition for one in found.kept])
    return {
        "file": None if out_file is None else str(out_file),
        "rows": found.rows,
        "users": found.users,
        "since": found.since.isoformat(),
        "features": [
            {"definition": record, "reason": one.reason, **one.signal._asdict()}
            for one, record in zip(found.kept, records, strict=True)
        ],
        "left_out": [one._asdict() for one in found.left_out],
        "columns": [one._asdict() for one in found.columns],
    }


def _text(found: Suggestions, out_file: Path | None) -> str:
    lines = [
        table(
            ["feature", "coverage", "AUC", "why"],
            [
                [
                    one.definition.name,
                    f"{one.signal.coverage:.0%}",
                    "-" if one.signal.auc is None else f"{one.signal.auc:.3f}",
                    one.reason,
                ]
                for one in found.kept
            ],
        ),
        "",
        table(["left out", "why"], [list(one) for one in found.left_out]),
        "",
        f"measured on {found.rows:,} rows of {found.users:,} users, events since "
        f"{found.since:%Y-%m-%d}, beside items drawn uniformly; AUC 0.5 says nothing, below it "
        "lower is better, - is the same for all candidates",
    ]
    if out_file is not None:
        lines.append(f"definitions: {out_file}")
    return "\n".join(lines)
