"""Two sets of records, line by line and metric by metric: what became better, worse or neither."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.compare.estimate import Estimate, Scores, estimate
from benchmarks.record import Record
from benchmarks.report.comparison import COST_TITLES
from benchmarks.report.facts import Metric, label, metrics_of, row_label
from benchmarks.report.frame import CONFIDENCE, LineKey, by_seed, line_of, select, sort_key
from benchmarks.report.notes import overspent
from benchmarks.report.setup import Setups, settings

Verdict = Literal["better", "worse", "within noise", "same", "no interval", "not judged"]

SHOWN = 1e-4
"""Relative: what is less is not seen in the four digits of a table, and no difference between
two generators but between two machines, or two versions of a library."""
SCENE = ("dataset", "dataset_version", "resolution", "evaluated")
"""Where the keys of a setup begin that scores must have in common to be compared at all."""
COST_DIRECTIONS = {"sample_images_per_s": "higher", "train_seconds": "lower"}


@dataclass(frozen=True)
class Match:
    """One line of a report on both sides; one of them may be empty."""

    key: LineKey
    suffix: str
    """Tells setups apart: `` (a)``, or `` (a → b)`` where the two sides have different ones."""
    before: tuple[Record, ...]
    after: tuple[Record, ...]

    @property
    def title(self) -> str:
        """``DP-Wavelet, ε = 1 (a)``."""
        return f"{label(self.key.method)}, {self.row_title}"

    @property
    def row_title(self) -> str:
        """``ε = 1 (a)``."""
        return row_label(self.key.row, self.key.epsilon) + self.suffix

    @property
    def records(self) -> tuple[Record, ...]:
        """Of both sides."""
        return self.before + self.after

    @property
    def whole(self) -> bool:
        """Whether both sides have scores."""
        return all(any(r.status == "ok" for r in side) for side in (self.before, self.after))


@dataclass(frozen=True)
class Change:
    """One number of one line: a score, or a cost."""

    match: Match
    name: str
    title: str
    """As it is shown, with its mark and the arrow of its direction."""
    direction: str
    estimate: Estimate
    verdict: Verdict
    cost: bool = False


@dataclass(frozen=True)
class Changes:
    """All that two sets of records say of each other.

    Attributes:
        matches: every line of either side.
        rows: every number that both sides have and that can be compared.
        refused: why scores cannot be compared, each reason with its lines.
        confidence: of each interval.
        simultaneous: whether all intervals hold together with 95 %.
    """

    matches: tuple[Match, ...]
    rows: tuple[Change, ...]
    refused: dict[str, list[Match]]
    confidence: float
    simultaneous: bool

    @property
    def judged(self) -> list[Change]:
        """Rows that could have come out better or worse."""
        return [r for r in self.rows if r.verdict in ("better", "worse", "within noise")]

    @property
    def broken(self) -> list[tuple[Match, int]]:
        """Seeds of lines that succeeded before and failed after."""
        return [
            (match, seed)
            for match in self.matches
            for seed in sorted(failed(match.after) & succeeded(match.before))
        ]

    @property
    def overspent(self) -> list[Record]:
        """Private cells after that spent more than their target, on lines where none did before."""
        return [
            record
            for match in self.matches
            if not any(map(overspent, match.before))
            for record in match.after
            if overspent(record)
        ]

    @property
    def worse(self) -> bool:
        """Whether anything became worse beyond noise."""
        rows = any(row.verdict == "worse" for row in self.rows)
        return rows or bool(self.broken) or bool(self.overspent)


def succeeded(records: Iterable[Record]) -> set[int]:
    """Seeds with a record that is ok."""
    return {record.seed for record in records if record.status == "ok"}


def failed(records: Sequence[Record]) -> set[int]:
    """Seeds that only failed."""
    return {record.seed for record in records} - succeeded(records)


def changes(
    before: Sequence[Record],
    after: Sequence[Record],
    simultaneous: bool = False,
    costs: bool = False,
) -> Changes:
    """Compare two sets of records.

    Args:
        simultaneous: widen the intervals until all hold together with 95 % (Bonferroni).
        costs: judge costs, too.
    """
    pairs = matches(before, after)
    found = _changes(pairs, CONFIDENCE, costs)
    if simultaneous and found.judged:
        found = _changes(pairs, 1 - (1 - CONFIDENCE) / len(found.judged), costs)
    return Changes(found.matches, found.rows, found.refused, found.confidence, simultaneous)


def matches(before: Sequence[Record], after: Sequence[Record]) -> list[Match]:
    """The lines of both sides, side by side.

    Lines of one setup belong together. So do those that differ in it, where there is one on each
    side that has no such counterpart; where there are more, nothing says which became which.
    """
    setups = Setups([*before, *after])
    sides = [_lines(before, setups), _lines(after, setups)]
    found: list[Match] = []
    for budget in dict.fromkeys(key[:4] for side in sides for key in side):
        old, new = ({k: r for k, r in side.items() if k[:4] == budget} for side in sides)
        for key in old.keys() & new.keys():
            found.append(Match(key, key.suffix, old.pop(key), new.pop(key)))
        if len(old) == len(new) == 1:
            (was, first), (became, second) = *old.items(), *new.items()
            letters = f"{was.suffix[:-1]} → {became.suffix.strip(' (')}"
            found.append(Match(was, letters, first, second))
        else:
            found += [Match(key, key.suffix, records, ()) for key, records in old.items()]
            found += [Match(key, key.suffix, (), records) for key, records in new.items()]
    return sorted(found, key=lambda match: (sort_key(match.records[0])[:4], match.suffix))


def _lines(records: Sequence[Record], setups: Setups) -> dict[LineKey, tuple[Record, ...]]:
    found: dict[LineKey, list[Record]] = {}
    for record in select(records):
        found.setdefault(line_of(record, setups), []).append(record)
    return {key: tuple(cells) for key, cells in found.items()}


def _changes(pairs: Sequence[Match], confidence: float, costs: bool) -> Changes:
    rows: list[Change] = []
    refused: dict[str, list[Match]] = {}
    for match in pairs:
        if not match.whole:
            continue
        reason = _incomparable(match)
        if reason:
            refused.setdefault(reason, []).append(match)
            continue
        for metric in metrics_of(match.records):
            if not (has(match.before, metric.name) and has(match.after, metric.name)):
                continue
            if len(rulers(match.records, metric.name)) > 1:
                reason = f"{metric.shown} was taken by different rulers or on other numbers"
                refused.setdefault(reason, []).append(match)
            else:
                rows.append(_metric(match, metric, confidence))
        rows += _costs(match, confidence, costs)
    return Changes(tuple(pairs), tuple(rows), refused, confidence, simultaneous=False)


def _incomparable(match: Match) -> str | None:
    """Why no score of a line may be compared; None if they may."""
    old, new = (next(r for r in side if r.status == "ok") for side in (match.before, match.after))
    was, became = settings(old), settings(new)
    other = [key for key in sorted(was.keys() | became.keys()) if was.get(key) != became.get(key)]
    other = [key for key in other if key.partition(".")[0] in SCENE]
    if other:
        return f"images or prompts are not the same ({other[0]})"
    budgets = {(r.privacy.delta, r.privacy.relation) for r in match.records if r.status == "ok"}
    return "delta or neighbouring relation are not the same" if len(budgets) > 1 else None


def has(records: Iterable[Record], name: str) -> bool:
    """Whether a record has a finite score of that name."""
    return any(name in r.metrics and math.isfinite(r.metrics[name].value) for r in records)


def rulers(records: Iterable[Record], name: str) -> set[tuple[object, ...]]:
    """By what the scores of a name were taken: equal ones can be compared."""
    scores = [record.metrics[name] for record in records if name in record.metrics]
    return {
        (s.protocol, s.n_samples, s.n_reference, s.direction, *sorted(s.weights.items()))
        for s in scores
    }


def _metric(match: Match, metric: Metric, confidence: float) -> Change:
    before, after = (_scores(side, metric) for side in (match.before, match.after))
    found = estimate(before, after, confidence)
    judged = _verdict(found, lower_is_better=metric.direction != "higher")
    return Change(match, metric.name, metric.title, metric.direction, found, judged)


def _scores(records: Iterable[Record], metric: Metric) -> Scores:
    """The scores of one side; distances from zero of a metric that is best there."""
    scored = [(r.seed, r.metrics[metric.name]) for r in records if metric.name in r.metrics]
    of_zero = metric.direction == "zero"
    return Scores(
        _finite((seed, abs(s.value) if of_zero else s.value) for seed, s in scored),
        [s.standard_error for _, s in scored if s.standard_error is not None],
    )


def _costs(match: Match, confidence: float, judged: bool) -> list[Change]:
    rows = []
    for name, title in COST_TITLES.items():
        direction = COST_DIRECTIONS[name]
        before, after = (
            _finite((r.seed, getattr(r.cost, name)) for r in side if getattr(r.cost, name))
            for side in (match.before, match.after)
        )
        if before and after:
            found = estimate(Scores(before), Scores(after), confidence)
            verdict: Verdict = "not judged"
            if judged:
                verdict = _verdict(found, direction == "lower")
            rows.append(Change(match, name, title, direction, found, verdict, cost=True))
    return rows


def _finite(scores: Iterable[tuple[int, float]]) -> dict[int, float]:
    return by_seed((seed, value) for seed, value in scores if math.isfinite(value))


def _verdict(found: Estimate, lower_is_better: bool) -> Verdict:
    if found.same:
        return "same"
    if math.isnan(found.half):
        return "no interval"
    least = SHOWN * max(abs(found.before), abs(found.after))
    if abs(found.difference) <= max(found.half, least):
        return "within noise"
    return "worse" if (found.difference > 0) == lower_is_better else "better"
