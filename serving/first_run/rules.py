"""The settings of what the rows of a log mean: kinds, rules, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from features.tables.repeats import ALLOW
from features.tables.roles import LogFacts, LogRoles, is_purchase, percent, weight_of
from recsys.config.retrieval import RetrievalConfig
from serving.first_run.setting import Setting

__all__ = [
    "kind_settings",
    "mark_setting",
    "rule_settings",
    "slate_setting",
    "sources_setting",
    "split_setting",
]

_RULES = "data.rules"
_VIEWED = 0.2
_ENOUGH, _ENOUGH_SHARE = 20, 0.01
_LEAST_AGAIN, _COMES_BACK = 0.02, 0.1
_ONE_MOMENT, _BOTH_PARTS = 0.95, 0.1
_MOST_ROWS_OF_A_GRAPH = 2_000_000


def mark_setting(facts: LogFacts) -> Iterator[Setting]:
    """Texts of the log's cells that mean no value."""
    if facts.marks:
        told = ", ".join(f"{mark!r} in {rows:,} rows" for mark, rows in facts.marks.items())
        reason = f"cells that mean no value: {told} of columns with a role"
        yield Setting("data.read.events", "missing", list(facts.marks), reason)


def kind_settings(roles: LogRoles, facts: LogFacts) -> Iterator[Setting]:
    """What each kind of event is worth."""
    first = "what an event of each kind counts; 0 counts nothing, below 0 is a dislike"
    several = len(facts.kinds) > 1
    for kind, rows in facts.kinds.items():
        known = weight_of(kind)
        weight = 1.0 if known is None or (not several and known > 0) else known
        note = f"{rows:,} row{'s' if rows != 1 else ''}" + (
            "" if known is not None else ", not a word that is known"
        )
        yield Setting("data.kinds", kind, weight, first, note)
        first = ""


def rule_settings(roles: LogRoles, facts: LogFacts) -> Iterator[Setting]:
    """Settings of ``data.rules`` that the log needs."""
    yield from _targets(facts.kinds)
    yield from _ratings(roles)
    if roles.quantity is not None:
        reason = f"{roles.quantity.reason}: each takes back what its user bought before"
        yield Setting(_RULES, "negative_quantity", "cancel", reason)
    if facts.missing:
        told = ", ".join(f"{rows:,} without {name!r}" for name, rows in facts.missing.items())
        yield Setting(_RULES, "missing", "drop", f"rows that lack a value are left out: {told}")
    if facts.repeats:
        share = percent(facts.repeats / facts.rows)
        rated = roles.weight is not None and roles.weight.high is not None
        value, what = ("first", "the first counts") if rated else ("sum", "they count together")
        reason = f"{facts.repeats:,} rows ({share}) repeat one before; {what}"
        yield Setting(_RULES, "repeats", value, reason)
    if facts.undescribed:
        reason = (
            f"{facts.undescribed:,} rows ({percent(facts.undescribed / facts.rows)}) are of "
            f"{facts.unknown_items:,} items that the items' file does not have; they are taken "
            "without a description"
        )
        yield Setting(_RULES, "undescribed", "take", reason)
    if facts.one_moment > _ONE_MOMENT:
        reason = (
            f"{percent(facts.one_moment)} of the users have all their events at one time, so their "
            "order is drawn at random"
        )
        yield Setting(_RULES, "same_time", "shuffle", reason)


def split_setting(facts: LogFacts) -> Setting:
    """What is held out: what comes last for all, or for each user."""
    if facts.cut is not None and facts.cut >= _BOTH_PARTS and facts.one_moment <= _ONE_MOMENT:
        reason = (
            f"times are real, and {percent(facts.cut)} of the users after the last fifth began "
            "were there before"
        )
        return Setting("split", "kind", "time", reason)
    reason = "each user's last events: the log has no times"
    if facts.cut is not None:
        reason = (
            f"each user's last events: only {percent(facts.cut)} of the users after the last fifth "
            "began were there before"
        )
        if facts.one_moment > _ONE_MOMENT:
            reason = "a part of each user's events: nearly all of a user's are at one time"
    return Setting("split", "kind", "per_user", reason)


def slate_setting(again: Mapping[str, float], kinds: Mapping[str, int]) -> Setting | None:
    """Whether what users met may be shown to them again; None: hardly anybody comes back to it.

    Args:
        again: see `LogFacts`.
        kinds: kind -> rows, where what is predicted follows from the kinds.
    """
    shares = [(kinds[kind], again.get(kind, 0.0)) for kind in _predicted(kinds)]
    rows = sum(many for many, _ in shares)
    share = sum(many * share for many, share in shares) / rows if rows else again.get("", 0.0)
    if share < _LEAST_AGAIN:
        return None
    told = f"{percent(share)} of what users did last was with an item that they had met before"
    if share >= _COMES_BACK:
        others = (("exclude", "to show only what is new to a user"),)
        return Setting("slate", "repeats", ALLOW, f"{told}; such items may be shown", others=others)
    other = (ALLOW, "to show such items again; 'after 30d' waits a while")
    return Setting("slate", "repeats", None, f"{told}; nothing is shown again", others=(other,))


def sources_setting(rows: int) -> Setting | None:
    """The retrievers of a log of so many rows whose items nothing describes.

    None: the usual ones. What graph_filter takes for a user rises with the rows: 10 ms for a
    million.
    """
    if rows > _MOST_ROWS_OF_A_GRAPH:
        return None
    usual = RetrievalConfig.model_fields["sources"].default
    reason = (
        "nothing describes the items: what they are is who met them, of which graph_filter makes "
        "most of the retrievers that need no training (docs/benchmarks.md, retrieval_quality)"
    )
    return Setting("retrieval", "sources", [*usual, "graph_filter"], reason)


def _predicted(kinds: Mapping[str, int]) -> list[str]:
    """The kinds that are predicted, where some are history alone."""
    bought = [kind for kind in kinds if is_purchase(kind)]
    return bought if any(True for _ in _targets(kinds)) else []


def _targets(kinds: Mapping[str, int]) -> Iterator[Setting]:
    bought = [kind for kind in kinds if is_purchase(kind)]
    seen = [kind for kind in kinds if 0 < (weight_of(kind) or 0) <= _VIEWED and kind not in bought]
    if not bought or not seen:
        return
    rows = sum(kinds[kind] for kind in bought)
    share = rows / max(1, sum(kinds.values()))
    told = f"{rows:,} rows ({percent(share)}) say that something was bought"
    if rows >= _ENOUGH and share >= _ENOUGH_SHARE:
        reason = f"what is to be predicted: {told}; the other kinds are history"
        yield Setting(_RULES, "targets", bought, reason)
    else:
        others = ((bought, f"to predict these alone: {told}"),)
        yield Setting(_RULES, "targets", None, "all kinds above 0 are predicted", others=others)


def _ratings(roles: LogRoles) -> Iterator[Setting]:
    weight = roles.weight
    if weight is None or not weight.found.column:
        return
    if weight.high is not None:
        least = f">= {weight.high:g}"
        others = (
            (least, f"to count only good ratings as likes: {percent(weight.good)} of the rows"),
        )
        reason = "every rating above 0 is a like that counts as much as its number"
        yield Setting(_RULES, "positive", None, reason, others=others)
    if weight.negative:
        reason = (
            f"{weight.negative:,} rows of {weight.found.column!r} are below 0: dislikes or not "
            "rated, never likes"
        )
        yield Setting(_RULES, "negative", "< 0", reason)
