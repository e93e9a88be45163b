"""What a grid takes on a GPU, for a dry run on any machine.

By the speeds of ``results/throughput/methods-<gpu>.csv`` where they were measured. Where they were
not, by counted operations (``results/throughput/work.csv``) and an assumption that is printed with
the result: it is no measurement, and says so.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig

from benchmarks.config import Cell, compose
from benchmarks.throughput.counts import Work
from benchmarks.throughput.table import MEASURED, RESULTS
from wavedp.dp.plan import Plan

PEAK = {"bf16": 989e12, None: 67e12}
"""Operations a second of one H100 SXM, dense, by ``hardware.amp`` (NVIDIA's data sheet)."""
UTILISATION = 0.3
PASSES = 3
"""Forward passes that a step takes for a record and a view: its own, and twice that backwards."""
BYTES = 4
STATES = 4
"""Of every trained number: the clipped sum, what is released of it, and AdamW's two."""


class Speed(Protocol):
    """How fast methods are on some GPU.

    Attributes:
        told: where the numbers come from, in sentences.
    """

    told: str

    def record(self, cell: Cell) -> float | None:
        """Seconds of finetuning on one record; None where it is not known."""

    def image(self, cell: Cell) -> float | None:
        """Seconds of drawing one image."""


class Measured:
    """By the table of a GPU.

    Args:
        path: ``results/throughput/methods-<gpu>.csv``.
    """

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["status"] == MEASURED]
        self._rates = {(row["work"], row["case"]): float(row["samples_per_s"]) for row in rows}
        self.measured = bool(self._rates)
        name = path.stem.removeprefix("methods-")
        self.told = f"Measured on {name}: results/throughput/{path.name}."

    def record(self, cell: Cell) -> float | None:
        """See :class:`Speed`."""
        return self._seconds("finetune", cell)

    def image(self, cell: Cell) -> float | None:
        """See :class:`Speed`."""
        return self._seconds("sample", cell)

    def _seconds(self, work: str, cell: Cell) -> float | None:
        name, pixels = cell.choice.rpartition("/")[2], cell.config.dataset.resolution
        rate = self._rates.get((work, f"{name}, {pixels} px"))
        return 1 / rate if rate else None


class Assumed:
    """By counted operations, at a share of what an H100 could do.

    Args:
        works: by method as an override names it.
    """

    told = (
        "Computed, not measured: results/throughput has no table of a GPU. Operations are counted "
        f"(work.csv there); assumed are {UTILISATION:.0%} of what an H100 can do at most, "
        f"{PEAK['bf16'] / 1e12:.0f} TFLOP/s in bfloat16 (hardware=gpu, finetuning) and "
        f"{PEAK[None] / 1e12:.0f} in float32 (drawing), and {PASSES} forward passes for a record "
        "of DP-SGD."
    )

    def __init__(self, works: Mapping[str, Work]) -> None:
        self._works = works

    def record(self, cell: Cell) -> float | None:
        """See :class:`Speed`."""
        work = self._works.get(cell.choice)
        if work is None:
            return None
        passes = PASSES * cell.method.finetuning.get("views", 1)
        return passes * work.record / (UTILISATION * PEAK.get(cell.config.hardware.amp, PEAK[None]))

    def image(self, cell: Cell) -> float | None:
        """See :class:`Speed`."""
        work = self._works.get(cell.choice)
        return work.image / (UTILISATION * PEAK[None]) if work else None


def speed(works: Mapping[str, Work], folder: Path = RESULTS) -> Speed:
    """What is known of the speed of GPUs: a table with measured rows, or the assumption."""
    paths = (path for path in sorted(folder.glob("methods-*.csv")) if "cpu" not in path.stem)
    tables = map(Measured, paths)
    return next((table for table in tables if table.measured), Assumed(works))


def as_configured(cell: Cell) -> bool:
    """Whether a cell's networks have the sizes of its method's config, which were measured."""
    usual = compose([f"method={cell.choice}"]).method.generator
    return _sizes(usual) == _sizes(cell.config.method.generator)


def _sizes(settings: DictConfig) -> dict[str, int | bool]:
    """Whole numbers at any depth, but for how many images are drawn at once; whether guided."""
    found: dict[str, int | bool] = {}
    for key, value in settings.items():
        if isinstance(value, DictConfig):
            found |= {f"{key}.{place}": size for place, size in _sizes(value).items()}
        elif key == "guidance":
            found[str(key)] = value != 1
        elif isinstance(value, int) and key != "batch":
            found[str(key)] = value
    return found


@dataclass(frozen=True)
class Share:
    """One method's part of a grid.

    Attributes:
        choice: the method as an override names it.
        training, drawing: hours on one GPU.
        memory: GiB of weights, sums and optimizer, without activations; None where it is not known.
    """

    choice: str
    training: float
    drawing: float
    memory: float | None


def shares(
    cells: Sequence[tuple[Cell, Plan | None, int, int]], known: Speed, works: Mapping[str, Work]
) -> Iterator[Share]:
    """The parts of all methods whose speed is known, in order.

    Args:
        cells: each with its plan, the images that it draws, and how many times it is run.
    """
    choices = dict.fromkeys(cell.choice for cell, *_ in cells)
    for choice in choices:
        training = drawing = 0.0
        mine = [entry for entry in cells if entry[0].choice == choice]
        record, image = known.record(mine[0][0]), known.image(mine[0][0])
        if record is None or image is None:
            continue
        for _, plan, images, times in mine:
            training += times * record * plan.steps * plan.expected_batch if plan else 0.0
            drawing += times * image * images
        memory = _memory(works[choice]) if choice in works else None
        yield Share(choice, training / 3600, drawing / 3600, memory)


def _memory(work: Work) -> float:
    return BYTES * (work.parameters + STATES * work.trained) / 2**30
