"""Two ranks of torchrun run a small grid: the cells of one process, finetuned by both."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import ranks
from benchmarks.cell import identity_of
from benchmarks.config import cells
from benchmarks.record import load_folder

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
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
        env=ONE_THREAD,
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
    """And does not leave one of them waiting for the other: its ledger is of another budget."""
    places = [f"results_dir={tmp_path}", f"cache_dir={cache}"]
    [name] = {
        identity_of(c) for c in cells([*TINY, "method=dp_vae", *places]) if c.row == "private"
    }
    (tmp_path / "smoke" / "ledgers").mkdir(parents=True)
    (tmp_path / "smoke" / "ledgers" / f"{name}.jsonl").write_text('{"ledger": 1}\n')
    done, _ = ran(TORCHRUN, tmp_path, cache, "method=dp_vae")
    assert done.returncode != 0
    assert "The ranks stand in different places of this cell" in " ".join(done.stderr.split())


def of_rank(rank, launcher):
    """The process of a rank of a running ``torchrun``."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            environment = (status.parent / "environ").read_bytes().split(b"\0")
            if parent == launcher and b"RANK=%d" % rank in environment:
                return int(status.parent.name)
    raise AssertionError("there is no such rank")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc")
@pytest.mark.parametrize(
    ("method", "steps", "signalled"), [("dp_vae", 100, "first"), ("private_evolution", 40, "all")]
)
def test_all_ranks_stop_after_the_same_step_and_the_same_command_goes_on(
    method, steps, signalled, tmp_path, cache
):
    """By gradients and by queries; the signal comes to the first rank, or to ``torchrun``."""
    more = [
        *(f"method={method}", "suite.grid.row=[private]", f"method.finetuning.steps={steps}"),
        *(f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"),
        *(["method.generator.members=40"] if method == "private_evolution" else []),
    ]

    def started(logs):
        split = ["--log-dir", str(logs), "--redirects", "3"]
        command = [sys.executable, *TORCHRUN, *split, "-m", "benchmarks.run", *TINY, *more]
        return subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=ONE_THREAD
        )

    with started(tmp_path / "stopped") as run:
        while queries(tmp_path) < 3:
            assert run.poll() is None, told(tmp_path / "stopped", 0)
            time.sleep(0.02)
        if signalled == "first":
            os.kill(of_rank(0, run.pid), signal.SIGTERM)
        else:
            run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=240)[1]
    first, second = told(tmp_path / "stopped", 0), told(tmp_path / "stopped", 1)
    assert run.returncode != 0
    assert "Traceback" not in first + second
    assert "stopped; run the same command again to go on" in " ".join(first.split())
    assert "stopped" not in second, "it is said once"
    # Of ranks that it was told to end, torchrun does not tell exit codes.
    assert ("exitcode  : 130" in said) == (signalled == "first")
    asked = queries(tmp_path)
    assert 3 <= asked < steps
    assert list((tmp_path / "cache" / "checkpoints").rglob("*.pt"))
    with started(tmp_path / "again") as run:
        run.communicate(timeout=240)
    assert run.returncode == 0, told(tmp_path / "again", 0)
    [record] = load_folder(tmp_path / "results" / "smoke" / "records")
    assert record.status == "ok"
    assert record.cost.train_seconds is None, "it went on from the checkpoint"
    assert sum(query.count for query in record.privacy.queries) == steps
    assert queries(tmp_path) == steps, "no step was charged twice"


def queries(folder):
    """How many are in the only ledger; none before it is there."""
    ledgers = list((folder / "results" / "smoke" / "ledgers").glob("*.jsonl"))
    return max(0, len(ledgers[0].read_text().splitlines()) - 1) if ledgers else 0


def told(logs, rank):
    """What a rank wrote."""
    return "".join(path.read_text() for path in logs.rglob(f"{rank}/std*.log"))


def test_without_torchrun_there_is_one_rank():
    with ranks.joined() as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
    ranks.call("a cell")
