"""`recsys cache`: what is in the store, what it takes, how long it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ShowProgress,
    progress_of,
    read_config,
)
from serving.cli.output import reporting, table

if TYPE_CHECKING:
    from serving.store.stats import KeyStats, ServerStats, StoreStats

__all__ = ["app"]

app = typer.Typer(name="cache", help="Keys of the store: memory, expiry.", no_args_is_help=True)


@app.command()
def stats(
    sample: Annotated[
        int, typer.Option(min=1, help="Keys of each kind whose memory is asked for.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draw of these keys.")] = 0,
    config: ConfigPath = DEFAULT_CONFIG,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Count the keys by kind and generation, with their memory and expiry; one scan."""
    with reporting(as_json) as out:
        import numpy as np

        from serving.assembly import open_client
        from serving.store.keys import Keys
        from serving.store.stats import read_stats

        settings = read_config(config)
        with progress_of(out, progress).bar(None, "scan", unit="key") as advance:
            found = read_stats(
                open_client(settings),
                Keys(settings.store.namespace),
                sample=sample,
                rng=np.random.default_rng(seed),
                on_progress=advance,
            )
        out.emit(_values(found), _text(found))


@app.command()
def ttl(
    seconds: Annotated[
        int, typer.Option("--set", min=60, metavar="SECONDS", help="Until every key goes.")
    ],
    generation: Annotated[
        str | None, typer.Option(metavar="G", help="Which one.  [default: the served one]")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    progress: ShowProgress = None,
    as_json: AsJson = False,
) -> None:
    """Let all keys of a generation go SECONDS from now, sooner or later than so far."""
    with reporting(as_json) as out:
        from serving.assembly import open_store
        from serving.errors import NoGeneration

        store = open_store(read_config(config))
        head = store.head()
        if generation is None:
            if head is None:
                raise NoGeneration("nothing is published; run `recsys publish`")
            generation = head.generation
        with progress_of(out, progress).bar(None, "expiry", unit="key") as advance:
            done = 0

            def on_progress(_: str, count: int) -> None:
                nonlocal done
                advance(count - done)
                done = count

            manifest = store.set_ttl(generation, seconds, on_progress=on_progress)
        out.emit(
            {"generation": generation, "expires_at": manifest.expires_at},
            f"generation {generation} goes in {_duration(seconds)}",
        )


def _values(found: StoreStats) -> dict[str, object]:
    from dataclasses import asdict

    rows = []
    for one in found.keys:
        each = one.bytes_each
        rows.append({**asdict(one), "bytes_each": None if each is None else each._asdict()})
    server = {**found.server._asdict(), "hit_rate": found.server.hit_rate}
    return {"keys": rows, "server": server}


def _text(found: StoreStats) -> str:
    head = ["kind", "generation", "keys", "no expiry", "bytes each (95%)", "all", "goes in"]
    rows = [_row(one) for one in found.keys]
    return (table(head, rows) if rows else "no keys") + "\n\n" + _server_text(found.server)


def _row(one: KeyStats) -> list[object]:
    each = one.bytes_each
    goes = ""
    if one.first_expiry_s is not None and one.last_expiry_s is not None:
        first, last = _duration(one.first_expiry_s), _duration(one.last_expiry_s)
        goes = first if first == last else f"{first} to {last}"
    return [
        one.kind,
        one.generation or "",
        f"{one.keys:,}",
        f"{one.without_expiry:,}",
        "" if each is None else each.to_text("{:,.0f}"),
        "" if each is None else f"{each.value * one.keys / 1e6:,.1f} MB",
        goes,
    ]


def _server_text(server: ServerStats) -> str:
    limit = f"of {server.max_memory / 1e6:,.1f} MB" if server.max_memory else "without a limit"
    rate = server.hit_rate
    hits = "no reads yet" if rate is None else f"{rate:.1%} of {server.hits + server.misses:,}"
    return (
        f"memory: {server.used_memory / 1e6:,.1f} MB {limit} ({server.policy})\n"
        f"reads that found their key since the start: {hits}\n"
        f"keys evicted: {server.evicted:,}; expired: {server.expired:,}; "
        f"servers: {server.servers}"
    )


def _duration(seconds: int) -> str:
    """``seconds`` in the two largest units."""
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
