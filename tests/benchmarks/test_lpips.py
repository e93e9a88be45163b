"""LPIPS, with a random trunk, against torchmetrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from metric_tools import CPU, captions_of, tensor

from benchmarks.metrics.lpips import LPIPS, build, load_trunk
from wavedp.data.schema import Records


def test_lpips_agrees_with_torchmetrics_to_1e_5(random_weights: Path, faces: Records) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS

    state = torch.load(random_weights / "alexnet-owt-7be5be79.pth", weights_only=True)
    other: Any = _LPIPS(pretrained=True, net="alex", pnet_rand=True, eval_mode=True)
    load_trunk(other, state)
    metric = LPIPS()
    metric.open(CPU)
    images, real = tensor(faces)[:8], tensor(faces)[8:16]
    metric.update(images, captions_of(faces)[:8], real)
    sides = [
        torch.nn.functional.interpolate(x.float() / 127.5 - 1, 64, mode="bilinear")
        for x in (images, real)
    ]
    with torch.no_grad():
        expected = other(*sides).mean().item()
    assert expected > 1e-3
    assert metric.compute() == pytest.approx(expected, rel=1e-5)


def test_lpips_keeps_the_packages_linear_layers_and_refuses_another_trunk() -> None:
    network = build()
    assert all((layer.model[-1].weight >= 0).all() for layer in network.lins)  # as published
    with pytest.raises(KeyError):
        load_trunk(network, {"features.0.weight": torch.zeros(1)})
