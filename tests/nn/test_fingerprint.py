"""A fingerprint changes with any weight and with nothing else."""

from __future__ import annotations

import torch
from torch import nn

from wavedp.nn.fingerprint import fingerprint


def test_equal_weights_have_equal_fingerprints() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second.eval().requires_grad_(False))
    with torch.no_grad():
        second.weight[1, 2] += 1e-3
    assert fingerprint(first) != fingerprint(second)


def test_buffers_count() -> None:
    layer = nn.BatchNorm1d(2)
    before = fingerprint(layer)
    layer.running_mean += 1
    assert fingerprint(layer) != before
