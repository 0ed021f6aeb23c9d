"""Choosing settings of the towers on validation events alone; test events are cut off first.

```
artifacts/tuning/
  study.jsonl               every trial of every study, see recsys.tuning.study
  best.toml                 the run's configuration with the best settings so far
  <study>/recall-<n>.npy    [U] recall@20 of each validation user in trial n; kept of the best
                            trial and of the settings as they are
  .lock                     held by the process that tunes
```

A trial is what the stage ``retrieval-past`` does for the towers: they learn from the past of the
training part and are judged on its rest. The best of many trials on the same users looks better
than it is; `recsys evaluate` measures on events that no trial has seen.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from features.whole_files import whole_file
from recsys.config import Config
from recsys.config.tuning import SECTION, UNSEARCHED, field_of, step_of
from recsys.dataset import Dataset, read_dataset
from recsys.errors import CollapseError, ConfigError
from recsys.evaluation import (
    Difference,
    Interval,
    bootstrap_mean,
    paired_difference,
)
from recsys.files.locking import one_holder
from recsys.files.provenance import code_fingerprint, fingerprint
from recsys.progress import Progress
from recsys.retrieval.training.epoch_report import EpochReport
from recsys.tuning.space import of_one_loss, settings_now, space_of
from recsys.tuning.study import Finished, Study, load_optuna
from recsys.tuning.toml_text import to_toml
from recsys.tuning.trials import (
    MEASURED_AT,
    TrialData,
    changed_settings,
    recall_of_towers,
    trial_data,
)

if TYPE_CHECKING:
    import optuna

__all__ = ["TuningResult", "tune"]

log = logging.getLogger(__name__)


class TuningResult(NamedTuple):
    """What a study has found so far.

    Attributes:
        best: dotted name -> value that the best trial had.
        now: dotted name -> value in the configuration.
        recall: recall@20 of the best trial over the validation users. It was chosen on them, so
            it flatters.
        gain: over the settings as they are, user by user. None: no complete trial had those.
        trial: number of the best trial.
        trials: that finished, in all calls together; the next ones are some of them.
        pruned: given up early, below the median of the others.
        failed: whose settings did not work, mostly because the loss ran away or the vectors
            collapsed.
        used_up: the study has all the trials it may have.
        path: a configuration with the best settings.
    """

    best: dict[str, Any]
    now: dict[str, Any]
    recall: Interval
    gain: Difference | None
    trial: int
    trials: int
    pruned: int
    failed: int
    used_up: bool
    path: Path


def tune(
    config: Config,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TuningResult:
    """Search ``tuning.space`` until ``tuning.minutes`` are over or ``tuning.trials`` are done.

    A later call goes on with the same study as long as the data, the space, the other settings
    and the code are the same. The settings as they are go first, if the space holds them.

    Args:
        config: the run.
        progress: where bars and a line per trial go.
        clock: seconds; the budget is measured with it, at the end of every epoch.

    Raises:
        ConfigError: the run has no towers, no bundle has chosen their loss where it is "auto", or
            no user has events to validate on.
        DataError: the files break a rule.
        ArtifactError: another process is tuning, or the study's file is damaged.
        TimeoutError: no trial came to its end; there is nothing to choose from.
        ImportError: Optuna is not installed.
    """
    deadline = clock() + 60.0 * config.tuning.minutes
    load_optuna()
    if "two_tower" not in config.retrieval.sources:
        raise ConfigError(
            "retrieval.sources must include 'two_tower' to tune it, got "
            f"{', '.join(config.retrieval.sources)}"
        )
    config = of_one_loss(config)
    progress = progress or Progress()
    directory = config.output.directory / "tuning"
    directory.mkdir(parents=True, exist_ok=True)
    with one_holder(directory, lambda holder: _in_use(directory, holder)):
        data = read_dataset(config)
        study = _open_study(config, data, directory / "study.jsonl")
        if study.changed:
            progress.note(f"a new study, because of other {', '.join(study.changed)}")
        search = _Search(config, study, directory, progress)
        if len(study.finished()) < config.tuning.trials and clock() < deadline:
            search.run(trial_data(config, data, progress=progress), lambda: clock() >= deadline)
        return search.result()


class _BudgetOver(Exception):
    """Ends a training whose time is over."""


class _Search:
    """The trials of one call."""

    def __init__(self, config: Config, study: Study, directory: Path, progress: Progress) -> None:
        self._config = config
        self._study = study
        self._directory = directory
        self._progress = progress
        self._now = settings_now(config)

    def run(self, data: TrialData, is_over: Callable[[], bool]) -> None:
        """Trials until the budget is over or there are enough.

        One that an error or Ctrl-C ends is closed when the study is opened next.
        """
        while not is_over() and len(self._study.finished()) < self._config.tuning.trials:
            trial = self._study.next_trial(self._unmeasured_settings())
            try:
                self._try(trial, data, is_over)
            except _BudgetOver:
                log.info("trial %d stopped: the time is over", trial.number)
                self._study.interrupt(trial)

    def _unmeasured_settings(self) -> dict[str, Any] | None:
        """The settings as they are, unless a trial had them or the space does not hold them."""
        inside = all(
            dimension.holds(self._now[name]) for name, dimension in space_of(self._config).items()
        )
        tried = any(trial.settings == self._now for trial in self._study.finished())
        return self._now if inside and not tried else None

    def _try(self, trial: optuna.Trial, data: TrialData, is_over: Callable[[], bool]) -> None:
        pruned = load_optuna().TrialPruned

        def on_epoch(report: EpochReport) -> None:
            trial.report(cast(float, report.recall), report.epoch)
            if report.epoch == report.num_epochs:
                return
            if is_over():
                raise _BudgetOver
            if trial.should_prune():
                raise pruned

        try:
            changes = {field_of(name): value for name, value in trial.params.items()}
            per_user = recall_of_towers(
                data,
                changed_settings(self._config.retrieval, changes),
                seed=self._config.seed,
                progress=self._progress,
                on_epoch=on_epoch,
            )
        except pruned:
            self._study.prune(trial)
        except (ConfigError, CollapseError, FloatingPointError) as error:
            self._study.fail(trial, str(error))
        else:
            self._keep(per_user, trial.number)
            self._study.complete(trial, float(per_user.mean()))
        self._after_trial()

    def _after_trial(self) -> None:
        finished = self._study.finished()
        last, best = finished[-1], self._study.best()
        shown = f"{last.value:.4f}" if last.value is not None else last.outcome
        if last.reason:
            shown += f" ({last.reason})"
        values = ", ".join(_shown(name, value) for name, value in last.settings.items())
        line = f"trial {last.number}: recall@{MEASURED_AT} {shown}; {values}; {last.seconds:.1f} s"
        log.info("%s", line)
        self._progress.note(line)
        if best is not None and best.number == last.number:
            self._write_best(best)
        kept = {one.number for one in (best, self._baseline(finished)) if one is not None}
        for path in (self._directory / self._study.name).glob("recall-*.npy"):
            if path not in map(self._recall_path, kept):
                path.unlink()

    def result(self) -> TuningResult:
        """The best of all finished trials, of earlier calls as well."""
        finished = self._study.finished()
        best = self._study.best()
        if best is None:
            last = f"; the last one: {finished[-1].reason}" if finished else ""
            raise TimeoutError(
                f"no trial came to its end within {self._config.tuning.minutes:g} minutes, "
                f"{len(finished)} were given up{last}; raise tuning.minutes, or narrow tuning.space"
            )
        rng = np.random.default_rng(self._config.seed)
        resamples = self._config.evaluation.bootstrap_samples
        per_user = np.load(self._recall_path(best.number), allow_pickle=False)
        baseline, gain = self._baseline(finished), None
        if baseline is not None:
            before = np.load(self._recall_path(baseline.number), allow_pickle=False)
            gain = paired_difference(per_user, before, rng=rng, resamples=resamples)
        outcomes = [trial.outcome for trial in finished]
        return TuningResult(
            best=best.settings,
            now=self._now,
            recall=bootstrap_mean(per_user, rng=rng, resamples=resamples),
            gain=gain,
            trial=best.number,
            trials=len(finished),
            pruned=outcomes.count("pruned"),
            failed=outcomes.count("failed"),
            used_up=len(finished) >= self._config.tuning.trials,
            path=self._write_best(best),
        )

    def _baseline(self, finished: list[Finished]) -> Finished | None:
        """The complete trial of the settings as they are, if its users are still at hand."""
        measured = [
            trial
            for trial in finished
            if trial.settings == self._now
            and trial.value is not None
            and self._recall_path(trial.number).is_file()
        ]
        return measured[0] if measured else None

    def _recall_path(self, number: int) -> Path:
        return self._directory / self._study.name / f"recall-{number}.npy"

    def _keep(self, per_user: np.ndarray, number: int) -> None:
        path = self._recall_path(number)
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as draft, draft.open("wb") as file:
            np.save(file, per_user, allow_pickle=False)

    def _write_best(self, best: Finished) -> Path:
        path = self._directory / "best.toml"
        about = (
            f"# Written by `recsys tune`: trial {best.number} of study {self._study.name},\n"
            f"# validation recall@{MEASURED_AT} {best.value:.4f}. Train with it as it is, or copy "
            f"what [{SECTION}] holds.\n"
        )
        values = _run_with(self._config, best.settings, self._directory)
        with whole_file(path) as draft:
            draft.write_text(about + to_toml(values), encoding="utf-8")
        return path


def _open_study(config: Config, data: Dataset, path: Path) -> Study:
    space = space_of(config)
    model = type(config.retrieval)
    fixed = config.retrieval.model_dump(
        mode="json", exclude={*UNSEARCHED, *(field_of(name) for name in space)}
    )
    # Of the settings all must agree but those that every trial sets anew.
    identity = {
        "data": fingerprint(data.fingerprint(), config.split.fingerprint()),
        "space": fingerprint({name: one.model_dump(mode="json") for name, one in space.items()}),
        "settings": fingerprint(
            fixed, config.content.fingerprint(), config.semantic_ids.fingerprint(), config.seed
        ),
        "code": code_fingerprint(),
    }
    steps = {name: step for name in space if (step := step_of(model, field_of(name))) is not None}
    return Study.open(path, identity, space, steps=steps, seed=config.seed)


def _shown(name: str, value: Any) -> str:
    return (
        f"{field_of(name)} {value:.4g}"
        if isinstance(value, float)
        else (f"{field_of(name)} {value}")
    )


def _run_with(config: Config, best: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The configuration with other settings, as a file in ``directory`` must say it."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    if "sources" not in config.retrieval.model_fields_set:  # they follow from other settings
        values.get(SECTION, {}).pop("sources", None)
    values.pop("features_file", None)  # its definitions stand in the configuration from now on
    for section, name in (
        ("data", "events"),
        ("data", "items"),
        ("data", "users"),
        ("output", "directory"),
    ):
        path = getattr(getattr(config, section), name)
        if path is not None:
            is_path = isinstance(path, Path)  # or else a URL
            told = Path(os.path.relpath(path, directory)).as_posix() if is_path else path
            values.setdefault(section, {})[name] = told
    if config.data.feast is not None:
        relative = Path(os.path.relpath(config.data.feast.repository, directory)).as_posix()
        values["data"]["feast"]["repository"] = relative
    values[SECTION] = {
        **{field_of(name): value for name, value in best.items()},
        **{
            name: value
            for name, value in values.get(SECTION, {}).items()
            if f"{SECTION}.{name}" not in best
        },
    }
    return values


def _in_use(directory: Path, holder: str) -> str:
    return (
        f"another process is tuning in {directory}, process {holder}; wait for it, or give this "
        "run another output.directory"
    )
