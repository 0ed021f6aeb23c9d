"""What a log says of the arms of a simulation, as lines and tables of its report."""

from __future__ import annotations

import math
from collections.abc import Iterator

from recsys.simulation.estimates.estimate import Estimate
from recsys.simulation.estimates.slope import SHOWN_LIMITS
from recsys.simulation.report.parts import EstimateLine, TablePart
from recsys.simulation.trial.experiment import Trial
from recsys.simulation.trial.log_estimates import LogEstimate

__all__ = [
    "BY_ESTIMATOR",
    "CLIPPING",
    "REWARD_MODEL",
    "clip_table",
    "estimate_lines",
    "policy_table",
    "refusals",
]

BY_ESTIMATOR, CLIPPING = "Arms by estimator", "Sensitivity to clipping"
REWARD_MODEL = (
    "the mean clicks of each rank among the logging arm's candidates at each place, fitted to one "
    "half of the people and read for the other; for arms with the same candidates it says what "
    "snips says, for others it is a check"
)
_NO_INTERVAL = "no interval: it would leave out the model's error"


def estimate_lines(trial: Trial) -> tuple[EstimateLine, ...]:
    """Every estimator of every arm; one line with the reason where the log cannot carry it."""
    return tuple(line for one in _judged(trial) for line in _lines(one, trial))


def policy_table(trial: Trial) -> TablePart:
    """One row an arm and log, one column an estimator; no number where there must be none."""
    head = ("arm", "verdict", "true value", "snips", "dr", "dm", "ips", "clipped ips",
            "dm minus snips")  # fmt: skip
    rows = []
    for one in _judged(trial):
        estimates = dict(_estimates(one))
        apart = one.errors_apart
        rows.append(
            (
                _name(one),
                one.diagnostics.verdict,
                "-" if one.truth is None else f"{one.truth:.4f}",
                *(
                    _cell(estimates.get(name), name) if one.usable else "-"
                    for name in ("snips", "dr", "dm", "ips", "clipped ips")
                ),
                f"{apart:+.1f} errors" if one.usable and apart is not None else "-",
            )
        )
    text = (
        "Clicks a session, with 95% intervals that count people. The model of dm and dr: "
        f"{REWARD_MODEL}. dm has {_NO_INTERVAL}."
    )
    return TablePart(BY_ESTIMATOR, (head, *rows), text)


def clip_table(trial: Trial) -> TablePart:
    """Clipped IPS at fixed limits, and at the one that the log chose."""
    head = ("arm", *(f"weights up to {_limit(clip)}" for clip in SHOWN_LIMITS), "chosen by the log",
            "at the chosen limit", "true value")  # fmt: skip
    rows = []
    for one in trial.estimates:
        truth = "-" if one.truth is None else f"{one.truth:.4f}"
        values = ["-"] * (len(SHOWN_LIMITS) + 2)
        if one.usable:
            values = [f"{one.at_limit[clip]:.4f}" for clip in SHOWN_LIMITS]
            values += [_limit(one.clip), f"{one.clipped.value:.4f}"]
        rows.append((one.arm, *values, truth))
    text = (
        f"Clicks a session from the log of {trial.logging}, by the largest weight allowed. The log "
        "chooses the limit of the least expected squared error, by its weights and mean reward. An "
        "arm that the log cannot carry has no numbers."
    )
    return TablePart(CLIPPING, (head, *rows), text)


def refusals(trial: Trial) -> list[str]:
    """Why an arm has no numbers, one sentence each."""
    return [
        f"no number for {_name(one)}: {_reasons(one)}" for one in _judged(trial) if not one.usable
    ]


def _judged(trial: Trial) -> tuple[LogEstimate, ...]:
    return (*trial.estimates, *trial.refused)


def _name(one: LogEstimate) -> str:
    return f"{one.arm} (log of {one.logging})"


def _reasons(one: LogEstimate) -> str:
    return "; ".join(reason.text for reason in one.diagnostics.reasons)


def _estimates(one: LogEstimate) -> Iterator[tuple[str, Estimate]]:
    yield "ips", one.ips
    yield "snips", one.snips
    if one.dm is not None and one.dr is not None:
        yield "dm", one.dm
        yield "dr", one.dr
    yield "clipped ips", one.clipped


def _lines(one: LogEstimate, trial: Trial) -> Iterator[EstimateLine]:
    own = next(e.truth for e in _judged(trial) if e.logging == one.logging)
    logged = next((e.truth for e in trial.estimates if e.arm == e.logging == one.logging), own)
    for name, found in _estimates(one):
        if not (one.usable and math.isfinite(found.standard_error)):
            yield EstimateLine(
                _name(one), name, None, verdict=one.diagnostics.verdict, note=_reasons(one)
            )
            continue
        notes = []
        away = one.errors_from_truth(found)
        if one.truth is not None:
            off = "" if name == "dm" or away is None else f", {away:+.1f} standard errors off"
            notes.append(f"true value {one.truth:.4f}{off}")
        if name == "dm":
            notes.append(_NO_INTERVAL)
        if name == "clipped ips":
            notes.append(f"weights up to {_limit(one.clip)}, chosen by the log")
        notes += [reason.text for reason in one.diagnostics.reasons]
        yield EstimateLine(
            _name(one),
            name,
            found.value,
            None if name == "dm" else found.low,
            None if name == "dm" else found.high,
            found.value / logged - 1.0 if logged else None,
            one.diagnostics.verdict,
            "; ".join(notes),
        )


def _cell(found: Estimate | None, name: str) -> str:
    if found is None or not math.isfinite(found.standard_error):
        return "-"
    value = f"{found.value:.4f}"
    return value if name == "dm" else f"{value} [{found.low:.4f}, {found.high:.4f}]"


def _limit(clip: float) -> str:
    return "any" if math.isinf(clip) else f"{clip:g}"
