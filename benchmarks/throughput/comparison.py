"""Work of the harness beside the same work done bare, in the same run.

Both sides take turns, so that they see the same state of a shared machine. The ratio of each
turn is one sample; a row has the medians, and the quartiles of the ratio. On a CPU the clock is
the processor's, of all threads together: other programs do not count, and images per second are
per core. On a GPU it is the wall's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch

from benchmarks.throughput.meter import PeakMemory, now

WARM_UP = 2
"""Runs of each side before the clock starts: TorchScript optimises a program in the second."""


@dataclass(frozen=True)
class Sides:
    """Both ways of doing it, ready to run.

    Attributes:
        harness: as the harness does it.
        bare: the least that could be done instead; None where only the time itself is asked for.
        note: what must be said beside the figure.
        peak: whether the memory of the first is asked for.
    """

    harness: Callable[[], object]
    bare: Callable[[], object] | None = None
    note: str = ""
    peak: bool = False


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
        work: what is done, such as ``prepare``, ``score`` or ``sample``.
        case: of what.
        samples: images, or rows of features, that one turn takes.
        make: both sides, given an empty folder.
        at_most: what the ratio of the times must not exceed; None where nothing is promised.
        turns: how often each side runs.
    """

    work: str
    case: str
    samples: int
    make: Callable[[Path], Sides]
    at_most: float | None = None
    turns: int = 9


@dataclass(frozen=True)
class Compared:
    """Seconds of a turn, their ratio (harness over bare) and its quartiles.

    All of these but ``seconds`` are None without a bare side. ``peak``: most bytes of tensors alive
    at once, beyond those before, of the harness; None where it was not asked for.
    """

    seconds: float
    bare_seconds: float | None
    ratio: float | None
    low: float | None
    high: float | None
    note: str
    peak: int | None = None


def compare(comparison: Comparison, folder: Path, device: str) -> Compared:
    """Measure one row.

    Raises:
        UserError, ImportError, RuntimeError: it cannot be run here.
    """
    sides = comparison.make(folder)
    works = [sides.harness] if sides.bare is None else [sides.harness, sides.bare]
    for _ in range(WARM_UP):
        for work in works:
            work()
    peak = _peak(sides.harness, device) if sides.peak else None
    turns = [[_seconds(work, device) for work in works] for _ in range(comparison.turns)]
    own, *others = (median(column) for column in zip(*turns, strict=True))
    if not others:
        return Compared(own, None, None, None, None, sides.note, peak)
    ratios = [harness / bare for harness, bare in turns]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Compared(own, others[0], median(ratios), low, high, sides.note, peak)


def on_cpu(limit: float) -> float | None:
    """A limit that is promised where there is no GPU."""
    return None if torch.cuda.is_available() else limit


def clock(device: str) -> float:
    """Seconds: of the processor on a CPU, of the wall on a GPU."""
    return time.process_time() if device == "cpu" else now(device)


def _seconds(work: Callable[[], object], device: str) -> float:
    start = clock(device)
    work()
    return clock(device) - start


def _peak(work: Callable[[], object], device: str) -> int:
    memory = PeakMemory(device)
    memory.start()
    work()
    memory.stop()
    return memory.bytes
