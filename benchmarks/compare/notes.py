"""Sentences that belong under a comparison: what was not compared, and what is noise."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from benchmarks.compare.changes import Changes, Match, failed, has, succeeded
from benchmarks.record import Record
from benchmarks.report.facts import clean, datasets, joined, label, metrics_of
from benchmarks.report.frame import CONFIDENCE
from benchmarks.report.marks import EXPLANATION, NOT_PRIVATE
from benchmarks.report.notes import setups

BEFORE, AFTER = attrgetter("before"), attrgetter("after")
SIDES = (("before", BEFORE, AFTER), ("after", AFTER, BEFORE))
"""The name of each side, what it has of a line, and what the other one has."""


def verdict(changes: Changes) -> str:
    """The outcome in one sentence."""
    counts = {
        name: sum(row.verdict == name for row in changes.rows)
        for name in ("worse", "better", "within noise", "same", "no interval")
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count or name == "worse"]
    parts += [f"{len(changes.broken)} that fail now"] if changes.broken else []
    parts += [f"{len(changes.overspent)} overspent"] if changes.overspent else []
    return f"Of {sum(counts.values())} scores {joined(parts)}."


def notes(changes: Changes) -> list[str]:
    """Everything that a reader needs to read the rows rightly."""
    return [
        *_chance(changes),
        *_samples(changes),
        *_refused(changes),
        *_setups(changes),
        *_broken(changes),
        *_missing(changes),
        *_failed(changes),
        *_lacking(changes),
        *_costs(changes),
        *_marks(changes),
    ]


def _chance(changes: Changes) -> list[str]:
    count = len(changes.judged)
    if not count:
        return []
    if changes.simultaneous:
        return [
            f"{count} scores were compared, and all intervals hold together with "
            f"{CONFIDENCE:.0%} ({changes.confidence:.3%} each, Bonferroni): if nothing had "
            f"changed, there would be none beyond noise in {CONFIDENCE:.0%} of comparisons."
        ]
    expected = count * (1 - changes.confidence)
    return [
        f"{count} scores were compared, each by an interval of its own at "
        f"{changes.confidence:.0%}: if nothing had changed, about {expected:.2g} of them would lie "
        f"beyond noise by chance, {expected / 2:.2g} as worse. --simultaneous widens the intervals "
        "until all hold together."
    ]


def _samples(changes: Changes) -> list[str]:
    found = []
    if any(row.estimate.over == "samples" for row in changes.judged):
        found.append(
            "samples: one seed, or none that changes anything, so the interval is over samples: "
            "how far these two generators differ, not others trained in the same way, which "
            "differ by more."
        )
    if any(row.verdict == "no interval" for row in changes.rows):
        found.append("no interval: one seed without a standard error, which judges nothing.")
    if any(row.direction == "zero" for row in changes.rows):
        found.append("→0: distances from zero are compared.")
    return found


def _refused(changes: Changes) -> list[str]:
    return [
        f"Not compared, as {clean(reason)}: {'; '.join(_where(changes, m) for m in lines)}."
        for reason, lines in changes.refused.items()
    ]


def _setups(changes: Changes) -> list[str]:
    """What the letters stand for, where there are any."""
    records = [record for match in changes.matches for record in match.records]
    found = setups(records)
    if any("→" in match.suffix for match in changes.matches):
        found.append(
            "(a → b): the two sides differ in setup, and so may the scores for that reason."
        )
    return found


def _broken(changes: Changes) -> list[str]:
    cells = [f"{_where(changes, match)}, seed {seed}" for match, seed in changes.broken]
    found = [f"Succeeded before and fail now: {'; '.join(cells)}."] if cells else []
    if changes.overspent:
        names = "; ".join(clean(record.cell) for record in changes.overspent)
        found.append(f"Spent more than their target, after only: {names}.")
    return found


def _missing(changes: Changes) -> list[str]:
    found = []
    for side, these, others in SIDES:
        lines: dict[str, list[str]] = {}
        for match in changes.matches:
            seeds = sorted(_seeds(these(match)) - _seeds(others(match)))
            if seeds:
                what = f"{'seed' if len(seeds) == 1 else 'seeds'} {joined(seeds)}"
                lines.setdefault(what, []).append(_where(changes, match))
        found += [f"Only {side}, {what}: {'; '.join(where)}." for what, where in lines.items()]
    return found


def _failed(changes: Changes) -> list[str]:
    found = []
    for side, these, _ in SIDES:
        cells = [
            f"{_where(changes, match)}, seed {seed}"
            for match in changes.matches
            for seed in sorted(failed(these(match)))
        ]
        found += [f"Failed {side}: {'; '.join(cells)}."] if cells else []
    return found


def _lacking(changes: Changes) -> list[str]:
    """Scores that one side has and the other does not."""
    found = []
    for side, these, others in SIDES:
        lines: dict[str, list[str]] = {}
        for match in filter(lambda match: match.whole, changes.matches):
            for metric in metrics_of(match.records):
                if has(these(match), metric.name) and not has(others(match), metric.name):
                    lines.setdefault(metric.shown, []).append(_where(changes, match))
        found += [f"{name} has scores {side} only: {'; '.join(w)}." for name, w in lines.items()]
    return found


def _costs(changes: Changes) -> list[str]:
    if not any(row.cost for row in changes.rows):
        return []
    machines = [
        sorted({_machine(record) for match in changes.matches for record in these(match)})
        for _, these, _ in SIDES
    ]
    unjudged = any(row.verdict == "not judged" for row in changes.rows)
    plea = " They are noisy and judged by --costs only." if unjudged else ""
    if machines[0] == machines[1]:
        return [f"Costs are of the same kind of machine.{plea}"] if plea else []
    before, after = (joined(names) for names in machines)
    return [f"Costs are of different machines: {before} before, {after} after.{plea}"]


def _marks(changes: Changes) -> list[str]:
    marked = any(NOT_PRIVATE in row.title + row.match.title for row in changes.rows)
    return [f"{EXPLANATION}."] if marked else []


def _machine(record: Record) -> str:
    machine = record.hardware
    return clean(f"{machine.device} ({machine.processor}, threads: {machine.threads})")


def _where(changes: Changes, match: Match) -> str:
    """A line's title, with its data set where there are several."""
    several = len(datasets(r for m in changes.matches for r in m.records)) > 1
    return f"{label(match.key.dataset)}, {match.title}" if several else match.title


def _seeds(records: Sequence[Record]) -> set[int]:
    return succeeded(records) | failed(records)
