"""Sentences that belong under every table: what epsilon covers and what the numbers are not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.record import Record
from benchmarks.report.comparison import OVERSPENT, Comparison, Line, compare
from benchmarks.report.facts import (
    INCOMPLETE,
    REPRODUCIBLE,
    clean,
    datasets,
    joined,
    label,
    metrics_of,
    row_label,
)
from benchmarks.report.frame import aggregate, frame, select
from benchmarks.report.marks import FLOOR_TITLE, NOT_PRIVATE, READ


def footer(records: Sequence[Record]) -> list[str]:
    """The sentences that a reader needs to read the table rightly, made from the records."""
    sentences = [_epsilon(records), _rows(records), *_unlike(records), *_floors(records)]
    sentences += [*_intervals(records), *_counts(records), *_flags(records)]
    sentences += [*_overlaps(records), *_not_computed(records)]
    return sentences


def _epsilon(records: Sequence[Record]) -> str:
    private = [record.privacy for record in records if record.row == "private"]
    composes = (
        "Epsilon covers one released generator: rows, seeds, retries and tuning on the same "
        "private records compose."
    )
    if not private:
        return composes
    deltas = joined(f"{delta:g}" for delta in sorted({p.delta for p in private if p.delta}))
    relations = _words(p.relation for p in private)
    accountants = _words(p.accountant for p in private)
    units = _words(p.unit for p in private)
    return (
        f"ε is the target budget at δ = {deltas or 'unstated'}; neighbouring relation: "
        f"{relations or 'unstated'}; privacy unit: {units or 'unstated'}; accountant: "
        f"{accountants or 'unstated'}. {composes}"
    )


def _words(values: Iterable[str | None]) -> str:
    return joined(sorted({clean(value.replace("_", " ")) for value in values if value}))


def _rows(records: Sequence[Record]) -> str:
    rows = {record.row for record in records}
    parts = ["Bold: the best private score among methods with the same budget."]
    if "pretrained" in rows:
        parts.append("pretrained: public data only, no private record was touched.")
    if "non_private" in rows:
        parts.append("ε = ∞: finetuned without privacy.")
    if "oracle" in rows:
        parts.append(
            f"oracle{NOT_PRIVATE}: the ceiling, the real low band through the public stage; an "
            "evaluation, not a release."
        )
    return " ".join(parts)


def _unlike(records: Sequence[Record]) -> list[str]:
    """Which published measures the metrics are not, as they declare it."""
    metrics = metrics_of(select(records))
    measures = dict.fromkeys(metric.unlike for metric in metrics if metric.unlike)
    parts = [
        _not_the_measure([m.shown for m in metrics if m.unlike == measure], measure)
        for measure in measures
    ]
    unstated = [metric.shown for metric in metrics if metric.unlike is None]
    sentences = [f"{joined(parts)}: not comparable with published numbers."] if parts else []
    if unstated:
        sentences.append(
            f"Older records do not say which published measures {joined(unstated)} may be "
            "compared with: take them for comparable with none."
        )
    return sentences


def _not_the_measure(names: Sequence[str], measure: str) -> str:
    return f"{joined(names)} {'is' if len(names) == 1 else 'are'} not {clean(measure)}"


def _floors(records: Sequence[Record]) -> list[str]:
    if all(score.floor is None for record in records for score in record.metrics.values()):
        return []
    return [
        f"{FLOOR_TITLE}: what real held-out images score against real images, about what a perfect "
        "generator would score; evaluation, not private, and covered by no ε."
    ]


def _intervals(records: Sequence[Record]) -> list[str]:
    seeds = sorted({record.seed for record in records})
    errors = [score.standard_error for r in records for score in r.metrics.values()]
    over_samples = any(error is not None for error in errors)
    if len(seeds) < 2 and not over_samples:
        return ["One seed: there are no intervals, and small differences mean nothing."]
    if len(seeds) < 2:
        missing = "; where it is missing, one set of samples does not tell it"
        return [
            "One seed: ± is the half-width of a 95% interval over samples and says nothing of "
            f"other seeds, which differ by more{missing if None in errors else ''}."
        ]
    single = " (there ± is over samples)" if over_samples else ""
    return [
        f"± is the half-width of a 95% t-interval over seeds ({joined(seeds)}); where it is "
        f"missing, only one seed succeeded{single}."
    ]


def _counts(records: Sequence[Record]) -> list[str]:
    """Which rows of a column were scored on how many samples, where that is not one number."""
    found = []
    for dataset in datasets(records):
        mine = select([record for record in records if record.dataset == dataset])
        names: dict[str, list[str]] = {}
        for metric in metrics_of(mine):
            if len(metric.n_samples) > 1:
                names.setdefault(_rows_by_count(mine, metric.name), []).append(metric.shown)
        found += [
            f"{label(dataset)}: {joined(shown)} on {rows}. A Frechet distance falls as the number "
            "of samples rises: compare rows of one number only."
            for rows, shown in names.items()
        ]
    return found


def _rows_by_count(records: Sequence[Record], name: str) -> str:
    rows: dict[int, list[str]] = {}
    for record in records:
        if name in record.metrics:
            row = row_label(record.row, record.privacy.epsilon_target)
            count = record.metrics[name].n_samples
            rows.setdefault(count, []).append(f"{label(record.method)} ({row})")
    return "; on ".join(f"{n:,} samples: {joined(dict.fromkeys(rows[n]))}" for n in sorted(rows))


def _flags(records: Sequence[Record]) -> list[str]:
    flags = []
    flags += _not_private(records)
    if any(record.privacy.reproducible_noise for record in records):
        flags.append(f"{REPRODUCIBLE} reproducible noise, not a release.")
    if _incomplete(records):
        flags.append(f"{INCOMPLETE} a mean over fewer seeds: some failed, see the failed cells.")
    over = [record.cell for record in select(records) if overspent(record)]
    if over:
        flags.append(f"Spent more than the target, so never bold: {joined(map(clean, over))}.")
    return flags


def _not_private(records: Sequence[Record]) -> list[str]:
    """What the metrics read that no epsilon covers, private records first."""
    metrics = metrics_of(select(records))
    found = []
    for what in reversed(READ):
        names = [metric.name for metric in metrics if metric.reading == what]
        if names:
            found.append(
                f"{NOT_PRIVATE} {joined(names)} {'reads' if len(names) == 1 else 'read'} "
                f"{READ[what]}: evaluation, not private; covered by no ε and never a release."
            )
    return found


def _not_computed(records: Sequence[Record]) -> list[str]:
    return [
        f"{metric.shown} not computed: {reason}."
        for metric in metrics_of(select(records))
        for reason in metric.reasons
    ]


def _overlaps(records: Sequence[Record]) -> list[str]:
    if not any(record.provenance.overlap for record in records):
        return []
    return [
        "overlap: whether the data behind a method's public weights share images with the "
        "private records, for then ε does not cover them. none: impossible by their making; "
        "checked: compared; unknown: nobody looked."
    ]


def _incomplete(records: Sequence[Record]) -> bool:
    means = aggregate(frame(records))
    return bool(((means["seeds"] > 0) & (means["failed"] > 0)).any())


def overspent(record: Record) -> bool:
    """True if a private cell spent more than its target."""
    target, spent = record.privacy.epsilon_target, record.privacy.epsilon_spent
    if record.row != "private" or target is None or spent is None:
        return False
    return spent > target * (1 + OVERSPENT)


def headlines(records: Sequence[Record]) -> list[str]:
    """For every dataset and budget, which method has the best first metric, and how surely."""
    found = []
    for dataset in datasets(records):
        comparison = compare(records, dataset)
        private = [line for line in comparison.lines if line.row == "private"]
        for epsilon in dict.fromkeys(line.epsilon for line in private):
            sentence = _headline(comparison, [x for x in private if x.epsilon == epsilon])
            found += [sentence] if sentence else []
    return found


def _headline(comparison: Comparison, lines: Sequence[Line]) -> str | None:
    winners = [line for line in lines if line.cells[0].best] if comparison.metrics else []
    if len(winners) != 1:
        return None
    winner, metric = winners[0], comparison.metrics[0]
    others = [line for line in lines if line is not winner and not line.failed]
    scores = joined(f"{line.method} {line.cells[0].text}" for line in others)
    where = f"{label(comparison.dataset)}, {row_label(winner.row, winner.epsilon)}"
    return (
        f"{where}: {winner.method} has the best mean {metric.shown}, "
        f"{winner.cells[0].text}, against {scores}"
        f"{_certainty(winner, others)}."
    )


def _certainty(winner: Line, others: Sequence[Line]) -> str:
    cells = [line.cells[0] for line in others]
    reach = [winner.cells[0].half + cell.half for cell in cells]
    if any(math.isnan(value) for value in reach):
        return " (one seed: no interval)"
    gaps = [abs(winner.cells[0].value - cell.value) for cell in cells]
    overlap = any(gap <= value for gap, value in zip(gaps, reach, strict=True))
    return "; the intervals overlap" if overlap else "; the intervals do not overlap"
