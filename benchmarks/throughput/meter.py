"""Clocks and memory: wall time of blocks of steps, and the peak of what tensors take.

On a GPU peak memory is the allocator's own number. On a CPU it is the running sum of what
torch's allocator gives and takes back, read from ``torch.profiler``: the same quantity, exact
and repeatable. The resident size of the process would add what the C library keeps of freed
buffers. Scratch memory inside a matrix product or a convolution is in neither.
"""

from __future__ import annotations

import gc
import time
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def now(device: str) -> float:
    """Seconds, after all work on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class PeakMemory:
    """Most bytes of tensors alive at once between start and stop, beyond those before it.

    >>> memory = PeakMemory("cpu"); memory.start(); x = torch.zeros(1000); memory.stop()
    >>> memory.bytes
    4000
    """

    def __init__(self, device: str) -> None:
        self.bytes = 0
        self._device, self._before = device, 0
        self._profile: profile | None = None

    def start(self) -> None:
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.start()

    def stop(self) -> None:
        """Does nothing if it was stopped before."""
        if self._device == "cuda":
            self.bytes = self.bytes or torch.cuda.max_memory_allocated() - self._before
        elif self._profile is not None:
            self._profile.stop()
            self.bytes = _peak(self._profile)
            self._profile = None


def _peak(recorded: profile) -> int:
    assert recorded.profiler is not None
    results: Any = recorded.profiler.kineto_results  # torch types these events in part only
    events = results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return max(accumulate(size for _, size in sorted(changes, key=lambda e: e[0])), default=0)
