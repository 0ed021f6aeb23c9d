"""What `recsys tune` searches where nothing is declared, and the settings as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recsys.config.tuning import SECTION, Dimension, field_of

if TYPE_CHECKING:
    from recsys.config import Config
    from recsys.config.retrieval import RetrievalConfig

__all__ = ["default_space", "settings_now", "space_of"]


def space_of(config: Config) -> dict[str, Dimension]:
    """What is searched: the declared space, or else the default one; dotted name -> values."""
    return dict(config.tuning.space) or default_space(config.retrieval)


def settings_now(config: Config) -> dict[str, Any]:
    """Dotted name -> value in the configuration, of everything that is searched."""
    return {name: getattr(config.retrieval, field_of(name)) for name in space_of(config)}


def default_space(settings: RetrievalConfig) -> dict[str, Dimension]:
    """What is searched when nothing is declared: what the configured loss and denoising read."""
    wanted = [*_READ_BY[settings.loss], *_READ_BY_ALL]
    if settings.denoising != "none":  # compares positives with the shared negatives
        wanted += [name for name in _SHARED if name not in wanted]
        wanted.append(_READ_BY_DENOISING[settings.denoising])
    ranges = dict(_RANGES)
    if settings.score == "dot":
        ranges["temperature"] = Dimension(low=0.3, high=3.0, log=True)
    return {f"{SECTION}.{name}": ranges[name] for name in wanted}


_RANGES: Mapping[str, Dimension] = {
    "temperature": Dimension(low=0.05, high=0.3, log=True),  # of a cosine
    "gamma": Dimension(low=0.2, high=5.0, log=True),
    "negatives": Dimension(low=256, high=4096, log=True),
    "negative_power": Dimension(low=0.0, high=1.0),
    "learning_rate": Dimension(low=5e-4, high=1e-2, log=True),
    "table_learning_rate": Dimension(low=0.02, high=0.5, log=True),
    "user_power": Dimension(low=0.0, high=1.0),
    "smoothing": Dimension(low=0.0, high=0.4),
    "bsl_weight": Dimension(low=0.8, high=1.6),
    "ccl_margin": Dimension(low=0.2, high=0.95),
    "ccl_weight": Dimension(low=20.0, high=500.0, log=True),
    "mawu_user_gamma": Dimension(low=0.2, high=3.0, log=True),
    "mawu_item_gamma": Dimension(low=0.1, high=2.0, log=True),
    "sl_temperature": Dimension(low=0.3, high=3.0, log=True),
    "denoise_temperature": Dimension(low=0.03, high=1.0, log=True),
    "drop_rate": Dimension(low=0.02, high=0.3),
    "reweight_power": Dimension(low=0.05, high=1.0, log=True),
}

_READ_BY_ALL = ("learning_rate", "table_learning_rate", "user_power", "smoothing")
_SHARED = ("temperature", "negatives", "negative_power")
_READ_BY: Mapping[str, tuple[str, ...]] = {
    "bpr": _SHARED,
    "bsl": (*_SHARED, "bsl_weight"),
    "ccl": ("negatives", "negative_power", "ccl_margin", "ccl_weight"),
    "cm3": ("gamma",),
    "directau": ("gamma",),
    "in_batch_softmax": ("temperature",),
    "mann_whitney": _SHARED,
    "mawu": ("mawu_user_gamma", "mawu_item_gamma"),
    "psl": _SHARED,
    "sampled_softmax": _SHARED,
    "sl_at_k": (*_SHARED, "sl_temperature"),
}
"""Loss -> settings of the default space that it alone reads."""
_READ_BY_DENOISING: Mapping[str, str] = {
    "pld": "denoise_temperature",
    "truncated": "drop_rate",
    "reweighted": "reweight_power",
}
