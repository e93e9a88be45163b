"""Every metric in ``configs/metric``, found and not listed, and each against another hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_weights
import numpy as np
import pytest
import pywt
import torch
from cleanfid.resize import make_resizer
from scipy import linalg
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.config import choices, load_choice, make
from benchmarks.features import inception_768
from benchmarks.features.pixels import Pixels
from benchmarks.metrics import Metric, content_keys, directions, frechet, named
from benchmarks.metrics.clip_score import ClipScore
from benchmarks.metrics.frechet import (
    FrechetMetric,
    Gaussian,
    Rooted,
    distance,
    distance_by_eigenvalues,
)
from benchmarks.metrics.kid import KID
from benchmarks.metrics.lpips import LPIPS, build, load_trunk
from benchmarks.metrics.memorisation import Memorisation, nearest
from benchmarks.metrics.prdc import PRDC, radii, shares
from benchmarks.metrics.spectral import Spectral
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords

CPU = torch.device("cpu")
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


@pytest.fixture(scope="module")
def faces(cache: str) -> Records:
    return ToyFaces(private_records=8, evaluation_records=200, cache_dir=cache).evaluation()


def metric_of(name: str) -> Metric:
    """A metric as its config makes it, with the small CLIP in the place of the large one."""
    config = load_choice("metric", name)
    if "model" in config:
        config.model = fake_weights.CLIP
    metric: Metric = make(config)
    metric.open(CPU)
    return metric


def prepared(metric: Metric, reference: Records, private: Records) -> Metric:
    metric.prepare(reference)
    if metric.reads == "private":
        columns = {"images": private.images, "captions": list(private.captions)}
        metric.prepare_private(PrivateRecords(columns, name="p", records=len(private)))
    return metric


def tensor(records: Records) -> Tensor:
    return torch.from_numpy(np.array(records.images))


def captions_of(records: Records) -> list[str]:
    return [own[0] for own in records.captions]


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


# All of them --------------------------------------------------------------------------------


def test_declares_what_the_harness_needs(name: str, random_weights: Path) -> None:
    metric = metric_of(name)
    assert set(directions(name, metric).values()) <= {"lower", "higher", "zero"}
    assert metric.reads in ("nothing", "evaluation", "private")
    assert len(metric.protocol) > 20
    if isinstance(metric, FrechetMetric) and name not in ("fid", "fid_legacy", "fd_toy"):
        assert "(not FID)" in metric.protocol


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
    assert all(error >= 0 for error in errors.values())
    assert named(name, metric.standard_error(rows)) == errors  # the draws are fixed


def test_keys_of_contents_are_those_of_pixels() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    keys = content_keys(images)
    assert content_keys(images.flip(0)) == keys[::-1]
    assert len(set(keys)) == 2
    images[0, 0, 0, 0] += 1
    assert content_keys(images)[0] != keys[0]


# Frechet ------------------------------------------------------------------------------------


def gaussians(d: int = 6, n: int = 50) -> tuple[Gaussian, Gaussian]:
    draws = np.random.default_rng(0)
    one = draws.standard_normal((n, d)) @ draws.standard_normal((d, d))
    return Gaussian.of(one), Gaussian.of(draws.standard_normal((n, d)) + 0.5)


def test_a_gaussian_is_the_mean_and_covariance_of_numpy() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    found = Gaussian.of(rows)
    np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64).T), rtol=1e-12)
    again = Gaussian.unstacked(found.stacked())
    np.testing.assert_array_equal(again.covariance, found.covariance)


def test_frechet_distance_agrees_with_torchmetrics_and_scipy_to_1e_8() -> None:
    from torchmetrics.image.fid import _compute_fid

    one, other = gaussians()
    sides = [torch.from_numpy(x) for g in (one, other) for x in (g.mean, g.covariance)]
    root = linalg.sqrtm(one.covariance @ other.covariance).real
    spread = np.trace(one.covariance + other.covariance - 2 * root)
    by_scipy = np.square(one.mean - other.mean).sum() + spread
    for found in (distance(one, other), distance_by_eigenvalues(one, Rooted.of(other))):
        assert found == pytest.approx(float(_compute_fid(*sides)), rel=1e-8)
        assert found == pytest.approx(by_scipy, rel=1e-8)


def test_frechet_distance_worked_by_hand() -> None:
    """Means (1, 2) and 0, deviations (2, 3) and (1, 1): 1 + 4 + (2 - 1)^2 + (3 - 1)^2 = 10."""
    one = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    other = Gaussian(np.zeros(2), np.eye(2))
    assert distance(one, other) == pytest.approx(10)
    assert distance_by_eigenvalues(one, Rooted.of(other)) == pytest.approx(10)


def test_singular_covariances_have_a_distance_too(capfd: pytest.CaptureFixture[str]) -> None:
    """Ten rows in 40 dimensions, where clean-fid's root can turn complex."""
    draws = np.random.default_rng(1)
    sets = [1000 * draws.standard_normal((10, 40)) for _ in range(2)]
    one, other = map(Gaussian.of, sets)
    found = distance(one, other)
    assert found == pytest.approx(distance_by_eigenvalues(one, Rooted.of(other)), rel=1e-3)
    assert distance(one, one) == pytest.approx(0, abs=1e-6 * np.trace(one.covariance))
    assert capfd.readouterr().out == ""


