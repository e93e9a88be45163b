"""The committed figures on real photographs make sense, and come out again where those are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import real_checks
from benchmarks.real_checks import PARTS, Side, checks

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real"
RESULTS = ROOT / "results" / "real_checks"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "metrics.csv")


def of(table: pd.DataFrame, samples: str) -> dict[str, float]:
    chosen = table[table["samples"] == samples]
    return dict(zip(chosen["metric"], chosen["value"], strict=True))


@pytest.mark.parametrize("kind", ["faces", "photographs"])
def test_identical_sets_are_ideal_and_copies_are_found(table: pd.DataFrame, kind: str) -> None:
    same = of(table, f"the same {kind}")
    assert len(same) == 13
    for name, value in same.items():
        assert value == pytest.approx(float(name.startswith("prdc")), abs=1e-3), name
    copies = of(table, f"copies of private {kind}")
    assert copies["memorisation_distance"] == 0
    assert copies["memorisation_closer"] == 1
    assert of(table, f"other {kind}")["memorisation_distance"] > 0.05


def test_other_faces_are_near_and_photographs_of_other_things_far(table: pd.DataFrame) -> None:
    faces, far = of(table, "other faces"), of(table, "photographs of other things")
    assert 0 < 20 * faces["fid_768"] < far["fid_768"]
    assert min(faces[f"prdc_768_{part}"] for part in ("precision", "recall", "coverage")) > 0.7
    assert max(far[f"prdc_768_{part}"] for part in ("precision", "coverage")) < 0.1
    for band in ("ll", "d3", "d2", "d1"):
        assert abs(faces[f"spectral_energy_{band}"]) < 0.5
        assert faces[f"spectral_fd_{band}"] < 0.05
        assert far[f"spectral_fd_{band}"] > 10 * faces[f"spectral_fd_{band}"]
    assert 0.02 < faces["memorisation_closer"] < 0.1  # 0.05 by its making


def test_the_sides_of_a_check_do_not_meet_unless_it_says_so() -> None:
    for check in checks():
        assert check.reference.next != check.reference  # the private side
        assert (check.samples == check.reference) == check.what.startswith("the same")
        assert (check.samples == check.reference.next) == check.what.startswith("copies")
    assert PARTS * Side("photographs", 0).count <= 122


def test_nothing_but_figures_is_committed() -> None:
    assert {path.name for path in RESULTS.iterdir()} == {"metrics.csv", "metrics.json"}


@pytest.mark.slow
def test_the_figures_come_out_again(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (REAL / "weights").is_dir() or not (REAL / "mmcelebahq64").is_dir():
        pytest.skip("real photographs and weights ../shared/real are not on this machine")
    monkeypatch.setenv("WAVEDP_WEIGHTS", str(REAL / "weights"))
    again = real_checks.table(REAL)
    assert list(again["metric"]) == list(table["metric"])
    for found, kept in zip(again.itertuples(), table.itertuples(), strict=True):
        assert float(found.value) == pytest.approx(kept.value, rel=2e-3, abs=1e-3), kept
