"""Metrics on real photographs with real weights, where both are beside the checkout.

``../shared/real`` holds them on the machines where the project is made; elsewhere these tests
skip. No figure of theirs is a result: they show that the ways run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.config import load_choice, make
from benchmarks.features.inception_768 import Inception768
from benchmarks.metrics import Metric, named
from wavedp.data.schema import Records
from wavedp.dp.private import PrivateRecords

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def real_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (REAL / "weights").is_dir():
        pytest.skip("real weights ../shared/real/weights are not on this machine")
    monkeypatch.setenv("WAVEDP_WEIGHTS", str(REAL / "weights"))


def folder(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"real photographs ../shared/real/{name} are not on this machine")
    return REAL / name


def squares(paths: list[Path], size: int) -> np.ndarray:
    """Centre crop and Lanczos, uint8 ``[n, 3, size, size]``."""
    found = []
    for path in paths:
        with Image.open(path) as file:
            image = file.convert("RGB")
        side = min(image.size)
        left, top = ((edge - side) // 2 for edge in image.size)
        crop = image.crop((left, top, left + side, top + side))
        found.append(np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(found).transpose(0, 3, 1, 2)


def faces(count: int) -> tuple[np.ndarray, np.ndarray]:
    """As many faces with the lowest ids, and with the highest."""
    images = folder("mmcelebahq64") / "image" / "images"
    paths = sorted(images.glob("*.jpg"), key=lambda path: int(path.stem))
    return squares(paths[:count], 64), squares(paths[-count:], 64)


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Both halves of COCO-mini."""
    paths = sorted((folder("coco_mini") / "val2017").glob("*.jpg"))
    images = squares(paths, 128)
    return images[: len(paths) // 2], images[len(paths) // 2 :]


def records(images: np.ndarray) -> Records:
    return Records(images, [("a photograph",)] * len(images), "real")


def score(name: str, reference: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """Also against private records, which then are the reference."""
    metric: Metric = make(load_choice("metric", name))
    metric.open(CPU)
    if metric.reads == "private":
        half = len(samples) // 2
        metric.prepare(records(samples[half:]))
        columns = {"images": reference, "captions": ["x"] * len(reference)}
        metric.prepare_private(PrivateRecords(columns, name="real", records=len(reference)))
        samples = samples[:half]
    else:
        metric.prepare(records(reference))
    for part in torch.from_numpy(samples).split(200):
        metric.update(part, ["a photograph"] * len(part))
    return named(name, metric.compute())


def test_the_768_features_of_real_weights_are_what_they_should_be() -> None:
    """ReLU features, none dead over a few photographs alone, the same at half the batch."""
    images = torch.from_numpy(photographs()[0][:6])
    space = Inception768()
    space.load(CPU)
    found = space(images)
    assert found.shape == (6, 768)
    assert (found >= 0).all()
    assert (found.max(0) > 0).mean() > 0.9
    parts = np.concatenate([space(part) for part in images.split(3)])
    np.testing.assert_allclose(parts, found, rtol=1e-4, atol=1e-5)


def test_network_free_metrics_on_2000_faces_against_2000_others() -> None:
    train, test = faces(2000)
    spectral = score("spectral", train, test)
    assert all(abs(spectral[f"spectral_energy_{band}"]) < 0.5 for band in ("ll", "d3", "d2", "d1"))
    assert all(spectral[f"spectral_fd_{band}"] < 0.05 for band in ("ll", "d3", "d2", "d1"))
    strangers = score("memorisation", train, test)
    assert 0.02 < strangers["memorisation_closer"] < 0.1  # 0.05 by its making
    copies = score("memorisation", train, np.concatenate([train[:500], test[:500]]))
    assert copies == {"memorisation_distance": 0.0, "memorisation_closer": 1.0}


@pytest.mark.slow
def test_metrics_of_768_features_on_faces() -> None:
    """Other faces are near, blurred ones are not; copies are found."""
    train, test = faces(200)
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(test).float(), 4)
    blurred = torch.nn.functional.interpolate(small, 64, mode="bilinear")
    others, blur = (
        score("fid_768", train, images)["fid_768"]
        for images in (test, blurred.round().to(torch.uint8).numpy())
    )
    assert 0 < others < blur / 2
    recall = score("prdc_768", train, test)
    assert recall["prdc_768_coverage"] > 0.7
    copies = score("memorisation_768", train, np.concatenate([train[:100], test[:100]]))
    assert copies["memorisation_768_closer"] == 1


@pytest.mark.slow
def test_metrics_of_768_features_on_coco_mini() -> None:
    one, other = photographs()
    assert 0.5 < score("fid_768", one, other)["fid_768"] < 3
    assert score("prdc_768", one, other)["prdc_768_precision"] > 0.6
    assert score("fid_768", one, one)["fid_768"] == pytest.approx(0, abs=1e-3)
