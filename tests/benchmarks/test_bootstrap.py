"""The bootstrap, against what is known of means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.bootstrap import standard_error, standard_error_of_mean


def mean(rows: np.ndarray) -> float:
    return float(rows.mean())


def test_the_error_of_a_mean_is_s_over_root_n() -> None:
    rows = np.random.default_rng(1).standard_normal((200, 1))
    expected = rows.std(ddof=1) / math.sqrt(200)
    assert standard_error_of_mean(rows) == pytest.approx(expected, rel=1e-12)
    assert standard_error(rows, mean, 2000) == pytest.approx(expected, rel=0.05)


def test_several_numbers_keep_their_names_and_constants_have_no_error() -> None:
    found = standard_error(np.ones((5, 1)), lambda rows: {"a": mean(rows), "b": 2.0}, 10)
    assert found == {"a": 0.0, "b": 0.0}
    assert math.isnan(standard_error(np.ones((5, 1)), mean, 1))  # type: ignore[arg-type]


def test_the_same_rows_give_the_same_error() -> None:
    rows = np.arange(9.0)[:, None]
    assert standard_error(rows, mean, 20) == standard_error(rows, mean, 20)
