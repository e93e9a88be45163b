"""Two ranks of torchrun run a small grid: the cells of one process, finetuned by both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ranks
from benchmarks.cell import identity_of
from benchmarks.config import cells
from benchmarks.record import load_folder

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("suite=smoke", "suite.grid.method=[dp_vae,dp_merf]", "suite.samples=24"),
    *("suite.grid.row=[pretrained,private]", "privacy.epsilon=[10]", "hardware.threads=1"),
    *("privacy.noise_seed=1", "privacy.sampling_seed=2"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=3"),
]


def ran(launcher, folder, cache, *more):
    places = [f"results_dir={folder}", f"cache_dir={cache}"]
    command = [sys.executable, *launcher, "-m", "benchmarks.run", *TINY, *places, *more]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,  # of ranks that wait for each other
    )
    return done, {identity_of(cell) for cell in cells([*TINY, *places, *more])}


TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


@pytest.mark.slow
def test_two_ranks_make_the_records_of_one_process(tmp_path, cache):
    alone, names = ran([], tmp_path / "one", tmp_path / "cache1")
    assert alone.returncode == 0, alone.stderr[-2000:]
    both, again = ran(TORCHRUN, tmp_path / "two", tmp_path / "cache2")
    assert both.returncode == 0, both.stderr[-2000:]
    assert names == again
    one, two = (
        {r.cell: r for r in load_folder(tmp_path / place / "smoke" / "records")}
        for place in ("one", "two")
    )
    assert set(one) == set(two) == names
    for name, record in two.items():
        assert record.status == "ok"
        assert record.privacy.epsilon_spent == one[name].privacy.epsilon_spent
        # Sums are added up in another order, and what is drawn follows to rounding.
        score = one[name].metrics["fd_toy"].value
        assert record.metrics["fd_toy"].value == pytest.approx(score, rel=0.02)
    ledgers = (tmp_path / "two" / "smoke" / "ledgers").iterdir()
    lines = {path.stem: len(path.read_text().splitlines()) for path in ledgers}
    private = {name: record for name, record in two.items() if record.row == "private"}
    assert lines == {n: 1 + sum(q.count for q in r.privacy.queries) for n, r in private.items()}


@pytest.mark.slow
def test_a_cell_that_fails_ends_the_run_of_all_ranks(tmp_path, cache):
    """And does not leave one of them waiting for the other: no ledger can be opened there."""
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "ledgers").write_text("a file in the place of a folder")
    done, _ = ran(TORCHRUN, tmp_path, cache, "method=dp_vae")
    assert done.returncode != 0
    assert "The ranks stand in different places of this cell" in " ".join(done.stderr.split())


def test_without_torchrun_there_is_one_rank():
    with ranks.joined() as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
    ranks.call("a cell")
