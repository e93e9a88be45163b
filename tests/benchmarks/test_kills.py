"""Kill -9 at any moment: the same command goes on, and nothing tells that it was ever disturbed."""

import hashlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import run
from benchmarks.cell import identity_of, ledger_of, make_plan
from benchmarks.config import cells
from benchmarks.record import load_folder
from wavedp.dp import Ledger

ROOT = Path(__file__).resolve().parents[2]
FORK = multiprocessing.get_context("fork")
SHARED = [
    *("suite=smoke", "suite.samples=24", "dataset.private_records=64", "hardware.threads=1"),
    *("dataset.evaluation_records=300", "hardware.checkpoint_every=3"),
    *("privacy.noise_seed=1", "privacy.sampling_seed=2"),
]
GRADIENTS = [
    *(*SHARED, "method=dp_vae", "suite.grid.row=[pretrained,private,non_private]"),
    *("suite.grid.seed=[0,1]", "privacy.epsilon=[1,10]"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=50"),
]
QUERIES = [
    *(*SHARED, "method=dp_merf", "suite.grid.row=[private]", "privacy.epsilon=[1,10]"),
    *("suite.grid.seed=[0,1]", "method.generator.frequencies=50"),
    *("method.generator.iterations=150", "method.finetuning.expected_batch=64"),
    "method.finetuning.steps=8",
]
ONE = [
    *(*SHARED, "method=dp_vae", "suite.grid.row=[private]", "privacy.epsilon=[10]"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=4"),
]
TIMES = ["train_examples_per_s", "train_seconds", "sample_images_per_s", "peak_memory_mb"]


def placed(grid, place):
    return [*grid, f"results_dir={place}/results", f"cache_dir={place}/cache"]


def results(place):
    return place / "results" / "smoke"


# What came of a grid ------------------------------------------------------------------------


def outcome(grid, place):
    """All that must not depend on whether a grid was killed; asserts what holds of any grid."""
    folder = results(place)
    records = {record.cell: record for record in load_folder(folder / "records")}
    asked = {identity_of(cell): cell for cell in cells(placed(grid, place))}
    assert sorted(path.stem for path in (folder / "records").iterdir()) == sorted(asked)
    for name, cell in asked.items():
        record, plan = records[name], make_plan(cell)
        assert record.status == "ok"
        if plan is None:
            continue
        spent = Ledger(ledger_of(folder, name), plan.budget, writes=False)
        assert spent.counts.total() == plan.steps
        assert spent.spent().epsilon == record.privacy.epsilon_spent
    return {
        "records": {name: _without_times(record) for name, record in records.items()},
        "summary": pd.read_csv(folder / "summary.csv").drop(columns=TIMES).to_csv(),
        "samples": _digests(place / "cache" / "samples"),
        "weights": _digests(place / "cache" / "finetuned"),
        "ledgers": {p.name: len(p.read_bytes().splitlines()) for p in _files(folder / "ledgers")},
        "pictures": _digests(folder / "samples"),
        "files": sorted(str(path.relative_to(place)) for path in _files(place)),
    }


def _without_times(record):
    kept = record.model_dump(exclude={"cost", "hardware"})
    kept["provenance"].pop("created")
    return kept


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(folder)}


# Where a file is about to get its name -------------------------------------------------------


def ended(grid, place, dies=lambda target: False):
    """Run a grid in a process of its own, which is killed where ``dies``; returns the exit code.

    Args:
        dies: asked for every file that was written under another name and is to get its own.
    """

    def child():
        real = os.replace

        def replace(source, target):
            if dies(Path(target)):
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        os.replace = replace
        os._exit(run.main(placed(grid, place)))

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return process.exitcode


def test_what_a_process_left_that_died_after_its_record_is_kept(tmp_path, in_root):
    """Its samples, which cannot be drawn again without another release, and its weights."""
    drawings = tmp_path / "cache" / "samples"
    died = ended(ONE, tmp_path, lambda target: (target.parent, target.suffix) == (drawings, ".npy"))
    assert died == -signal.SIGKILL
    [record] = load_folder(results(tmp_path) / "records")
    assert not list(drawings.glob("*.npy"))
    [drawn] = drawings.glob("*.partial")
    drawn = drawn.read_bytes()
    assert list((tmp_path / "cache" / "checkpoints").rglob("*.pt"))
    assert run.main([*placed(ONE, tmp_path), "suite.metrics=[fd_toy,spectral]"]) == 0
    [rescored] = load_folder(results(tmp_path) / "records")
    assert "spectral_energy_ll" in rescored.metrics
    assert rescored.privacy == record.privacy
    assert [p.read_bytes() for p in _files(drawings)] == [drawn]
    assert list(_digests(tmp_path / "cache" / "finetuned").values()) == [record.finetuned]
    assert not _files(tmp_path / "cache" / "checkpoints")


@pytest.mark.slow
def test_a_cell_killed_before_any_of_its_files_has_its_name_ends_as_if_undisturbed(
    tmp_path, in_root
):
    named = []
    assert ended(ONE, tmp_path / "whole") == 0
    expected = outcome(ONE, tmp_path / "whole")
    for number in itertools.count():
        place, left = tmp_path / str(number), itertools.count(-number)
        code = ended(ONE, place, lambda target, left=left: next(left) == 0)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        named.append(number)
        assert ended(ONE, place) == 0
        assert outcome(ONE, place) == expected
    assert len(named) > 15


# At random moments, as processes of their own -----------------------------------------------


def started(grid, place):
    command = [sys.executable, "-m", "benchmarks.run", *placed(grid, place)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def seen(place):
    """Changes whenever a query is charged or a record written."""
    folder = results(place)
    charged = [path.stat().st_size for path in sorted((folder / "ledgers").glob("*.jsonl"))]
    return charged, sorted(path.name for path in (folder / "records").glob("*.json"))


def killed_until_done(grid, place, moments, length):
    """Kill a grid again and again; returns how often a running process was hit.

    Every other kill comes at any time since the start, most of them while the process loads and
    checks, the others once it has begun to change something.

    Args:
        length: seconds of the whole grid, by which the moments follow the speed of the machine.
    """
    kills = 0
    while True:
        process = started(grid, place)
        if kills % 2 == 0:
            _wait(process, moments.uniform(0.2, length))
        else:
            before = seen(place)
            while process.poll() is None and seen(place) == before:
                time.sleep(0.01)
            _wait(process, moments.uniform(0, length / 5))
        process.kill()
        told = process.communicate()[1]
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, told
        kills += 1
        assert kills < 100


def _wait(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "wanted"), [(GRADIENTS, 14), (QUERIES, 6)])
def test_a_grid_killed_at_random_moments_ends_as_if_undisturbed(grid, wanted, tmp_path):
    begun = time.perf_counter()
    whole = started(grid, tmp_path / "whole")
    told = whole.communicate()[1]
    assert whole.returncode == 0, told
    length = time.perf_counter() - begun
    expected = outcome(grid, tmp_path / "whole")
    moments, kills, rounds = random.Random(0), 0, 0
    while kills < wanted:
        place = tmp_path / str(rounds)
        kills += killed_until_done(grid, place, moments, length)
        rounds += 1
        assert outcome(grid, place) == expected
    print(f"{kills} kills, {rounds} runs")
