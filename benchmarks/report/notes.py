"""Sentences that belong under every table: what epsilon covers and what the numbers are not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.record import Record
from benchmarks.report.comparison import OVERSPENT, Comparison, Line, compare, fewer
from benchmarks.report.facts import (
    FEWER,
    INCOMPLETE,
    REPRODUCIBLE,
    clean,
    datasets,
    joined,
    label,
    line_label,
    metrics_of,
    row_label,
)
from benchmarks.report.frame import LineKey, aggregate, frame, lines, select
from benchmarks.report.marks import FLOOR_TITLE, NOT_PRIVATE, READ
from benchmarks.report.setup import Difference, Setups, evaluation

NAMED = 6
"""How many settings a sentence names in which setups differ."""
LONGEST = 24
"""Characters of a setting's value that a sentence shows."""


def footer(records: Sequence[Record]) -> list[str]:
    """The sentences that a reader needs to read the table rightly, made from the records."""
    sentences = [_epsilon(records), _rows(records), *_unlike(records), *_floors(records)]
    sentences += [*_intervals(records), *setups(records), *_evaluations(records)]
    sentences += [*_counts(records), *_flags(records)]
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
    parts = ["Bold: the best private score among methods with the same budget and prompts."]
    if "pretrained" in rows:
        parts.append("pretrained: public data only, no private record was touched.")
    if "non_private" in rows:
        parts.append("ε = ∞: finetuned without privacy.")
    if "oracle" in rows:
        parts.append(
            f"oracle{NOT_PRIVATE}: what the method's public parts keep of real held-out images; an "
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
    single = "it is over samples, if at all" if over_samples else "there is none"
    return [
        f"± is the half-width of a 95% t-interval over seeds ({joined(seeds)}); where only one "
        f"seed has the score, {single}."
    ]


def setups(records: Sequence[Record]) -> list[str]:
    """Where a method was run in several ways: which settings tell its lines apart."""
    where: dict[str, list[str]] = {}
    for found in Setups(records).differences():
        where.setdefault(_difference(found), []).append(label(found.dataset))
    return [f"{joined(names)}: {sentence}" for sentence, names in where.items()]


def _difference(found: Difference) -> str:
    named = [
        f"{clean(key)} ({', '.join(map(_setting, found.letters, values))})"
        for key, values in list(found.keys.items())[:NAMED]
    ]
    rest = len(found.keys) - len(named)
    setups = joined(f"({letter})" for letter in found.letters)
    return (
        f"setups {setups} of {label(found.method)}, the oldest first, are not averaged. They "
        f"differ in {joined([*named, f'{rest} more'] if rest else named)}."
    )


def _setting(letter: str, value: str | None) -> str:
    shown = "none" if value is None else clean(value.strip('"'))
    return f"{letter}: {shown[:LONGEST]}{'…' if len(shown) > LONGEST else ''}"


def _evaluations(records: Sequence[Record]) -> list[str]:
    """Which rows of a table were scored on which prompts, where those are not the same."""
    found = []
    for dataset in datasets(records):
        rows: dict[str, list[str]] = {}
        for key, cells in _lines_of(records, dataset).items():
            hows = [evaluation(r) or "as older records do not say" for r in cells if r.metrics]
            for how in dict.fromkeys(hows):
                rows.setdefault(clean(how), []).append(_line(key))
        if len(rows) > 1:
            parts = "; ".join(f"{how}: {joined(names)}" for how, names in rows.items())
            found.append(
                f"{label(dataset)}: not all rows were scored alike, and only those that were can "
                f"be compared. {parts}."
            )
    return found


def _lines_of(records: Sequence[Record], dataset: str) -> dict[LineKey, list[Record]]:
    return lines(record for record in records if record.dataset == dataset)


def _line(key: LineKey) -> str:
    return f"{label(key.method)} ({line_label(key)})"


def _counts(records: Sequence[Record]) -> list[str]:
    """Which rows of a column were scored on how many samples, where that is not one number."""
    found = []
    for dataset in datasets(records):
        groups = _lines_of(records, dataset)
        names: dict[str, list[str]] = {}
        for metric in metrics_of([record for cells in groups.values() for record in cells]):
            if len(metric.n_samples) > 1:
                names.setdefault(_rows_by_count(groups, metric.name), []).append(metric.shown)
        found += [
            f"{label(dataset)}: {joined(shown)} on {rows}. A Frechet distance falls as the number "
            "of samples rises: compare rows of one number only."
            for rows, shown in names.items()
        ]
    return found


def _rows_by_count(groups: Mapping[LineKey, Sequence[Record]], name: str) -> str:
    rows: dict[int, list[str]] = {}
    for key, cells in groups.items():
        for record in cells:
            if name in record.metrics:
                rows.setdefault(record.metrics[name].n_samples, []).append(_line(key))
    return "; on ".join(f"{n:,} samples: {joined(dict.fromkeys(rows[n]))}" for n in sorted(rows))


def _flags(records: Sequence[Record]) -> list[str]:
    flags = []
    flags += _not_private(records)
    if any(record.privacy.reproducible_noise for record in records):
        flags.append(f"{REPRODUCIBLE} reproducible noise, not a release.")
    if _incomplete(records):
        flags.append(f"{INCOMPLETE} a mean over fewer seeds: some failed, see the failed cells.")
    if _lacking(records):
        flags.append(f"{FEWER} a mean over fewer seeds than its row has: others lack the score.")
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


def _lacking(records: Sequence[Record]) -> bool:
    """True if a score has fewer seeds than the others of its line."""
    names = [metric.name for metric in metrics_of(select(records))]
    return any(fewer(cells, name) for cells in lines(records).values() for name in names)


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
        for group in dict.fromkeys(line.rivals for line in comparison.lines):
            rivals = [line for line in comparison.lines if line.rivals == group]
            sentence = None if group is None else _headline(comparison, rivals)
            found += [sentence] if sentence else []
    return found


def _headline(comparison: Comparison, lines: Sequence[Line]) -> str | None:
    winners = [line for line in lines if line.cells[0].best] if comparison.metrics else []
    if len(winners) != 1:
        return None
    winner, metric = winners[0], comparison.metrics[0]
    others = [line for line in lines if line is not winner and not line.failed]
    scores = joined(f"{line.name} {line.cells[0].text}" for line in others)
    where = f"{label(comparison.dataset)}, {row_label(winner.row, winner.epsilon)}"
    return (
        f"{where}: {winner.name} has the best mean {metric.shown}, "
        f"{winner.cells[0].text}, against {scores}"
        f"{_certainty(winner, others)}."
    )


def _certainty(winner: Line, others: Sequence[Line]) -> str:
    scored = [line for line in (winner, *others) if not math.isnan(line.cells[0].value)]
    single = [line for line in scored if math.isnan(line.cells[0].half)]
    if single:
        shown = any(not math.isnan(line.cells[0].over_samples) for line in single)
        what = "± is over samples and says nothing of other seeds" if shown else "no interval"
        whose = "each" if single == scored else f"of {joined(line.name for line in single)}"
        return f"; one seed {whose}: {what}"
    cells = [line.cells[0] for line in scored[1:]]
    reach = [winner.cells[0].half + cell.half for cell in cells]
    gaps = [abs(winner.cells[0].value - cell.value) for cell in cells]
    overlap = any(gap <= value for gap, value in zip(gaps, reach, strict=True))
    return "; the intervals overlap" if overlap else "; the intervals do not overlap"
