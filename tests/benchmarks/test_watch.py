"""How far a grid is, seen from beside it."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from report_records import record as example

from benchmarks import watch
from benchmarks.cell import identity_of, ledger_of
from benchmarks.claims import Claim, held
from benchmarks.config import cells
from benchmarks.record import Cost, save
from wavedp.dp import UserError

ROOT = Path(__file__).resolve().parents[2]
GRID = [
    *("suite=smoke", "method=dp_vae", "suite.grid.row=[pretrained,private]"),
    *("suite.grid.seed=[0,1,2,3]", "privacy.epsilon=[10]", "suite.samples=24"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]
TOOK = Cost(train_seconds=20.0, sample_seconds=2.0, score_seconds=3.0)


def asked(tmp_path):
    return [*GRID, f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]


def names(tmp_path, row):
    """Of the cells of a row, seed by seed."""
    return [identity_of(cell) for cell in cells(asked(tmp_path)) if cell.row == row]


def keep(folder, name, row="private", reason=None, cost=TOOK):
    found = example("dp_vae", row, 10.0, dataset="toyfaces", reason=reason)
    save(found.model_copy(update={"cell": name, "cost": cost}), folder / "records")


def files(tmp_path):
    return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.fixture
def halfway(tmp_path):
    """Of four seeds one is done, one failed, one runs and has charged one of two steps."""
    folder = tmp_path / "results" / "smoke"
    done, failed, runs, _ = names(tmp_path, "private")
    keep(folder, done)
    keep(folder, failed, reason="no memory")
    ledger = ledger_of(folder, runs)
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"ledger": 1}\n{"query": "a step"}\n{"query": "torn')
    with Claim(folder, tmp_path / "cache", runs).taken():
        yield folder


def test_cells_are_told_apart_and_time_is_that_of_a_finished_one(
    tmp_path, halfway, in_root, capsys
):
    """By hand: half of 25 s, and 25 s, are 37.5 s."""
    before = files(tmp_path)
    assert watch.main([*asked(tmp_path), "--once"]) == 1  # one failed
    out = capsys.readouterr().out
    assert files(tmp_path) == before
    assert all(len(line) <= 80 for line in out.splitlines() if "Results" not in line)
    lines = {line.split()[1]: line.split()[2:] for line in out.splitlines() if "DP-VAE" in line}
    assert lines["pretrained"] == ["0", "of", "4", "–", "–", "4", "?"]
    private = "= 10 1 of 4 1 (step 1 of 2) 1 1 38 s"
    assert lines["ε"] == private.split()
    said = " ".join(out.split())
    assert "1 of 8 cells done, 1 running, 1 failed, 5 to do." in said
    assert "Time left: 38 s, and 4 cells that no record tells the time of." in said


def test_it_goes_on_until_all_cells_are_done(tmp_path, in_root, monkeypatch, capsys):
    """Before anything is there; then a cell is recorded between any two looks."""
    folder = tmp_path / "results" / "smoke"
    left = [(row, name) for row in ("pretrained", "private") for name in names(tmp_path, row)]
    monkeypatch.setattr(watch.time, "sleep", lambda _: keep(folder, left[-1][1], left.pop()[0]))
    assert watch.main(asked(tmp_path)) == 0
    assert not left
    assert "8 of 8 cells done, 0 running, 0 failed, 0 to do." in capsys.readouterr().out


def test_ctrl_c_ends_the_watch_alone(tmp_path, halfway, in_root, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    assert watch.main(asked(tmp_path)) == 1
    assert "1 of 8 cells done" in capsys.readouterr().out


def test_a_record_that_cannot_be_read_is_a_sentence(tmp_path, halfway, in_root):
    path = halfway / "records" / f"{names(tmp_path, 'pretrained')[0]}.json"
    path.write_text("{")
    with pytest.raises(UserError, match="not a record"):
        watch.main([*asked(tmp_path), "--once"])


def test_the_time_of_a_cell_that_was_interrupted_follows_from_its_rate():
    """200 steps of 256 records at 512 a second are 100 s."""
    found = example()
    cost = Cost(train_examples_per_s=512.0, sample_seconds=2.0, score_seconds=3.0)
    assert watch.seconds_of(found.model_copy(update={"cost": cost})) == 105.0
    assert watch.seconds_of(found.model_copy(update={"cost": Cost()})) is None


def test_whoever_looks_whether_a_cell_runs_does_not_keep_it_from_running(tmp_path):
    folder, cache = tmp_path / "results", tmp_path / "cache"
    assert not held(folder, "a-cell")
    assert not folder.exists()
    with Claim(folder, cache, "a-cell").taken() as mine:
        assert mine
        assert held(folder, "a-cell")
        assert not held(folder, "another")
    assert not held(folder, "a-cell")
    # A look that takes far longer than one does.
    with (folder / "locks" / "a-cell.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        let_go = threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN))
        let_go.start()
        with Claim(folder, cache, "a-cell").taken() as mine:
            assert mine
        let_go.join()


@pytest.mark.slow
def test_another_process_sees_what_runs_here(tmp_path, halfway):
    command = [sys.executable, "-m", "benchmarks.watch", *asked(tmp_path), "--once"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "1 of 8 cells done, 1 running, 1 failed" in " ".join(done.stdout.split())
    wrong = subprocess.run([*command, "suite=quik"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
