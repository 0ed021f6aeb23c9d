"""Judging a bundle: evidence from the bundles and a log, the decision, and its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from features.errors import DataError
from recsys.bundle import Bundle, latest
from recsys.config import Config
from recsys.dataset import Dataset, read_dataset
from recsys.errors import ArtifactError, ConfigError
from recsys.pipeline import evaluate
from recsys.pipeline.evidence import EVIDENCE, read_evidence
from recsys.pipeline.older_bundle import measure_as
from recsys.progress import Progress
from recsys.simulation.gate.decide import GateDecision, decide
from recsys.simulation.gate.evidence import Evidence
from recsys.simulation.gate.report import gate_report
from recsys.simulation.report.page import report_page
from recsys.simulation.report.parts import EstimateLine
from serving.jobs.gate_log import GateLog, estimate_bundles, first_items, read_rounds
from serving.jobs.publish import GATE

__all__ = ["Judgement", "find", "judge"]

FORMAT = 1
REPORT = "gate.html"
_ESTIMATES = TypeAdapter(dict[str, tuple[EstimateLine, ...]])


class Judgement(NamedTuple):
    """What `judge` found.

    Attributes:
        decision: the verdict and its reasons.
        record: what stands in ``gate.json``.
        report: the page in the bundle; None where nothing was written.
    """

    decision: GateDecision
    record: dict[str, Any]
    report: Path | None


def find(config: Config, name: str) -> Bundle:
    """A bundle by its id, its path, or one of "newest", "served" and "previous".

    Raises:
        ArtifactError: there is no such bundle, or nothing is served.
        ServingError: the store cannot be asked.
    """
    if name == "newest":
        return latest(config.output.directory)
    if name in ("served", "previous"):
        return Bundle.load(config.output.directory / _generation(config, name))
    path = Path(name)
    return Bundle.load(path if path.is_dir() else config.output.directory / name)


def judge(
    config: Config,
    candidate: Bundle,
    incumbent: Bundle | None,
    *,
    log: Path | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> Judgement:
    """Decide, and write ``gate.json`` and ``gate.html`` into the candidate.

    A bundle that was not evaluated yet is evaluated first.

    Args:
        config: names the data, and the bounds in ``gate``.
        candidate: the new bundle.
        incumbent: what runs now. None: nothing does.
        log: directory of an impression log, with the feedback log beside it; or a JSON file with
            "candidate" and "incumbent", each a list of estimates
            (`recsys.simulation.EstimateLine`). None: no estimates.
        write: whether to write into the candidate.
        progress: shows a bar.

    Raises:
        ArtifactError: candidate and incumbent are one bundle, or one of them cannot be measured.
        ConfigError: ``gate.metrics`` names what was not measured.
        DataError: ``log`` is not what it should be.
    """
    if incumbent is not None and incumbent.id == candidate.id:
        raise ArtifactError(
            f"candidate and incumbent must be two bundles, got {candidate.id} for both; name the "
            "incumbent with --against, or --against none before the first publication"
        )
    seen = _from_log(config, candidate, incumbent, log)
    data = cache(partial(read_dataset, config))  # for both bundles, where one is not measured yet
    ours = _evidence(config, candidate, data, progress)
    ours = replace(ours, estimates=seen.estimates.get("candidate", ()))
    theirs = None
    if incumbent is not None:
        theirs = _incumbent(config, incumbent, candidate, data, progress)
        theirs = replace(theirs, estimates=seen.estimates.get("incumbent", ()))
    rules = config.gate
    try:
        decision = decide(ours, theirs, rules)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    against = None if incumbent is None else incumbent.id
    report = gate_report(
        decision, ours, theirs, rules, weights=seen.weights, notes=seen.notes, power=seen.power
    )
    record = _record(decision, candidate.id, against, config.gate.model_dump(mode="json"))
    if not write:
        return Judgement(decision, record, None)
    with candidate.adding(REPORT) as path:
        path.write_text(report_page(report), encoding="utf-8")
    with candidate.adding("gate_report.json") as path:
        path.write_text(_json(report.to_dict()), encoding="utf-8")
    with candidate.adding(GATE) as path:
        path.write_text(_json(record), encoding="utf-8")
    return Judgement(decision, record, candidate.path / REPORT)


def _evidence(
    config: Config, bundle: Bundle, data: Callable[[], Dataset], progress: Progress | None
) -> Evidence:
    if not (bundle.path / EVIDENCE).is_dir():
        evaluate(config, bundle, data=data(), progress=progress)
        bundle = Bundle.load(bundle.path)
    else:
        bundle.verify({EVIDENCE})
    return read_evidence(bundle)


def _incumbent(
    config: Config,
    incumbent: Bundle,
    candidate: Bundle,
    data: Callable[[], Dataset],
    progress: Progress | None,
) -> Evidence:
    """Its own evidence where it was judged as the candidate; else it is measured as that was."""
    old, new = incumbent.manifest, candidate.manifest
    same_data = old.data_fingerprint == new.data_fingerprint
    if same_data and old.config["split"] == new.config["split"]:
        return _evidence(config, incumbent, data, progress)
    return measure_as(config, incumbent, candidate, data=data())


def _generation(config: Config, name: str) -> str:
    from serving.assembly import open_store

    head = open_store(config).head()
    found = None if head is None else head.generation if name == "served" else head.previous
    if found is None:
        raise ArtifactError(
            f"no generation is {name}; name a bundle, or judge with --against none before the "
            "first publication"
        )
    return found


def _from_log(
    config: Config, candidate: Bundle, incumbent: Bundle | None, log: Path | None
) -> GateLog:
    if log is None:
        return GateLog({}, (), ())
    if not log.is_dir():
        return GateLog(_read_estimates(log), (), ())
    shown, done = config.impressions.directories(config.output.directory)
    if log.absolute() != shown.absolute():
        done = log.with_name("feedback")
    rounds = read_rounds(log, done, window_s=config.gate.reward_window_s)
    bundles = {"candidate": candidate} | ({} if incumbent is None else {"incumbent": incumbent})
    first = {name: first_items(bundle) for name, bundle in bundles.items()}
    rng = np.random.default_rng(config.seed)
    try:
        return estimate_bundles(rounds, first, rng=rng, level=config.gate.level)
    except ValueError as error:
        raise DataError(f"log {log}: {error}") from error


def _read_estimates(path: Path) -> dict[str, tuple[EstimateLine, ...]]:
    try:
        found = _ESTIMATES.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"log {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"log {path} must hold lists of estimates under candidate and incumbent: {where}: "
            f"{first['msg']}"
        ) from error
    if "candidate" not in found or set(found) - {"candidate", "incumbent"}:
        raise DataError(
            f"log {path} must hold candidate and may hold incumbent, got {', '.join(found)}"
        )
    return found


def _record(
    decision: GateDecision, bundle: str, against: str | None, rules: dict[str, Any]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "verdict": decision.verdict,
        "bundle": bundle,
        "against": against,
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reasons": [reason._asdict() for reason in decision.reasons],
        "rules": rules,
    }


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"
