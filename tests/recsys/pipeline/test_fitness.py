"""What a run goes on without: found before anything starts, or while it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.errors import DataError
from recsys.bundle.left_out import LEFT_OUT, LeftOut, read_left_out, write_left_out
from recsys.config import Config
from recsys.dataset import read_dataset
from recsys.errors import ArtifactError, CollapseError, ConfigError
from recsys.pipeline import evaluate, run, train
from recsys.pipeline.fitness import find_fitness, without
from recsys.pipeline.lineage import Lineage
from recsys.recommender import Recommender

START, DAY = 1_600_000_000, 86_400
SOURCES = ("two_tower", "item_item", "popularity")


def config_of(
    directory: Path,
    events: list[tuple[str, str, int]],
    items: dict[str, Any] | None = None,
    **sections: Any,
) -> Config:
    """A run of (user, item, day) events, with tiny settings."""
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    rows = [(user, item, START + DAY * day) for user, item, day in events]
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(directory / "events.parquet")
    data: dict[str, Any] = {"events": directory / "events.parquet"}
    if items is not None:
        pl.DataFrame(items).write_parquet(directory / "items.parquet")
        data["items"] = directory / "items.parquet"
    retrieval = {"sources": SOURCES, "dim": 8, "hidden_dim": 8, "epochs": 1, "batch_size": 16}
    return Config.model_validate(
        {
            "data": data,
            "output": {"directory": directory / "out"},
            "content": {"dim": 4},
            "semantic_ids": {"kind": "residual_kmeans", "levels": 2, "codes": 4},
            "retrieval": {**retrieval, "negatives": 4, **sections.pop("retrieval", {})},
            "ranking": {
                "candidates_per_source": 5,
                "folds": 2,
                "gbdt": {"num_trees": 2, "min_data_in_leaf": 1},
                "listwise": {"enabled": False},
                **sections.pop("ranking", {}),
            },
            "evaluation": {"bootstrap_samples": 10},
            **sections,
        }
    )


def walk(users: int = 8, items: int = 12, steps: int = 6) -> list[tuple[str, str, int]]:
    """Users who go from item to item, each from another one."""
    return [(f"u{u}", f"i{(u + j) % items}", j) for u in range(users) for j in range(steps)]


def titles(count: int = 12) -> dict[str, Any]:
    words = ["red coat", "blue hat", "wool scarf", "silk tie", "green tea", "black lamp"]
    ids = [f"i{n}" for n in range(count)]
    return {"item_id": ids, "title": [f"{words[n % 6]} number {n}" for n in range(count)]}


def stages_left_out(config: Config) -> dict[str, str]:
    return dict(find_fitness(config, read_dataset(config)).left_out)


def test_nothing_is_left_out_of_a_whole_log(tmp_path: Path) -> None:
    assert stages_left_out(config_of(tmp_path, walk(), titles())) == {}


def test_a_log_alone_makes_its_catalogue(tmp_path: Path) -> None:
    config = config_of(tmp_path, walk())
    data = read_dataset(config)
    assert data.item_ids.to_series().sort().to_list() == sorted(f"i{n}" for n in range(12))
    found = stages_left_out(config)
    assert list(found) == ["content", "semantic ids"]
    assert "nothing is said of the items" in found["content"]
    bundle = train(config)
    assert dict(bundle.left_out()) == found
    recommender = Recommender.load(bundle.path)
    assert not recommender.content.any()
    assert "content_similarity" not in recommender.ranker.feature_names
    assert recommender.towers is not None
    assert recommender.towers.retriever.tower.content_dim == 0
    assert len(recommender.recommend("u1", 3, recent_items=["i1"]).items) == 3
    assert len(recommender.similar("i1", 3)) == 3


def test_without_towers_and_content_items_are_alike_by_who_met_them(tmp_path: Path) -> None:
    events = [(f"u{u}", f"{'ab'[u % 2]}{j}", j) for u in range(8) for j in range(5)]
    config = config_of(tmp_path, events, retrieval={"sources": ("item_item", "popularity")})
    recommender = Recommender.load(train(config).path)
    alike = [one.item_id for one in recommender.similar("a1", 9)]
    assert alike  # what nobody met together is not like it at all
    assert {item[0] for item in alike} == {"a"}
    assert "a1" not in alike


@pytest.mark.parametrize(
    "items",
    [
        {"item_id": [f"i{n}" for n in range(12)], "title": ["the same"] * 12},
        {"item_id": [f"i{n}" for n in range(12)], "title": ["", " ", None] * 4},
        {"item_id": [f"i{n}" for n in range(12)], "vector": [[1.0, 2.0]] * 12},
    ],
    ids=["same", "blank", "no role"],
)
def test_items_that_nothing_tells_apart_have_no_content(
    tmp_path: Path, items: dict[str, Any]
) -> None:
    sources = ("popularity", "new_items")
    config = config_of(tmp_path, walk(), items, retrieval={"sources": sources})
    assert list(stages_left_out(config)) == ["content", "semantic ids", "new_items"]
    bundle = train(config)
    assert not (bundle.path / "semantic-ids/semantic_ids.json").exists()
    assert "left out" in str(bundle.left_out()[0])


def test_what_nobody_met_is_a_candidate_by_what_is_said_of_it(tmp_path: Path) -> None:
    events = [(f"u{u}", f"i{(u % 2) * 10 + j}", 100 * u + j) for u in range(12) for j in range(8)]
    titles = ["red wool coat", "blue silk hat"]
    items = {
        "item_id": [f"i{n}" for n in range(20)],  # nobody met i8, i9, i18 and i19
        "title": [f"{titles[n // 10]} {n}" for n in range(20)],
    }
    retrieval = {"sources": ("item_item", "popularity", "new_items"), "new_items_dim": 8}
    bundle = train(config_of(tmp_path, events, items, retrieval=retrieval))
    recommender = Recommender.load(bundle.path)
    assert recommender.source_names == ("item_item", "popularity", "new_items")
    past = recommender.live.past("u1", (), (), None)
    pool = recommender.live.find("u1", past, past.hidden(20))
    found = set(recommender.item_ids.ids(pool.item_index[pool.real]))
    assert {"i18", "i19"} <= found
    shown = recommender.recommend("stranger", 20, recent_items=["i11", "i12"]).items
    assert {"i18", "i19"} <= {one.item_id for one in shown}


def test_few_descriptions_of_many_items_get_fewer_codes_and_as_many_ties(tmp_path: Path) -> None:
    count = 900
    items = {"item_id": [f"i{n}" for n in range(count)], "kind": ["p", "q", "r"] * (count // 3)}
    config = config_of(tmp_path, walk(), items, retrieval={"sources": ("popularity",)})
    found = stages_left_out(config)
    assert found == {
        "semantic ids": "3 codes a level in place of 4, because the items have 3 different "
        "descriptions"
    }
    bundle = train(config)
    header = json.loads((bundle.path / "semantic-ids/semantic_ids.json").read_text())
    assert header["num_codes"][:2] == [3, 3]
    ids = pl.read_parquet(bundle.path / "semantic-ids/semantic_ids.parquet")
    assert ids.select("code_0", "code_1", "code_2").n_unique() == count


def test_one_event_each_leaves_nothing_to_rank_by(tmp_path: Path) -> None:
    config = config_of(tmp_path, [(f"u{u}", f"i{u % 3}", 0) for u in range(9)], titles(4))
    found = stages_left_out(config)
    assert "no user has an event to learn from after another one" in found["two_tower"]
    bundle = train(config)
    assert {"two_tower", "ranking"} <= set(dict(bundle.left_out()))
    recommender = Recommender.load(bundle.path)
    assert recommender.source_names == ("item_item", "popularity")
    assert len(recommender.recommend("u0", 2, recent_items=["i0"]).items) == 2
    assert recommender.live.explain("u0", np.array([2]), ["i0"])[0].contributions[
        "share__popularity"
    ]


def test_one_user_is_enough(tmp_path: Path) -> None:
    config = config_of(tmp_path, [("u", f"i{n}", n) for n in range(12)], titles(14))
    found = stages_left_out(config)
    assert "one user has" in found["two_tower"]
    assert "one user has events of new items after a past" in found["ranking"]
    bundle = train(config)
    evaluation = evaluate(config, bundle)["funnel"]
    assert evaluation.users == 1
    report = (bundle.path / "report.html").read_text()
    assert "What to know" in report
    assert "one user has events of new items" in report


def test_candidates_that_nobody_wanted_are_found_out_in_the_work(tmp_path: Path) -> None:
    # everybody goes on to an item of their own that nobody met before
    events = [
        (f"u{u}", f"i{n}" if n < 6 else f"own{u}-{n}", n) for u in range(6) for n in range(10)
    ]
    config = config_of(tmp_path, events, retrieval={"sources": ("popularity",)})
    config = config.model_copy(
        update={"ranking": config.ranking.model_copy(update={"candidates_per_source": 1})}
    )
    assert "ranking" not in stages_left_out(config)
    bundle = train(config)
    assert "fewer than two users went on" in dict(bundle.left_out())["ranking"]
    assert Recommender.load(bundle.path).recommend("u0", 3, recent_items=["i0"]).items


@pytest.mark.parametrize(
    ("events", "sections", "message"),
    [
        ([], {}, "must have events"),
        ([("u", "i0", 0), ("v", "i0", 1)], {}, "must be at least two"),
        (
            [(f"u{n}", f"i{n % 3}", 0) for n in range(9)],
            {"split": {"kind": "time"}},
            "must leave events to learn from when split.kind is 'time'",
        ),
    ],
)
def test_nothing_to_learn_is_a_problem(
    tmp_path: Path, events: list[tuple[str, str, int]], sections: dict[str, Any], message: str
) -> None:
    config = config_of(tmp_path, events, **sections)
    problems = find_fitness(config, read_dataset(config)).problems
    assert message in str(problems[-1])
    with pytest.raises(DataError, match=message):
        train(config)
    assert not (tmp_path / "out").exists()


def collapsing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Towers that never train; the sources of each attempt."""
    asked: list[tuple[str, ...]] = []
    fit = run.fit_sources

    def fit_sources(*arguments: Any, **options: Any) -> Any:
        sources = arguments[2].sources
        asked.append(sources)
        if "two_tower" in sources:
            raise CollapseError("the user vectors have collapsed: RankMe 1.0 of at most 8")
        return fit(*arguments, **options)

    monkeypatch.setattr(run, "fit_sources", fit_sources)
    return asked


