"""BM25 of a few words against the texts of candidates."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["TextMatcher"]

_WORD = r"[\p{L}\p{N}]+"


class TextMatcher:
    """The words of N texts.

    Args:
        texts: [N] String; row r is item index r + 1. A null is an empty text.
    """

    def __init__(self, texts: pl.Series) -> None:
        words = _words(texts.fill_null(""))
        self._length = np.concatenate([np.zeros(1), words.list.len().to_numpy().astype(float)])
        pairs = (
            words.to_frame("word")
            .with_columns(item=pl.int_range(1, pl.len() + 1))
            .explode("word", empty_as_null=True)
            .drop_nulls()
            .group_by("word", "item")
            .len("times")
        )
        self._known = pairs["word"].unique().sort()
        word = _codes(self._known, pairs["word"])
        self._stride = self._length.size
        key = word * self._stride + pairs["item"].to_numpy()
        order = np.argsort(key)
        self._key = key[order]
        self._times = pairs["times"].to_numpy().astype(np.float64)[order]
        self._texts_with = np.bincount(word, minlength=len(self._known) + 1)

    def scores(
        self, item: np.ndarray, query: pl.Series, *, k1: float = 1.2, b: float = 0.75
    ) -> np.ndarray:
        """BM25 of each text of a request against an item's text.

        Args:
            item: [R] int64 item index, 0 or beyond N for an unknown one.
            query: [R] String.
            k1: see `features.definitions.TextMatch`.
            b: likewise.

        Returns:
            [R] float64; NaN for an unknown item and for a null query.
        """
        known = (item > 0) & (item < self._length.size)
        item = np.where(known, item, 0)
        distinct = query.drop_nulls().unique().sort()
        words = _words(distinct)
        size = words.list.len().to_numpy().astype(np.int64)
        flat = words.explode(empty_as_null=True).drop_nulls()
        code = _codes(self._known, flat)
        start = np.cumsum(size) - size
        place = _codes(distinct, query.fill_null("")) - 1
        asked = np.flatnonzero(known & (place >= 0) & query.is_not_null().to_numpy())
        count = size[place[asked]]
        row = np.repeat(asked, count)
        within = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
        word = code[np.repeat(start[place[asked]], count) + within]
        key = word * self._stride + item[row]
        found = np.minimum(np.searchsorted(self._key, key), max(self._key.size - 1, 0))
        hit = np.zeros(row.size, dtype=bool)
        if self._key.size:
            hit = (self._key[found] == key) & (word > 0)
        times = self._times[found[hit]]
        num_texts = self._length.size - 1
        texts_with = self._texts_with[word[hit]]
        idf = np.log1p((num_texts - texts_with + 0.5) / (texts_with + 0.5))
        length = self._length[item[row[hit]]] / self._length[1:].mean()
        part = idf * times * (k1 + 1) / (times + k1 * (1 - b + b * length))
        score = np.bincount(row[hit], weights=part, minlength=item.size)
        return np.where(known & query.is_not_null().to_numpy(), score, np.nan)


def _words(texts: pl.Series) -> pl.Series:
    """[N] lists of lower-case words."""
    return texts.str.to_lowercase().str.extract_all(_WORD)


def _codes(known: pl.Series, values: pl.Series) -> np.ndarray:
    """[n] int64: 1 for the first of the sorted ``known``, and so on; 0 for any other value."""
    if len(known) == 0 or len(values) == 0:
        return np.zeros(len(values), dtype=np.int64)
    place = known.search_sorted(values).to_numpy().astype(np.int64)
    place = np.minimum(place, len(known) - 1)
    same = (known.gather(place) == values).to_numpy()
    return np.where(same, place + 1, 0)
