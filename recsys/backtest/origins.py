"""The model of one origin, trained or taken over, and what it is worth in one window.

```
artifacts/backtest/
  20180917T143514Z/           one origin
    finished.json             what the bundle was made from, and its id
    20260514T031500Z-5f0c2a/  its bundle
    work/                     its finished stages; see recsys.pipeline.stages
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.moments import microseconds
from features.whole_files import whole_file
from recsys.backtest.windows import Window
from recsys.bundle import Bundle
from recsys.config import Config, OutputConfig
from recsys.dataset import Dataset, read_dataset
from recsys.dataset.run_data import table_fingerprint
from recsys.errors import ArtifactError
from recsys.evaluation import USER_METRICS, Truth, judge, parse_metric
from recsys.evaluation.options import EvaluationOptions
from recsys.files.headers import read_header, write_header
from recsys.files.provenance import code_fingerprint, fingerprint, library_versions
from recsys.lookup import lookup
from recsys.pipeline import train
from recsys.pipeline.measuring import Answer, ask_funnel, own_data
from recsys.progress import Progress
from recsys.retrieval.popularity import PopularityRetriever
from recsys.topk import TopK

__all__ = ["FUNNEL", "POPULAR", "Measured", "Trained", "config_at", "measure", "trained"]

FUNNEL, POPULAR = "funnel", "popular, 30d"
POPULAR_DAYS = 30.0
FINISHED, FORMAT = "finished.json", 1


class Trained(NamedTuple):
    """A model of an origin; ``taken_over`` says that an earlier run had finished it."""

    bundle: Bundle
    taken_over: bool


class Measured(NamedTuple):
    """What systems are worth to the users of one window.

    Attributes:
        users: [U] ids, all with something to be found.
        values: system -> [U, M] one column a metric.
    """

    users: np.ndarray
    values: Mapping[str, np.ndarray]


def config_at(config: Config, origin: datetime, directory: Path) -> Config:
    """The same run as of an earlier moment, with a directory of its own."""
    changed = {
        "split": config.split.but(kind="time", moment=origin),
        "output": OutputConfig(directory=directory),
    }
    return config.model_copy(update=changed)


def trained(config: Config, *, progress: Progress) -> Trained:
    """The bundle of a run, trained unless a finished one is of the same settings, data and code."""
    directory = config.output.directory
    wanted = _fingerprint(config, read_dataset(config))
    found = _finished(directory, wanted)
    if found is not None:
        return Trained(found, taken_over=True)
    bundle = train(config, progress=progress)
    with whole_file(directory / FINISHED) as path:
        write_header(path, FORMAT, {"made_from": wanted, "bundle": bundle.id})
    return Trained(bundle, taken_over=False)


def _fingerprint(config: Config, data: Dataset) -> str:
    """Of all that changes the bundle; how it is measured does not."""
    settings = config.model_copy(update={"evaluation": EvaluationOptions()})
    users = None if data.users is None else table_fingerprint(data.users.frame)
    return fingerprint(
        settings.fingerprint(), data.fingerprint(), users, code_fingerprint(), library_versions()
    )


def _finished(directory: Path, wanted: str) -> Bundle | None:
    try:
        record = read_header(directory / FINISHED, FORMAT, remedy="it is trained again")
        if record.get("made_from") != wanted:
            return None
        bundle = Bundle.load(directory / str(record.get("bundle")))
        bundle.verify()
    except (FileNotFoundError, ArtifactError):
        return None
    return bundle


def measure(
    config: Config, bundle: Bundle, windows: Sequence[Window], metrics: Sequence[str]
) -> list[Measured]:
    """Ask a model about windows, each with what was known when the window began.

    Items that the model does not know stay among what is to be found. In the first window popular
    items are judged beside it.

    Args:
        config: of the model.
        bundle: the model.
        windows: its own first, later ones after it.
        metrics: such as "ndcg@20".
    """
    data = own_data(config, bundle, read_dataset(config), remedy="measure it")
    found: list[Measured] = []
    for window in windows:
        parts = window.parts(data.interactions)
        answer = ask_funnel(config, bundle, data, window=parts)
        lists = {FUNNEL: answer.lists(answer.score), **dict(answer.alone())}
        if not found:
            lists[POPULAR] = _popular(answer, window)
        values = {name: _per_user(top, answer.truth, metrics) for name, top in lists.items()}
        found.append(Measured(np.array(answer.users, dtype=object), values))
    return found


def _popular(answer: Answer, window: Window) -> TopK:
    """What was popular in the days before the window, less what must not be shown."""
    data, history = answer.data, answer.cut.history
    known = data.histories(data.interactions.before(window.begin))
    retriever = PopularityRetriever.fit(known, data.num_items, window_days=POPULAR_DAYS)
    return retriever.retrieve(
        history,
        answer.k,
        moment=np.full(len(history), microseconds(window.begin)),
        excluded=history.hidden_mask(data.num_items, answer.cut.moment),
    )


def _per_user(lists: TopK, truth: Truth, metrics: Sequence[str]) -> np.ndarray:
    """[U, M] in the order of the truth, in which everybody has something to be found."""
    judged = judge(lists, truth)
    names = [parse_metric(name) for name in metrics]
    columns = [lookup(USER_METRICS, name.name, "metric")(judged, name.k) for name in names]
    return np.stack(columns, axis=1)
