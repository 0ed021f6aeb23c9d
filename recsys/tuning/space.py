"""What `recsys tune` searches where nothing is declared, and the settings as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.config.retrieval import AUTO
from recsys.config.tuning import SECTION, Dimension, field_of
from recsys.errors import ConfigError
from recsys.settings import Searched, Settings

if TYPE_CHECKING:
    from recsys.config import Config
    from recsys.config.retrieval import RetrievalConfig

__all__ = ["default_space", "of_one_loss", "settings_now", "space_of"]


def of_one_loss(config: Config) -> Config:
    """The run with the loss that its newest bundle has chosen, where that is "auto".

    Raises:
        ConfigError: no bundle has chosen one.
    """
    if config.retrieval.loss != AUTO:
        return config
    from recsys.bundle import bundles
    from recsys.pipeline.source_choice import loss_of

    found = bundles(config.output.directory)
    chosen = loss_of(found[-1], config.retrieval) if found else {}
    if chosen.get("loss", AUTO) == AUTO:
        raise ConfigError(
            f"retrieval.loss must be one loss to tune its settings, got {AUTO!r} and no bundle in "
            f"{config.output.directory} that has chosen one; run `recsys train` first"
        )
    retrieval = config.retrieval.model_copy(update=dict(chosen))
    return config.model_copy(update={"retrieval": retrieval})


def space_of(config: Config) -> dict[str, Dimension]:
    """What is searched: the declared space, or else the default one; dotted name -> values."""
    return dict(config.tuning.space) or default_space(config.retrieval)


def settings_now(config: Config) -> dict[str, Any]:
    """Dotted name -> value in the configuration, of everything that is searched."""
    return {name: getattr(config.retrieval, field_of(name)) for name in space_of(config)}


def default_space(settings: RetrievalConfig) -> dict[str, Dimension]:
    """What is searched when nothing is declared: what loss, denoising and pooling read.

    Of each setting the range that stands where it is declared.
    """
    from recsys.retrieval.training.objectives import objective_of

    wanted = [*objective_of(settings.loss).searched, *_ALWAYS]
    if settings.denoising != "none":  # compares positives with the shared negatives
        wanted += [name for name in _SHARED if name not in wanted]
        wanted.append(_READ_BY_DENOISING[settings.denoising])
    if settings.pooling == "sequence":
        wanted.append("reader_dropout")
    space = {f"{SECTION}.{name}": _declared(type(settings), name) for name in wanted}
    if settings.score == "dot" and "temperature" in wanted:
        space[f"{SECTION}.temperature"] = Dimension(low=0.3, high=3.0, log=True)
    return space


_ALWAYS = ("learning_rate", "table_learning_rate", "user_power", "smoothing")
_SHARED = ("temperature", "negatives", "negative_power")
_READ_BY_DENOISING: Mapping[str, str] = {
    "pld": "denoise_temperature",
    "truncated": "drop_rate",
    "reweighted": "reweight_power",
}


def _declared(section: type[Settings], name: str) -> Dimension:
    ranges = [one for one in section.model_fields[name].metadata if isinstance(one, Searched)]
    if not ranges:
        raise ValueError(f"{name} must declare what is searched: put a Searched in its annotation")
    return Dimension(low=ranges[0].low, high=ranges[0].high, log=ranges[0].log)
