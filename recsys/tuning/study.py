"""An Optuna study in a journal of JSON lines, which goes on where it was interrupted.

Trial n of a study depends on the seed, on n and on the trials that finished before: a study that
was interrupted ten times ends where one that was not would have. Nothing is pickled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from recsys.config.tuning import Dimension
from recsys.errors import ArtifactError
from recsys.files.provenance import fingerprint

if TYPE_CHECKING:
    import optuna

__all__ = ["Finished", "Study", "load_optuna"]

log = logging.getLogger(__name__)

STARTUP_TRIALS = 5  # before any trial is compared with the others
WARMUP_EPOCHS = 2  # no trial is given up before; slow starters are not bad ones

_IDENTITY, _OUTCOME, _REASON = "identity", "outcome", "reason"


class Finished(NamedTuple):
    """A trial that is over.

    Attributes:
        number: of the trial, from 0; interrupted ones leave gaps.
        settings: dotted name -> value.
        value: what it reached; None where it did not come to its end.
        outcome: "complete", "pruned" (below the median of the others), "failed".
        reason: of a failure.
        seconds: it took.
    """

    number: int
    settings: dict[str, Any]
    value: float | None
    outcome: str
    reason: str
    seconds: float


class Study:
    """The trials of one question: these data, this space, these other settings, this code.

    One process at a time; take a lock first.

    Args:
        study: of Optuna.
        space: dotted name -> values.
        steps: name -> what lies between two values, of the settings that are whole numbers.
        seed: of the draws.
        changed: parts of the identity in which the file's newest other study differs; empty where
            this study was there before, or is the first one.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Mapping[str, Dimension],
        *,
        steps: Mapping[str, int],
        seed: int,
        changed: tuple[str, ...] = (),
    ) -> None:
        self.name: str = study.study_name
        self.changed = changed
        self._study = study
        self._seed = seed
        self._distributions = {
            name: _distribution(dimension, steps.get(name)) for name, dimension in space.items()
        }

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Mapping[str, str],
        space: Mapping[str, Dimension],
        *,
        steps: Mapping[str, int],
        seed: int,
    ) -> Self:
        """The study of this identity in the journal ``path``; both are made if missing.

        Trials that a killed process left running are closed as interrupted.

        Args:
            path: file with one JSON value a line; it may hold several studies.
            identity: fingerprints of everything that trials must have in common to be compared.
            space: dotted name -> values.
            steps: name -> what lies between two values, of the settings that are whole numbers.
            seed: of the draws.

        Raises:
            ArtifactError: the file is damaged.
            ImportError: Optuna is not installed.
        """
        optuna = load_optuna()
        _repair(path)
        name = fingerprint(dict(identity))[:16]
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        try:
            storage = optuna.storages.JournalStorage(backend)
            others = [one for one in storage.get_all_studies() if _IDENTITY in one.user_attrs]
        except (ValueError, LookupError, TypeError, AssertionError) as error:
            raise ArtifactError(
                f"{path} is damaged ({type(error).__name__}: {error}); move it away and a new "
                "study starts"
            ) from error
        known = any(one.study_name == name for one in others)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_EPOCHS),
        )
        changed: tuple[str, ...] = ()
        if not known:
            study.set_user_attr(_IDENTITY, dict(identity))
            before = others[-1].user_attrs[_IDENTITY] if others else identity
            changed = tuple(part for part in identity if before.get(part) != identity[part])
        found = cls(study, space, steps=steps, seed=seed, changed=changed)
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            found.interrupt(trial.number)
        return found

    def finished(self) -> list[Finished]:
        """Trials that count, in their order; those interrupted do not."""
        states = load_optuna().trial.TrialState
        trials = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        return [
            Finished(
                number=trial.number,
                settings=dict(trial.params),
                value=trial.value if trial.state == states.COMPLETE else None,
                outcome=trial.user_attrs[_OUTCOME],
                reason=trial.user_attrs.get(_REASON, ""),
                seconds=0.0 if trial.duration is None else trial.duration.total_seconds(),
            )
            for trial in trials
        ]

    def best(self) -> Finished | None:
        """The complete trial with the largest value, the first of equal ones."""
        complete = [trial for trial in self.finished() if trial.value is not None]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def next_trial(self, settings: Mapping[str, Any] | None = None) -> optuna.Trial:
        """Begin a trial.

        Args:
            settings: dotted name -> value, inside the space. None: the sampler chooses.
        """
        optuna = load_optuna()
        number = len(self.finished())
        # A sampler of one seed would repeat its first draws whenever a study goes on.
        drawn = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = optuna.samplers.TPESampler(seed=int(drawn[0]))
        waiting = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        if settings is not None and not waiting:
            self._study.enqueue_trial(dict(settings))
        return self._study.ask(self._distributions)

    def complete(self, trial: optuna.Trial, value: float) -> None:
        """End a trial that came to its end."""
        trial.set_user_attr(_OUTCOME, "complete")
        self._study.tell(trial, value)

    def prune(self, trial: optuna.Trial) -> None:
        """End a trial that was given up because others were better at the same epoch."""
        self._give_up(trial, "pruned")

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """End a trial whose settings do not work; the sampler takes it for a bad one."""
        trial.set_user_attr(_REASON, reason)
        self._give_up(trial, "failed")

    def interrupt(self, trial: optuna.Trial | int) -> None:
        """End a trial that says nothing of its settings; the next one has the same."""
        failed = load_optuna().trial.TrialState.FAIL
        self._study.tell(trial, state=failed, skip_if_finished=True)

    def _give_up(self, trial: optuna.Trial, outcome: str) -> None:
        trial.set_user_attr(_OUTCOME, outcome)
        self._study.tell(trial, state=load_optuna().trial.TrialState.PRUNED)


def load_optuna() -> ModuleType:
    """Optuna, told to log no more than warnings.

    Raises:
        ImportError: it is not installed; names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"tuning needs optuna ({error}); install recsys-plugin[tune]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(dimension: Dimension, step: int | None) -> optuna.distributions.BaseDistribution:
    made = load_optuna().distributions
    found: optuna.distributions.BaseDistribution
    if dimension.choices is not None:
        found = made.CategoricalDistribution(dimension.choices)
    elif step is not None:
        found = made.IntDistribution(dimension.low, dimension.high, log=dimension.log, step=step)
    else:
        found = made.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return found


def _repair(path: Path) -> None:
    """Drop what a process killed while it wrote has left: half a line, and Optuna's lock."""
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s ended within a line; the line is dropped", path)
            file.truncate(whole)
