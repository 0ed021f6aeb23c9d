"""Events and entities to model inputs. Needs polars and numpy; no torch, no network.

Public names are loaded on first use, so that importing one room does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
    from features.computation.computer import (
        FeatureComputer,
        compute_features,
        item_features,
        request_features,
    )
    from features.computation.declarations import (
        definitions_sha256,
        dump_definitions,
        load_definitions,
    )
    from features.definitions.columns import (
        Category,
        DayOfWeek,
        Definition,
        Difference,
        Field,
        HourOfDay,
        ListContains,
        ListSize,
        Position,
        RetrievalRank,
        RetrievalScore,
        SlateRelative,
        TextMatch,
        VectorComponent,
    )
    from features.definitions.events import (
        Age,
        Count,
        Interval,
        MeanWeight,
        Rate,
        Recency,
        Trend,
        UniqueCount,
    )
    from features.definitions.history import (
        Affinity,
        BasketShare,
        LastNOverlap,
        Session,
        Similarity,
    )
    from features.definitions.sets import default_definitions
    from features.errors import DataError, Problem, UnknownIdError
    from features.online.arrivals import Arrival, arrival
    from features.online.features import OnlineFeatures, UpdateReport
    from features.online.parity import Divergence, ParityReport, check_parity
    from features.online.store import MemoryStateStore, StateStore
    from features.packing.near_cache import NearCache
    from features.packing.reader import Migration, PackedReader, migration
    from features.packing.schema import FeatureBlock, PackedField, PackedSchema
    from features.sources.memory import InMemorySource
    from features.sources.parquet_directory import ParquetDirectory
    from features.sources.protocol import FeatureSource, ViewDescription, WriteReceipt
    from features.sources.publishing import append_impressions
    from features.suggest.suggestions import Suggestions, suggest_definitions
    from features.tables.entities import ItemTable, UserTable, read_items, read_users
    from features.tables.histories import Histories
    from features.tables.interactions import Interactions, read_interactions
    from features.tables.schema import CREATED, EVENT, ITEM, TIMESTAMP, USER, WEIGHT, EventColumns
    from features.tables.tables import find_problems
    from features.tables.vocabulary import Vocabulary

__all__ = [
    "CREATED",
    "EVENT",
    "ITEM",
    "TIMESTAMP",
    "USER",
    "WEIGHT",
    "Affinity",
    "Age",
    "Arrival",
    "BasketShare",
    "Category",
    "Count",
    "DataError",
    "DayOfWeek",
    "Definition",
    "Difference",
    "Divergence",
    "EventColumns",
    "FeatureBlock",
    "FeatureComputer",
    "FeatureSource",
    "Field",
    "Histories",
    "HourOfDay",
    "InMemorySource",
    "Interactions",
    "Interval",
    "ItemTable",
    "LastNOverlap",
    "ListContains",
    "ListSize",
    "MeanWeight",
    "MemoryStateStore",
    "Migration",
    "NearCache",
    "OnlineFeatures",
    "PackedField",
    "PackedReader",
    "PackedSchema",
    "ParityReport",
    "ParquetDirectory",
    "Position",
    "Problem",
    "Rate",
    "Recency",
    "RetrievalRank",
    "RetrievalScore",
    "Session",
    "Similarity",
    "SlateRelative",
    "StateStore",
    "Suggestions",
    "TextMatch",
    "Trend",
    "UniqueCount",
    "UnknownIdError",
    "UpdateReport",
    "UserTable",
    "VectorComponent",
    "ViewDescription",
    "Vocabulary",
    "WriteReceipt",
    "append_impressions",
    "arrival",
    "check_parity",
    "compute_features",
    "default_definitions",
    "definitions_sha256",
    "dump_definitions",
    "find_problems",
    "item_features",
    "load_definitions",
    "migration",
    "read_interactions",
    "read_items",
    "read_users",
    "request_features",
    "suggest_definitions",
]


__getattr__, __dir__ = lazy_names(__name__, __file__)
