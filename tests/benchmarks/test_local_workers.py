"""Several processes of one machine on one grid: who does what, and that none is left behind."""

import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import run, workers
from benchmarks.cell import identity_of
from benchmarks.config import cells, compose
from benchmarks.record import load_folder
from wavedp.dp import UserError

TINY = [
    *("suite=smoke", "method=dp_vae", "suite.samples=24", "suite.grid.seed=[0,1]"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]


def config(tmp_path, *overrides):
    return compose(["suite=smoke", f"cache_dir={tmp_path}/cache", *overrides])


def helper(monkeypatch, code):
    """What is started in the place of a run."""
    real = subprocess.Popen
    started = []

    def popen(command, **rest):
        started.append(real([sys.executable, "-c", code, *command[3:]], **rest))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", popen)
    return started


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


def test_each_process_has_its_part_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    asked = [[], ["hardware.workers=2"], ["hardware.workers=9"]]
    assert [workers.threads(config(tmp_path, *given)) for given in asked] == [None, 3, 1]
    given = ["hardware.threads=5", "hardware.workers=2"]
    assert workers.threads(config(tmp_path, *given)) == 5


def test_auto_is_a_process_per_gpu_or_core(tmp_path, monkeypatch):
    asked = config(tmp_path, "hardware.workers=auto")
    counts = []
    for cores in (1, 3, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        counts.append((workers.count(asked), workers.threads(asked)))
    assert counts == [(1, None), (3, 1), (4, 16)]
    monkeypatch.setattr(workers, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    on_gpus = config(tmp_path, "hardware.workers=auto", "hardware.device=cuda")
    assert (workers.count(on_gpus), workers.threads(on_gpus)) == (8, 8)


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5", "null"])
def test_a_number_of_processes_that_is_none_is_refused(count, tmp_path, in_root):
    with pytest.raises(UserError, match=r"hardware\.workers must be auto, 1 or more, got"):
        run.main([*TINY, f"hardware.workers={count}", f"results_dir={tmp_path}"])


def test_what_each_process_would_do_again_is_refused(tmp_path, in_root, monkeypatch):
    with pytest.raises(UserError, match="does not go with force=true"):
        run.main([*TINY, "hardware.workers=2", "force=true", f"results_dir={tmp_path}"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="does not go with torchrun"):
        run.main([*TINY, "hardware.workers=2", f"results_dir={tmp_path}"])


def test_one_process_starts_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with workers.helped(["suite=smoke"], config(tmp_path)):
        pass


def test_others_run_the_same_command_alone_and_are_waited_for(tmp_path, monkeypatch, capsys):
    started = helper(monkeypatch, "import sys, time; time.sleep(0.5); print(sys.argv[1:])")
    asked = ["suite=smoke", "hardware.workers=3", "hardware.threads=2"]
    with workers.helped(asked, config(tmp_path, *asked)):
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [0, 0]
    own = [*asked, "hardware.workers=1", "hardware.threads=2"]
    assert (tmp_path / "cache" / "workers" / "2.log").read_text() == f"{own}\n"
    [last] = cells([*own, "suite.grid.row=[pretrained]", "method=dp_vae"])
    assert (last.config.hardware.workers, last.config.hardware.threads) == (1, 2)
    assert "3 processes" in capsys.readouterr().err


def test_a_process_that_dies_is_told_of(tmp_path, monkeypatch, capsys):
    helper(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with workers.helped([], config(tmp_path, "hardware.workers=2")):
        pass
    told = "".join(capsys.readouterr().err.split())
    assert "aprocessendedwithcode-9:" in told
    assert told.endswith("workers/1.log")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_none_is_left_running_where_the_first_leaves(error, tmp_path, monkeypatch):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit(130)))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    started = helper(monkeypatch, code)
    log = tmp_path / "cache" / "workers" / "1.log"

    def leave():
        with workers.helped([], config(tmp_path, "hardware.workers=2")):
            while "ready" not in log.read_text():
                time.sleep(0.01)
            raise error

    with pytest.raises(error):
        leave()
    assert started[0].returncode == 130
    assert log.read_text() == "ready\ntold\n"


@pytest.mark.slow
def test_two_processes_run_a_grid_between_them(tmp_path, cache, in_root, capsys):
    """Of a grid that takes longer than the start of a process."""
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    asked = [*TINY, "method.finetuning.steps=1000", *places]
    assert run.main([*asked, "hardware.workers=2"]) == 0
    names = [identity_of(cell) for cell in cells(asked)]
    records = load_folder(tmp_path / "results" / "smoke" / "records")
    assert sorted(record.cell for record in records) == sorted(names)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == len(names)
    assert any(line.endswith("(another process)") for line in lines)
