"""Several processes of one machine on one grid: who does what, and that none is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from benchmarks import run, stopping, workers
from benchmarks.cell import identity_of
from benchmarks.config import cells, compose
from benchmarks.record import load_folder
from wavedp.dp import UserError

TINY = [
    *("suite=smoke", "method=dp_vae", "suite.samples=24", "suite.grid.seed=[0,1]"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]


BEFORE = {"a-cell": (3, 4)}


def config(tmp_path, *overrides):
    return compose(["suite=smoke", f"cache_dir={tmp_path}/cache", *overrides])


def helped(tmp_path, *asked, cells=9):
    return workers.helped(asked, config(tmp_path, *asked), BEFORE, cells)


def logs(tmp_path):
    return sorted((tmp_path / "cache" / "workers").glob("*.log"))


def helper(monkeypatch, code):
    """What is started in the place of a run; the processes in the order of their start."""
    real = subprocess.Popen
    started = []

    def popen(command, **rest):
        started.append(real([sys.executable, "-c", code, *command[3:]], **rest))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", popen)
    return started


@pytest.fixture
def cores(monkeypatch):
    def have(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))

    return have


def test_workers_take_a_gpu_each_where_there_are_several(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    names = [workers.own_gpu(worker).get("CUDA_VISIBLE_DEVICES") for worker in (0, 1, 2, 3, None)]
    assert names == ["0", "1", "2", "0", None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert [workers.own_gpu(n)["CUDA_VISIBLE_DEVICES"] for n in (0, 1, 2)] == ["6", "7", "6"]
    for visible in ("5", ""):  # SLURM's own, and none at all
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert workers.own_gpu(1) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert workers.own_gpu(1) == {}


def test_each_process_has_its_part_of_the_cores(tmp_path, cores):
    cores(7)
    asked = [[], ["hardware.workers=2"], ["hardware.workers=9"]]
    assert [workers.threads(config(tmp_path, *given)) for given in asked] == [None, 3, 1]
    given = ["hardware.threads=5", "hardware.workers=2"]
    assert workers.threads(config(tmp_path, *given)) == 5


def test_auto_is_a_process_per_gpu_or_core(tmp_path, cores, monkeypatch):
    asked, counts = config(tmp_path, "hardware.workers=auto"), []
    for count in (1, 3, 64):
        cores(count)
        counts.append((workers.count(asked), workers.threads(asked)))
    assert counts == [(1, None), (3, 1), (4, 16)]
    cores(2)
    of_two = config(tmp_path, "hardware.workers=auto", "hardware=cpu")  # which has two threads
    assert (workers.count(of_two), workers.threads(of_two)) == (1, 2)
    monkeypatch.setattr(workers, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    cores(64)
    on_gpus = config(tmp_path, "hardware.workers=auto", "hardware.device=cuda")
    assert (workers.count(on_gpus), workers.threads(on_gpus)) == (8, 8)


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5", "null", "true"])
def test_a_number_of_processes_that_is_none_is_refused(count, tmp_path, in_root):
    with pytest.raises(UserError, match=r"hardware\.workers must be auto, 1 or more, got"):
        run.main([*TINY, f"hardware.workers={count}", f"results_dir={tmp_path}"])


ALONE = {"force=true": "force=true", "untrained=true": "untrained", "torchrun": "torchrun"}


@pytest.mark.parametrize("what", ALONE)
def test_what_each_process_would_do_again_is_refused_and_done_by_one(what, tmp_path, monkeypatch):
    asked = []
    if what == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "2")
    else:
        asked = [what]
    with pytest.raises(UserError, match=rf"=2 does not go with {ALONE[what]}: set it to 1"):
        workers.check(config(tmp_path, "hardware.workers=2", *asked))
    auto = config(tmp_path, "hardware.workers=auto", *asked)
    workers.check(auto)
    assert workers.count(auto) == 1


def test_one_gpu_by_its_number_is_not_shared_out(tmp_path):
    with pytest.raises(UserError, match=r"does not go with hardware\.device=cuda:1"):
        workers.check(config(tmp_path, "hardware.workers=2", "hardware.device=cuda:1"))


def test_a_dry_run_asks_for_no_device_and_no_process(tmp_path):
    asked = config(tmp_path, "hardware.workers=auto", "hardware.device=cuda", "dry_run=true")
    workers.check(asked)
    assert workers.count(asked) == 1


@pytest.mark.parametrize(("asked", "cells"), [([], 9), (["hardware.workers=4"], 1)])
def test_nothing_to_share_starts_no_other(asked, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with helped(tmp_path, *asked, cells=cells):
        pass
    monkeypatch.setenv(workers.BEFORE, "told.json")  # this is one of the others
    with helped(tmp_path, "hardware.workers=4"):
        pass


def test_others_run_the_same_command_and_are_waited_for(tmp_path, monkeypatch, capsys):
    code = (
        "import os, pathlib, sys, time; time.sleep(0.5)\n"
        "from benchmarks import workers\n"
        f"told = [workers.before(None), os.environ['{stopping.LEADER}']]\n"
        f"pathlib.Path('{tmp_path}', str(os.getpid())).write_text(f'{{sys.argv[1:]}} {{told}}')"
    )
    started = helper(monkeypatch, code)
    asked = ["suite=smoke", "hardware.workers=3"]
    with helped(tmp_path, *asked):
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [0, 0]
    for process in started:
        assert (tmp_path / str(process.pid)).read_text() == f"{asked} {[BEFORE, str(os.getpid())]}"
    assert not list((tmp_path / "cache" / "workers").iterdir())  # logs of what went wrong are kept
    assert "3 processes share the grid" in capsys.readouterr().err


def test_a_process_that_dies_is_told_of(tmp_path, monkeypatch, capsys):
    helper(monkeypatch, "import os; print('last words', flush=True); os.kill(os.getpid(), 9)")
    with helped(tmp_path, "hardware.workers=2"):
        pass
    [log] = logs(tmp_path)
    assert log.read_text() == "last words\n"
    assert log.parent.stat().st_mode & 0o077 == 0  # they may quote a private record
    assert f"a process ended with code -9: {log}" in capsys.readouterr().err


TRAPS = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit(130)))\n"
    "print('ready', flush=True); time.sleep(60)"
)


def ready(tmp_path):
    while not any("ready" in log.read_text() for log in logs(tmp_path)):
        time.sleep(0.01)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_none_is_left_running_where_the_first_leaves(error, tmp_path, monkeypatch, capsys):
    started = helper(monkeypatch, TRAPS)

    def leave():
        with helped(tmp_path, "hardware.workers=2"):
            ready(tmp_path)
            raise error

    with pytest.raises(error):
        leave()
    assert started[0].returncode == 130
    assert "ended with code" not in capsys.readouterr().err


def test_none_is_left_running_where_a_later_one_does_not_start(tmp_path, monkeypatch):
    started = helper(monkeypatch, TRAPS)
    popen = workers.subprocess.Popen

    def second_fails(*command, **rest):
        if started:
            ready(tmp_path)
            raise BlockingIOError("no process left")
        return popen(*command, **rest)

    monkeypatch.setattr(workers.subprocess, "Popen", second_fails)
    with pytest.raises(BlockingIOError), helped(tmp_path, "hardware.workers=3"):
        pass
    assert [process.returncode for process in started] == [130]


def test_who_waits_for_others_hands_signals_on(tmp_path, monkeypatch):
    started = helper(monkeypatch, TRAPS)
    with stopping.stoppable():
        with helped(tmp_path, "hardware.workers=2"):
            ready(tmp_path)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert started[0].returncode == 130


def test_the_second_signal_ends_the_others_at_once_too(tmp_path, monkeypatch):
    """They are told twice, by which a run ends at once."""
    code = (
        "import signal, sys, time\n"
        "told = iter((False, True))\n"
        "signal.signal(signal.SIGTERM, lambda *_: next(told) and sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    started = helper(monkeypatch, code)
    with stopping.stoppable():
        with helped(tmp_path, "hardware.workers=2"):
            ready(tmp_path)
            for seconds in (0.3, 1.0):
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert started[0].returncode == 9


def test_a_helper_stops_when_its_leader_is_gone(monkeypatch):
    monkeypatch.setenv(stopping.LEADER, str(os.getppid()))
    assert not stopping.asked()
    monkeypatch.setenv(stopping.LEADER, "1" if os.getppid() != 1 else "2")
    assert stopping.asked()
    with pytest.raises(KeyboardInterrupt):
        stopping.stop_if_asked()


def test_a_helper_makes_no_report_and_leaves_failures_to_the_first(
    tmp_path, cache, in_root, monkeypatch
):
    (tmp_path / "told.json").write_text("{}")
    monkeypatch.setenv(workers.BEFORE, str(tmp_path / "told.json"))
    monkeypatch.setattr(run, "run_cell", lambda *_: 1 / 0)
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    row = ["suite.grid.row=[pretrained]", "suite.grid.seed=[0]"]
    assert run.main([*TINY, *places, *row]) == 0
    [record] = load_folder(tmp_path / "results" / "smoke" / "records")
    assert record.status == "failed"
    assert not (tmp_path / "results" / "smoke" / "report.html").exists()


def test_what_failed_since_the_grid_began_is_not_run_again_by_a_helper(
    tmp_path, cache, in_root, monkeypatch
):
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    row = ["suite.grid.row=[pretrained]", "suite.grid.seed=[0]"]
    tried = []
    monkeypatch.setattr(run, "run_cell", lambda *_: tried.append(1) or 1 / 0)
    (tmp_path / "told.json").write_text("{}")
    monkeypatch.setenv(workers.BEFORE, str(tmp_path / "told.json"))
    assert [run.main([*TINY, *places, *row]) for _ in range(2)] == [0, 0]
    assert len(tried) == 1
    monkeypatch.delenv(workers.BEFORE)
    assert run.main([*TINY, *places, *row]) == 1
    assert len(tried) == 2


@pytest.mark.slow
def test_two_processes_run_a_grid_between_them(tmp_path, cache, in_root, capsys):
    """Of a grid that takes longer than the start of a process."""
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    asked = [*TINY, "method.finetuning.steps=1000", *places]
    assert run.main([*asked, "hardware.workers=2"]) == 0
    names = [identity_of(cell) for cell in cells(asked)]
    records = load_folder(tmp_path / "results" / "smoke" / "records")
    assert sorted(record.cell for record in records) == sorted(names)
    assert {record.config["hardware"]["workers"] for record in records} == {2}
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == len(names)
    assert any(line.endswith("(another process)") for line in lines)
