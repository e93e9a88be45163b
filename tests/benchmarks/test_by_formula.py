"""Whole metrics, from pixels to the number, by the formulas of their papers in numpy and scipy.

What they share with the harness is the file of weights and, for CLIP, the network that reads it.
"""

from __future__ import annotations

from pathlib import Path

import fake_weights
import numpy as np
import pytest
import pywt
import torch
from cleanfid.resize import make_resizer
from metric_tools import captions_of, metric_of, prepared, tensor
from PIL import Image
from safetensors.torch import load_file
from scipy import linalg
from scipy.spatial.distance import cdist

from benchmarks.config import choices, load_choice, make
from benchmarks.features import inception_768
from benchmarks.features.inception_768 import ConvBN, for_inference, pool
from benchmarks.features.pixels import Pixels
from benchmarks.metrics import Metric
from benchmarks.metrics.fid import FID
from benchmarks.metrics.frechet import FrechetMetric
from benchmarks.metrics.memorisation import Memorisation
from benchmarks.metrics.prdc import PRDC
from benchmarks.metrics.spectral import Spectral
from wavedp.data.schema import Records


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Heusel et al. 2017 for rows ``[n, d]``, without the root of a matrix.

    With covariances A'A and B'B (A and B the centred rows over the root of n - 1) the eigenvalues
    of their product are the squared singular values of AB': the trace of its root is their sum.
    """
    one, other = one.astype(float), other.astype(float)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (one, other))
    roots = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    means = np.square(one.mean(0) - other.mean(0)).sum()
    return float(means + np.square(a).sum() + np.square(b).sum() - 2 * roots)


def frechet_by_root(one: np.ndarray, other: np.ndarray) -> float:
    """The same as the paper writes it, for more rows than features."""
    one, other = one.astype(float), other.astype(float)
    s, t = np.cov(one.T), np.cov(other.T)
    root = linalg.sqrtm(s @ t).real
    return float(np.square(one.mean(0) - other.mean(0)).sum() + np.trace(s + t - 2 * root))


def computed(metric: Metric, samples: Records) -> float | dict[str, float]:
    metric.update(tensor(samples), captions_of(samples))
    return metric.compute()


def of_faces(metric: Metric, faces: Records) -> float | dict[str, float]:
    """Of the first 80 faces against the other 120."""
    return computed(prepared(metric, faces.slice(80, 200), faces.slice(0, 2)), faces.slice(0, 80))


def test_the_two_ways_of_this_file_agree() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.standard_normal((50, 6)), draws.standard_normal((60, 6)) + 1
    assert frechet(one, other) == pytest.approx(frechet_by_root(one, other), rel=1e-10)


# Frechet distances --------------------------------------------------------------------------

FRECHET = [
    name
    for name in choices("metric")
    if isinstance(metric := make(load_choice("metric", name)), FrechetMetric)
    and not isinstance(metric, FID)  # below, as it takes clean-fid long
]


@pytest.mark.parametrize("name", FRECHET)
def test_every_frechet_metric_is_the_formula_on_its_features(
    name: str, random_weights: Path, faces: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5 of the variance of the features."""
    small = make_resizer("PIL", False, "bicubic", (107, 107))  # enough for a random network
    monkeypatch.setattr(inception_768, "build_resizer", lambda mode: small)
    metric = metric_of(name)
    assert isinstance(metric, FrechetMetric)
    samples, reference = faces.slice(0, 30), faces.slice(30, 70)
    found = computed(prepared(metric, reference, reference), samples)
    sides = [metric.space(tensor(part)) for part in (samples, reference)]
    scale = 100 if name == "fd_toy" else 1
    variance = scale * float(sides[1].var(0).sum())
    assert found == pytest.approx(scale * frechet(*sides), rel=1e-5, abs=1e-5 * variance)
    assert float(found) > 0.01 * variance  # type: ignore[arg-type]


def test_fd_clip_by_open_clip_and_scipy(random_weights: Path, faces: Records) -> None:
    """Image by image, not normalised, to 1e-4."""
    import open_clip

    network, _, preprocess = open_clip.create_model_and_transforms(fake_weights.CLIP)
    network.load_state_dict(load_file(random_weights / "clip_vit_b_32_openai.safetensors"))
    rows = []
    with torch.no_grad():
        for image in faces.images:
            picture = preprocess(Image.fromarray(np.array(image).transpose(1, 2, 0)))
            rows.append(network.eval().encode_image(picture[None])[0].numpy())
    features = np.stack(rows)
    assert features.shape == (200, 32)
    expected = frechet_by_root(features[:80], features[80:])
    assert of_faces(metric_of("fd_clip"), faces) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_fid_by_pillow_and_numpy(random_weights: Path, faces: Records) -> None:
    """Every channel resized as floats, the program of the weights file alone, to 1e-4."""
    program = torch.jit.load(random_weights / "inception-2015-12-05.pt").eval()

    def features(images: np.ndarray) -> np.ndarray:
        rows = []
        for image in images:
            channels = [
                np.asarray(Image.fromarray(c.astype(np.float32)).resize((299, 299), Image.BICUBIC))
                for c in image
            ]
            x = (torch.from_numpy(np.stack(channels)).clamp(0, 255) - 128) / 128
            with torch.no_grad():
                rows.append(program.layers(x[None])[0].numpy())
        return np.stack(rows)

    samples, reference = faces.slice(0, 30), faces.slice(30, 70)
    found = computed(prepared(metric_of("fid"), reference, reference), samples)
    expected = frechet(features(samples.images), features(reference.images))
    assert found == pytest.approx(expected, rel=1e-4)


