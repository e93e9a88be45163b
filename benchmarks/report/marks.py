"""The mark of a number that no epsilon covers, and the names of metrics, which carry it.

Wherever a person reads a score, its name comes from :func:`shown_name`: tables, plots, the page
and the console.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from benchmarks.record import MetricValue, Record

NOT_PRIVATE = "†"
EXPLANATION = f"{NOT_PRIVATE} evaluation, not private: covered by no ε"
"""For places that a reader may see without the footer."""

FLOOR_TITLE = f"real images{NOT_PRIVATE}"
"""What held-out real images score reads them, whatever the metric reads beside its samples."""

Reading = Literal["nothing", "evaluation", "unstated", "private"]
"""Which real images a metric reads, the most serious last. Older records do not say; until they
do, their scores are marked."""

READ: dict[Reading, str] = {
    "evaluation": "the evaluation split",
    "unstated": "what an older record does not say",
    "private": "private records",
}
"""What is read, in words; nothing where nothing is."""


def reading(scores: Iterable[MetricValue]) -> Reading:
    """The most serious of what the scores of one metric say."""
    order: list[Reading] = ["nothing", "evaluation", "unstated", "private"]
    return max((_reading(score) for score in scores), key=order.index, default="nothing")


def _reading(score: MetricValue) -> Reading:
    return "private" if score.reads_private else score.reads or "unstated"


def shown_name(name: str, read: Reading) -> str:
    """``clip_score``, ``fid†`` or, in words, ``memorisation_closer† (reads private records)``."""
    words = f" (reads {READ[read]})" if read == "private" else ""
    return name if read == "nothing" else f"{name}{NOT_PRIVATE}{words}"


def readings(record: Record) -> dict[str, Reading]:
    """What is behind each score of a cell; the oracle's samples are made of held-out images."""
    found = {name: reading([score]) for name, score in record.metrics.items()}
    if record.row == "oracle":
        return {n: "evaluation" if what == "nothing" else what for n, what in found.items()}
    return found


def score_line(record: Record) -> str:
    """All scores of a cell on one line, which explains its marks itself."""
    scores = [
        f"{shown_name(name, what)} {record.metrics[name].value:.2f}"
        for name, what in readings(record).items()
    ]
    line = ", ".join(scores)
    return f"{line}; {EXPLANATION}" if NOT_PRIVATE in line else line


def read_by(record: Record) -> str:
    """For machines: ``fid reads the evaluation split; memorisation_closer reads ...``."""
    marked = {name: READ[what] for name, what in readings(record).items() if what in READ}
    return "; ".join(f"{name} reads {what}" for name, what in marked.items())
