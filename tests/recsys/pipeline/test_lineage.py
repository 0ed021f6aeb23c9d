"""Runs that continue a bundle, from the files to the bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from features.errors import DataError
from features.tables import Vocabulary
from recsys.bundle import Bundle
from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.errors import ArtifactError, ConfigError
from recsys.pipeline import evaluate, train
from recsys.pipeline import towers as tower_training
from recsys.pipeline.lineage import NEWEST, Lineage, numbered_as, open_lineage
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.semantic_ids import SemanticIds

NUM_USERS, NUM_ITEMS, EVENTS_EACH = 24, 40, 12
TOWERS = "retrieval/two_tower"


def write_world(directory: Path, *, grown: bool) -> Path:
    """Each user meets items of one of four kinds; grown, all go on and one more comes of each.

    The new ids are the first ones in the grown files, so that numbering anew would move all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for user in range(NUM_USERS):
        items = rng.choice(NUM_ITEMS // 4, EVENTS_EACH - 2, replace=False) * 4 + user % 4
        drawn = [*items, *((items[:2] + 1) % NUM_ITEMS)]
        rows += [(f"u{user}", f"i{item}", 10**9 + user + 100 * at) for at, item in enumerate(drawn)]
    catalogue = [f"i{n}" for n in range(NUM_ITEMS)]
    if grown:
        rows += [
            (f"u{user}", f"i{(user * 7) % NUM_ITEMS}", 11 * 10**8) for user in range(NUM_USERS)
        ]
        rows += [
            ("newcomer", item, 9 * 10**8 + at) for at, item in enumerate(["i3", "i7", "fresh"])
        ]
        catalogue = ["fresh", *catalogue[::-1]]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(directory / "events.parquet")
    number = [0 if item == "fresh" else int(item[1:]) for item in catalogue]
    pl.DataFrame(
        {
            "item_id": catalogue,
            "kind": [f"k{n % 4}" for n in number],
            "maker": [f"m{n % 7}" for n in number],
            "tags": [[f"t{n % 4}", f"t{n % 5}"] for n in number],
            "price": [float(n % 9) for n in number],
        }
    ).write_parquet(directory / "items.parquet")
    return directory


def make_config(world: Path, output: Path, **sections: Any) -> Config:
    values: dict[str, Any] = {
        "seed": 3,
        "data": {
            "events": world / "events.parquet",
            "items": world / "items.parquet",
            "item_columns": {"category": ("kind", "maker"), "list": ("tags",)},
        },
        "output": {"directory": output},
        "content": {"dim": 8},
        "semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 6},
        "retrieval": {
            "sources": ("two_tower", "popularity"),
            "dim": 8,
            "epochs": 2,
            "negatives": 16,
            "batch_size": 64,
            "history_length": 6,
            "use_user_id": True,
            "use_fields": True,
            "index": "annoy",
        },
        "ranking": {
            "candidates_per_source": 10,
            "folds": 2,
            "gbdt": {"num_trees": 5, "min_data_in_leaf": 5},
            "listwise": {"enabled": False},
        },
        "evaluation": {"ks": (5,), "bootstrap_samples": 20},
        "split": {},
    }
    for name, changes in sections.items():
        values[name] = {**values[name], **changes} if isinstance(changes, dict) else changes
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("worlds")
    return {
        "then": write_world(directory / "then", grown=False),
        "now": write_world(directory / "now", grown=True),
    }


@pytest.fixture(scope="module")
def parent(worlds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return train(make_config(worlds["then"], tmp_path_factory.mktemp("parent")))


class Starts:
    """Notes what each training of the towers began from, and trains."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[dict[str, Any]] = []
        original = tower_training.train_two_tower

        def noted(*arguments: Any, **options: Any) -> TwoTowerRetriever:
            names = ("start", "old", "frozen_items", "validation", "training")
            self.seen.append({name: options[name] for name in names})
            return original(*arguments, **options)

        monkeypatch.setattr(tower_training, "train_two_tower", noted)


def towers_of(bundle: Bundle) -> TwoTowerRetriever:
    return TwoTowerRetriever.load(bundle.path / TOWERS)


def ids_of(bundle: Bundle, side: str) -> list[str]:
    ids: list[str] = Vocabulary.load(bundle.path / f"data/{side}.parquet").to_series().to_list()
    return ids


def without(world: Path, directory: Path, *, items: Sequence[str] = (), users: int = 0) -> Path:
    """The world without some items, and without the events of the first ``users`` users."""
    directory.mkdir(parents=True, exist_ok=True)
    gone = [f"u{n}" for n in range(users)]
    for name in ("items", "events"):
        frame = pl.read_parquet(world / f"{name}.parquet")
        frame = frame.filter(~pl.col("item_id").is_in(list(items)))
        if name == "events":
            frame = frame.filter(~pl.col("user_id").is_in(gone))
        frame.write_parquet(directory / f"{name}.parquet")
    return directory


# -- --from ---------------------------------------------------------------------------------------


def test_a_run_from_a_bundle_appends_ids_and_begins_at_its_weights(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch)
    config = make_config(worlds["now"], tmp_path, retrieval={"warm_epochs": 1})
    child = train(config, lineage=Lineage(start=parent))
    assert ids_of(child, "items") == [*ids_of(parent, "items"), "fresh"]
    assert ids_of(child, "users") == [*ids_of(parent, "users"), "newcomer"]
    assert child.manifest.lineage == {"from": parent.id}
    assert child.manifest.parent == parent.id
    past, served = starts.seen
    assert past["start"] is None, "the bundle has seen the events that are the ranker's labels"
    assert past["validation"] is not None
    begun = towers_of(parent)
    assert served["start"].item_vectors.tobytes() == begun.item_vectors.tobytes()
    assert (served["old"], served["frozen_items"], served["training"].epochs) == (None, False, 1)
    # What the items are described by means what it meant.
    old, new = (SemanticIds.load(bundle.path / "semantic-ids") for bundle in (parent, child))
    assert old.codebook == new.codebook
    np.testing.assert_array_equal(new.codes[: len(old) + 1], old.codes)
    for name, tensor in (("content/vectors", "vectors"), ("fields/tokens", "tokens")):
        before, after = (
            load_file(bundle.path / f"{name}.safetensors")[tensor] for bundle in (parent, child)
        )
        np.testing.assert_array_equal(after[:-1], before)
        assert after[-1].any(), "the new item is described, too"
    # A bundle that continues another one is measured as any other.
    assert next(iter(evaluate(config, child))) == "funnel"


def test_weights_that_trained_on_stay_nearer_than_fresh_ones(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    config = make_config(worlds["then"], tmp_path, retrieval={"warm_epochs": 1})
    child = train(config, lineage=Lineage(start=parent))
    other = train(
        make_config(worlds["then"], tmp_path, retrieval={"warm_epochs": 1}, seed=9),
    )
    before = towers_of(parent).item_vectors
    near, far = (
        float((towers_of(bundle).item_vectors * before).sum(axis=1)[1:].mean())
        for bundle in (child, other)
    )
    assert near > far + 0.3


def test_the_past_knows_nothing_of_the_bundle(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    """Same data, same seed: the retrievers of the past are those of a run from nothing."""
    train(make_config(worlds["then"], tmp_path), lineage=Lineage(start=parent, old=parent))
    past = tmp_path / "work/retrieval-past/two_tower/model.safetensors"
    fresh = parent.path.parent / "work/retrieval-past/two_tower/model.safetensors"
    assert past.read_bytes() == fresh.read_bytes()


def test_another_bundle_runs_the_stages_again_and_the_same_one_does_not(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(worlds["then"], tmp_path)
    copy = tmp_path / parent.id
    shutil.copytree(parent.path, copy)
    starts = Starts(monkeypatch)
    first = train(config, lineage=Lineage(start=parent))
    train(config, lineage=Lineage(start=Bundle.load(copy)))  # the same wherever it lies
    assert len(starts.seen) == 2
    train(config, lineage=Lineage(start=first))
    assert len(starts.seen) == 4
    train(config)
    assert [seen["start"] is None for seen in starts.seen] == [True, False, True, False, True, True]


# -- --refresh-users ------------------------------------------------------------------------------


def test_refreshed_users_ask_for_items_that_stay_to_the_bit(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch)
    world = without(worlds["now"], tmp_path / "now", items=["fresh"])
    config = make_config(world, tmp_path / "out")
    child = train(config, lineage=Lineage(start=parent, frozen_items=True))
    assert child.manifest.lineage == {"refresh-users": parent.id}
    [served] = starts.seen  # the ranker stays, so nobody asks the past
    assert served["frozen_items"]
    before, after = towers_of(parent), towers_of(child)
    assert after.item_vectors.tobytes() == before.item_vectors.tobytes()
    for name in ("index", "ranking", "content", "semantic-ids", "fields", f"{TOWERS}/int8"):
        for path in sorted((parent.path / name).rglob("*.*")):
            same = child.path / path.relative_to(parent.path)
            assert same.read_bytes() == path.read_bytes(), path.name
    assert ids_of(child, "users") == [*ids_of(parent, "users"), "newcomer"]
    rows = len(before.tables["user"])
    assert len(after.tables["user"]) == rows + 1
    assert not after.tables["user"][:rows].equal(before.tables["user"])
    assert next(iter(evaluate(config, child))) == "funnel"


def test_items_that_nobody_meets_any_more_stay_as_well(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    """People may ask for their events to be forgotten; what others look for stays where it is."""
    world = without(worlds["then"], tmp_path / "world", users=NUM_USERS - 2)
    assert pl.read_parquet(world / "events.parquet")["item_id"].n_unique() < NUM_ITEMS
    config = make_config(world, tmp_path / "out")
    child = train(config, lineage=Lineage(start=parent, frozen_items=True))
    assert towers_of(child).item_vectors.tobytes() == towers_of(parent).item_vectors.tobytes()


def test_refreshing_needs_the_same_items(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    lineage = Lineage(start=parent, frozen_items=True)
    with pytest.raises(ConfigError, match=r"1 of the catalogue are new, first 'fresh'; use --from"):
        train(make_config(worlds["now"], tmp_path), lineage=lineage)


# -- --compatible-with ----------------------------------------------------------------------------


def test_compatible_vectors_can_be_compared_with_the_older_ones(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch)
    bundles = {
        weight: train(
            make_config(
                worlds["now"],
                tmp_path / str(weight),
                retrieval={"compatibility_weight": weight, "epochs": 6, "patience": 0},
                seed=5,
            ),
            lineage=Lineage(old=parent),
        )
        for weight in (0.0, 1.0)
    }
    child = bundles[1.0]
    assert child.manifest.lineage == {"compatible-with": parent.id}
    assert ids_of(child, "items")[:-1] == ids_of(parent, "items")
    past, served = starts.seen[-2:]
    assert past["old"] is None, "the older model has seen the ranker's labels"
    assert served["old"] is not None
    assert served["start"] is None
    # New users ask for the older items.
    old = towers_of(parent)
    data = numbered_as(child, read_dataset(make_config(worlds["now"], tmp_path)))
    histories = data.histories()
    cosine = {}
    for weight, bundle in bundles.items():
        asked = towers_of(bundle).user_vectors(
            histories, user_index=np.arange(1, len(histories) + 1)
        )
        then = old.user_vectors(histories.take(range(NUM_USERS)))
        cosine[weight] = float((asked[:NUM_USERS] * then).sum(axis=1).mean())
    assert cosine[1.0] > cosine[0.0] + 0.2


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lineage", "sections", "message"),
    [
        (
            lambda b: Lineage(start=b),
            {"retrieval": {"dim": 12}},
            r"retrieval\.dim must be 8 as in bundle .* to begin from its weights, got 12",
        ),
        (
            lambda b: Lineage(start=b),
            {"retrieval": {"score": "dot"}},
            "retrieval.score must be 'co",
        ),
        (
            lambda b: Lineage(start=b),
            {"retrieval": {"use_user_id": False}},
            "use_user_id must be T",
        ),
        (
            lambda b: Lineage(start=b),
            {"retrieval": {"use_fields": False}},
            "use_fields must be Tru",
        ),
        (
            lambda b: Lineage(start=b),
            {"retrieval": {"pooling": "attention"}},
            "pooling must be 're",
        ),
        (
            lambda b: Lineage(start=b),
            {"content": {"dim": 4}},
            r"content\.dim must be 8 as in bundle .*, whose content goes on being used, got 4",
        ),
        (
            lambda b: Lineage(start=b),
            {"semantic_ids": {"codes": 7}},
            r"semantic_ids\.codes must be",
        ),
        (
            lambda b: Lineage(start=b, frozen_items=True),
            {"ranking": {"candidates_per_source": 5}},
            r"ranking\.candidates_per_source must be 10 as in bundle",
        ),
        (
            lambda b: Lineage(start=b, frozen_items=True),
            {"retrieval": {"sources": ("two_tower", "item_item", "popularity")}},
            "retrieval.sources must be .* to go on with its ranker",
        ),
        (
            lambda b: Lineage(old=b),
            {"retrieval": {"score": "dot"}},
            "to be compared with its vectors, got 'dot'",
        ),
        (
            lambda b: Lineage(old=b),
            {"retrieval": {"sources": ("popularity",)}},
            "retrieval.sources must include 'two_tower' to continue a bundle, got popularity",
        ),
    ],
)
def test_a_setting_that_does_not_go_on_from_the_bundle_is_named(
    worlds: dict[str, Path],
    parent: Bundle,
    tmp_path: Path,
    lineage: Callable[[Bundle], Lineage],
    sections: dict[str, dict[str, Any]],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(make_config(worlds["then"], tmp_path, **sections), lineage=lineage(parent))
    assert not (tmp_path / "work").exists()


def test_other_towers_may_be_compatible(parent: Bundle, worlds: dict[str, Path]) -> None:
    config = make_config(worlds["then"], Path("out"), retrieval={"pooling": "attention"})
    data = read_dataset(config)
    Lineage(old=parent).check(config, data, data.split(config).test)


def test_sequences_are_continued_and_compared(worlds: dict[str, Path], tmp_path: Path) -> None:
    reading = {"pooling": "sequence"}
    first = train(make_config(worlds["then"], tmp_path / "first", retrieval=reading))
    for name, lineage in {"start": Lineage(start=first), "old": Lineage(old=first)}.items():
        config = make_config(worlds["now"], tmp_path / name, retrieval=reading)
        towers = towers_of(train(config, lineage=lineage))
        assert towers.tower.options.pooling == "sequence"
        assert not np.array_equal(towers.item_vectors[:5], towers_of(first).item_vectors[:5])
    other = make_config(worlds["now"], tmp_path / "other", retrieval=reading | {"reader_blocks": 1})
    with pytest.raises(ConfigError, match="reader_blocks must be 2"):
        train(other, lineage=Lineage(start=first))


def test_events_that_the_bundle_was_trained_on_cannot_be_held_out(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    """The bundle's own bundles count as well: what one of the line saw, all have seen."""
    message = r"was trained on events that are held out now, of 24 of 24 users; keep the split"
    half = make_config(worlds["then"], tmp_path, split={"fraction": 0.5})
    with pytest.raises(ArtifactError, match=message):
        train(half, lineage=Lineage(start=parent))
    short = write_world(tmp_path / "short", grown=False)
    events = pl.read_parquet(short / "events.parquet").sort("timestamp")
    events.group_by("user_id", maintain_order=True).head(6).write_parquet(short / "events.parquet")
    with pytest.raises(ArtifactError, match=message):
        train(make_config(short, tmp_path), lineage=Lineage(old=parent))
    # A bundle trained on less by itself, in the line of one trained on more.
    copy = tmp_path / "copy"
    shutil.copytree(parent.path, copy)
    path = copy / "data/trained_until.parquet"
    later = pl.read_parquet(path).with_columns(pl.col("trained_until") + 10**12)
    later.write_parquet(path)
    config = make_config(worlds["then"], tmp_path)
    data = read_dataset(config)
    with pytest.raises(ArtifactError, match="is damaged: data/trained_until"):
        Lineage(start=Bundle.load(copy)).check(config, data, data.interactions)


def test_what_a_bundle_saw_goes_on_to_its_children(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    from recsys.pipeline.lineage import write_trained_until

    data = read_dataset(make_config(worlds["then"], tmp_path))
    nothing = data.histories(replace(data.interactions, frame=data.interactions.frame.head(0)))
    (tmp_path / "data").mkdir()
    write_trained_until(tmp_path, data, nothing, Lineage(old=parent))
    name = "data/trained_until.parquet"
    assert pl.read_parquet(tmp_path / name).equals(pl.read_parquet(parent.path / name))


def test_an_item_of_the_bundle_must_stay_in_the_catalogue(
    worlds: dict[str, Path], parent: Bundle, tmp_path: Path
) -> None:
    less = without(worlds["now"], tmp_path / "less", items=["i39"])
    with pytest.raises(DataError, match=r"1 of 40 are not there, first 'i39'; put their rows back"):
        Lineage(start=parent).continued(read_dataset(make_config(less, tmp_path)))


# -- how bundles are named ------------------------------------------------------------------------


def test_bundles_are_named_by_id_by_path_and_as_the_newest(parent: Bundle) -> None:
    artifacts = parent.path.parent
    for name in (parent.id, str(parent.path), NEWEST):
        assert open_lineage(artifacts, start=name).start == parent
    both = open_lineage(artifacts, start=parent.id, compatible_with=NEWEST)
    assert both.record() == {"from": parent.id, "compatible-with": parent.id}
    assert both.bundles == [parent]
    refreshed = open_lineage(artifacts, refresh_users=NEWEST)
    assert (refreshed.start, refreshed.frozen_items, refreshed.old) == (parent, True, None)
    assert open_lineage(artifacts).parent is None
    with pytest.raises(ArtifactError, match=r"no bundle at .*nothing"):
        open_lineage(artifacts, start="nothing")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "a"}, "must not be given with --from: it begins from its own bundle"),
        ({"compatible_with": "a"}, "with --compatible-with: it leaves the item vectors as they"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_lineage(tmp_path, refresh_users="b", **given)
