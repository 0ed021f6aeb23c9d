"""Earlier cuts that the ranker learns from, and settings chosen on what came later."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.moments import EPOCH, microseconds
from features.tables import Histories
from recsys.config import RetrievalConfig
from recsys.dataset import read_dataset
from recsys.errors import ArtifactError
from recsys.pipeline import train
from recsys.pipeline.origins import earlier_origins, fit_beside, graded, thinned
from recsys.pipeline.source_choice import choose_sources, read_choices, write_choices
from recsys.ranking.ranker import RankerFit, RankingRows
from recsys.retrieval.aging import AgedRetriever
from recsys.retrieval.buy_again import BuyAgainRetriever
from recsys.retrieval.popularity import DAY_US, PopularityRetriever
from recsys.retrieval.protocol import Retriever
from tests.recsys.pipeline.test_repeats import shop


def test_earlier_cuts_have_windows_as_long_and_never_overlap_their_past(tmp_path: Path) -> None:
    config = shop(tmp_path, slate={"repeats": "allow"})
    data = read_dataset(config)
    learned = data.split(config).train
    histories = data.histories(learned)
    newest = int(histories.timestamp.max())
    log, main_past, main_future = data.past_and_future(learned, histories, config.split)
    main = int(main_future.timestamp.min())
    window = newest + 1 - main
    found = earlier_origins(learned, histories, config.split.fraction, 20)
    assert 2 <= len(found) < 20  # as far back as there is past enough
    for number, origin in enumerate(found, start=1):
        moment = main - number * window // 3
        kept = histories.timestamp < moment
        inside = ~kept & (histories.timestamp < moment + window)
        assert origin.past.timestamp.size == kept.sum()
        assert origin.future.timestamp.size == inside.sum()
        assert origin.past.timestamp.max() < moment <= origin.future.timestamp.min()
        assert len(origin.log) == len(learned.before(EPOCH + timedelta(microseconds=moment)))
    assert earlier_origins(learned, histories, config.split.fraction, 0) == []
    assert microseconds(log.frame["timestamp"].max()) < main  # type: ignore[arg-type]
    assert main_past.timestamp.max() < main


def rows_of(label: list[int], request: list[int]) -> RankingRows:
    index = np.arange(len(label), dtype=np.float32)[:, None]
    return RankingRows(index, np.array(label), np.array(request, dtype=np.int64), ("x",))


def test_thinned_lists_keep_what_was_wanted_and_lists_without_are_left_out() -> None:
    label = [0] * 400 + [1] * 3 + [0] * 97 + [0] * 50
    request = [0] * 400 + [0] * 3 + [1] * 97 + [2] * 50
    label[450], label[499] = 1, 0  # of request 1
    found = thinned(rows_of(label, request), 40, np.random.default_rng(0))
    assert set(found.request_index.tolist()) == {0, 1}
    assert found.label.sum() == 4
    count = np.bincount(found.request_index)
    assert 25 <= count[0] <= 60
    assert 25 <= count[1] <= 60
    whole = thinned(rows_of(label, request), 1000, np.random.default_rng(0))
    assert whole.label.size == 500


def test_lists_beside_are_learned_from_and_not_judged_on() -> None:
    rows, others = rows_of([0, 1, 0, 1], [0, 0, 1, 1]), rows_of([1, 0], [0, 1])
    seen: dict[str, Any] = {}

    def fit(both: RankingRows, fold: np.ndarray, quality: Any) -> RankerFit:
        seen.update(request=both.request_index.tolist(), fold=fold.tolist())
        seen["value"] = quality(np.arange(both.label.size, dtype=float))
        held_out = np.arange(both.label.size, dtype=float)
        return RankerFit(None, held_out, held_out + 1, 1, 0.0, {}, {})  # type: ignore[arg-type]

    found = fit_beside(
        fit, lambda score: float(score.sum()), rows, np.array([0, 1]), others, np.array([1, 0])
    )
    assert seen == {"request": [0, 0, 1, 1, 2, 3], "fold": [0, 0, 1, 1, 1, 0], "value": 6.0}
    assert found.held_out_first.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert found.held_out.size == 4


def test_a_run_learns_from_earlier_moments(tmp_path: Path) -> None:
    ranking = {
        "candidates_per_source": 30,
        "folds": 2,
        "gbdt": {"num_trees": 10, "min_data_in_leaf": 5},
        "listwise": {"enabled": False},
        "origins": 3,
    }
    asked: list[int] = []
    config = shop(tmp_path, slate={"repeats": "allow"}, ranking=ranking)
    from recsys.pipeline import run as stages

    class Counting(stages._Run):
        def _fit_again(self, past: Histories) -> list[Retriever]:
            asked.append(int(past.timestamp.max()))
            return super()._fit_again(past)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_Run", Counting)
        bundle = train(config)
    assert len(asked) == 2
    assert asked[0] > asked[1]
    assert (bundle.path / "ranking" / "ranker.json").is_file()


def test_earlier_moments_need_a_cut_in_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ranking\.origins must be 1 with split\.kind"):
        shop(tmp_path, split={"kind": "per_user"}, ranking={"origins": 2})


def fading(seed: int) -> tuple[Histories, Histories]:
    """Users who want again what they met last, and popular items that change every ten days."""
    rng = np.random.default_rng(seed)
    items, times, counts = [], [], []
    for _ in range(120):
        own = 1 + rng.permutation(30)[:8]
        items += [*own, *own[-3:]]
        times += [*np.arange(8) * 20, *(158 + np.arange(3))]
        counts.append(11)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    whole = Histories(
        indptr,
        np.array(items, dtype=np.int64),
        np.array(times, dtype=np.int64) * DAY_US,
        np.ones(len(items), dtype=np.float32),
        hidden_until=np.zeros(len(items), dtype=np.int64),
    )
    return whole.at_moment(150 * DAY_US)


def fit_of(past: Histories) -> Any:
    def fit(name: str, settings: RetrievalConfig) -> Retriever:
        if name == "buy_again":
            return BuyAgainRetriever.fit(
                past, 30, prior=settings.buy_again_prior, due=settings.buy_again_due
            )
        days = settings.popularity_window_days
        return PopularityRetriever.fit(past, 30, window_days=days)

    return fit


def choices_of(**settings: Any) -> dict[str, Any]:
    past, future = fading(0)
    config = RetrievalConfig(sources=("popularity", "buy_again"), **settings)
    return dict(
        choose_sources(past, future, config, fit_of(past), num_items=30, together=True, seed=1)
    )


def test_what_was_met_last_is_wanted_so_histories_fade() -> None:
    assert choices_of()["buy_again"]["ask_half_life_days"] == 14.0
    assert choices_of() == choices_of()


def test_what_is_given_is_not_searched() -> None:
    assert "ask_half_life_days" not in choices_of(ask_half_life_days=None).get("buy_again", {})
    assert choices_of(choose=False) == {}


@pytest.mark.parametrize(
    ("num_items", "widths", "windows"),
    [
        (30, {None, 512}, {None, 30.0, 90.0, 365.0}),
        (20_000, {None, 512}, {None}),
        (200_000, {None}, {None}),
    ],
)
def test_of_large_catalogues_little_is_fitted_again(
    num_items: int, widths: set[int | None], windows: set[float | None]
) -> None:
    past, future = fading(0)
    fitted: list[RetrievalConfig] = []

    def fit(name: str, settings: RetrievalConfig) -> Retriever:
        if name == "graph_filter":
            fitted.append(settings)
        return PopularityRetriever.fit(past, num_items)

    config = RetrievalConfig(sources=("popularity", "graph_filter"))
    choose_sources(past, future, config, fit, num_items=num_items, together=True, seed=1)
    assert {settings.graph_rank for settings in fitted} == widths
    assert {settings.learn_days for settings in fitted} == windows


def test_choices_are_kept_beside_the_retrievers(tmp_path: Path) -> None:
    assert read_choices(tmp_path) == {}
    write_choices(tmp_path, {"item_item": {"learn_days": 90.0}})
    assert read_choices(tmp_path) == {"item_item": {"learn_days": 90.0}}
    (tmp_path / "chosen.json").write_text("[")
    with pytest.raises(ArtifactError, match=r"chosen\.json is damaged"):
        read_choices(tmp_path)


def test_a_run_serves_what_it_chose(tmp_path: Path) -> None:
    retrieval = {"sources": ["popularity", "buy_again"], "ask_half_life_days": 40.0}
    config = shop(tmp_path, slate={"repeats": "allow"}, retrieval=retrieval)
    bundle = train(config)
    from recsys.recommender import Recommender

    aged = [one for one in Recommender.load(bundle.path).retrievers if one.name == "buy_again"]
    assert isinstance(aged[0], AgedRetriever)
    assert aged[0].half_life_days == 40.0


def test_a_purchase_is_worth_more_than_a_view(tmp_path: Path) -> None:
    target = Histories(
        np.array([0, 4, 4, 6], dtype=np.int64),
        np.array([1, 2, 2, 3, 1, 4], dtype=np.int64),
        np.arange(6, dtype=np.int64),
        np.array([0.1, 1.0, 0.1, 0.5, 5.0, 0.05], dtype=np.float32),
    )
    found = graded(target, 4, np.array([0.1, 1.0], dtype=np.float32))
    assert found.tolist() == [[0, 1, 2, 1, 0], [0, 0, 0, 0, 0], [0, 2, 0, 0, 1]]
    assert (graded(target, 4, None) == target.seen_mask(4)).all()
    kinds = {"view": 0.1, "buy": 1.0, "hide": -1.0, "scroll": 0.0}
    data = {"events": tmp_path / "events.csv", "kinds": kinds}
    assert shop(tmp_path, data=data).data.target_weights() == (0.1, 1.0)
    data["rules"] = {"targets": ["buy"]}
    assert shop(tmp_path, data=data).data.target_weights() is None
    assert shop(tmp_path).data.target_weights() is None


def test_both_stages_are_told_what_each_label_is_worth(tmp_path: Path) -> None:
    from recsys.pipeline import ranking_stage

    told: dict[str, Any] = {}
    original = ranking_stage.fit_ranker

    def fit(rows: RankingRows, *arguments: Any, **options: Any) -> RankerFit:
        told.update(labels=set(rows.label.tolist()), gains=options["gains"])
        return original(rows, *arguments, **options)

    config = shop(tmp_path, slate={"repeats": "allow"})
    kinds = config.data.model_copy(update={"kinds": {"buy": 1.0, "try": 0.25}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking_stage, "fit_ranker", fit)
        bundle = train(config.model_copy(update={"data": kinds}))
    assert told == {"labels": {0, 1, 2}, "gains": (1.0, 4.0)}
    text = (bundle.path / "ranking" / "gbdt" / "gbdt.txt").read_text()
    assert "label_gain: 0,1,4" in text
