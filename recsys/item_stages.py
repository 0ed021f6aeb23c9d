"""What is made of the items alone, before any event is learned from: content, Semantic IDs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from recsys.config import Config, SemanticIdsConfig
from recsys.content.encoder import ContentEncoder
from recsys.dataset import Dataset
from recsys.progress import Progress
from recsys.provenance import fingerprint
from recsys.semantic_ids import (
    RQVAE,
    EpochLosses,
    ResidualKMeans,
    SemanticIds,
    assign_unique,
    diagnose,
)
from recsys.sources import ItemInputs
from recsys.stages import Stage

__all__ = ["item_stages", "load_content", "load_item_inputs"]

log = logging.getLogger(__name__)


def item_stages(config: Config, data: Dataset, work: Path) -> list[Stage]:
    """The first stages of every run; they see the catalogue and no event.

    Args:
        config: the run.
        data: its items are encoded, its fingerprint is part of the stages'.
        work: the workspace `run_stages` is called with.
    """

    def content(out: Path, progress: Progress) -> None:
        _write_content(config, data, out)

    def semantic_ids(out: Path, progress: Progress) -> None:
        _write_semantic_ids(config, data, load_content(work), out, progress)

    return [
        Stage(
            "content",
            fingerprint(config.content.fingerprint(), data.fingerprint(), config.seed),
            content,
        ),
        Stage(
            "semantic-ids",
            fingerprint(config.semantic_ids.fingerprint(), config.seed),
            semantic_ids,
        ),
    ]


def load_content(work: Path) -> np.ndarray:
    """[N + 1, D] float32 content vectors that the first stage wrote, row 0 zero."""
    vectors: np.ndarray = load_file(work / "content/vectors.safetensors")["vectors"]
    return vectors


def load_item_inputs(work: Path) -> ItemInputs:
    """What both stages wrote, as the towers take it."""
    ids = SemanticIds.load(work / "semantic-ids")
    depth = max(1, ids.num_levels - 1)
    return ItemInputs(load_content(work), ids.prefix_tokens(depth), ids.num_prefix_tokens(depth))


def _write_content(config: Config, data: Dataset, out: Path) -> None:
    items, settings = data.items, config.content
    attributes = (*items.list_columns, *items.category_columns, *items.number_columns)
    text_columns = (*items.text_columns, *items.list_columns)
    encoder = ContentEncoder(
        text_columns=text_columns,
        list_columns=items.list_columns,
        category_columns=items.category_columns,
        number_columns=items.number_columns,
        dim=settings.dim,
        weights={
            **({"text": settings.text_weight} if text_columns else {}),
            **dict.fromkeys(attributes, settings.attribute_weight),
        },
    ).fit(items.frame, rng=np.random.default_rng(config.seed))
    out.mkdir(parents=True, exist_ok=True)
    vectors = np.pad(encoder.transform(items.frame), ((1, 0), (0, 0)))
    save_file({"vectors": vectors}, out / "vectors.safetensors")
    encoder.save(out / "encoder")


def _write_semantic_ids(
    config: Config, data: Dataset, content: np.ndarray, out: Path, progress: Progress
) -> None:
    """Unique Semantic IDs, the quantiser and its diagnostics."""
    vectors = content[1:]
    settings = config.semantic_ids
    generator = torch.Generator().manual_seed(config.seed)
    with progress.bar(settings.epochs, "quantise the items", unit="epoch") as advance:
        quantizer = _make_quantizer(settings, lambda *_: advance(1))
        quantizer.fit(vectors, generator=generator)
    codes = assign_unique(vectors, quantizer, reassign_last_level=True)
    ids = SemanticIds.from_codes(
        codes,
        data.items.ids,
        num_codes=(*[settings.codes] * settings.levels, 256),
        codebook=quantizer.fingerprint,
    )
    ids.save(out)
    quantizer.save(out / "quantizer")
    found = diagnose(
        codes[:, : settings.levels], vectors, quantizer, rng=np.random.default_rng(config.seed)
    )
    (out / "diagnostics.json").write_text(json.dumps(found.as_dict(), indent=2) + "\n")
    for problem in found.problems():
        log.warning("semantic ids: %s", problem)


def _make_quantizer(
    settings: SemanticIdsConfig, on_epoch: Callable[[EpochLosses], None]
) -> RQVAE | ResidualKMeans:
    if settings.kind == "residual_kmeans":
        return ResidualKMeans(num_levels=settings.levels, num_codes=settings.codes)
    return RQVAE(
        num_levels=settings.levels,
        num_codes=settings.codes,
        epochs=settings.epochs,
        warm_up_epochs=min(15, settings.epochs // 4),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        on_epoch=on_epoch,
    )
