"""Make examples/data from a MovieLens latest-small folder.

    python scripts/make_example_data.py --source path/to/ml-latest-small

The folder holds ratings, movies and tags as CSV (as GroupLens ships them) or Parquet, and the
licence as README.txt or README_original.txt. The result is the same for the same input.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import polars as pl

from features.tables.reading import read_frame

TARGET = Path(__file__).resolve().parents[1] / "examples" / "data"
NO_GENRES = "(no genres listed)"


def main() -> None:
    """Read the source folder, write the four files of examples/data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of ml-latest-small")
    parser.add_argument("--target", type=Path, default=TARGET, help="where to write")
    arguments = parser.parse_args()
    source, target = arguments.source, arguments.target
    target.mkdir(parents=True, exist_ok=True)
    ratings = table(source, "ratings").select(
        pl.col("userId", "movieId").cast(pl.Int32),
        pl.col("rating").cast(pl.Float32),
        pl.col("timestamp").cast(pl.Int64),
    )
    movies = with_content(table(source, "movies"), table(source, "tags"))
    for name, frame in {"ratings": ratings, "movies": movies}.items():
        frame.write_parquet(target / f"{name}.parquet", compression="zstd", compression_level=19)
        print(f"{name}.parquet: {frame.height:,} rows, {', '.join(frame.columns)}")
    licence = next(
        path for path in (source / "README_original.txt", source / "README.txt") if path.is_file()
    )
    shutil.copyfile(licence, target / "README_original.txt")


def table(source: Path, name: str) -> pl.DataFrame:
    """One table of the source folder, from Parquet if it is there, otherwise from CSV."""
    parquet = source / f"{name}.parquet"
    return read_frame(parquet if parquet.is_file() else source / f"{name}.csv")


def with_content(movies: pl.DataFrame, tags: pl.DataFrame) -> pl.DataFrame:
    """Movies with the year of their title and the distinct tags users gave them.

    Tags are lower-cased, one of each per movie, by falling number of users and then by name, and
    joined by ", ". They carry timestamps in the source that are dropped here: they are used as
    content of the movie, like its title, and no rating enters this table.
    """
    joined = (
        tags.select("movieId", pl.col("tag").str.strip_chars().str.to_lowercase())
        .filter(pl.col("tag") != "")
        .group_by("movieId", "tag")
        .len()
        .sort("movieId", "len", "tag", descending=[False, True, False])
        .group_by("movieId", maintain_order=True)
        .agg(pl.col("tag").str.join(", ").alias("tags"))
    )
    return (
        movies.select(
            pl.col("movieId").cast(pl.Int32),
            pl.col("title").str.strip_chars(),
            pl.when(pl.col("genres") != NO_GENRES).then("genres").alias("genres"),
            pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32).alias("year"),
        )
        .join(joined.with_columns(pl.col("movieId").cast(pl.Int32)), on="movieId", how="left")
        .sort("movieId")
    )


if __name__ == "__main__":
    main()
