"""``results/throughput/work.csv``: what the methods of the paper compute, counted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.table import RESULTS

TABLE = RESULTS / "work.csv"
COLUMNS = ("method", "parameters_m", "trained_m", "record_gflop", "image_gflop")


@dataclass(frozen=True)
class Work:
    """Attributes:
    parameters: of all networks that a cell keeps on the device, Flan-T5 among them.
    trained: of them, those that finetuning trains.
    record: operations of one forward pass of the loss for one record.
    image: operations of drawing one image.
    """

    parameters: float
    trained: float
    record: float
    image: float


def read(path: Path = TABLE) -> Mapping[str, Work]:
    """The committed counts, by method as an override names it."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["method"]: Work(
                *(float(row[name]) * 1e6 for name in COLUMNS[1:3]),
                *(float(row[name]) * 1e9 for name in COLUMNS[3:]),
            )
            for row in csv.DictReader(file)
        }
