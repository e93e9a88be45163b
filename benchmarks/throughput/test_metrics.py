"""Speed of the metrics: feature networks in images per second, and a Frechet distance in seconds.

The networks have their published architectures and random weights: speed does not depend on
values, and nothing is scored. Run without ``--benchmark-only``, it also asserts the share of time
that the harness adds, on the process's own time, which other programs disturb little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks import features
from benchmarks.features import FeatureSpace
from benchmarks.features.clip import Clip, build
from benchmarks.features.inception import Inception
from benchmarks.features.inception_768 import Inception768, Network, for_inference
from benchmarks.metrics.featured import FeatureMetric
from benchmarks.metrics.frechet import Gaussian, Rooted, distance, distance_by_eigenvalues

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COUNT = 512 if DEVICE.type == "cuda" else 16
SIZE = 256


class Traced(nn.Module):
    """The entrance of NVIDIA's TorchScript program that clean-fid uses."""

    def __init__(self) -> None:
        super().__init__()
        inception = torchvision.models.inception_v3(
            weights=None, init_weights=False, aux_logits=False
        )
        inception.fc = nn.Identity()
        self.layers = inception.eval()


def inception(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FeatureSpace:
    program = torch.jit.trace(Traced().layers, torch.zeros(1, 3, 299, 299))
    space = Inception(workers=1)
    space._network = lambda x: program.to(x.device)((x - 128) / 128)  # type: ignore[assignment]
    return space


def inception_768(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FeatureSpace:
    space = Inception768(workers=1)
    space._network = for_inference(Network()).to(DEVICE)
    return space


def clip(monkeypatch: pytest.MonkeyPatch, folder: Path) -> FeatureSpace:
    pytest.importorskip("open_clip", reason="open-clip comes with the extra `paper`")
    space = Clip(workers=1)
    network, space._preprocess, space._tokenize = build("ViT-B-32-quickgelu")
    space._network = network.eval().to(DEVICE)
    return space


Make = Callable[[pytest.MonkeyPatch, Path], FeatureSpace]
SPACES: list[Make] = [inception, inception_768, clip]


@pytest.fixture(params=SPACES, ids=lambda make: make.__name__)
def space(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> FeatureSpace:
    torch.manual_seed(0)
    made: FeatureSpace = request.param(monkeypatch, tmp_path)
    made.device, made.batch = DEVICE, min(made.batch, COUNT)
    monkeypatch.setattr(features, "_opened", {(made.label, str(DEVICE)): made})
    return made


def images(count: int = COUNT) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


class Rows(FeatureMetric):
    """A metric that only collects features: the harness around the network, and no more."""

    def fit(self, features: np.ndarray) -> None:
        del features

    def score(self, rows: np.ndarray) -> float:
        return float(len(rows))


def test_features(benchmark: Any, space: FeatureSpace) -> None:
    """Images per second from uint8 at 256 px to features, resizing on one core included."""
    batch = images()

    def extract() -> None:
        space(batch.clone())  # another tensor, so that nothing is remembered

    benchmark.extra_info["images"] = COUNT
    benchmark.pedantic(extract, rounds=3, warmup_rounds=1)
    benchmark.extra_info["images_per_s"] = COUNT / benchmark.stats["min"]


@pytest.mark.parametrize("way", ["clean_fid", "eigenvalues"])
def test_frechet_distance_of_2048_features(benchmark: Any, way: str) -> None:
    """Seconds from two Gaussians to a distance."""
    draws = np.random.default_rng(0)
    one, other = (Gaussian.of(draws.standard_normal((4096, 2048))) for _ in range(2))
    call = {
        "clean_fid": lambda: distance(one, other),
        "eigenvalues": lambda: distance_by_eigenvalues(one, Rooted.of(other, DEVICE)),
    }[way]
    benchmark.pedantic(call, rounds=1, warmup_rounds=0)


def test_the_harness_adds_less_than_5_percent_to_the_bare_network(
    space: FeatureSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything around the network, without the resizing that the metric's protocol asks for."""
    batch = images()
    prepared = prepare(space, batch)
    # The resized images come ready, so what is left is the network and the harness.
    monkeypatch.setattr(f"{type(space).__module__}.per_image", lambda *_: prepared)
    space.batch = COUNT
    metric = Rows(space)

    def bare() -> None:
        with torch.inference_mode():
            space.extract(batch)

    def harness() -> None:
        metric.update(batch.clone(), ["x"] * COUNT)
        metric.compute()

    share = shortest(bare, harness)
    print(f"\n{space.label}: the harness adds {share:+.2%}")
    assert share < 0.05


def prepare(space: FeatureSpace, batch: Tensor) -> Tensor:
    """What the space's resizer gives to its network."""
    caught: list[Tensor] = []
    module = type(space).__module__
    patch = pytest.MonkeyPatch()
    real = features.per_image

    def catching(*arguments: Any) -> Tensor:
        caught.append(real(*arguments).contiguous())
        return caught[-1]

    patch.setattr(f"{module}.per_image", catching)
    with torch.inference_mode():
        space.extract(batch)
    patch.undo()
    return caught[0]


def shortest(bare: Callable[[], None], harness: Callable[[], None], rounds: int = 5) -> float:
    """By how much the one is longer than the other, from the shortest of interleaved rounds."""
    times: dict[Callable[[], None], list[float]] = {bare: [], harness: []}
    for call in times:
        call()
    for _ in range(rounds):
        for call, taken in times.items():
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter() if DEVICE.type == "cuda" else time.process_time()
            call()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            stop = time.perf_counter() if DEVICE.type == "cuda" else time.process_time()
            taken.append(stop - start)
    return min(times[harness]) / min(times[bare]) - 1
