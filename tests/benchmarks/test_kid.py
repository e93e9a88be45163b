"""KID against another hand, and its error against fresh draws."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from benchmarks.metrics.kid import KID, Spread


def test_kid_agrees_with_torchmetrics_to_1e_6() -> None:
    """One subset that holds everything leaves nothing to chance."""
    from torchmetrics.image.kid import poly_mmd

    draws = np.random.default_rng(0)
    real, fake = draws.standard_normal((2, 40, 16)).astype(np.float32) + 0.3
    metric = KID(subsets=1, subset_size=40)
    metric.fit(real)
    expected = float(poly_mmd(torch.from_numpy(real).double(), torch.from_numpy(fake).double()))
    assert metric.score(fake) == pytest.approx(expected, rel=1e-6)


def test_kid_worked_by_hand_and_leaves_the_global_generator_alone() -> None:
    """Rows 0 and 1 against 1 and 1, kernel (xy + 1)^3: 1 + 8 - 2 (1 + 1 + 8 + 8) / 4 = 0."""
    metric = KID(subsets=3, subset_size=2)
    metric.fit(np.array([[0.0], [1.0]]))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert metric.score(np.array([[1.0], [1.0]])) == pytest.approx(0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def values_and_errors(
    n: int, reference: int, size: int, shift: float, draws: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """KID and its standard error of fresh Gaussian samples against one reference."""
    generator = np.random.default_rng(0)
    metric = KID(subsets=20, subset_size=size)
    metric.fit(generator.standard_normal((reference, 6)).astype(np.float32))
    found = []
    for _ in range(draws):
        rows = (generator.standard_normal((n, 6)) + shift).astype(np.float32)
        found.append((metric.score(rows), metric.standard_error(rows)))
    values, errors = np.array(found).T
    return values, errors


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    ("n", "reference", "size"),
    [(60, 60, 1000), (60, 60, 60), (150, 50, 1000), (50, 150, 1000), (200, 200, 40)],
    ids=["whole sets", "one full subset", "few references", "many references", "subsets"],
)
def test_the_error_of_a_kid_is_its_spread_over_samples(
    n: int, reference: int, size: int, shift: float
) -> None:
    """Also where samples and reference follow one law, and KID has no term of first order."""
    values, errors = values_and_errors(n, reference, size, shift)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.25)


def test_the_error_of_a_single_subset_is_larger_than_that_of_many() -> None:
    draws = np.random.default_rng(0)
    one, many = KID(subsets=1, subset_size=20), KID(subsets=100, subset_size=20)
    rows = draws.standard_normal((200, 4)) + 0.5
    errors = []
    for metric in (one, many):
        metric.fit(draws.standard_normal((100, 4)))
        errors.append(metric.standard_error(rows))
    assert errors[0] > 2 * errors[1] > 0  # type: ignore[operator]


@pytest.mark.parametrize("block", [500, 3])
def test_the_parts_of_the_spread_agree_with_sums_over_all_tuples(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of two pairs of seven rows that share one row, two or none, one tuple at a time."""
    monkeypatch.setattr("benchmarks.metrics.kid.BLOCK", block)
    draws = np.random.default_rng(3)
    rows, reference = draws.standard_normal((7, 2)) + 1, draws.standard_normal((5, 2))

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 2 + 1) ** 3)

    g = [np.mean([k(x, y) for y in reference]) for x in rows]
    h = [
        [k(x, y) - a - b for y, b in zip(rows, g, strict=True)]
        for x, a in zip(rows, g, strict=True)
    ]
    common = np.mean([h[i][j] * h[i][m] for i, j, m in permutations(range(7), 3)])
    both = np.mean([h[i][j] ** 2 for i, j in permutations(range(7), 2)])
    apart = np.mean([h[i][j] * h[m][o] for i, j, m, o in permutations(range(7), 4)])
    found = Spread.of(torch.from_numpy(rows), torch.from_numpy(reference))
    assert (found.single, found.pair) == pytest.approx((common - apart, both - apart), rel=1e-9)
    assert found.single > 0


def test_the_variance_of_a_kid_worked_by_hand() -> None:
    """Three samples: (4 x 1 x 2 + 2 x 5) / 6 = 3. Two are one pair: its variance, 5."""
    assert Spread(single=2.0, pair=5.0).variance(3) == pytest.approx(3)
    assert Spread(single=2.0, pair=5.0).variance(2) == pytest.approx(5)


def test_an_error_that_cannot_be_estimated_is_not_stated() -> None:
    metric = KID()
    metric.fit(np.eye(4))
    assert math.isnan(metric.standard_error(np.eye(4)[:3]))  # type: ignore[arg-type]
    assert metric.standard_error(np.eye(4)) >= 0  # type: ignore[operator]
