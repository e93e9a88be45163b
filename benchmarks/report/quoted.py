"""Rows quoted from papers: shown apart from what was measured, each with its source.

``quoted.csv`` beside this file is all of them. Its ``datasets`` are names in ``configs/dataset``;
``table`` is where the source has the number, or ``unstated`` where it came to us second-hand.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.record import Record
from benchmarks.report.facts import label

FILE = Path(__file__).with_name("quoted.csv")
COLUMNS = ("method", "ε", "metric", "value", "source")
WARNING = (
    "Quoted from papers, not measured here. Each number has the protocol of its own paper: it is "
    "comparable with no measured row and with no other quoted one."
)


@dataclass(frozen=True)
class Quoted:
    """One number that somebody else reports, as texts under :data:`COLUMNS`."""

    method: str
    epsilon: str
    metric: str
    value: str
    source: str

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of :data:`COLUMNS`."""
        return astuple(self)


def quoted(records: Sequence[Record], dataset: str) -> list[Quoted]:
    """What papers report of a dataset, if all its records have the size that the papers used."""
    sizes = {record.resolution for record in records if record.dataset == dataset}
    return [
        Quoted(
            method=row["method"],
            epsilon=row["epsilon"],
            metric=row["metric"],
            value=f"{row['value']} (quoted)",
            source=f"{row['source']}, table: {row['table']}",
        )
        for row in rows()
        if dataset in row["datasets"].split() and sizes == {int(row["resolution"])}
    ]


def rows() -> list[dict[str, str]]:
    """The rows of :data:`FILE`."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def title(dataset: str) -> str:
    """The heading above quoted rows."""
    return f"{label(dataset)}, quoted"
