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
    from features.definitions.columns import (
        Category,
        DayOfWeek,
        Definition,
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
        MeanWeight,
        Rate,
        Recency,
        Trend,
        UniqueCount,
    )
    from features.definitions.history import Affinity, LastNOverlap, Session, Similarity
    from features.definitions.registry import (
        default_definitions,
        definitions_sha256,
        dump_definitions,
        load_definitions,
    )
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
    from features.tables.validation import find_problems
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
    "Category",
    "Count",
    "DataError",
    "DayOfWeek",
    "Definition",
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

_HOME = {
    "CREATED": "features.tables.schema",
    "EVENT": "features.tables.schema",
    "ITEM": "features.tables.schema",
    "TIMESTAMP": "features.tables.schema",
    "USER": "features.tables.schema",
    "WEIGHT": "features.tables.schema",
    "Affinity": "features.definitions.history",
    "Age": "features.definitions.events",
    "Arrival": "features.online.arrivals",
    "Category": "features.definitions.columns",
    "Count": "features.definitions.events",
    "DataError": "features.errors",
    "DayOfWeek": "features.definitions.columns",
    "Definition": "features.definitions.columns",
    "Divergence": "features.online.parity",
    "EventColumns": "features.tables.schema",
    "FeatureBlock": "features.packing.schema",
    "FeatureComputer": "features.computation.computer",
    "FeatureSource": "features.sources.protocol",
    "Field": "features.definitions.columns",
    "Histories": "features.tables.histories",
    "HourOfDay": "features.definitions.columns",
    "InMemorySource": "features.sources.memory",
    "Interactions": "features.tables.interactions",
    "ItemTable": "features.tables.entities",
    "LastNOverlap": "features.definitions.history",
    "ListContains": "features.definitions.columns",
    "ListSize": "features.definitions.columns",
    "MeanWeight": "features.definitions.events",
    "MemoryStateStore": "features.online.store",
    "Migration": "features.packing.reader",
    "NearCache": "features.packing.near_cache",
    "OnlineFeatures": "features.online.features",
    "PackedField": "features.packing.schema",
    "PackedReader": "features.packing.reader",
    "PackedSchema": "features.packing.schema",
    "ParityReport": "features.online.parity",
    "ParquetDirectory": "features.sources.parquet_directory",
    "Position": "features.definitions.columns",
    "Problem": "features.errors",
    "Rate": "features.definitions.events",
    "Recency": "features.definitions.events",
    "RetrievalRank": "features.definitions.columns",
    "RetrievalScore": "features.definitions.columns",
    "Session": "features.definitions.history",
    "Similarity": "features.definitions.history",
    "SlateRelative": "features.definitions.columns",
    "StateStore": "features.online.store",
    "Suggestions": "features.suggest.suggestions",
    "TextMatch": "features.definitions.columns",
    "Trend": "features.definitions.events",
    "UniqueCount": "features.definitions.events",
    "UnknownIdError": "features.errors",
    "UpdateReport": "features.online.features",
    "UserTable": "features.tables.entities",
    "VectorComponent": "features.definitions.columns",
    "ViewDescription": "features.sources.protocol",
    "Vocabulary": "features.tables.vocabulary",
    "WriteReceipt": "features.sources.protocol",
    "append_impressions": "features.sources.publishing",
    "arrival": "features.online.arrivals",
    "check_parity": "features.online.parity",
    "compute_features": "features.computation.computer",
    "default_definitions": "features.definitions.registry",
    "definitions_sha256": "features.definitions.registry",
    "dump_definitions": "features.definitions.registry",
    "find_problems": "features.tables.validation",
    "item_features": "features.computation.computer",
    "load_definitions": "features.definitions.registry",
    "migration": "features.packing.reader",
    "read_interactions": "features.tables.interactions",
    "read_items": "features.tables.entities",
    "read_users": "features.tables.entities",
    "request_features": "features.computation.computer",
    "suggest_definitions": "features.suggest.suggestions",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
