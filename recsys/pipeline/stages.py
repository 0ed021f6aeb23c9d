"""Run named stages in order; a second run starts at the first unfinished one.

```
workspace/
  .lock                 held by the process that runs the stages
  content/              output of a finished stage
    stage.json          its fingerprint, seconds, files and their sizes
  retrieval.tmp-4711/   output of a stage while it runs; renamed when it is done
```

A stage is up to date when its own settings, those of the stages it reads, and the code are what
they were. One that is not runs again, and so do all that read it. A stage that does not say what
it reads, reads all before it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from features.whole_files import telling_refusal
from recsys.errors import ArtifactError
from recsys.files.headers import read_header, write_header
from recsys.files.locking import one_holder
from recsys.files.provenance import code_fingerprint, fingerprint
from recsys.progress import Progress

__all__ = ["Stage", "StageEvent", "StageResult", "run_stages"]

log = logging.getLogger(__name__)

FORMAT = 1
RECORD = "stage.json"
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: lower-case letters, digits, "-" and "_"; the directory of its output.
        settings: fingerprint of everything the stage depends on that no earlier stage does: its
            section of the configuration, the seed, the data (see
            `recsys.files.provenance.fingerprint`).
        run: writes its output into the given directory. Outputs of earlier stages lie beside it
            under their names, but take their paths from the workspace.
        reads: names of earlier stages whose output goes in, theirs with it. None: all of them.
    """

    name: str
    settings: str
    run: Callable[[Path, Progress], None]
    reads: tuple[str, ...] | None = None


class StageEvent(NamedTuple):
    """What happened to a stage; ``seconds`` is the work it took, now or when it was done."""

    name: str
    state: Literal["started", "finished", "reused"]
    seconds: float


class StageResult(NamedTuple):
    """Where a stage's output lies and how it came about."""

    path: Path
    fingerprint: str
    seconds: float
    reused: bool


def run_stages(
    stages: Sequence[Stage],
    workspace: Path,
    *,
    progress: Progress | None = None,
    on_event: Callable[[StageEvent], None] | None = None,
    fresh: bool = False,
    code: str | None = None,
) -> dict[str, StageResult]:
    """Bring every stage up to date, in order.

    A stage that raises, Ctrl-C included, leaves nothing behind; those before it stay finished.

    Args:
        stages: distinct names.
        workspace: directory of the outputs; made if missing. One process at a time.
        progress: handed to the stages; None: silent.
        on_event: called when a stage starts, finishes or is found up to date.
        fresh: run every stage, whatever is there.
        code: fingerprint of the code; None: `code_fingerprint`.

    Returns:
        Name -> where the output lies, in the order of ``stages``.

    Raises:
        ValueError: a name is malformed or appears twice, or a stage reads none before it.
        ArtifactError: another process is using the workspace.
    """
    names = [stage.name for stage in stages]
    for name in names:
        if not _NAME.match(name):
            raise ValueError(f"stage names match {_NAME.pattern}, got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"stage names must be distinct, got {name!r} twice")
    for place, stage in enumerate(stages):
        unknown = set(stage.reads or ()) - set(names[:place])
        if unknown:
            raise ValueError(
                f"stage {stage.name!r} must read stages before it, got {', '.join(sorted(unknown))}"
            )
    progress = progress or Progress()
    code = code_fingerprint() if code is None else code
    results: dict[str, StageResult] = {}
    workspace.mkdir(parents=True, exist_ok=True)
    with one_holder(workspace, lambda holder: _in_use(workspace, holder)):
        _sweep(workspace)
        for stage in stages:
            read = [results[name] for name in (results if stage.reads is None else stage.reads)]
            inputs = [result.fingerprint for result in read]
            own = fingerprint(stage.name, stage.settings, code, inputs)
            # What was made from another run of a stage is made again, though the settings agree.
            kept = not fresh and all(result.reused for result in read)
            result = _finished(workspace / stage.name, own) if kept else None
            if result is None:
                _report(on_event, progress, StageEvent(stage.name, "started", 0.0))
                result = _run(stage, workspace, own, progress)
                _report(on_event, progress, StageEvent(stage.name, "finished", result.seconds))
            else:
                _report(on_event, progress, StageEvent(stage.name, "reused", result.seconds))
            results[stage.name] = result
    return results


def _run(stage: Stage, workspace: Path, own: str, progress: Progress) -> StageResult:
    target = workspace / stage.name
    draft = workspace / f"{stage.name}.tmp-{os.getpid()}"
    start = time.perf_counter()
    try:
        draft.mkdir()
        with telling_refusal(target):
            stage.run(draft, progress)
        seconds = time.perf_counter() - start
        record = {
            "fingerprint": own,
            "seconds": round(seconds, 3),
            "files": _sizes(draft),
        }
        write_header(draft / RECORD, FORMAT, record)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return StageResult(target, own, round(seconds, 3), reused=False)


def _finished(target: Path, own: str) -> StageResult | None:
    """The result in ``target`` if it is complete and of this fingerprint."""
    try:
        record = read_header(target / RECORD, FORMAT, remedy="it runs again")
    except (OSError, ArtifactError):
        return None
    if record.get("fingerprint") != own:
        return None
    if record.get("files") != _sizes(target):
        log.warning("stage %s is incomplete on disk; it runs again", target.name)
        return None
    return StageResult(target, own, float(record["seconds"]), reused=True)


def _sizes(directory: Path) -> dict[str, int]:
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / RECORD
    }


def _report(
    on_event: Callable[[StageEvent], None] | None, progress: Progress, event: StageEvent
) -> None:
    log.info("stage %s %s after %.1f s", event.name, event.state, event.seconds)
    if event.state == "finished":
        progress.note(f"{event.name}: {event.seconds:.1f} s")
    elif event.state == "reused":
        progress.note(f"{event.name}: up to date")
    if on_event is not None:
        on_event(event)


def _sweep(workspace: Path) -> None:
    """Remove drafts of killed processes; the lock says that nobody else is writing."""
    for path in workspace.glob("*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _in_use(workspace: Path, holder: str) -> str:
    return (
        f"{workspace} is in use by process {holder}; wait for it, or give this run another "
        "output.directory"
    )
