"""The peak memory that a record tells."""

import torch

from benchmarks.hardware import PeakMemory


def test_peak_memory_is_none_on_a_cpu():
    """The process holds what earlier cells and the metrics have left in it."""
    with PeakMemory(torch.device("cpu")) as peak:
        pass
    assert peak.megabytes is None


def test_peak_memory_of_a_gpu_is_the_allocators_less_what_was_there(monkeypatch):
    held, peaks = [100 * 2**20], [900 * 2**20]
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held[-1])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: peaks.append(held[-1])
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[-1])
    with PeakMemory(torch.device("cuda")) as peak:
        assert peaks[-1] == held[-1]  # what an earlier cell needed is forgotten
        peaks.append(350 * 2**20)
    peaks.append(800 * 2**20)  # scoring comes later
    assert peak.megabytes == 250
