from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from recsys.evaluation import Evaluation, Truth, compare, evaluate, write_html
from recsys.topk import TopK

EPOCHS = [{"epoch": 1, "loss": 1.0, "recall": 0.1}, {"epoch": 2, "loss": 0.5, "recall": 0.2}]
VOID = {"meta"}  # all others close, in SVG by a slash


class Page(HTMLParser):
    """Checks that tags close in order and collects them, their attributes and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evaluation(
    seed: int = 0, *, ks: tuple[int, ...] = (3, 5), histories: bool = True
) -> Evaluation:
    rng = np.random.default_rng(seed)
    item_index = np.argsort(rng.random((30, 40)), axis=1)[:, :8] + 1
    score = np.zeros((30, 8), dtype=np.float32)
    wanted = np.random.default_rng(99)
    truth = [(wanted.permutation(40)[:4] + 1).tolist() for _ in range(29)]
    return evaluate(
        TopK(item_index, score),
        Truth.from_lists([*truth, []]),
        popularity=np.arange(41)[::-1].astype(float),
        rng=rng,
        ks=ks,
        history_length=np.arange(30) if histories else None,
        resamples=50,
    )


def written(path: Path, *args: object, **kwargs: object) -> tuple[str, Page]:
    write_html(path, *args, **kwargs)  # type: ignore[arg-type]
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_two_systems(tmp_path: Path) -> None:
    ours, other = evaluation(0), evaluation(1)
    found = compare(ours, other, "ndcg@5", rng=np.random.default_rng(0), resamples=50)
    html, page = written(
        tmp_path / "made" / "report.html",
        {"ours": ours, "popularity": other},
        title="A title",
        comparisons={"ndcg@5: ours minus popularity": found},
        training=[{"epoch": 1, "loss": 3.0, "recall": 0.1}, {"epoch": 2, "loss": 2.0}],
    )
    assert page.tags.count("svg") == 7
    for heading in (
        "In short",
        "The main numbers",
        "Who is better",
        "A longer list finds more",
        "Who and what is served well",
        "How evenly people are served",
        "How much of the catalogue is used",
        "Training of the two towers",
        "All numbers",
        "A title",
    ):
        assert heading in page.text
    mean = ours.metrics["recall@5"].mean
    assert f"{mean:.4f}" in page.text
    assert f"ours finds {100 * mean:.1f}% of what people went on to choose" in page.text
    assert "1 people chose nothing" in page.text
    assert f"{found.mean:+.4f}" in page.text
    assert "nan" not in html.lower().replace("finance", "")


def test_every_plot_has_a_sentence(tmp_path: Path) -> None:
    html, _ = written(tmp_path / "r.html", {"ours": evaluation()}, training=EPOCHS)
    for section in re.findall(r"<section>.*?</section>", html, flags=re.DOTALL):
        if "<svg" in section:
            (sentence,) = re.findall(r"</h2><p>(.*?)</p>", section, flags=re.DOTALL)
            assert len(sentence) > 60
            assert sentence.rstrip().endswith(".")


def test_one_system_alone(tmp_path: Path) -> None:
    html, page = written(tmp_path / "r.html", {"ours": evaluation(histories=False)})
    assert "Who is better" not in page.text
    assert "Training" not in page.text
    assert "has the highest" not in page.text
    assert "short histories" not in page.text
    assert page.tags.count("svg") == 5
    assert html.startswith("<!doctype html>")


def test_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    html, page = written(tmp_path / "r.html", {"a": evaluation(0), "b": evaluation(1)})
    assert not {"script", "link", "img", "iframe", "object", "image", "use"} & set(page.tags)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in page.attributes}
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_text_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('x')</script>&"
    found = compare(evaluation(0), evaluation(1), "ndcg@5", rng=np.random.default_rng(0))
    html, page = written(
        tmp_path / "r.html",
        {bad: evaluation(0), "b": evaluation(1)},
        title=bad,
        comparisons={bad: found},
        training=[{bad: 1.0}],
    )
    assert "script" not in page.tags
    assert "<script" not in html
    assert bad in page.text


def test_same_input_same_page(tmp_path: Path) -> None:
    first, _ = written(tmp_path / "a.html", {"ours": evaluation()})
    second, _ = written(tmp_path / "b.html", {"ours": evaluation()})
    assert first == second


def test_only_shared_metrics_are_shown(tmp_path: Path) -> None:
    systems = {"a": evaluation(0, ks=(3, 5)), "b": evaluation(1, ks=(3,))}
    _, page = written(tmp_path / "r.html", systems)
    assert "recall@3" in page.text
    assert "recall@5" not in page.text


def test_a_system_may_be_called_like_the_choices(tmp_path: Path) -> None:
    _, page = written(tmp_path / "r.html", {"what people chose": evaluation()})
    assert "what people chose*" in page.text


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluations must hold at least one system"):
        write_html(tmp_path / "r.html", {})
    systems = {"a": evaluation(0, ks=(3,)), "b": evaluation(1, ks=(5,))}
    with pytest.raises(ValueError, match="evaluations must share a metric: a, b have none"):
        write_html(tmp_path / "r.html", systems)
    assert not (tmp_path / "r.html").exists()
