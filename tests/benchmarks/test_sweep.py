"""Hydra's launchers start workers that share one grid."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cell import identity_of
from benchmarks.config import cells
from benchmarks.record import load_folder

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("suite=smoke", "method=dp_vae", "suite.samples=24", "hardware.threads=1"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]
LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"],
}


def swept(tmp_path, cache, *more):
    command = [sys.executable, "-m", "benchmarks.sweep", "-m", *TINY, *more]
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    folder = f"hydra.sweep.dir={tmp_path}/sweeps"
    done = subprocess.run(
        [*command, *places, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done, places


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_workers_run_a_grid_between_them(launcher, tmp_path, cache):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    done, places = swept(
        *(tmp_path, cache, "worker=1,2", f"hydra/launcher={launcher}", *LAUNCHERS[launcher])
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = load_folder(tmp_path / "results" / "smoke" / "records")
    assert {r.cell for r in records} == {identity_of(c) for c in cells([*TINY, *places])}
    assert all(record.status == "ok" for record in records)


@pytest.mark.slow
def test_a_sweep_of_what_is_wrong_says_so_and_fails(tmp_path, cache):
    done, _ = swept(tmp_path, cache, "privacy.delta=0.5,0.6")
    assert done.returncode != 0
    assert "delta" in done.stderr
