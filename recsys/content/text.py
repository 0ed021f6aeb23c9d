"""Texts to vectors, without a download: static word vectors from the wordllama wheel."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = ["TextEncoderName", "encode_text"]

TextEncoderName = Literal["wordllama", "sentence-transformers"]


def encode_text(
    texts: Sequence[str],
    *,
    encoder: TextEncoderName = "wordllama",
    model_path: str | Path | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """One vector per text; no network, ever.

    A blank text is a zero row. Equal texts give equal rows whatever stands beside them.

    Args:
        texts: N strings.
        encoder: ``"wordllama"``: the mean of static vectors of the text's word pieces (256-d,
            thousands of texts in milliseconds). ``"sentence-transformers"``: a transformer the
            caller has on disk; needs the package of that name.
        model_path: a directory. For wordllama: ``tokenizer.json`` and one ``*.safetensors`` file
            with one [pieces, D] tensor (the layout model2vec writes); None: the weights in the
            wheel. For sentence-transformers: a saved model; required.
        batch_size: texts encoded at a time.

    Returns:
        [N, D] float32, not normalised.

    Raises:
        ValueError: a text is not a string, ``batch_size`` < 1, an unknown ``encoder``, or
            sentence-transformers without ``model_path``.
        FileNotFoundError: ``model_path`` is not such a directory.
        ImportError: the encoder's package is not installed.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a sequence of strings, got one string; wrap it in a list")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"texts must be strings: row {row} is {text!r}; replace missing texts by ''"
            )
    path = None if model_path is None else str(Path(model_path).resolve())
    if encoder == "wordllama":
        model = _load_wordllama(path)
        dim = int(model.embedding.shape[1])
    elif encoder == "sentence-transformers":
        if path is None:
            raise ValueError("model_path must name a saved model for sentence-transformers")
        model = _load_sentence_transformer(path)
        dim = int(model.get_sentence_embedding_dimension())
    else:
        raise ValueError(f"encoder must be 'wordllama' or 'sentence-transformers', got {encoder!r}")
    vectors = np.zeros((len(texts), dim), dtype=np.float32)
    # Short with short, so that a batch is not padded to its one long text.
    rows = sorted((r for r, t in enumerate(texts) if t.strip()), key=lambda r: len(texts[r]))
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        chunk = [texts[row] for row in chosen]
        if encoder == "wordllama":
            vectors[chosen] = model.embed(chunk, batch_size=batch_size)
        else:
            vectors[chosen] = model.encode(chunk, batch_size=batch_size, show_progress_bar=False)
    return vectors


@functools.lru_cache(maxsize=2)
def _load_wordllama(model_path: str | None) -> Any:
    try:
        with _root_logger_kept():
            import wordllama
            from wordllama.inference import WordLlamaInference
    except ImportError as error:
        raise ImportError(
            "encoder 'wordllama' needs the package wordllama: pip install wordllama"
        ) from error
    if model_path is None:
        # The package's own folder as cache_dir: weights and tokenizer both ship in the wheel.
        folder = Path(wordllama.__file__).parent
        return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(model_path)
    weights = sorted(folder.glob("*.safetensors"))
    if len(weights) != 1 or not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"model_path must hold tokenizer.json and one *.safetensors file: {folder} holds "
            f"{sorted(p.name for p in folder.glob('*')) if folder.is_dir() else 'nothing'}"
        )
    tables = {name: t for name, t in load_file(weights[0]).items() if t.ndim == 2}
    if len(tables) != 1:
        raise FileNotFoundError(
            f"{weights[0]} must hold one 2-D tensor of vectors, got {sorted(tables)}"
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return WordLlamaInference(next(iter(tables.values())), tokenizer)


@functools.lru_cache(maxsize=1)
def _load_sentence_transformer(model_path: str) -> Any:
    if not Path(model_path).is_dir():
        raise FileNotFoundError(f"model_path must be a directory on disk, got {model_path}")
    try:
        package = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise ImportError(
            "encoder 'sentence-transformers' needs the package sentence-transformers: "
            "pip install sentence-transformers"
        ) from error
    return package.SentenceTransformer(model_path, device="cpu", local_files_only=True)


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what wordllama 0.4 does on import: ``logging.basicConfig(level=INFO)``."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
