"""What a report of a simulation, a gate or an experiment is made of: `ReportInput` and its parts.

All parts are frozen and hold plain values. A mapping of the same shape does as well
(`ReportInput.from_dict`), and `ReportInput.to_dict` gives what stands in the JSON file beside the
page. A part that was not measured is left out: the page has no section for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

__all__ = [
    "CurveLine",
    "CurvePlot",
    "DecisionPart",
    "DiagnosticLine",
    "EffectLine",
    "EstimateLine",
    "ReasonLine",
    "ReportInput",
    "TablePart",
    "WeightsPart",
]

FORMAT = 1
_CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)


@dataclass(frozen=True)
class ReasonLine:
    """One finding behind a decision.

    Attributes:
        says: a sentence for somebody who did not write the code.
        rule: name of the rule or the check, such as "relevance_drop".
        verdict: what the finding asks for, such as "HOLD"; "" where it only informs.
        value: what was measured.
        bound: what it was compared with.
        slice: group of users or items it is about; "" for all.
    """

    says: str
    rule: str = ""
    verdict: str = ""
    value: float | None = None
    bound: float | None = None
    slice: str = ""


@dataclass(frozen=True)
class DecisionPart:
    """What to do, and why.

    Attributes:
        verdict: one word or two: PROMOTE, HOLD, SUSPICIOUS, or what an experiment ends with.
        summary: one sentence beside it.
        reasons: the weightiest first.
    """

    verdict: str
    summary: str = ""
    reasons: tuple[ReasonLine, ...] = ()


@dataclass(frozen=True)
class EffectLine:
    """A difference or a lift with its interval; also one line of the plot of slices.

    Attributes:
        name: of the metric ("ndcg@20") or of the slice.
        value: the difference; above 0 where the new system is better.
        low: lower end of the interval. None: not known.
        high: upper end. None: not known.
        num_units: users, sessions or rounds behind it. None: not counted.
        percent: the numbers are shares (.02 is shown as 2%).
        note: what to know when reading it.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    num_units: int | None = None
    percent: bool = False
    note: str = ""


@dataclass(frozen=True)
class EstimateLine:
    """The value of one policy by one estimator.

    Attributes:
        policy: whose value.
        estimator: such as "snips".
        value: the estimate, in the unit of the reward.
        low: lower end of its interval.
        high: upper end.
        lift: relative to the logging policy, .05 is 5%. None: not computed.
        verdict: "ok", "weak" or "unusable"; the value of an unusable one is not shown.
        note: why.
    """

    policy: str
    estimator: str
    value: float | None
    low: float | None = None
    high: float | None = None
    lift: float | None = None
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True)
class WeightsPart:
    """Histogram of the importance weights of one policy on the log.

    Attributes:
        policy: whose weights.
        edges: B + 1 rising ends of the bins, >= 0; equal on a logarithmic axis reads best.
        counts: B rounds per bin.
        mean: of all weights; near 1 where the log covers the policy.
        largest: the largest one.
        effective_share: effective sample size over rounds, in [0, 1].
    """

    policy: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float | None = None
    largest: float | None = None
    effective_share: float | None = None

    def __post_init__(self) -> None:
        edges = self.edges
        if len(edges) != len(self.counts) + 1 or not self.counts:
            raise ValueError(
                f"edges must be one more than counts, got {len(edges)} for {len(self.counts)}"
            )
        if any(b <= a for a, b in itertools.pairwise(edges)) or edges[0] < 0:
            raise ValueError(f"edges must rise from >= 0, got {edges}")
        if min(self.counts) < 0:
            raise ValueError(f"counts must be >= 0, got {min(self.counts)}")

    @classmethod
    def from_weights(cls, policy: str, weight: np.ndarray, *, num_bins: int = 24) -> Self:
        """The histogram of ``weight`` [n], all >= 0, in bins equal on a logarithmic axis.

        Weights below a thousandth, zeros among them, share the first bin.

        Raises:
            ValueError: no weight, one below 0 or not finite, or ``num_bins`` below 2.
        """
        weight = np.asarray(weight, dtype=np.float64).ravel()
        if weight.size == 0 or not np.isfinite(weight).all() or weight.min() < 0:
            raise ValueError(f"weight must be [n >= 1] finite and >= 0, got {weight.size} of them")
        if num_bins < 2:
            raise ValueError(f"num_bins must be >= 2, got {num_bins}")
        top = max(float(weight.max()), 1.0) * 1.0001
        positive = weight[weight > 1e-3]
        bottom = min(float(positive.min()) if positive.size else 0.1, 0.5)
        inner = np.geomspace(bottom, top, num_bins)
        edges = np.concatenate([[0.0], inner])
        square = float((weight**2).sum())
        share = float(weight.sum()) ** 2 / square / weight.size if square > 0 else 0.0
        return cls(
            policy=policy,
            edges=tuple(edges.tolist()),
            counts=tuple(np.histogram(weight, bins=edges)[0].tolist()),
            mean=float(weight.mean()),
            largest=float(weight.max()),
            effective_share=share,
        )


