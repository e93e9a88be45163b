"""One row of the table: a private side against the ordinary one, in the same run.

After a few steps of warm-up, blocks of private and of ordinary steps take turns, so that both
see the same state of a shared machine. The ratio of each pair of neighbours is one sample; the
row has their median and quartiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import median, quantiles

import torch

from benchmarks.throughput import sides
from benchmarks.throughput.cases import Case
from benchmarks.throughput.meter import PeakMemory, now

WARM_UP = 3
"""Steps before the clock starts: compiling, the core's self-check, the optimizer's state."""


@dataclass(frozen=True)
class Effort:
    """How long a row is measured.

    Attributes:
        pairs: of blocks, at most.
        least: of pairs, whatever the seconds.
        seconds: after which no further pair is started.
        steps: of a block.
    """

    pairs: int
    least: int
    seconds: float
    steps: int = 1


@dataclass(frozen=True)
class Measured:
    """Ratios of private to ordinary; ``low`` and ``high`` are quartiles of the time's."""

    time_ratio: float
    low: float
    high: float
    memory_ratio: float
    examples_per_s: float


@dataclass
class Baseline:
    """The ordinary side of a case, warm, and the peak of its memory."""

    ordinary: sides.Ordinary
    peak: int


@lru_cache(maxsize=1)
def baseline(case: Case) -> Baseline:
    """The one of the last case is kept: all engines are held against the same."""
    if case.compiled:
        torch.compiler.reset()  # it refuses to specialise one function for too many models
    memory = PeakMemory(case.device)
    memory.start()
    ordinary = sides.Ordinary(case)
    for _ in range(WARM_UP):
        ordinary.step()
    memory.stop()
    return Baseline(ordinary, memory.bytes)


class Turns:
    """A progress function that lets private steps through and takes ordinary ones between."""

    def __init__(self, case: Case, base: Baseline, memory: PeakMemory, effort: Effort) -> None:
        self._case, self._base, self._memory, self._effort = case, base, memory, effort
        self.pairs: list[tuple[float, float]] = []
        """Seconds of a block: private, ordinary."""

    def __call__(self, steps: Iterable[int], label: str) -> Iterator[int]:
        del label
        left = iter(steps)
        for _ in range(WARM_UP):
            yield next(left)
        self._memory.stop()
        self._base.ordinary.step()
        begun = now(self._case.device)
        while self._goes_on(begun):
            start = now(self._case.device)
            for _ in range(self._effort.steps):
                yield next(left)
            middle = now(self._case.device)
            for _ in range(self._effort.steps):
                self._base.ordinary.step()
            self.pairs.append((middle - start, now(self._case.device) - middle))

    def _goes_on(self, begun: float) -> bool:
        if len(self.pairs) < self._effort.least:
            return True
        spent = now(self._case.device) - begun
        return len(self.pairs) < self._effort.pairs and spent < self._effort.seconds


def measure(case: Case, engine: str, effort: Effort) -> Measured:
    """Measure one row.

    Raises:
        UserError, ImportError, RuntimeError: the side cannot be run here.
    """
    base = baseline(case)
    memory = PeakMemory(case.device)
    memory.start()
    turns = Turns(case, base, memory, effort)
    try:
        sides.train(case, engine, turns)
    finally:
        memory.stop()
    ratios = [private / ordinary for private, ordinary in turns.pairs]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    seconds = median(private for private, _ in turns.pairs) / effort.steps
    return Measured(
        time_ratio=median(ratios),
        low=low,
        high=high,
        memory_ratio=memory.bytes / base.peak,
        examples_per_s=case.batch / seconds,
    )
