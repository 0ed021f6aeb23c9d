"""What is made of the items alone, before any event is learned from: content, Semantic IDs, fields.

A run that begins from a bundle asks the bundle's encoder, quantiser and field vocabulary about the
catalogue instead of learning new ones: a row of the towers' tables goes on meaning what it meant.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from features.tables import ItemTable
from recsys.bundle import Bundle
from recsys.config import Config, SemanticIdsConfig
from recsys.content.encoder import ContentEncoder
from recsys.dataset import Dataset
from recsys.errors import ConfigError
from recsys.files.provenance import fingerprint
from recsys.pipeline.lineage import Lineage
from recsys.pipeline.stages import Stage
from recsys.pipeline.towers import ItemInputs
from recsys.progress import Progress
from recsys.retrieval.towers.item_fields import FieldVocabulary
from recsys.semantic_ids import (
    RQVAE,
    EpochLosses,
    Quantizer,
    ResidualKMeans,
    SemanticIds,
    assign_unique,
    diagnose,
    load_quantizer,
)

__all__ = ["item_stages", "load_content", "load_item_inputs"]

log = logging.getLogger(__name__)

_NUM_TIES = 256


def item_stages(
    config: Config, data: Dataset, work: Path, lineage: Lineage | None = None
) -> list[Stage]:
    """The first stages of every run; they see the catalogue and no event.

    Args:
        config: the run.
        data: its items are encoded, its fingerprint is part of the stages'.
        work: the workspace `run_stages` is called with.
        lineage: the bundle whose encoders are asked. None: they are fitted.
    """
    lineage = lineage or Lineage()
    start, items = lineage.start, data.items  # the stages do not hold the log

    def taken_over(name: str, out: Path) -> bool:
        """Copy what the bundle has for items that stay as they are."""
        if start is None or not lineage.frozen_items:
            return False
        shutil.copytree(start.file(name), out, dirs_exist_ok=True)
        return True

    def content(out: Path, progress: Progress) -> None:
        if not taken_over("content", out):
            _write_content(config, items, out, start)

    def semantic_ids(out: Path, progress: Progress) -> None:
        if taken_over("semantic-ids", out):
            return
        if start is None:
            _write_semantic_ids(config, items, load_content(work), out, progress)
        else:
            _extend_semantic_ids(config, items, load_content(work), out, start)

    def fields(out: Path, progress: Progress) -> None:
        if not taken_over("fields", out):
            _write_fields(items, out, start)

    parent = None if start is None else lineage.fingerprint()
    return [
        Stage(
            "content",
            fingerprint(config.content.fingerprint(), data.fingerprint(), config.seed, parent),
            content,
        ),
        Stage(
            "semantic-ids",
            fingerprint(config.semantic_ids.fingerprint(), config.seed),
            semantic_ids,
        ),
        Stage("fields", "of the catalogue", fields),
    ]


def load_content(work: Path) -> np.ndarray:
    """[N + 1, D] float32 content vectors that the first stage wrote, row 0 zero."""
    vectors: np.ndarray = load_file(work / "content/vectors.safetensors")["vectors"]
    return vectors


def load_item_inputs(work: Path) -> ItemInputs:
    """What all of these stages wrote, as the towers take it."""
    ids = SemanticIds.load(work / "semantic-ids")
    depth = max(1, ids.num_levels - 1)
    return ItemInputs(
        load_content(work),
        ids.prefix_tokens(depth),
        ids.num_prefix_tokens(depth),
        load_file(work / "fields/tokens.safetensors")["tokens"],
        FieldVocabulary.load(work / "fields").num_tokens,
    )


def _write_content(config: Config, items: ItemTable, out: Path, start: Bundle | None) -> None:
    encoder = (
        _fitted_encoder(config, items)
        if start is None
        else ContentEncoder.load(start.file("content/encoder"))
    )
    out.mkdir(parents=True, exist_ok=True)
    vectors = np.pad(encoder.transform(items.frame), ((1, 0), (0, 0)))
    save_file({"vectors": vectors}, out / "vectors.safetensors")
    encoder.save(out / "encoder")


def _fitted_encoder(config: Config, items: ItemTable) -> ContentEncoder:
    settings = config.content
    attributes = (*items.list_columns, *items.category_columns, *items.number_columns)
    text_columns = (*items.text_columns, *items.list_columns)
    if not (text_columns or attributes):
        raise ConfigError(
            "items must have a column of text, categories, lists or numbers to be told apart, got "
            f"{', '.join(items.frame.columns)}; add some, or name columns in data.item_columns"
        )
    return ContentEncoder(
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


def _write_semantic_ids(
    config: Config, items: ItemTable, content: np.ndarray, out: Path, progress: Progress
) -> None:
    """Unique Semantic IDs, the quantiser and its diagnostics."""
    vectors = content[1:]
    settings = config.semantic_ids
    generator = torch.Generator().manual_seed(config.seed)
    with progress.bar(settings.epochs, "quantise the items", unit="epoch") as advance:
        quantizer = _make_quantizer(settings, lambda *_: advance(1))
        quantizer.fit(vectors, generator=generator)
    codes = _unique_codes(config, vectors, quantizer)
    ids = SemanticIds.from_codes(
        codes,
        items.ids,
        num_codes=(*[settings.codes] * settings.levels, _NUM_TIES),
        codebook=quantizer.fingerprint,
    )
    _save_semantic_ids(ids, quantizer, vectors, config.seed, out)


def _extend_semantic_ids(
    config: Config, items: ItemTable, content: np.ndarray, out: Path, start: Bundle
) -> None:
    """The bundle's Semantic IDs with new items appended; no id of an old item changes."""
    quantizer = load_quantizer(start.file("semantic-ids/quantizer"))
    old = SemanticIds.load(start.file("semantic-ids"))
    vectors = content[1:]
    ids = old
    if len(vectors) > len(old):
        codes = _unique_codes(config, vectors[len(old) :], quantizer, taken=old.codes[1:])
        ids = old.extend(codes, items.ids[len(old) :], codebook=quantizer.fingerprint)
    _save_semantic_ids(ids, quantizer, vectors, config.seed, out)


