"""The report: one HTML file that needs nothing else, for readers who did not write the code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from features.whole_files import whole_file
from recsys.evaluation.page import folded, legend, page, section, table
from recsys.evaluation.plots import Bar, bar_plot, line_plot
from recsys.evaluation.result import Evaluation
from recsys.evaluation.significance import Difference, Interval
from recsys.evaluation.training_curve import training_section

__all__ = ["write_html"]

# What each relevance metric says, for a reader who has not met it; {k} is the cutoff.
MEANING: Mapping[str, str] = {
    "recall": "share of what people went on to choose that is among their {k} recommendations",
    "capped_recall": "the same, out of what {k} recommendations could hold at best",
    "precision": "share of the {k} recommendations that people went on to choose",
    "ndcg": "1 if everything chosen stands at the top in the best order, less the lower it stands",
    "exponential_ndcg": "like ndcg, but the most wanted items count much more",
    "map": "how much of the list above each right item is right as well",
    "mrr": "1 if the first recommendation is right, 1/2 if the second is the first right one, ...",
    "hit_rate": "share of people with at least one right recommendation among {k}",
    "coverage": "share of the catalogue that is recommended to anybody",
    "novelty": "how rare the recommended items are, in bits; one more means half as common",
    "head_share": "share of recommendations that are among the most popular tenth of the catalogue",
    "refused": "share of lists with an item that their person had disliked or returned before; "
    "above 0, what must not be shown was shown",
}


def write_html(
    path: Path,
    evaluations: Mapping[str, Evaluation],
    *,
    title: str = "How good are the recommendations?",
    comparisons: Mapping[str, Difference] | None = None,
    training: Sequence[Mapping[str, float | None]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a self-contained HTML page with the numbers and plots of one or more systems.

    Args:
        path: the file; its directory is made if missing.
        evaluations: system name to its evaluation, the most important first. Metrics that not
            all systems have are left out; cutoff and catalogue are those of the first.
        title: of the page.
        comparisons: a sentence part such as "ndcg@20: ours minus popularity" to the difference.
        training: one mapping per epoch of the two towers' training, as ``retrieval/curve.json``
            of a bundle holds them; see `training_section`.
        notes: what is held out and what the systems do without, a sentence each.

    Raises:
        ValueError: no evaluation, or systems without a common metric.
    """
    if not evaluations:
        raise ValueError("evaluations must hold at least one system")
    first = next(iter(evaluations.values()))
    shared = [m for m in first.metrics if all(m in e.metrics for e in evaluations.values())]
    if not shared:
        raise ValueError(
            f"evaluations must share a metric: {', '.join(evaluations)} have none in common"
        )
    at_k = [name for name in shared if name.endswith(f"@{first.headline_k}")] or shared
    main = _preferred(at_k, "recall")
    sections = [
        _summary(evaluations, main),
        _notes(notes),
        _metric_bars(evaluations, at_k),
        _comparisons(comparisons or {}, first.level),
        _recall_curve(evaluations),
        _slices(evaluations, main),
        _histogram(evaluations, _preferred(at_k, "ndcg")),
        _popularity(evaluations),
        training_section(training or []),
        _all_numbers(evaluations, shared),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        draft.write_text(page(title, "\n".join(filter(None, sections))), encoding="utf-8")


def _summary(evaluations: Mapping[str, Evaluation], main: str) -> str:
    name, first = next(iter(evaluations.items()))
    found, cutoff = first.metrics[main], main.partition("@")[2]
    lines = []
    if main.startswith("recall@"):
        lines.append(
            f"With {cutoff} recommendations a person, <b>{escape(name)}</b> finds "
            f"<b>{_percent(found.mean)}</b> of what people went on to choose "
            f"({first.level:.0%} interval {_percent(found.low)} to {_percent(found.high)})."
        )
    if len(evaluations) > 1:
        best = max(evaluations, key=lambda system: evaluations[system].metrics[main].mean)
        lines.append(
            f"Of the {len(evaluations)} systems here, <b>{escape(best)}</b> has the highest "
            f"{main}: {evaluations[best].metrics[main].mean:.4f}."
        )
    lines.append(
        f"Judged on {first.users:,} people and a catalogue of {first.num_items:,} items. "
        + (
            f"{first.left_out:,} people chose nothing in the period judged and are in no mean. "
            if first.left_out
            else ""
        )
        + "All numbers are computed person by person, and every person counts the same."
    )
    rows = [["system", main, f"{first.level:.0%} interval", "people"]]
    for system, evaluation in evaluations.items():
        interval = evaluation.metrics[main]
        rows.append([system, f"{interval.mean:.4f}", _ends(interval), f"{interval.users:,}"])
    return section("In short", " ".join(lines), table(rows))


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    what = "How it was measured, and what the systems do without."
    return section("What to know", what, f"<ul>{told}</ul>")


def _metric_bars(evaluations: Mapping[str, Evaluation], names: Sequence[str]) -> str:
    series = {
        system: [_bar(evaluation.metrics[name]) for name in names]
        for system, evaluation in evaluations.items()
    }
    plot = bar_plot(names, series, title="Relevance metrics with intervals")
    terms = "".join(f"<li><b>{escape(name)}</b>: {_meaning(name)}</li>" for name in names)
    text = (
        "Each bar is a mean over people, higher is better. The thin line at its end shows how far "
        "the mean might move with other people; where two lines overlap much, do not read a "
        "difference into the bars."
    )
    return section("The main numbers", text, legend(evaluations) + plot + f"<ul>{terms}</ul>")


def _comparisons(comparisons: Mapping[str, Difference], level: float) -> str:
    if not comparisons:
        return ""
    rows = [["difference", "mean", f"{level:.0%} interval", "p", "people", "verdict"]]
    for label, found in comparisons.items():
        verdict = "not settled"
        if found.low > 0 or found.high < 0:
            verdict = "higher" if found.mean > 0 else "lower"
        ends = f"{found.low:+.4f} to {found.high:+.4f}"
        rows.append(
            [label, f"{found.mean:+.4f}", ends, f"{found.p:.4f}", f"{found.users:,}", verdict]
        )
    text = (
        "Two systems compared on the same people. A difference whose interval leaves out zero is "
        "real beyond the luck of who was asked; p is the chance to see one this large by luck."
    )
    return section("Who is better", text, table(rows))


def _recall_curve(evaluations: Mapping[str, Evaluation]) -> str:
    series = {
        system: [(float(k), y) for k, y in enumerate(evaluation.recall_curve, start=1)]
        for system, evaluation in evaluations.items()
    }
    plot = line_plot(
        series, title="Recall by list length", x_label="recommendations shown (k)", percent=True
    )
    text = (
        "How much of what people chose is found as the list gets longer. A steep start means the "
        "right items stand at the top."
    )
    return section("A longer list finds more", text, legend(evaluations) + plot)


def _slices(evaluations: Mapping[str, Evaluation], main: str) -> str:
    first = next(iter(evaluations.values()))
    parts = [
        part
        for part in first.slices
        if all(any(p.name == part.name for p in e.slices) for e in evaluations.values())
    ]
    if not parts:
        return ""
    series: dict[str, list[Bar | None]] = {}
    for system, evaluation in evaluations.items():
        by_name = {part.name: part.metrics.get(main) for part in evaluation.slices}
        found = [by_name[part.name] for part in parts]
        series[system] = [None if interval is None else _bar(interval) for interval in found]
    plot = bar_plot([part.name for part in parts], series, title=f"{main} by group")
    terms = "".join(
        f"<li><b>{escape(part.name)}</b>: {escape(part.description)} "
        f"({part.users:,} people, {part.relevant:,} choices)</li>"
        for part in parts
    )
    text = (
        f"{escape(main)} where only the choices of one group count. Popular items are easy to "
        "find; the other groups show whether the system knows more than what everybody likes. An "
        "empty place means that nobody in the test chose such an item."
    )
    return section(
        "Who and what is served well", text, legend(evaluations) + plot + f"<ul>{terms}</ul>"
    )


def _histogram(evaluations: Mapping[str, Evaluation], name: str) -> str:
    groups = ["0", *(f"to {edge / 10:g}" for edge in range(1, 11))]
    series: dict[str, list[Bar | None]] = {}
    for system, evaluation in evaluations.items():
        values = evaluation.per_user[name].to_numpy()
        # Group 0 is exactly nothing, group n holds (n - 1) / 10 < value <= n / 10.
        group = np.clip(np.ceil(np.round(values * 10, 9)), 0, 10).astype(np.int64)
        share = np.bincount(group, minlength=11) / values.size
        series[system] = [Bar(float(height)) for height in share]
    nothing = next(iter(series.values()))[0]
    plot = bar_plot(groups, series, title=f"People by {name}", percent=True, x_label=name)
    text = (
        f"Share of people by their own {escape(name)}: {_meaning(name)}. The mean alone does not "
        "show how unevenly people are served. "
        f"{_percent(nothing.value if nothing else 0.0)} get nothing right from "
        f"{escape(next(iter(series)))}."
    )
    return section("How evenly people are served", text, legend(evaluations) + plot)


def _popularity(evaluations: Mapping[str, Evaluation]) -> str:
    first = next(iter(evaluations.values()))
    num_groups = len(first.exposure.wanted)
    same = {s: e for s, e in evaluations.items() if len(e.exposure.wanted) == num_groups}
    series: dict[str, list[Bar | None]] = {
        system: [Bar(share) for share in evaluation.exposure.recommended]
        for system, evaluation in same.items()
    }
    chosen = "what people chose"
    while chosen in series:
        chosen += "*"
    series[chosen] = [Bar(share) for share in first.exposure.wanted]
    groups = [f"{rank}" for rank in range(1, num_groups + 1)]
    plot = bar_plot(
        groups,
        series,
        title="Recommendations by popularity of the item",
        percent=True,
        x_label=f"the catalogue in {num_groups} equal parts, most popular first",
    )
    shared = [m for m in first.list_metrics if all(m in e.list_metrics for e in same.values())]
    at_k = [m for m in shared if m.endswith(f"@{first.headline_k}")] or shared
    rows = [["system", *at_k]]
    rows += [
        [system, *(f"{evaluation.list_metrics[m]:.4f}" for m in at_k)]
        for system, evaluation in same.items()
    ]
    terms = "".join(f"<li><b>{escape(name)}</b>: {_meaning(name)}</li>" for name in at_k)
    text = (
        f"Where in the catalogue the first {first.headline_k} recommendations come from, beside "
        "where people's own choices lie. Bars far above the choices on the left mean that the "
        "system leans on best-sellers; items on the right hardly get a chance."
    )
    numbers = table(rows) + f"<ul>{terms}</ul>" if at_k else ""
    return section("How much of the catalogue is used", text, legend(series) + plot + numbers)


def _all_numbers(evaluations: Mapping[str, Evaluation], shared: Sequence[str]) -> str:
    rows = [["metric", *evaluations]]
    for name in shared:
        cells = [evaluation.metrics[name] for evaluation in evaluations.values()]
        rows.append([name, *(f"{cell.mean:.4f} ({_ends(cell)})" for cell in cells)])
    first = next(iter(evaluations.values()))
    for name in first.list_metrics:
        if all(name in evaluation.list_metrics for evaluation in evaluations.values()):
            rows.append([name, *(f"{e.list_metrics[name]:.4f}" for e in evaluations.values())])
    text = f"<p>Mean over people and its {first.level:.0%} interval.</p>"
    return f"<section>{folded('All numbers', text + table(rows))}</section>"


def _preferred(names: Sequence[str], wanted: str) -> str:
    return next((name for name in names if name.partition("@")[0] == wanted), names[0])


def _meaning(name: str) -> str:
    metric, _, k = name.partition("@")
    return escape(MEANING.get(metric, "").replace("{k}", k))


def _bar(interval: Interval) -> Bar:
    return Bar(interval.mean, interval.low, interval.high)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _ends(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
