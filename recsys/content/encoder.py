"""An item table to content vectors: text, lists, categories and numbers in one space."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recsys.content.attributes import MultiHotEncoder, NumberEncoder
from recsys.content.fusion import Fusion
from recsys.content.options import ContentOptions
from recsys.content.text import TextEncoderName, encode_text
from recsys.errors import ArtifactError, NotFittedError
from recsys.files.headers import read_header, write_header
from recsys.unit_rows import unit_rows

__all__ = ["ContentEncoder"]

log = logging.getLogger(__name__)
_FORMAT = 1


class ContentEncoder:
    """Content vectors of items, for the catalogue it was fitted on and for new items alike.

    Text columns are read as one text an item: they are joined by blanks (lists inside them too)
    in the order given. That text is one block; every list, category and number column is one
    more. `fit` learns values, scales and axes once; `transform` never learns.

    Args:
        text_columns: String or List(String) columns.
        list_columns: List(String) columns.
        category_columns: String columns with one value.
        number_columns: numeric columns.
        dim: width of the vectors.
        weights: a block's weight by column name, or ``"text"`` for the text block. Unnamed blocks
            weigh 1. The square is its share of the variance.
        text_encoder: as in `encode_text`.
        text_model_path: as in `encode_text`; not saved with the encoder.

    Raises:
        ValueError: no column at all, a column twice in one role, or a weight of no block.
    """

    def __init__(
        self,
        *,
        text_columns: Sequence[str] = (),
        list_columns: Sequence[str] = (),
        category_columns: Sequence[str] = (),
        number_columns: Sequence[str] = (),
        dim: int = ContentOptions.default("dim"),
        weights: Mapping[str, float] | None = None,
        text_encoder: TextEncoderName = "wordllama",
        text_model_path: str | Path | None = None,
    ) -> None:
        self.text_columns = tuple(text_columns)
        self.list_columns = tuple(list_columns)
        self.category_columns = tuple(category_columns)
        self.number_columns = tuple(number_columns)
        self.dim = dim
        self.text_encoder: TextEncoderName = text_encoder
        self.text_model_path = text_model_path
        blocks = [*self.list_columns, *self.category_columns, *self.number_columns]
        if not blocks and not self.text_columns:
            raise ValueError("at least one column must be given: text, list, category or number")
        if len(set(blocks)) != len(blocks) or len(set(self.text_columns)) != len(self.text_columns):
            raise ValueError(f"a column must be named once: got {[*self.text_columns, *blocks]}")
        names = (["text"] if self.text_columns else []) + blocks
        unknown = sorted(set(weights or {}) - set(names))
        if unknown:
            raise ValueError(f"weights must name blocks among {names}, got {unknown}")
        self.weights = dict.fromkeys(names, 1.0) | dict(weights or {})
        self._multi_hot: dict[str, MultiHotEncoder] = {}
        self._number: dict[str, NumberEncoder] = {}
        self._fusion: Fusion | None = None

    def fit(self, frame: pl.DataFrame, *, rng: np.random.Generator) -> Self:
        """Learn from a catalogue.

        Args:
            frame: one row per item, with the columns named in the constructor; nulls are missing.
            rng: seeds the projections of wide columns.

        Raises:
            ValueError: a column is missing or of the wrong type.
            NothingVariesError: no column varies.
        """
        self._check(frame)
        for name in (*self.list_columns, *self.category_columns):
            self._multi_hot[name] = MultiHotEncoder().fit(frame[name], rng=rng)
        for name in self.number_columns:
            self._number[name] = NumberEncoder().fit(frame[name])
        blocks = self._blocks(frame)
        fusion = Fusion(dim=self.dim).fit(list(blocks.values()), [self.weights[n] for n in blocks])
        self._fusion = fusion
        log.info(
            "content encoder fitted: %d items, blocks %s, %d dimensions, %.0f%% of the variance",
            len(frame),
            {name: block.shape[1] for name, block in blocks.items()},
            self.dim,
            100 * fusion.explained,
        )
        return self

    def transform(self, frame: pl.DataFrame) -> np.ndarray:
        """Content vectors of the rows of ``frame``, in order.

        Returns:
            [N, dim] float32 unit rows; a zero row for an item with no content at all.

        Raises:
            NotFittedError: before `fit`.
            ValueError: a column is missing or of the wrong type.
        """
        if self._fusion is None:
            raise NotFittedError("ContentEncoder has learnt nothing yet; call fit or load")
        self._check(frame)
        return self._fusion.transform(list(self._blocks(frame).values()))

    def _blocks(self, frame: pl.DataFrame) -> dict[str, np.ndarray]:
        blocks: dict[str, np.ndarray] = {}
        if self.text_columns:
            vectors = encode_text(
                joined_text(frame, self.text_columns),
                encoder=self.text_encoder,
                model_path=self.text_model_path,
            )
            blocks["text"] = unit_rows(vectors)
        for name, multi_hot in self._multi_hot.items():
            blocks[name] = multi_hot.transform(frame[name])
        for name, number in self._number.items():
            blocks[name] = number.transform(frame[name])
        return blocks

    def _check(self, frame: pl.DataFrame) -> None:
        for role, names in self._columns().items():
            for name in names:
                if name not in frame.columns:
                    raise ValueError(
                        f"frame must have the {role} column {name!r}, got {frame.columns}"
                    )
                dtype = frame.schema[name]
                if role == "list_columns" and not isinstance(dtype, pl.List):
                    raise ValueError(
                        f"list column {name!r} must be a list of strings, got {dtype}; "
                        "split it first"
                    )

    def _columns(self) -> dict[str, tuple[str, ...]]:
        return {
            "text_columns": self.text_columns,
            "list_columns": self.list_columns,
            "category_columns": self.category_columns,
            "number_columns": self.number_columns,
        }

    def save(self, directory: Path) -> None:
        """Write ``content_encoder.safetensors`` and ``content_encoder.json``.

        Raises:
            NotFittedError: before `fit`.
        """
        if self._fusion is None:
            raise NotFittedError("ContentEncoder has learnt nothing yet; call fit or load")
        directory.mkdir(parents=True, exist_ok=True)
        arrays = {f"fusion/{name}": array for name, array in self._fusion.state().items()}
        attributes: dict[str, Any] = {}
        encoders: dict[str, MultiHotEncoder | NumberEncoder] = {**self._multi_hot, **self._number}
        for name, encoder in encoders.items():
            attributes[name], tensors = encoder.state()
            arrays |= {f"attribute/{name}/{key}": array for key, array in tensors.items()}
        save_file(arrays, directory / "content_encoder.safetensors")
        header = {
            "columns": self._columns(),
            "dim": self.dim,
            "weights": self.weights,
            "text_encoder": self.text_encoder,
            "attributes": attributes,
        }
        write_header(directory / "content_encoder.json", _FORMAT, header)

    @classmethod
    def load(cls, directory: Path, *, text_model_path: str | Path | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            directory: where `save` wrote.
            text_model_path: as in the constructor; needed again when it was given there.

        Raises:
            ArtifactError: a file is missing or of another format version.
        """
        try:
            header = read_header(
                directory / "content_encoder.json", _FORMAT, remedy="fit the encoder again"
            )
            arrays = load_file(directory / "content_encoder.safetensors")
        except FileNotFoundError as error:
            raise ArtifactError(f"no content encoder in {directory}: {error}") from error
        encoder = cls(
            **header["columns"],
            dim=header["dim"],
            weights=header["weights"],
            text_encoder=header["text_encoder"],
            text_model_path=text_model_path,
        )

        def below(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

        attributes = header["attributes"]
        for name in (*encoder.list_columns, *encoder.category_columns):
            state = below(f"attribute/{name}/")
            encoder._multi_hot[name] = MultiHotEncoder.from_state(attributes[name], state)
        for name in encoder.number_columns:
            state = below(f"attribute/{name}/")
            encoder._number[name] = NumberEncoder.from_state(attributes[name], state)
        encoder._fusion = Fusion.from_state(below("fusion/"))
        return encoder


def joined_text(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """One text per row: the columns' texts joined by blanks, nulls left out."""
    parts = [
        pl.col(name).list.join(" ", ignore_nulls=True)
        if isinstance(frame.schema[name], pl.List)
        else pl.col(name).cast(pl.String)
        for name in columns
    ]
    return (
        frame.select(pl.concat_str(parts, separator=" ", ignore_nulls=True)).to_series().to_list()
    )