def _unique_codes(
    config: Config, vectors: np.ndarray, quantizer: Quantizer, taken: np.ndarray | None = None
) -> np.ndarray:
    try:
        return assign_unique(
            vectors, quantizer, num_ties=_NUM_TIES, reassign_last_level=True, taken=taken
        )
    except ValueError as error:
        settings = config.semantic_ids
        raise ConfigError(
            f"semantic_ids: {settings.levels} levels of {settings.codes} codes must give each of "
            f"the items an id of its own, but {error}; raise semantic_ids.levels or "
            "semantic_ids.codes, and train without --from"
        ) from error


def _save_semantic_ids(
    ids: SemanticIds, quantizer: Quantizer, vectors: np.ndarray, seed: int, out: Path
) -> None:
    ids.save(out)
    quantizer.save(out / "quantizer")
    codes = ids.codes[1:, : ids.num_levels - 1]
    found = diagnose(codes, vectors, quantizer, rng=np.random.default_rng(seed))
    (out / "diagnostics.json").write_text(json.dumps(found.as_dict(), indent=2) + "\n")
    for problem in found.problems():
        log.warning("semantic ids: %s", problem)


def _write_fields(items: ItemTable, out: Path, start: Bundle | None) -> None:
    vocabulary = (
        FieldVocabulary.fit(items) if start is None else FieldVocabulary.load(start.file("fields"))
    )
    tokens = np.pad(vocabulary.encode(items), ((1, 0), (0, 0)))
    out.mkdir(parents=True, exist_ok=True)
    save_file({"tokens": tokens}, out / "tokens.safetensors")
    vocabulary.save(out)


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