# Spectral -----------------------------------------------------------------------------------


def cells(images: np.ndarray) -> dict[str, np.ndarray]:
    """By band: signed means (ll) or root mean squares in a grid of 4 x 4, ``[n, cells]``."""
    ll, *details = pywt.wavedec2(images.astype(float), "haar", level=3, axes=(2, 3))

    def grid(band: np.ndarray) -> np.ndarray:
        n, channels, side, _ = band.shape
        return band.reshape(n, channels, 4, side // 4, 4, side // 4).mean((3, 5)).reshape(n, -1)

    found = {"ll": grid(ll)}
    for name, bands in zip(("d3", "d2", "d1"), details, strict=True):
        found[name] = np.concatenate([np.sqrt(grid(np.square(band))) for band in bands], axis=1)
    return found


def test_spectral_distances_by_pywavelets_and_numpy(faces: Records) -> None:
    """Over the variance of the reference and that of rounding to a grey level, to 1e-4."""
    found = of_faces(Spectral(), faces)
    assert isinstance(found, dict)
    samples, reference = (cells(faces.images[part]) for part in (slice(80), slice(80, None)))
    for band, real in reference.items():
        variance = np.trace(np.cov(real.T)) + 1 / 12
        expected = frechet(samples[band], real) / variance
        assert found[f"fd_{band}"] == pytest.approx(expected, rel=1e-4), band
        assert expected > 1e-3


# Distances between images -------------------------------------------------------------------


def as_pixels(images: np.ndarray) -> np.ndarray:
    """In 0..1, so scaled that a distance is a root mean square."""
    flat = images.reshape(len(images), -1) / 255
    return flat / np.sqrt(flat.shape[1])


def test_memorisation_by_scipys_distances(faces: Records) -> None:
    """Mean distance to the nearest private record, and how many are nearer than 5 % of others."""
    private, unseen, samples = faces.slice(0, 90), faces.slice(90, 150), faces.slice(150, 200)
    found = computed(prepared(Memorisation(Pixels()), unseen, private), samples)
    near = {
        name: cdist(as_pixels(part.images), as_pixels(private.images)).min(1)
        for name, part in (("unseen", unseen), ("samples", samples))
    }
    closer = (near["samples"] < np.quantile(near["unseen"], 0.05)).mean()
    assert found == pytest.approx({"distance": near["samples"].mean(), "closer": closer}, rel=1e-5)


def test_prdc_by_scipys_distances(faces: Records) -> None:
    """Naeem et al. 2020 with k = 5, from the matrices of all distances."""
    found = of_faces(PRDC(Pixels()), faces)
    fake, real = as_pixels(faces.images[:80]), as_pixels(faces.images[80:])
    across = cdist(real, fake)
    real_balls, fake_balls = (np.sort(cdist(x, x), axis=1)[:, 5] for x in (real, fake))
    held = across < real_balls[:, None]
    assert found == pytest.approx(
        {
            "precision": held.any(0).mean(),
            "recall": (across < fake_balls).any(1).mean(),
            "density": held.sum(0).mean() / 5,
            "coverage": held.any(1).mean(),
        }
    )


# The Inception of 768 features, worked by hand --------------------------------------------------


def convolution(size: int | tuple[int, int], stride: int = 1) -> ConvBN:
    """All weights 1 and no norm to speak of."""
    layer = ConvBN(1, 1, size, stride).eval().requires_grad_(False)
    layer.conv.weight.fill_(1)
    layer.bn.running_var.fill_(1 - 1e-3)  # eps completes it
    return layer


def test_one_convolution_by_hand() -> None:
    """0 to 24 in 5 x 5, windows of 3 x 3 at every second place, no padding: sums 54 72 144 162.

    Normalised with mean 72, variance 81, weight 2 and bias 1: -3 1 17 21, and no number below 0.
    """
    layer = convolution(3, stride=2)
    layer.bn.running_mean.fill_(72)
    layer.bn.running_var.fill_(81 - 1e-3)
    layer.bn.weight.fill_(2)
    layer.bn.bias.fill_(1)
    x = torch.arange(25.0).view(1, 1, 5, 5)
    expected = torch.tensor([[[[0.0, 1.0], [17.0, 21.0]]]])
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-4)
    quick = for_inference(torch.nn.Sequential(layer))  # type: ignore[arg-type]
    torch.testing.assert_close(quick(x), expected, rtol=0, atol=1e-4)


def test_convolutions_of_one_row_or_column_keep_the_size() -> None:
    """1 2 3: with a neighbour on each side 3 6 5, along the axis of the kernel only."""
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    expected = torch.tensor([[[[3.0, 6.0, 5.0]]]])
    torch.testing.assert_close(convolution((1, 3))(row), expected)
    torch.testing.assert_close(convolution((3, 1))(row.mT), expected.mT)
    torch.testing.assert_close(convolution((3, 1))(row), row)


def test_pools_do_not_count_the_padding() -> None:
    """1 to 9 in 3 x 3: the corner is the mean of 1 2 4 5, the edge that of 1 to 6."""
    pooled = pool(torch.arange(1.0, 10).view(1, 1, 3, 3))
    expected = torch.tensor([[[[3.0, 3.5, 4.0], [4.5, 5.0, 5.5], [6.0, 6.5, 7.0]]]])
    torch.testing.assert_close(pooled, expected)
