"""The committed reference results: what the project claims follows from their records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.record import load_folder
from benchmarks.report import frame, markdown
from wavedp.dp.accounting import Event, epsilon_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "embedded"
COLUMNS = [
    *("dataset", "method", "row", "epsilon_target", "epsilon_spent", "delta", "seed", "status"),
    *("sampling_probability", "noise_multiplier", "steps", "fd_toy", "clip_toy", "n_samples"),
    *("train_examples_per_s", "train_seconds", "sample_images_per_s", "peak_memory_mb"),
]


def scores(method: str, row: str, epsilon: float | None = None) -> np.ndarray:
    """``fd_toy`` on toyfaces, one per seed."""
    table = pd.read_csv(RESULTS / "summary.csv")
    chosen = (table["dataset"] == "toyfaces") & (table["method"] == method) & (table["row"] == row)
    if epsilon is not None:
        chosen &= table["epsilon_target"] == epsilon
    found: np.ndarray = table[chosen].sort_values("seed")["fd_toy"].to_numpy()
    assert len(found) == 3
    return found


def test_every_cell_of_the_suite_is_there_and_succeeded() -> None:
    table = pd.read_csv(RESULTS / "summary.csv")
    assert set(COLUMNS) <= set(table.columns)
    assert (table["status"] == "ok").all()
    cells = table.groupby(["dataset", "method", "row", "epsilon_target"], dropna=False)["seed"]
    assert len(cells) == 2 * 2 * 5
    assert (cells.nunique() == 3).all()


def test_summary_and_tables_are_made_from_the_records() -> None:
    records = load_folder(RESULTS / "records")
    assert (RESULTS / "table.md").read_text() == markdown(records)
    assert len(frame(records)) == len(pd.read_csv(RESULTS / "summary.csv"))
    lines = set(markdown(records).splitlines())
    shown = [line for line in (ROOT / "README.md").read_text().splitlines() if line[:1] == "|"]
    assert len(shown) == 2 * 13
    assert set(shown) <= lines


def test_no_private_row_spent_more_than_its_target() -> None:
    private = [r.privacy for r in load_folder(RESULTS / "records") if r.row == "private"]
    assert len(private) == 2 * 2 * 2 * 3
    for privacy in private:
        counts = {
            Event(q.sampling_probability, q.noise_multiplier): q.count for q in privacy.queries
        }
        assert privacy.delta is not None
        again = epsilon_of(counts, privacy.delta)
        assert privacy.epsilon_spent == pytest.approx(again, rel=1e-6)
        assert privacy.epsilon_target is not None
        assert again <= privacy.epsilon_target


def test_dp_wavelet_brings_what_is_claimed_on_faces() -> None:
    before = scores("dp_wavelet", "pretrained")
    assert (scores("dp_wavelet", "private", 1) < 0.7 * before).all()
    left = scores("dp_wavelet", "private", 10) - scores("dp_wavelet", "oracle")
    closed = 1 - left / (before - scores("dp_wavelet", "oracle"))
    assert (closed > 0.8).all()


def test_the_suite_discriminates_beyond_the_interval_over_seeds() -> None:
    """The 95 % t-interval of the cost of privacy to full finetuning stays above 20 %."""
    free = scores("dp_full_finetune", "non_private")
    gap = scores("dp_full_finetune", "private", 1) - free
    cost = gap / (scores("dp_full_finetune", "pretrained") - free)
    half_width = 4.303 * cost.std(ddof=1) / np.sqrt(3)
    assert cost.mean() - half_width > 0.2