def test_towers_that_collapse_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = collapsing(monkeypatch)
    features = [
        {"kind": "retrieval_score", "name": "near", "retriever": "two_tower"},
        {"kind": "slate_relative", "name": "near_here", "of": "near"},
        {"kind": "count", "name": "seen"},
    ]
    config = config_of(tmp_path, walk(), titles(), features=features)
    bundle = train(config, explain_noise=True)
    assert asked == [SOURCES, SOURCES[1:], SOURCES[1:]]
    left_out = dict(bundle.left_out())
    assert "the user vectors have collapsed" in left_out["two_tower"]
    assert "retrieval.least_rank = 0" in left_out["two_tower"]
    recommender = Recommender.load(bundle.path)
    assert recommender.source_names == SOURCES[1:]
    assert not any(
        "near" in name or "two_tower" in name for name in recommender.ranker.feature_names
    )
    assert bundle.manifest.config["retrieval"]["sources"] == list(SOURCES)  # as it was asked
    assert "funnel" in evaluate(config, bundle)
    with pytest.raises(ConfigError, match="a bundle is continued by its towers"):
        Lineage(start=bundle).check_towers(bundle.left_out())


def test_a_run_that_continues_towers_does_not_leave_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, walk(), titles())
    bundle = train(config)
    collapsing(monkeypatch)
    with pytest.raises(CollapseError):
        train(config, lineage=Lineage(old=bundle))