def test_the_error_of_a_frechet_distance_is_its_spread_over_samples(faces: Records) -> None:
    """Against the deviation over 30 fresh draws of a law that is known."""

    class Plain(Pixels):
        def __init__(self) -> None:
            super().__init__()
            self.label = "four pixels"

        def extract(self, images: Tensor) -> Tensor:
            return images[:, 0, 0, :4].float()

    draws = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray:
        mean = 128 + 20 * draws.standard_normal((n, 4))
        images = np.zeros((n, 3, 4, 4), np.uint8)
        images[:, 0, 0] = mean.round().clip(0, 255)
        return images

    metric = FrechetMetric(Plain(), replicates=60)
    shifted = draw(400)
    shifted[:, 0, 0] += 15
    metric.prepare(Records(shifted, [("x",)] * 400, "reference"))
    values, errors = [], []
    for _ in range(30):
        metric.update(torch.from_numpy(draw(100)), ["x"] * 100)
        rows = metric.take()
        values.append(metric.score(rows))
        errors.append(metric.standard_error(rows))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.35)


@pytest.mark.slow
def test_fid_is_clean_fids_own_number_of_2048_features(
    random_weights: Path, faces: Records
) -> None:
    """Against ``fid_from_feats`` of clean-fid on its own features, to 1e-6."""
    from cleanfid import fid

    metric = metric_of("fid")
    assert isinstance(metric, FrechetMetric)
    metric.prepare(faces.slice(60, 100))
    metric.update(tensor(faces)[:30], captions_of(faces)[:30])
    features = [metric.space(tensor(part)) for part in (faces.slice(0, 30), faces.slice(60, 100))]
    assert metric.compute() == pytest.approx(fid.fid_from_feats(*features), rel=1e-6)


# KID ----------------------------------------------------------------------------------------


def test_kid_agrees_with_torchmetrics_to_1e_6(random_weights: Path) -> None:
    """One subset that holds everything leaves nothing to chance."""
    from torchmetrics.image.kid import poly_mmd

    draws = np.random.default_rng(0)
    real, fake = draws.standard_normal((2, 40, 16)).astype(np.float32) + 0.3
    metric = KID(subsets=1, subset_size=40)
    metric.fit(real)
    expected = float(poly_mmd(torch.from_numpy(real).double(), torch.from_numpy(fake).double()))
    assert metric.score(fake) == pytest.approx(expected, rel=1e-6)


