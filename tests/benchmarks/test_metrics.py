"""Every metric in ``configs/metric``, found and not listed: what holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cleanfid.resize import make_resizer
from metric_tools import captions_of, metric_of, prepared, tensor

from benchmarks.config import choices, load_choice
from benchmarks.features import inception_768
from benchmarks.metrics import content_keys, directions, frechet, named
from benchmarks.metrics.fid import FID
from benchmarks.metrics.frechet import (
    FrechetMetric,
    Gaussian,
    Rooted,
    distance_by_eigenvalues,
)
from wavedp.data.schema import Records

N = 24
IDEAL = {"lower": 0.0, "zero": 0.0, "higher": 1.0}

HEAVY = ("fid", "fid_legacy", "kid_legacy")
"""2048 features, seconds for every eigenvalue problem; and a second mode of one that is tested."""


@pytest.fixture(
    params=[
        pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in choices("metric")
    ]
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def quick_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances in 2048 dimensions from eigenvalues: clean-fid's root takes 20 seconds each."""
    real = frechet.distance

    def quick(one: Gaussian, other: Gaussian) -> float:
        if len(one.mean) < 1000:
            return real(one, other)
        return distance_by_eigenvalues(one, Rooted.of(other))

    monkeypatch.setattr(frechet, "distance", quick)


@pytest.fixture(autouse=True)
def small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """107 px are enough for a random network, and eight times quicker than 299."""
    small = make_resizer("PIL", False, "bicubic", (107, 107))
    monkeypatch.setattr(inception_768, "build_resizer", lambda mode: small)


def test_declares_what_the_harness_needs(name: str, random_weights: Path) -> None:
    metric = metric_of(name)
    assert set(directions(name, metric).values()) <= {"lower", "higher", "zero"}
    assert metric.reads in ("nothing", "evaluation", "private")
    assert len(metric.protocol) > 20
    if isinstance(metric, FrechetMetric):  # FID, or says that it is not
        assert isinstance(metric, FID) == (metric.unlike != "FID")


def test_does_not_depend_on_batches_or_order(
    name: str, random_weights: Path, faces: Records, quick_roots: None
) -> None:
    """Whole, in batches of 5, and in batches of 7 in another order: the same to 1e-4."""
    metric = prepared(metric_of(name), faces.slice(100, 130), faces.slice(60, 100))
    images, real, texts = tensor(faces), tensor(faces.slice(30, 200)), captions_of(faces)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    values = []
    for rows, size in ((torch.arange(N), N), (torch.arange(N), 5), (order, 7)):
        for part in rows.split(size):
            metric.update(images[part], [texts[i] for i in part], real[part])
        values.append(named(name, metric.compute()))
    assert set(values[0]) == set(directions(name, metric))
    for other in values[1:]:
        for key, value in values[0].items():
            assert other[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


def test_identical_sets_score_the_ideal(
    name: str, random_weights: Path, faces: Records, quick_roots: None
) -> None:
    same = faces.slice(0, N)
    metric = prepared(metric_of(name), same, faces.slice(60, 100))
    metric.update(tensor(same), captions_of(same), tensor(same))
    scores = named(name, metric.compute())
    if metric.needs_text or metric.reads == "private":
        pytest.skip("identical images do not settle its value; it has tests of its own")
    for key, direction in directions(name, metric).items():
        if key.startswith("kid"):
            assert scores[key] <= 0  # unbiased: of identical sets, below 0 by the diagonal
        else:
            assert scores[key] == pytest.approx(IDEAL[direction], abs=1e-3), key


def test_standard_errors_have_the_names_of_the_scores(
    name: str, random_weights: Path, faces: Records
) -> None:
    metric = prepared(metric_of(name), faces.slice(100, 130), faces.slice(60, 100))
    metric.replicates = 3
    metric.update(tensor(faces.slice(0, N)), captions_of(faces)[:N], tensor(faces.slice(0, N)))
    rows = metric.take()
    errors = named(name, metric.standard_error(rows))
    assert set(errors) == set(directions(name, metric))
    stated = {key: error for key, error in errors.items() if not math.isnan(error)}
    assert stated
    assert all(error >= 0 for error in stated.values())
    again = named(name, metric.standard_error(rows))  # the draws are fixed
    assert {key: error for key, error in again.items() if not math.isnan(error)} == stated


def test_keys_of_contents_are_those_of_pixels() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    keys = content_keys(images)
    assert content_keys(images.flip(0)) == keys[::-1]
    assert len(set(keys)) == 2
    images[0, 0, 0, 0] += 1
    assert content_keys(images)[0] != keys[0]


def test_only_what_reads_private_records_says_so(random_weights: Path) -> None:
    reading = [n for n in choices("metric") if metric_of(n).reads == "private"]
    assert reading == ["memorisation", "memorisation_768"]


def test_no_config_can_ask_for_random_weights() -> None:
    words = ("random", "pretrained", "untrained", "rand")

    def keys(config: Any) -> Sequence[str]:
        if not hasattr(config, "items"):
            return []
        return [k for key, value in config.items() for k in [str(key), *keys(value)]]

    for name in choices("metric"):
        found = [k for k in keys(load_choice("metric", name)) if any(w in k for w in words)]
        assert not found