def test_a_source_is_left_out_with_the_features_of_it(tmp_path: Path) -> None:
    features = [
        {"kind": "retrieval_rank", "name": "place", "retriever": "two_tower"},
        {"kind": "retrieval_score", "name": "share", "retriever": "two_tower_share"},
    ]
    config = config_of(tmp_path, walk(), features=features, ranking={"retrieval_features": False})
    less = without(config, "two_tower")
    assert less.retrieval.sources == SOURCES[1:]
    assert less.features is None  # the defaults: a ranker needs some


def test_what_was_left_out_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_left_out(tmp_path) == ()
    write_left_out(tmp_path, [])
    assert not (tmp_path / LEFT_OUT).exists()
    found = (LeftOut("ranking", "left out: why"),)
    write_left_out(tmp_path, found)
    assert read_left_out(tmp_path) == found
    (tmp_path / LEFT_OUT).write_text("{}")
    with pytest.raises(ArtifactError, match="format"):
        read_left_out(tmp_path)


def test_fields_that_items_lack_are_told_before_anything_starts(tmp_path: Path) -> None:
    items = {"item_id": [f"i{k}" for k in range(12)], "colour": ["red", "blue", "grey"] * 4}
    events = [(f"u{user}", f"i{(user + day) % 12}", day) for user in range(12) for day in range(6)]
    fine = config_of(tmp_path, events, items, retrieval={"use_fields": True})
    assert find_fitness(fine, read_dataset(fine)).problems == ()
    masked = {"use_fields": True, "masking_weight": 0.1}
    for table, retrieval, told in (
        (items, masked, "masking_weight must be 0 for"),
        ({"item_id": items["item_id"]}, {"use_fields": True}, "use_fields must be false"),
    ):
        config = config_of(tmp_path, events, table, retrieval=retrieval)
        (problem,) = find_fitness(config, read_dataset(config)).problems
        assert told in problem.first
        with pytest.raises(DataError, match=told):
            train(config)
