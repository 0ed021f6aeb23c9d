"""Puts the parts of a process together from a configuration: store, service, titles."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.bundle import Bundle, latest
from recsys.config import Config
from recsys.config.impressions import RowLogLimits
from recsys.config.serving import RequestSettings, ServiceSettings
from recsys.errors import ArtifactError
from recsys.files.headers import read_header
from serving.connection import EMBEDDED, connect, redact
from serving.connection.clients import TlsFiles
from serving.connection.environment import url_of_environment
from serving.events.event_stream import EventStream
from serving.events.sessions import Sessions
from serving.impressions.log import FeedbackLog, ImpressionLog
from serving.models.live import LiveModels
from serving.request.experiments import Experiments, KillSwitch
from serving.request.service import RecommendationService
from serving.request.slate_rule import vectors_of_field
from serving.request.snapshot import BundledPopular
from serving.store import GenerationStore
from serving.store.keys import Keys
from serving.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    import redis

    from features.errors import Problem
    from features.tables import Tables
    from recsys.bundle.left_out import LeftOut

__all__ = [
    "Findings",
    "bundled_popular",
    "find_problems",
    "is_embedded",
    "open_client",
    "open_experiments",
    "open_feedback_log",
    "open_impression_log",
    "open_service",
    "open_store",
    "read_titles",
    "store_directory",
    "store_url",
]

log = logging.getLogger(__name__)

POPULAR = "popular.json"
CONTENT_FIELD = "content"
"""Field of the packed item rows that the slate rule measures likeness by."""


def store_url(config: Config) -> str:
    """URL of the store without a password, fit for a message; the environment goes first."""
    return redact(url_of_environment() or config.store.url)


def store_directory(config: Config) -> Path:
    """Where the embedded server keeps its data."""
    return config.output.directory / "store"


def open_store(config: Config, *, timeout_s: float = 2.0) -> GenerationStore:
    """The store the configuration or the environment names; an embedded one is started.

    Args:
        config: the run's configuration.
        timeout_s: limit of one read or write: small on the request path, larger for jobs.

    Raises:
        StageUnavailable: the embedded server could not be started.
        ConfigError: a variable of the environment is wrong, or it does not go with the TLS files.
    """
    return GenerationStore(
        open_client(config, timeout_s=timeout_s), namespace=config.store.namespace
    )


def open_client(config: Config, *, timeout_s: float = 2.0) -> redis.Redis:
    """A client of the store; see `open_store`."""
    store = config.store
    files = (store.tls_ca_file, store.tls_cert_file, store.tls_key_file)
    has_tls = any(files) or not store.tls_check_hostname
    return connect(
        None if url_of_environment() else store.url,
        directory=store_directory(config),
        timeout_s=timeout_s,
        connect_timeout_s=store.connect_timeout_s,
        retries=store.retries,
        max_connections=store.max_connections,
        tls=TlsFiles(*files, store.tls_check_hostname) if has_tls else None,
    )


@contextmanager
def open_service(
    config: Config, *, models: LiveModels | None = None, logged: bool = False
) -> Iterator[RecommendationService]:
    """The request path: what HTTP serves, and what `recsys recommend` asks; closed at the end.

    Its logs are closed with it, and then the connections to the store. Nobody else closes them.

    Args:
        config: the run's configuration.
        models: the models in memory. None: answers come from the store alone.
        logged: keep the logs that the configuration asks for.

    Raises:
        StageUnavailable: the embedded server could not be started.
        OSError: the directory of the logs cannot be made or written to.
    """
    serving = config.serving
    requests = serving.only(RequestSettings)
    settings = ServiceSettings(**dict(requests), diversity=config.ranking.diversity)
    try:
        bundled = bundled_popular(latest(config.output.directory))
    except ArtifactError as error:
        log.warning("no fallback list from a bundle: %s", error)
        bundled = None
    with ExitStack() as ends:
        store = open_store(config, timeout_s=serving.store_timeout_s)
        ends.callback(store.client.close)
        sessions = stream = None
        if serving.sessions:
            sessions = Sessions(
                store.client,
                store.keys,
                max_events=serving.session_events,
                expire_s=max(1, round(serving.session_days * 86_400)),
            )
            stream = EventStream(store.client, store.keys, sessions=sessions)
        service = RecommendationService(
            store,
            models=models,
            sessions=sessions,
            stream=stream,
            experiments=open_experiments(config, store.client)[0] if config.experiments else None,
            impressions=open_impression_log(config) if logged else None,
            feedback=open_feedback_log(config) if logged else None,
            settings=settings,
            bundled=bundled,
            row_vectors=vectors_of_field(CONTENT_FIELD),
            telemetry=Telemetry(slow_s=serving.slow_request_s),
            rules=config.data.to_event_rules(),
            repeats=config.slate.to_rule(),
        )
        ends.callback(service.close)
        yield service


def bundled_popular(bundle: Bundle) -> BundledPopular | None:
    """The fallback list in ``candidates/popular.json`` of a bundle; None before that is made.

    The file holds ``{"format": 1, "item_ids": [...], "score": [...]}``, best first.

    Raises:
        ArtifactError: the file is damaged or of another format.
    """
    path = bundle.path / "candidates" / POPULAR
    if not path.is_file():
        return None
    values = read_header(path, 1, remedy="run `recsys candidates`")
    try:
        return BundledPopular(values["item_ids"], values["score"], generation=bundle.id)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); run `recsys candidates`") from error


def read_titles(config: Config) -> dict[str, str]:
    """Item id -> title from the items; empty when no title column is configured."""
    from recsys.dataset.tables import item_titles

    return item_titles(config)


def met_before(config: Config, generation: str | None, user_id: str) -> frozenset[str] | None:
    """Items of a user's history in the bundle of a generation; None where it is not to be told.

    That is where nothing is shown again, or the bundle is not here.
    """
    from features.tables import ITEM
    from recsys.dataset.user_events import USER_EVENTS, UserEvents

    if generation is None or config.slate.to_rule().excludes_all:
        return None
    path = config.output.directory / generation / "candidates" / USER_EVENTS
    if not path.is_file():
        return None
    return frozenset(UserEvents.open(path, verify=False).interactions(user_id).frame[ITEM])


@dataclass(frozen=True)
class Findings:
    """What `recsys validate` finds.

    Attributes:
        problems: broken rules of the tables, or of definitions that do not fit them, or that there
            is nothing to learn.
        features: what definitions there are; None while the tables have problems.
        dropped: what was left out of files whose bad rows are dropped, as sentences.
        notes: what breaks no rule and is hardly meant, as sentences.
        left_out: stages that a run will go on without, and why.
    """

    problems: list[Problem]
    features: dict[str, Any] | None
    dropped: list[str]
    notes: list[str]
    left_out: tuple[LeftOut, ...] = ()


def find_problems(config: Config, tables: Tables | None = None) -> Findings:
    """All problems of the configured tables at once, or of definitions that do not fit them.

    Every rule that `recsys.pipeline.train` applies to data is applied, on all rows.

    Args:
        config: the run.
        tables: of it, where they are open. None: they are opened.

    Raises:
        DataError: the views cannot be read.
    """
    from recsys.dataset import dataset_of
    from recsys.dataset.definitions import find_definition_problems
    from recsys.dataset.tables import open_tables
    from recsys.pipeline.fitness import find_fitness

    tables = open_tables(config) if tables is None else tables
    if tables.problems:
        return Findings(tables.problems, None, tables.dropped, tables.notes)
    problems, features = find_definition_problems(config, tables)
    told = tables.dropped, tables.notes
    if problems:
        return Findings(problems, features, *told)
    fitness = find_fitness(config, dataset_of(tables, config.slate.to_rule()))
    if fitness.problems:
        return Findings(list(fitness.problems), None, *told)
    if fitness.config != config:
        problems, features = find_definition_problems(fitness.config, tables)
    return Findings(problems, features, *told, fitness.left_out)


def is_embedded(config: Config) -> bool:
    """True when the store is the server beside the artifacts."""
    return (url_of_environment() or config.store.url) == EMBEDDED


def open_impression_log(config: Config) -> ImpressionLog | None:
    """The log of what is shown; None where the configuration wants none. Close it at the end.

    Raises:
        OSError: its directory cannot be made or written to.
    """
    if not config.impressions.enabled:
        return None
    directory, _ = config.impressions.directories(config.output.directory)
    return ImpressionLog(directory, config.impressions.only(RowLogLimits))


def open_feedback_log(config: Config) -> FeedbackLog | None:
    """The log of what users did; see `open_impression_log`."""
    if not config.impressions.enabled:
        return None
    _, directory = config.impressions.directories(config.output.directory)
    return FeedbackLog(directory, config.impressions.only(RowLogLimits))


def open_experiments(config: Config, client: redis.Redis) -> tuple[Experiments, KillSwitch]:
    """The experiments, obeying the switches in the store, and these switches.

    Args:
        config: the run's configuration.
        client: of the store.
    """
    key = Keys(config.store.namespace).experiments
    switch = KillSwitch(client, key, ttl_s=config.serving.head_ttl_s)
    declared = [one.to_experiment() for one in config.experiments]
    return Experiments(declared, stopped=switch.stopped), switch
