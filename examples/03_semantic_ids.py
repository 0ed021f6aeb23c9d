"""Give every film a short code made from its content, and see what the codes have in common.

Run: python examples/03_semantic_ids.py [--data DIRECTORY]

Films with the same first code are alike, those with the same first two codes more so. A model
that learns embeddings of the prefixes knows something of a film that nobody rated yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from features import read_items
from recsys.content import ContentEncoder
from recsys.semantic_ids import ResidualKMeans, SemanticIds, assign_unique, diagnose

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
DATA: Path = parser.parse_args().data

SEED, LEVELS, CODES = 42, 3, 32

items = read_items(DATA / "movies.parquet", id_column="movieId", text_columns=("title", "tags"))
encoder = ContentEncoder(text_columns=("title", "tags"), list_columns=("genres",), dim=32)
encoder.fit(items.frame, rng=np.random.default_rng(SEED))
vectors = encoder.transform(items.frame)  # [N, D]

quantizer = ResidualKMeans(num_levels=LEVELS, num_codes=CODES)
quantizer.fit(vectors, generator=torch.Generator().manual_seed(SEED))
codes = assign_unique(vectors, quantizer)  # [N, levels and a tie digit]
ids = SemanticIds.from_codes(
    codes, items.ids, num_codes=(*[CODES] * LEVELS, 256), codebook=quantizer.fingerprint
)

# Films that share the first film's longest crowded prefix.
title = items.frame["title"]
for depth in range(LEVELS, 0, -1):
    same = np.nonzero((codes[:, :depth] == codes[0, :depth]).all(axis=1))[0]
    if same.size > 1 or depth == 1:
        break
print(f"films that share {depth} of {LEVELS} codes with {title[0]}:")
for row in same[:6]:
    print(f"  {'-'.join(map(str, codes[row])):<16}{title[int(row)]}")

found = diagnose(codes[:, :LEVELS], vectors, quantizer, rng=np.random.default_rng(SEED))
print("\nlevel  perplexity (of at most 32)")
for level, perplexity in enumerate(found.perplexity, start=1):
    print(f"{level:>5}  {perplexity:.1f}")
print(f"\nrows of a prefix table of depth {LEVELS}: {ids.num_prefix_tokens(LEVELS):,}")
for prefix in found.prefixes:
    print(
        f"cosine within a prefix of {prefix.depth}: {prefix.cosine:.3f} "
        f"(shuffled {prefix.shuffled_cosine:.3f})"
    )
print(f"{len(ids):,} films, as many different ids: {len(np.unique(codes, axis=0)):,}")
