"""Ctrl-C and SIGTERM: what runs comes to a safe place, and the same command goes on from there."""

import os
import signal

import pytest
import torch

from benchmarks import console, run, stopping
from benchmarks.record import load_folder
from wavedp.dp.noise import GaussianNoise

CELL = [
    *("suite=smoke", "method=dp_vae", "suite.grid.row=[private]", "privacy.epsilon=[10]"),
    *("suite.samples=24", "dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=6"),
]


@pytest.fixture(autouse=True)
def a_terminal():
    """That may be closed: under nohup that signal is ignored, by these tests as by anything."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_step_ends_is_saved_and_the_same_command_goes_on(
    number, tmp_path, in_root, monkeypatch, capfd
):
    """Checkpoints are far apart; the signal comes in the middle of step 2."""
    args = [*CELL, f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    monkeypatch.setattr("sys.argv", ["run", *args])
    real, steps = GaussianNoise.add_to, []

    def signalled(self, sums, step):
        steps.append(step)
        if steps == [0, 1, 2]:
            os.kill(os.getpid(), number)
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", signalled)
    with pytest.raises(SystemExit) as left:
        console.run_command(run.main)
    told = " ".join(capfd.readouterr().err.split())
    assert left.value.code == 130
    assert "stopping after this step; once more stops at once." in told
    assert "run the same command again to go on" in told
    (saved,) = (tmp_path / "cache" / "checkpoints").rglob("*.pt")
    assert steps == [0, 1, 2]
    with pytest.raises(SystemExit) as left:
        console.run_command(run.main)
    assert left.value.code == 0
    assert steps == [0, 1, 2, 3, 4, 5], "what was saved was not done again"
    assert not saved.exists()
    [record] = load_folder(tmp_path / "results" / "smoke" / "records")
    assert record.status == "ok"
    [ledger] = (tmp_path / "results" / "smoke" / "ledgers").iterdir()
    assert len(ledger.read_text().splitlines()) == 1 + 6


def test_the_same_cell_of_another_folder_begins_anew_and_pays_for_all_of_it(
    tmp_path, in_root, monkeypatch
):
    """What was stopped is charged to a ledger that this one does not have."""
    real, steps = GaussianNoise.add_to, []

    def signalled(self, sums, step):
        steps.append(step)
        if steps == [0, 1, 2]:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, sums, step)

    monkeypatch.setattr(GaussianNoise, "add_to", signalled)
    for folder, code in (("one", 130), ("two", 0)):
        places = [f"results_dir={tmp_path / folder}", f"cache_dir={tmp_path}/cache"]
        monkeypatch.setattr("sys.argv", ["run", *CELL, *places])
        with pytest.raises(SystemExit) as left:
            console.run_command(run.main)
        assert left.value.code == code
    assert steps == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    [record] = load_folder(tmp_path / "two" / "smoke" / "records")
    assert [query.count for query in record.privacy.queries] == [6]


def test_the_second_signal_ends_at_once():
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert not stopping.asked()


def test_signals_are_what_they_were_afterwards():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.stoppable():
        assert [signal.getsignal(number) for number in stopping.SIGNALS] != before
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


def test_a_closed_terminal_is_no_signal_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping.stoppable():
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stopping.asked()


def test_between_two_steps_a_loop_stops():
    with stopping.stoppable():
        steps = console.track(range(5), "a loop")
        assert next(steps) == 0
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            next(steps)
        images = console.track_images(iter([torch.zeros(2)]), 2, "images")
        with pytest.raises(KeyboardInterrupt):
            next(images)
