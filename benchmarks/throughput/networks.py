"""Feature networks beside the harness around them: a metric that collects features, and no more.

Each network has two rows. Images of the size that it sees need no resampling, so what the harness
adds is all that is left beside the bare network. Images of 256 px take the whole way, with the
resampling that the metric's protocol asks for.

Weights that are not on this machine are drawn at random in the same architecture: the time does
not depend on their values, and nothing is scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.features import FeatureSpace, per_image
from benchmarks.features.clip import Clip, build
from benchmarks.features.inception import Inception
from benchmarks.features.inception_768 import Inception768, Network, for_inference
from benchmarks.metrics.featured import FeatureMetric
from benchmarks.registry import Unavailable
from benchmarks.throughput.comparison import Comparison, Sides
from benchmarks.throughput.table import device_here

DEVICE = torch.device(device_here())
COUNT = 512 if DEVICE.type == "cuda" else 16
SIDE = 256
AT_MOST = 1.05
RANDOM = "random weights: the time only"


class Opened(NamedTuple):
    """A feature space taken apart.

    Attributes:
        space: as metrics use it, on one thread.
        sees: from uint8 images to what the network is given.
        network: from there to features.
        note: where its weights come from, if not from the registry.
    """

    space: FeatureSpace
    sees: Callable[[Tensor], Tensor]
    network: Callable[[Tensor], Tensor]
    note: str


def inception() -> Opened:
    """clean-fid's network; at random, torchvision's of the same layers."""
    space: Any = Inception(workers=1)

    def at_random() -> None:
        layers = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
        layers.fc = nn.Identity()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is what clean-fid runs
            program = torch.jit.trace(layers.eval(), torch.zeros(1, 3, 299, 299)).to(DEVICE)
        space._network = lambda x: program((x - 128) / 128)  # as clean-fid's wrapper does

    note = load(space, at_random)
    sees = partial(resized, space)
    return Opened(space, lambda x: sees(x).contiguous(), space._network, note)


def inception_768() -> Opened:
    """The network up to ``Mixed_6e``."""
    space: Any = Inception768(workers=1)

    def at_random() -> None:
        space._network = for_inference(Network()).to(DEVICE)

    note = load(space, at_random)
    return Opened(space, lambda x: (resized(space, x) - 128) / 128, space._network, note)


def clip() -> Opened:
    """CLIP's image tower."""
    space: Any = Clip(workers=1)

    def at_random() -> None:
        network, space._preprocess, space._tokenize = build("ViT-B-32-quickgelu")
        space._network = network.eval().to(DEVICE)

    note = load(space, at_random)

    def sees(images: Tensor) -> Tensor:
        return per_image(space._prepare, images, 1).contiguous().to(DEVICE)

    return Opened(space, sees, space._network.encode_image, note)


NETWORKS: dict[str, tuple[Callable[[], Opened], int]] = {
    "Inception-V3 (2048)": (inception, 299),
    "Inception-V3 up to Mixed_6e (768)": (inception_768, 299),
    "CLIP ViT-B/32": (clip, 224),
}
"""By name: what opens a network, and the side of the images that it sees."""


def load(space: FeatureSpace, at_random: Callable[[], None]) -> str:
    """Give a space its weights, or random ones; the note that says which."""
    space.device = DEVICE
    try:
        space.load(DEVICE)
    except Unavailable:
        torch.manual_seed(0)
        at_random()
        return RANDOM
    return ""


def resized(space: Any, images: Tensor) -> Tensor:
    """As the spaces of Inception hand images to their networks."""
    return per_image(space._resize, images, 1).to(DEVICE)


def planned() -> list[Comparison]:
    """Two rows per network."""
    rows = []
    for name, (opened, side) in NETWORKS.items():
        ready = Comparison(
            "features", f"{name}, no resampling", COUNT, partial(sides, opened, side), AT_MOST
        )
        whole = Comparison(
            "features", f"{name}, from {SIDE} px", COUNT, partial(sides, opened, SIDE)
        )
        rows += [ready, whole]
    return rows


class Rows(FeatureMetric):
    """A metric that only collects features: the harness around the network, and no more."""

    def fit(self, features: np.ndarray) -> None:
        """Nothing."""
        del features

    def score(self, rows: np.ndarray) -> float:
        """How many there are."""
        return float(len(rows))


def sides(opened: Callable[[], Opened], side: int, folder: Path) -> Sides:
    """A metric on images of this side, and the network alone on what it is given of them."""
    del folder
    space, sees, network, note = opened()
    images, metric = noise(side), Rows(space)
    parts = [sees(part) for part in images.split(space.batch)]

    def harness() -> None:
        metric.update(images.clone(), [""] * COUNT)  # a new tensor: nothing is remembered
        metric.compute()

    def bare() -> None:
        with torch.inference_mode():
            for part in parts:
                network(part)

    return Sides(harness, bare, note)


def noise(side: int) -> Tensor:
    """uint8 ``[COUNT, 3, side, side]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (COUNT, 3, side, side), dtype=torch.uint8, generator=generator)
