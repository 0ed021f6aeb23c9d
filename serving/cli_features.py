"""`recsys features`: verbs about feature definitions.

Heavy imports are inside the verbs, as in `serving.cli`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli_options import AsJson, BundleId, ConfigPath, ShowProgress
from serving.output import reporting, table

if TYPE_CHECKING:
    from features.interactions import Interactions
    from features.suggest import Suggestions
    from recsys.artifacts import Bundle
    from recsys.config import Config

__all__ = ["app"]

app = typer.Typer(
    name="features",
    help="Feature definitions: suggest them, and publish what a bundle learnt.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DEFAULT_CONFIG = Path("recsys.toml")


@app.command()
def suggest(
    config: ConfigPath = DEFAULT_CONFIG,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the definitions as TOML; replaces FILE."),
    ] = None,
    max_events: Annotated[
        int,
        typer.Option(min=2, help="Read only so many events, the newest; bounds the memory."),
    ] = 5_000_000,
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
        from recsys.config import load_config

        settings = load_config(config)
        import numpy as np

        from features.suggest import suggest_definitions as run
        from features.tables import read_items, read_users

        data = settings.data
        items = read_items(data.items, **data.item_columns.to_options("item_id"))
        users = None
        if data.users is not None:
            users = read_users(data.users, **data.user_columns.to_options("user_id"))
        found = run(
            _newest_events(settings, max_events),
            items,
            users,
            sample_events=sample_events,
            max_categories=max_categories,
            rng=np.random.default_rng(settings.seed),
        )
        if out_file is not None:
            out_file.write_text(found.to_toml(), encoding="utf-8")
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
        settings, chosen = _bundle(config, bundle)
        from recsys.progress import Progress
        from serving.feature_views import open_source, publish_features

        shown = Progress.on_terminal(False if out.as_json and progress is None else progress)
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
        settings, chosen = _bundle(config, bundle)
        from serving.feast_views import DEFINITIONS_FILE, write_feast_views
        from serving.feature_views import view_schemas

        schemas = view_schemas(settings, chosen, prefix=prefix)
        views = write_feast_views(repository, schemas, prefix=prefix)
        path = repository / DEFINITIONS_FILE
        out.emit(
            {"file": str(path), "views": views},
            f"{path}: {', '.join(views)}\nnow run `feast apply` in {repository}",
        )


def _bundle(config: Path, bundle: str | None) -> tuple[Config, Bundle]:
    from recsys.artifacts import Bundle, latest
    from recsys.config import load_config

    settings = load_config(config)
    directory = settings.output.directory
    return settings, latest(directory) if bundle is None else Bundle.load(directory / bundle)


def _newest_events(config: Config, limit: int) -> Interactions:
    """The newest events of the configured log, the rest unread where the file is Parquet."""
    import polars as pl

    from features.interactions import Interactions
    from features.reading import read_frame

    path, columns = config.data.events, config.data.columns.to_event_columns()
    if path.suffix == ".parquet" and path.is_file():
        lazy = pl.scan_parquet(path)
        if columns.timestamp in lazy.collect_schema():
            lazy = lazy.top_k(limit, by=columns.timestamp)
        frame = lazy.collect(engine="streaming")
    else:
        frame = read_frame(path)
        if columns.timestamp in frame.columns:
            frame = frame.top_k(limit, by=columns.timestamp)
    return Interactions.from_frame(frame, columns=columns, source=str(path))


def _values(found: Suggestions, out_file: Path | None) -> dict[str, object]:
    from features.registry import dump_definitions

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
