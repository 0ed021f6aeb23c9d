"""What `recsys train` prints of the bundle it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.bundle.lines import features_line, towers_line
from recsys.tuning.space import of_one_loss, settings_now, space_of
from serving.cli.output import Output, table

if TYPE_CHECKING:
    from recsys.bundle import Bundle
    from recsys.config import Config
    from recsys.tuning.search import TuningResult

__all__ = ["emit_space", "emit_trained", "emit_tuning"]

NOISE = "retrieval/noise.parquet"


def emit_trained(out: Output, bundle: Bundle, shown: str, seconds: float) -> None:
    """Print a finished bundle.

    Args:
        out: where to.
        bundle: what was made.
        shown: its path for people.
        seconds: it took.
    """
    from recsys.pipeline.source_choice import read_tried, tried_losses

    towers, lineage = bundle.towers(), bundle.manifest.lineage
    features = bundle.features()
    told = bundle.told()
    lines = [*told, f"bundle {bundle.id} in {seconds:.1f} s: {shown}"]
    if lineage:
        lines.append("continues " + ", ".join(f"{name} ({how})" for how, name in lineage.items()))
    if towers is not None:
        lines.append(f"towers: {towers_line(towers)}")
    lines += tried_losses(bundle.path / "retrieval")
    if features is not None:
        lines.append(f"ranker: {features_line(features)}")
    left_out = bundle.left_out()
    lines += [str(one) for one in left_out]
    noise = bundle.path / NOISE
    if noise.is_file():
        lines.append(f"noise of every training event: {shown}/{NOISE}; sort it by falling noise")
    out.emit(
        {
            "bundle": bundle.id,
            "path": str(bundle.path),
            "seconds": round(seconds, 2),
            "lineage": dict(lineage),
            "towers": towers,
            "losses": read_tried(bundle.path / "retrieval"),
            "features": features,
            "left_out": [one._asdict() for one in left_out],
            "told": told,
            "noise": str(noise) if noise.is_file() else None,
            "metrics": bundle.manifest.metrics,
        },
        "\n".join(lines),
    )


def emit_space(out: Output, config: Config) -> None:
    """Print what would be searched, and for how long."""
    config = of_one_loss(config)
    space, now = space_of(config), settings_now(config)
    rows = [[name, _text(now[name]), str(values)] for name, values in space.items()]
    budget = f"{config.tuning.minutes:g} minutes, at most {config.tuning.trials} trials"
    values = {
        "space": {name: one.model_dump(exclude_none=True) for name, one in space.items()},
        "now": now,
        "minutes": config.tuning.minutes,
        "trials": config.tuning.trials,
    }
    out.emit(values, f"{table(['setting', 'now', 'searched'], rows)}\n{budget}")


def emit_tuning(out: Output, found: TuningResult, path: str) -> None:
    """Print what a study has found; ``path`` is where its settings lie, as a person types it."""
    rows = [[name, _text(found.now[name]), _text(best)] for name, best in found.best.items()]
    command = f"recsys train --config {path}"
    lines = [
        f"validation recall@20 {found.recall} over {found.recall.users:,} users, the best of "
        f"{found.trials} trials ({found.pruned} given up early, {found.failed} failed)"
    ]
    if found.gain is not None and found.best != found.now:
        gain = found.gain
        lines.append(f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over the settings now")
    lines.append(table(["setting", "now", "best"], rows))
    more = "raise tuning.trials to go on" if found.used_up else "the same command goes on"
    lines.append(f"{more}; train with the best: {command}")
    values = {
        **found._asdict(),
        "recall": found.recall._asdict(),
        "gain": None if found.gain is None else found.gain._asdict(),
        "path": str(found.path),
        "command": command,
    }
    out.emit(values, "\n".join(lines))


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