@dataclass(frozen=True)
class CurveLine:
    """One line of a plot.

    Attributes:
        name: in the legend.
        points: (x, y) in rising x, at least one.
    """

    name: str
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        xs = [x for x, _ in self.points]
        if not xs or any(b < a for a, b in itertools.pairwise(xs)):
            raise ValueError(f"points of {self.name!r} must be at least one, in rising x, got {xs}")


@dataclass(frozen=True)
class CurvePlot:
    """Lines over a common axis: the power curve, a value against the clip, generations.

    Attributes:
        lines: at least one.
        x_label: below the axis.
        title: of its section.
        text: a sentence or two on how to read it.
        percent: show y as percentages.
        log_x: a logarithmic axis; all x above 0.
        marked_x: an x that stands out, such as the planned size. None: none.
        marked_label: what to write there.
    """

    lines: tuple[CurveLine, ...]
    x_label: str
    title: str = ""
    text: str = ""
    percent: bool = False
    log_x: bool = False
    marked_x: float | None = None
    marked_label: str = ""

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError("lines must hold at least one line, got none")
        names = [line.name for line in self.lines]
        if len(set(names)) < len(names):
            raise ValueError(f"lines must have names of their own, got {', '.join(names)}")
        least = min(x for line in self.lines for x, _ in line.points)
        if self.marked_x is not None:
            least = min(least, self.marked_x)
        if self.log_x and least <= 0:
            raise ValueError(f"x must be above 0 on a logarithmic axis, got {least}")


@dataclass(frozen=True)
class DiagnosticLine:
    """One check of the data or the method.

    Attributes:
        name: such as "effective sample size".
        passed: None where it only informs.
        value: as text or number.
        bound: what it had to fulfil, as text ("at least .05 of the rounds").
        says: what it means for the reader.
    """

    name: str
    passed: bool | None
    value: str | float
    bound: str = ""
    says: str = ""


@dataclass(frozen=True)
class TablePart:
    """A table of its own.

    Attributes:
        title: of its section.
        rows: the first one is the head; all equally long.
        text: before the table.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    text: str = ""

    def __post_init__(self) -> None:
        lengths = sorted({len(row) for row in self.rows})
        if len(lengths) != 1 or lengths[0] == 0:
            raise ValueError(f"rows of {self.title!r} must be equally long, got lengths {lengths}")


@dataclass(frozen=True)
class ReportInput:
    """Everything a report can show; only ``title`` must be given.

    Attributes:
        title: of the page.
        decision: what to do, and why. None: the page only informs.
        facts: data window, rows, users, items, policies: name to what to print.
        effects: differences with intervals, the most important first.
        level: of all intervals.
        weights: one histogram a policy.
        power: chance of finding an effect against the size of an experiment.
        slices: the most important effect for groups of users and items.
        estimates: values of policies by estimators.
        diagnostics: checks, passed or not.
        curves: further plots.
        tables: further tables.
        cannot_conclude: sentences on what this data cannot say. None given: the page says that
            nobody has thought about it.
    """

    title: str
    decision: DecisionPart | None = None
    facts: Mapping[str, str | int | float] = dataclasses.field(default_factory=dict)
    effects: tuple[EffectLine, ...] = ()
    level: float = 0.95
    weights: tuple[WeightsPart, ...] = ()
    power: CurvePlot | None = None
    slices: tuple[EffectLine, ...] = ()
    estimates: tuple[EstimateLine, ...] = ()
    diagnostics: tuple[DiagnosticLine, ...] = ()
    curves: tuple[CurvePlot, ...] = ()
    tables: tuple[TablePart, ...] = ()
    cannot_conclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level must be above 0 and below 1, got {self.level}")
        _check_finite(dataclasses.asdict(self), "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, ``format`` among them."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a mapping of this shape; parts may be mappings, sequences, or the types above.

        NumPy numbers and arrays are taken as well.

        Raises:
            ValueError: a part is unknown, missing or of a wrong kind; all of them are named.
        """
        found = plain(values)
        version = found.pop("format", FORMAT)
        if version != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {version!r}; write the report again")
        try:
            return _ADAPTER.validate_python(found)  # type: ignore[return-value]
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, one['loc'])) or 'report'}: {one['msg']}, got {one['input']!r}"
                for one in error.errors(include_url=False)
            ]
            raise ValueError("a report cannot be made of this: " + "; ".join(lines)) from None


_PARTS: tuple[Any, ...] = (
    ReasonLine,
    DecisionPart,
    EffectLine,
    EstimateLine,
    WeightsPart,
    CurveLine,
    CurvePlot,
    DiagnosticLine,
    TablePart,
    ReportInput,
)
for _part in _PARTS:
    _part.__pydantic_config__ = _CLOSED  # an unknown name or a NaN is an error
_ADAPTER = TypeAdapter(ReportInput)


def plain(value: Any) -> Any:
    """``value`` as JSON has it: mappings, lists, text, numbers, truth values and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(inside) for key, inside in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(inside) for inside in value]
    return value


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, got {value}; leave out what was not measured")
    if isinstance(value, Mapping):
        for name, inside in value.items():
            _check_finite(inside, f"{where}.{name}" if where else str(name))
    elif isinstance(value, tuple | list):
        for number, inside in enumerate(value):
            _check_finite(inside, f"{where}[{number}]")
