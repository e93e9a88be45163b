"""Precision, recall, density and coverage, against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.features.pixels import Pixels
from benchmarks.metrics.prdc import PRDC, radii, shares


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


def test_errors_of_precision_and_density_are_their_spread_and_others_are_not_stated() -> None:
    """Against the deviation over 100 fresh draws of a law that is known."""
    draws = np.random.default_rng(0)
    metric = PRDC(Pixels(), k=3)
    metric.fit(draws.standard_normal((100, 4)).astype(np.float32))
    values, errors = [], []
    for _ in range(100):
        rows = (draws.standard_normal((60, 4)) + 0.7).astype(np.float32)
        values.append(metric.score(rows))
        errors.append(metric.standard_error(rows))
    for name in ("precision", "density"):
        spread = np.std([value[name] for value in values], ddof=1)  # type: ignore[index]
        mean = np.mean([error[name] for error in errors])  # type: ignore[index]
        assert mean == pytest.approx(spread, rel=0.25), name
    assert math.isnan(errors[0]["recall"])  # type: ignore[index]
    assert math.isnan(errors[0]["coverage"])  # type: ignore[index]
