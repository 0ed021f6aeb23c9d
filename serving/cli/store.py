"""Verbs about the generations in the store: publish, list, switch, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from serving.cli.output import Output, reporting, table

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.config import Config
    from recsys.progress import Progress
    from serving.store.estimates import Estimate
    from serving.store.generation_diff import GenerationDiff

__all__ = ["app"]

app = typer.Typer()

Generation = Annotated[str, typer.Argument(metavar="GENERATION", help="Id of a generation.")]


@app.command()
def publish(
    config: ConfigPath = DEFAULT_CONFIG,
    bundle: BundleId = None,
    delta: Annotated[
        bool,
        typer.Option("--delta", help="Write changed users into the published generation."),
    ] = False,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Write the candidates to the store as a new generation and switch readers to it.

    One that was cut off goes on where it stopped.
    """
    with reporting(as_json) as out:
        settings = read_config(config)
        chosen = find_bundle(settings, bundle)
        run = _publish_changes if delta else _publish_all
        run(out, settings, chosen, progress_of(out, progress))


def _publish_all(out: Output, config: Config, bundle: Bundle, progress: Progress) -> None:
    from dataclasses import asdict

    from serving.jobs.publish import publish as run

    report = run(config, bundle, progress=progress)
    resumed = f", {report.num_resumed:,} values were there" if report.num_resumed else ""
    out.emit(
        asdict(report),
        f"generation {report.generation} is served (before: {report.previous or 'none'}): "
        f"{report.num_users:,} users, {report.num_items:,} items, "
        f"{report.bytes_written / 1e6:.1f} MB in {report.seconds:.1f} s{resumed}",
    )


def _publish_changes(out: Output, config: Config, bundle: Bundle, progress: Progress) -> None:
    from dataclasses import asdict

    from serving.jobs.publish import publish_changes

    report = publish_changes(config, bundle, progress=progress)
    out.emit(
        asdict(report),
        f"generation {report.generation} has revision {report.revision}: "
        f"{report.num_changed:,} users changed, {report.num_added:,} added, "
        f"{report.num_removed:,} removed, {report.num_unchanged:,} as they were, "
        f"{report.bytes_written / 1e6:.1f} MB in {report.seconds:.1f} s",
    )


@app.command()
def generations(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the generations in the store, newest first."""
    with reporting(as_json) as out:
        from datetime import UTC, datetime

        from serving.assembly import open_store

        def moment(seconds: float) -> str:
            return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

        rows = [
            {
                "generation": one.manifest.generation,
                "state": "served" if one.is_current else "previous" if one.is_previous else "",
                "users": one.manifest.num_users,
                "items": one.manifest.num_items,
                "revision": one.manifest.revision,
                "published_at": moment(one.manifest.published_at),
                "expires_at": moment(one.manifest.expires_at),
            }
            for one in open_store(read_config(config)).generations()
        ]
        text = table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
        out.emit({"generations": rows}, text or "no generation; run `recsys publish`")


@app.command()
def flip(
    generation: Generation, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Switch readers to GENERATION, which must be in the store."""
    with reporting(as_json) as out:
        from dataclasses import asdict

        from serving.assembly import open_store

        head = open_store(read_config(config)).flip(generation)
        out.emit(
            asdict(head),
            f"generation {head.generation} is served (before: {head.previous or 'none'})",
        )


@app.command()
def rollback(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Switch readers back to the previous generation."""
    with reporting(as_json) as out:
        from dataclasses import asdict

        from serving.assembly import open_store

        head = open_store(read_config(config)).rollback()
        out.emit(
            asdict(head),
            f"generation {head.generation} is served again (before: {head.previous})",
        )


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Generation to start from.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Generation to compare with it.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Cutoff of the overlap.")] = 10,
    sample: Annotated[int, typer.Option(min=1, help="Most users whose lists are read.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draw of users.")] = 0,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compare the lists of two generations, with 95% intervals.

    Users are drawn from the bundles of both; without these, as a scan of the store finds them.
    """
    with reporting(as_json) as out:
        from dataclasses import asdict

        import numpy as np

        from serving.assembly import open_store
        from serving.store.generation_diff import compare_generations

        settings = read_config(config)
        found = compare_generations(
            open_store(settings),
            a,
            b,
            users=_bundled_users(settings, a, b),
            k=k,
            sample=sample,
            rng=np.random.default_rng(seed),
        )
        out.emit(_named(asdict(found)), _diff_text(found))


def _bundled_users(config: Config, a: str, b: str) -> Any:
    """Users of both bundles; None where one of them is not here."""
    paths = [config.output.directory / one / "candidates" / "users.parquet" for one in (a, b)]
    if not all(path.is_file() for path in paths):
        return None
    import polars as pl

    from features.tables import USER

    return tuple(pl.read_parquet(path)[USER] for path in paths)


def _diff_text(found: GenerationDiff) -> str:
    def shown(estimate: Estimate | None) -> str:
        return "-" if estimate is None else estimate.to_text()

    def span(low: float | None, high: float | None) -> str:
        return "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"

    rows = [
        ["users", f"{found.num_users[0]:,}", f"{found.num_users[1]:,}"],
        ["share of users only here", shown(found.only_a), shown(found.only_b)],
        ["items only here", f"{found.items_lost:,}", f"{found.items_gained:,}"],
        [f"items shown only here @{found.k}", f"{found.shown_lost:,}", f"{found.shown_gained:,}"],
        ["scores", *(span(*one) for one in found.scores)],
    ]
    return (
        table(["", f"A {found.a}", f"B {found.b}"], rows)
        + f"\n\n{found.num_compared:,} users of both compared (95% intervals):\n"
        + f"share with a changed list       {shown(found.changed)}\n"
        + f"share with another first item   {shown(found.top_changed)}\n"
        + f"mean overlap@{found.k:<18d} {shown(found.overlap)}"
    )


def _named(values: Any) -> Any:
    """Named tuples become objects with names, for JSON."""
    if isinstance(values, dict):
        return {name: _named(value) for name, value in values.items()}
    if isinstance(values, tuple | list):
        names = getattr(values, "_fields", None)
        parts = [_named(value) for value in values]
        return parts if names is None else dict(zip(names, parts, strict=True))
    return values
