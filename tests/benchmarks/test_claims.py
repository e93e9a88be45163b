"""Several processes on one results folder: each cell is run once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_records import record

from benchmarks import run, turn
from benchmarks.cell import identity_of
from benchmarks.claims import Claim, alone, stamps_of
from benchmarks.config import cells
from benchmarks.record import load, load_folder, save
from wavedp.dp import UserError

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("suite=smoke", "method=dp_vae", "suite.samples=24", "suite.grid.seed=[0,1]"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2", "hardware.threads=1"),
]


def grid(tmp_path, cache):
    return [*TINY, f"results_dir={tmp_path}/results", f"cache_dir={cache}"]


def test_a_claim_is_held_by_one_and_let_go(tmp_path):
    one, other = (
        Claim(tmp_path, tmp_path / "cache", "a-cell"),
        Claim(tmp_path, tmp_path / "cache", "a-cell"),
    )
    with one.taken() as mine, other.taken() as theirs:
        assert (mine, theirs) == (True, False)
    with other.taken() as theirs, Claim(tmp_path, tmp_path / "cache", "another").taken() as apart:
        assert (theirs, apart) == (True, True)


def test_a_cell_is_held_wherever_a_process_has_it(tmp_path):
    one, other = (Claim(tmp_path / suite, tmp_path / "cache", "a-cell") for suite in ("a", "b"))
    assert not other.held
    with one.taken():
        assert (one.held, other.held) == (True, True)
    assert not other.held


def test_a_record_is_settled_that_is_not_the_one_of_before(tmp_path):
    made = record()
    first = Claim(tmp_path, tmp_path, made.cell)
    save(made, tmp_path / "records")
    before = stamps_of(tmp_path)
    assert list(before) == [made.cell]
    claims = [first, *(Claim(tmp_path, tmp_path, made.cell, stamps) for stamps in (before, {}))]
    assert [claim.settled() for claim in claims] == [made, None, made]
    save(made, tmp_path / "records")
    assert [claim.settled() for claim in claims] == [made] * 3
    assert Claim(tmp_path, tmp_path, "another", before).settled() is None


def test_the_same_cell_of_another_suite_waits_for_what_both_would_write(tmp_path):
    """Samples and finetuned weights lie in one cache, whose names know no suite."""
    one, other = (Claim(tmp_path / suite, tmp_path / "cache", "a-cell") for suite in ("a", "b"))
    with one.taken() as mine:
        with other.taken() as theirs:
            assert (mine, theirs) == (True, False)
        with other.taken() as theirs:
            assert not theirs
    with other.taken() as theirs, one.taken() as mine:
        assert (mine, theirs) == (False, True)


def test_two_processes_do_not_force_one_grid(tmp_path, cache, in_root):
    with alone(tmp_path / "results" / "smoke"), pytest.raises(UserError, match="by force"):
        run.main([*grid(tmp_path, cache), "force=true"])


def test_a_claim_of_a_process_that_was_killed_is_free(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from benchmarks.claims import Claim\n"
        "with Claim(Path(sys.argv[1]), Path(sys.argv[2]), 'a-cell').taken() as mine:\n"
        "    print(mine, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "cache")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("True\n", -9)
    with Claim(tmp_path, tmp_path / "cache", "a-cell").taken() as mine:
        assert mine


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_what_another_process_recorded_is_waited_for_and_not_run(
    status, tmp_path, cache, in_root, monkeypatch, capsys
):
    """It holds one cell when the grid comes by, and is done with it while the grid waits."""
    assert run.main(grid(tmp_path, cache)) == 0
    folder = tmp_path / "results" / "smoke"
    taken = identity_of(cells(grid(tmp_path, cache))[1])
    shutil.copytree(folder, tmp_path / "before")
    shutil.rmtree(folder / "records")
    (elsewhere := Claim(folder, Path(cache), taken).taken()).__enter__()

    def finish(seconds):
        ended = load(tmp_path / "before" / "records" / f"{taken}.json")
        reason = "RuntimeError" if status == "failed" else None
        save(ended.model_copy(update={"status": status, "reason": reason}), folder / "records")
        elsewhere.__exit__(None, None, None)

    ran, real = [], run.run_cell

    def spied(cell, *rest):
        ran.append(identity_of(cell))
        return real(cell, *rest)

    monkeypatch.setattr(run, "run_cell", spied)
    monkeypatch.setattr(turn.time, "sleep", finish)
    capsys.readouterr()
    assert run.main(grid(tmp_path, cache)) == (status == "failed")
    lines = capsys.readouterr().err.splitlines()
    [told] = [line for line in lines if line.endswith("(another process)")]
    assert told.startswith("[2/")
    assert ("failed: RuntimeError" in told) == (status == "failed")
    names = {identity_of(cell) for cell in cells(grid(tmp_path, cache))}
    assert sorted(ran) == sorted(names - {taken})
    assert {r.cell for r in load_folder(folder / "records")} == names


def test_what_was_recorded_while_the_grid_was_checked_is_not_run(
    tmp_path, cache, in_root, monkeypatch
):
    assert run.main(grid(tmp_path, cache)) == 0
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell ran again"))
    real, seen = run.finished, set()

    def late(cell, folder):
        """None the first two times that a cell is asked for: before the claim, not after it."""
        name = identity_of(cell)
        first = (name, 2) not in seen
        seen.add((name, 2) if (name, 1) in seen else (name, 1))
        return None if first else real(cell, folder)

    monkeypatch.setattr(run, "finished", late)
    assert run.main(grid(tmp_path, cache)) == 0


@pytest.mark.slow
def test_eight_processes_run_each_cell_once(tmp_path, cache, in_root):
    command = [sys.executable, "-m", "benchmarks.run", *grid(tmp_path, cache)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    told = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, told
    names = {identity_of(cell) for cell in cells(grid(tmp_path, cache))}
    lines = [line for text in told for line in text.splitlines() if line.startswith("[")]
    own = [line for line in lines if not line.endswith("(another process)")]
    assert len(own) == len(names), lines
    folder = tmp_path / "results" / "smoke"
    records = load_folder(folder / "records")
    assert {record.cell for record in records} == names
    assert all(record.status == "ok" for record in records)
    assert (folder / "report.html").exists()