def test_kid_worked_by_hand_and_leaves_the_global_generator_alone(random_weights: Path) -> None:
    """Rows 0 and 1 against 1 and 1, kernel (xy + 1)^3: 1 + 8 - 2 (1 + 1 + 8 + 8) / 4 = 0."""
    metric = KID(subsets=3, subset_size=2)
    metric.fit(np.array([[0.0], [1.0]]))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert metric.score(np.array([[1.0], [1.0]])) == pytest.approx(0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# PRDC ---------------------------------------------------------------------------------------


def by_definition(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """Naeem et al. 2020, equations 3 to 6, one pair at a time."""

    def dist(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b))

    def ball(rows: np.ndarray, i: int) -> float:
        return sorted(dist(rows[i], row) for j, row in enumerate(rows) if j != i)[k - 1]

    real_balls = [ball(real, i) for i in range(len(real))]
    fake_balls = [ball(fake, j) for j in range(len(fake))]
    inside = [[dist(x, y) < b for x, b in zip(real, real_balls, strict=True)] for y in fake]
    return {
        "precision": float(np.mean([any(row) for row in inside])),
        "density": sum(map(sum, inside)) / (k * len(fake)),
        "coverage": float(np.mean(np.any(inside, axis=0))),
        "recall": float(
            np.mean(
                [any(dist(x, y) < b for y, b in zip(fake, fake_balls, strict=True)) for x in real]
            )
        ),
    }


@pytest.mark.parametrize("block", [1000, 7])
def test_prdc_agrees_with_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, whatever the block of distances is."""
    monkeypatch.setattr("benchmarks.metrics.prdc.BLOCK", block)
    draws = np.random.default_rng(0)
    real, fake = draws.standard_normal((30, 3)), 0.8 * draws.standard_normal((25, 3)) + 0.3
    a, b = (torch.from_numpy(x) for x in (real, fake))
    found = {name: part.mean() for name, part in shares(a, radii(a, 3), b, 3).named().items()}
    assert found == pytest.approx(by_definition(real, fake, 3), abs=1e-12)
    assert 0.2 < found["recall"] < 1  # the example tells the two sides apart


def test_prdc_worked_by_hand() -> None:
    """Real 0, 1, 2, 10 and fake 0.5, 1.5, 20 on a line, k = 1.

    Real balls: radius 1 about 0, 1, 2 and radius 8 about 10. Fake 0.5 lies in the balls of 0 and
    1, fake 1.5 in those of 1 and 2, fake 20 in none: precision 2/3, density 4/3, coverage 3/4.
    Fake balls: radius 1 about 0.5 and 1.5, 18.5 about 20: they hold 0, 1, 2 and 10: recall 1.
    """
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    fake = torch.tensor([[0.5], [1.5], [20.0]])
    found = {n: part.mean() for n, part in shares(real, radii(real, 1), fake, 1).named().items()}
    assert found == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "density": 4 / 3, "coverage": 0.75}
    )


def test_too_many_neighbours_are_known_before_work_starts() -> None:
    assert PRDC(Pixels(), k=7).least == 8


# Spectral -----------------------------------------------------------------------------------


def spectral_of(reference: np.ndarray, samples: np.ndarray, **arguments: int) -> dict[str, float]:
    metric = Spectral(**arguments)
    metric.prepare(Records(reference, [("x",)] * len(reference), "reference"))
    metric.update(torch.from_numpy(samples), ["x"] * len(samples))
    scores = metric.compute()
    assert isinstance(scores, dict)
    return scores


def test_energies_agree_with_pywavelets_to_1e_4(faces: Records) -> None:
    real, fake = np.array(faces.images[:40]), np.array(faces.images[40:70])

    def energies(images: np.ndarray) -> list[float]:
        ll, *details = pywt.wavedec2(images.astype(float), "haar", level=3, axes=(2, 3))
        return [np.square(ll).mean(), *(np.square(np.array(d)).mean() for d in details)]

    found = spectral_of(real, fake)
    pairs = zip(("ll", "d3", "d2", "d1"), energies(real), energies(fake), strict=True)
    for band, of_real, of_fake in pairs:
        expected = 10 * np.log10(of_fake / of_real)
        assert found[f"energy_{band}"] == pytest.approx(expected, abs=2e-3), band


def test_spectral_says_where_a_method_fails(faces: Records) -> None:
    """Blur loses the finest band and keeps the coarse ones; noise adds most to the finest."""
    images = np.array(faces.images[:100])
    pairs = torch.from_numpy(images).float()
    blurred = torch.nn.functional.avg_pool2d(pairs, 2).repeat_interleave(2, 2)
    blur = spectral_of(images, blurred.repeat_interleave(2, 3).round().to(torch.uint8).numpy())
    assert blur["energy_d1"] < -15
    assert abs(blur["energy_d3"]) < 0.1
    assert abs(blur["energy_ll"]) < 0.01
    assert blur["fd_d1"] > 100 * max(blur["fd_d3"], blur["fd_ll"])
    noise = 12 * np.random.default_rng(0).standard_normal(images.shape)
    noisy = spectral_of(images, (images + noise).round().clip(0, 255).astype(np.uint8))
    assert noisy["energy_d1"] > 1
    assert noisy["energy_d1"] > noisy["energy_d2"] > noisy["energy_d3"]


def test_spectral_worked_by_hand() -> None:
    """A flat grey level twice as high has four times the energy: 6.02 dB; no details at all."""
    flat = np.full((6, 3, 8, 8), 50, np.uint8)
    found = spectral_of(flat, 2 * flat, levels=1)
    assert found["energy_ll"] == pytest.approx(10 * np.log10(4), abs=1e-3)
    assert found["energy_d1"] == pytest.approx(0, abs=1e-6)


def test_an_image_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(UserError, match="divide by 8"):
        spectral_of(np.zeros((6, 3, 12, 12), np.uint8), np.zeros((6, 3, 12, 12), np.uint8))


# Memorisation -------------------------------------------------------------------------------


def test_nearest_distances_agree_with_a_tree_and_are_zero_for_copies() -> None:
    draws = np.random.default_rng(0)
    rows, others = draws.standard_normal((30, 5)) + 100, draws.standard_normal((50, 5)) + 100
    rows[3] = others[7]
    found = nearest(*(torch.from_numpy(x).float() for x in (rows, others)))
    np.testing.assert_allclose(found, cKDTree(others).query(rows)[0], atol=1e-4)
    assert found[3] == 0


def test_copies_of_private_records_are_found_and_strangers_are_not(faces: Records) -> None:
    private, unseen, fresh = faces.slice(0, 80), faces.slice(80, 140), faces.slice(140, 200)
    metric = prepared(Memorisation(Pixels()), unseen, private)
    assert isinstance(metric, Memorisation)
    scores = {}
    for what, records in (("fresh", fresh), ("copies", private)):
        metric.update(tensor(records), captions_of(records))
        scores[what] = metric.compute()
    assert scores["copies"] == {"distance": 0.0, "closer": 1.0}
    assert isinstance(scores["fresh"], dict)
    assert scores["fresh"]["distance"] > 0.05
    assert scores["fresh"]["closer"] < 0.2


def test_only_what_reads_private_records_says_so(random_weights: Path) -> None:
    reading = [n for n in choices("metric") if metric_of(n).reads == "private"]
    assert reading == ["memorisation", "memorisation_768"]


# CLIP and LPIPS, with random weights ----------------------------------------------------------


def test_clip_score_agrees_with_open_clip_to_1e_4(random_weights: Path, faces: Records) -> None:
    """Image by image, without batches, from the file of weights."""
    import open_clip
    from PIL import Image
    from safetensors.torch import load_file

    metric = metric_of("clip_score")
    images, texts = tensor(faces)[:6], captions_of(faces)[:6]
    metric.update(images, texts)
    network, _, preprocess = open_clip.create_model_and_transforms(fake_weights.CLIP)
    network.load_state_dict(load_file(random_weights / "clip_vit_b_32_openai.safetensors"))
    tokenize, cosines = open_clip.get_tokenizer(fake_weights.CLIP), []
    with torch.no_grad():
        for image, text in zip(images, texts, strict=True):
            picture = preprocess(Image.fromarray(image.permute(1, 2, 0).numpy()))
            one = network.eval().encode_image(picture[None])
            other = network.encode_text(tokenize(f"A photo depicts {text}"))
            cosines.append(torch.cosine_similarity(one, other).item())
    assert metric.compute() == pytest.approx(100 * np.mean(cosines), abs=1e-4)


def test_the_template_of_clip_score_is_checked_and_braces_in_captions_are_kept(
    random_weights: Path, faces: Records
) -> None:
    with pytest.raises(UserError, match="template"):
        ClipScore(template="A photo")
    metric = metric_of("clip_score")
    metric.update(tensor(faces)[:1], ["{0} {name}"])
    assert -100 <= float(metric.compute()) <= 100  # type: ignore[arg-type]


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


# Nothing random becomes a result --------------------------------------------------------------


def test_no_config_can_ask_for_random_weights() -> None:
    words = ("random", "pretrained", "untrained", "rand")

    def keys(config: Any) -> Sequence[str]:
        if not hasattr(config, "items"):
            return []
        return [k for key, value in config.items() for k in [str(key), *keys(value)]]

    for name in choices("metric"):
        found = [k for k in keys(load_choice("metric", name)) if any(w in k for w in words)]
        assert not found
