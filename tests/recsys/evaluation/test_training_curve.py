from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from recsys.evaluation.training_curve import Epoch, best_epoch, training_section

KEYS = (
    "loss",
    "recall",
    "seconds",
    "alignment",
    "uniformity_users",
    "uniformity_items",
    "rankme_users",
    "rankme_items",
    "gradient_norm",
    "coverage",
    "head_share",
    "tail_recall",
    "global_auc",
    "occurrence_skewness",
)


def epochs(num: int, *keys: str, planned: int = 3) -> list[dict[str, float | None]]:
    """Epochs where series n grows from n."""
    return [
        {"epoch": e, "num_epochs": planned} | {key: n + e / 10 for n, key in enumerate(keys)}
        for e in range(1, num + 1)
    ]


def text_of(html: str) -> str:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(html)
    return "".join(found)


def captions(html: str) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", html)


def num_points(html: str) -> list[int]:
    return [len(line.split()) for line in re.findall(r'<polyline[^>]*points="(.*?)"', html)]


def test_every_series_has_its_line() -> None:
    html = training_section(epochs(3, *KEYS))
    assert captions(html) == [
        "Validation recall@20",
        "Loss",
        "Alignment",
        "Uniformity",
        "RankMe",
        "Gradient norm",
        "Coverage",
        "Head share",
        "Tail recall",
        "Pooled AUC",
        "Skewness of occurrences",
        "Seconds",
    ]
    assert num_points(html) == [3] * len(KEYS)
    assert html.count("<svg") == 12
    assert html.count('class="legend"') == 2  # users and items
    assert "<title>items: 5.1000 at 1</title>" in html  # uniformity_items, the sixth series
    assert "<title>coverage: 910.0% at 1</title>" in html  # a share


def test_only_loss_and_recall_are_large() -> None:
    html = training_section(epochs(2, *KEYS))
    large, _, small = html.partition('<div class="panels">')
    assert captions(large) == ["Validation recall@20", "Loss"]
    assert len(set(re.findall(r'viewBox="(.*?)"', large))) == 1
    assert set(re.findall(r'viewBox="(.*?)"', large)) != set(re.findall(r'viewBox="(.*?)"', small))


def test_a_curve_of_an_older_bundle() -> None:
    old: list[Epoch] = [
        {"epoch": 1, "num_epochs": 2, "loss": 3.0, "recall": None, "seconds": 1.5},
        {"epoch": 2, "num_epochs": 2, "loss": 2.0, "recall": None, "seconds": 1.5},
    ]
    html = training_section(old)
    assert captions(html) == ["Loss", "Seconds"]
    assert "best" not in html
    assert "Nothing was held out" in html
    assert captions(training_section([{"loss": 1.0}, {"loss": 0.5}])) == ["Loss"]
    assert num_points(training_section([{"loss": 1.0}, {"loss": 0.5}])) == [2]


@pytest.mark.parametrize("nothing", [[], [{}], [{"epoch": 1, "num_epochs": 9, "recall": None}]])
def test_nothing_measured_nothing_shown(nothing: list[Epoch]) -> None:
    assert training_section(nothing) == ""


def test_what_was_not_measured_is_left_out() -> None:
    curve = epochs(4, "loss", "coverage")
    curve[1]["coverage"] = None
    curve[2]["coverage"] = float("nan")
    html = training_section(curve)
    assert num_points(html) == [4, 2]
    assert "nan" not in html
    lines = re.findall(r'points="([\d.]+),[^"]* ([\d.]+),[\d.]+"', html)
    assert lines[1][0] == "66.0"  # the gap does not move the others
    curve[3]["coverage"] = None  # measured once: the axis still spans all epochs
    found = re.findall(r">(\d)</text>", training_section(curve).partition("panels")[2])
    assert {"1", "4"} <= set(found)


def test_a_series_nobody_knows_is_shown_by_its_name() -> None:
    html = training_section(epochs(2, "loss", "learning_rate"))
    assert captions(html) == ["Loss", "Learning rate"]
    assert "<script" not in training_section([{"<script>": 1.0}])


def test_best_epoch_is_marked_everywhere() -> None:
    curve = epochs(5, "loss", "coverage", planned=40)
    for epoch, recall in zip(curve, [0.1, 0.3, 0.3, 0.2, None], strict=True):
        epoch["recall"] = recall
    assert best_epoch(curve) == 2  # the first of equals, as in training
    html = training_section(curve)
    assert html.count(">best: 2</text>") == 3
    assert "Epoch 2 did best" in html
    assert "Training stopped after 5 of at most 40 passes." in html
    assert "It is the last one" not in html


def test_says_when_more_training_might_help() -> None:
    html = training_section(epochs(3, "recall"))
    assert "Epoch 3 did best" in html
    assert "It is the last one: more epochs might do better still." in html
    assert "Training stopped" not in html
    assert "It is the last one" not in training_section(epochs(1, "recall", planned=1))


def test_epochs_keep_their_numbers() -> None:
    curve = [
        {**epoch, "epoch": float(e)} for e, epoch in zip((7, 8), epochs(2, "recall"), strict=True)
    ]
    assert best_epoch(curve) == 8
    assert ">best: 8</text>" in training_section(curve)
    assert best_epoch([{"recall": 0.2}, {"recall": 0.1}]) == 1
    assert best_epoch([{"loss": 0.2}]) is None


def test_reads_as_text() -> None:
    text = text_of(training_section(epochs(3, *KEYS)))
    assert "RankMe: how many dimensions the vectors use" in text
