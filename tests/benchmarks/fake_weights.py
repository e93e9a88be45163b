"""Networks with random weights under the registry's names, so that the ways through them run.

They live in a test's folder, and no configuration can name them: nothing they score can become
a result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import features, registry
from benchmarks.digest import sha256
from benchmarks.features.inception_768 import Network

CLIP = "wavedp-tiny-test"
CLIP_CONFIG = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


class TinyLayers(nn.Module):
    """In the place of the Inception's layers: 299 px to 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 7, stride=6)
        self.last = nn.Conv2d(8, 2048, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x))).mean((2, 3))


class TinyInception(nn.Module):
    """The two entrances that clean-fid uses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = TinyLayers()

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        x = torch.nn.functional.interpolate(
            img.float(), size=[299, 299], mode="bilinear", align_corners=False
        )
        return self.layers((x - 128) / 128)


def write(folder: Path) -> None:
    """All published weights of the metrics, random and small where that can be."""
    torch.manual_seed(0)
    torch.jit.script(TinyInception().eval()).save(folder / "inception-2015-12-05.pt")
    network = calibrated(Network())
    state = {k: v.half() for k, v in network.state_dict().items() if "num_batches" not in k}
    save_file(state, folder / "inception_fid_768_fp16.safetensors")
    trunk = torchvision.models.alexnet(weights=None).state_dict()
    torch.save(
        {k: v for k, v in trunk.items() if k.startswith("features")},
        folder / "alexnet-owt-7be5be79.pth",
    )
    save_file(tiny_clip(folder).state_dict(), folder / "clip_vit_b_32_openai.safetensors")


def calibrated(network: nn.Module) -> nn.Module:
    """Weights that keep random features from vanishing on the way (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    return network


def tiny_clip(folder: Path) -> Any:
    """A small random CLIP that open-clip knows by the name ``CLIP``."""
    open_clip = pytest.importorskip("open_clip", reason="open-clip comes with the extra `paper`")
    (folder / f"{CLIP}.json").write_text(json.dumps(CLIP_CONFIG))
    open_clip.add_model_config(folder / f"{CLIP}.json")
    return open_clip.create_model(CLIP)


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry find the random weights, and know them by their own digests."""
    entries = {
        name: entry.model_copy(update={"sha256": sha256(folder / entry.file)})
        if (folder / entry.file).exists()
        else entry
        for name, entry in registry.entries().items()
    }
    monkeypatch.setattr(registry, "entries", lambda: entries)
    monkeypatch.setattr(features, "_opened", {})
    monkeypatch.setenv("WAVEDP_WEIGHTS", str(folder))
