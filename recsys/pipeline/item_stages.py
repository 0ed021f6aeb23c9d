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
from recsys.config import Config
from recsys.content.encoder import ContentEncoder
from recsys.content.fusion import NothingVariesError
from recsys.content.variety import different_descriptions
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
from recsys.semantic_ids.options import SemanticIdOptions

__all__ = ["has_semantic_ids", "item_stages", "load_content", "load_item_inputs"]

log = logging.getLogger(__name__)

_NUM_TIES = 256  # at least so many values of the tie digit, so that a new item rarely adds one


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
            if not load_file(out / "vectors.safetensors")["vectors"].any():
                progress.note("content: all items are alike, so there are no vectors of them")

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
    """[N + 1, D] float32 content vectors that the first stage wrote, row 0 zero.

    All are zero where nothing tells items apart.
    """
    vectors: np.ndarray = load_file(work / "content/vectors.safetensors")["vectors"]
    return vectors


def load_item_inputs(work: Path) -> ItemInputs:
    """What all of these stages wrote, as the towers take it."""
    content = load_content(work)
    prefixes, num_prefixes = None, 0
    if has_semantic_ids(work / "semantic-ids"):
        ids = SemanticIds.load(work / "semantic-ids")
        depth = max(1, ids.num_levels - 1)
        prefixes, num_prefixes = ids.prefix_tokens(depth), ids.num_prefix_tokens(depth)
    fields = FieldVocabulary.load(work / "fields")
    return ItemInputs(
        content if content.any() else None,
        prefixes,
        num_prefixes,
        load_file(work / "fields/tokens.safetensors")["tokens"],
        fields.num_tokens,
        fields.names,
    )


def has_semantic_ids(directory: Path) -> bool:
    """Whether a stage or a bundle has Semantic IDs there: not without content vectors."""
    return (directory / "semantic_ids.json").is_file()


def _write_content(config: Config, items: ItemTable, out: Path, start: Bundle | None) -> None:
    """The items' vectors and what makes them; of items that are all alike zeros, and no encoder."""
    encoder: ContentEncoder | None = None
    vectors = np.zeros((len(items) + 1, config.content.dim), dtype=np.float32)
    try:
        if start is None:
            encoder = _fitted_encoder(config, items)
        elif (start.path / "content/encoder").is_dir():
            path = config.content.text_model
            encoder = ContentEncoder.load(start.file("content/encoder"), text_model_path=path)
        if encoder is not None:
            vectors[1:] = encoder.transform(items.frame)
    except (FileNotFoundError, ImportError) as error:
        raise ConfigError(
            f"content.text_encoder {config.content.text_encoder!r}: {error}"
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    if encoder is not None:
        encoder.save(out / "encoder")
    save_file({"vectors": vectors}, out / "vectors.safetensors")


def _fitted_encoder(config: Config, items: ItemTable) -> ContentEncoder | None:
    """None where nothing tells the items apart."""
    settings = config.content
    attributes = (*items.list_columns, *items.category_columns, *items.number_columns)
    text_columns = (*items.text_columns, *items.list_columns)
    if different_descriptions(items) < 2:
        return None
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
        text_encoder=settings.text_encoder,
        text_model_path=settings.text_model,
    )
    try:
        return encoder.fit(items.frame, rng=np.random.default_rng(config.seed))
    except NothingVariesError:
        return None


def _write_semantic_ids(
    config: Config, items: ItemTable, content: np.ndarray, out: Path, progress: Progress
) -> None:
    """Unique Semantic IDs, the quantiser and its diagnostics; nothing where vectors are equal."""
    vectors = content[1:]
    different = len(np.unique(vectors, axis=0))
    out.mkdir(parents=True, exist_ok=True)
    if different < 2:
        return
    settings = config.semantic_ids
    settings = settings.but(codes=min(settings.codes, different))
    generator = torch.Generator().manual_seed(config.seed)
    with progress.bar(settings.epochs, "quantise the items", unit="epoch") as advance:
        quantizer = _make_quantizer(settings, lambda *_: advance(1))
        quantizer.fit(vectors, generator=generator)
    codes = _unique_codes(vectors, quantizer)
    ids = SemanticIds.from_codes(
        codes,
        items.ids,
        num_codes=(
            *[settings.codes] * settings.levels,
            max(_NUM_TIES, int(codes[:, -1].max()) + 1),
        ),
        codebook=quantizer.fingerprint,
    )
    _save_semantic_ids(ids, quantizer, vectors, config.seed, out)


def _extend_semantic_ids(
    config: Config, items: ItemTable, content: np.ndarray, out: Path, start: Bundle
) -> None:
    """The bundle's Semantic IDs with new items appended; no id of an old item changes."""
    out.mkdir(parents=True, exist_ok=True)
    if not has_semantic_ids(start.path / "semantic-ids"):
        return
    quantizer = load_quantizer(start.file("semantic-ids/quantizer"))
    old = SemanticIds.load(start.file("semantic-ids"))
    vectors = content[1:]
    ids = old
    if len(vectors) > len(old):
        codes = _unique_codes(vectors[len(old) :], quantizer, taken=old.codes[1:])
        ids = old.extend(codes, items.ids[len(old) :], codebook=quantizer.fingerprint)
    _save_semantic_ids(ids, quantizer, vectors, config.seed, out)


def _unique_codes(
    vectors: np.ndarray, quantizer: Quantizer, taken: np.ndarray | None = None
) -> np.ndarray:
    """Items of the same content share their codes; the tie digit counts them, however many."""
    return assign_unique(vectors, quantizer, num_ties=None, reassign_last_level=True, taken=taken)


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
    settings: SemanticIdOptions, on_epoch: Callable[[EpochLosses], None]
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
