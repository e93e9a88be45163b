"""Trainings that are interrupted, tried again or refused: what is spent, and what is left."""

import json
import math
import os

import pytest
import torch
from test_traps import fit, plan, squares, vectors
from torch import nn

from wavedp.dp import Budget, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError, noisy_sum
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.randomness import Stream


def attempt(ledger, kept, stop=None, loss=squares, **settings):
    """A training in a notebook: the ledger stays open; it may be interrupted."""

    def steps(steps, label):
        for step in steps:
            if step == stop:
                raise KeyboardInterrupt
            yield step

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    trainer = Trainer(plan(steps=6), ledger=ledger, checkpoints=kept, progress=steps, **settings)
    sealed = PrivateRecords(vectors(), name="toy", records=100)
    trainer.fit(model, loss, sealed, torch.optim.SGD(model.parameters(), lr=0.1))
    return model.weight.detach()


def test_an_interrupted_training_goes_on_in_the_same_process(tmp_path):
    ledger, kept = Ledger(tmp_path / "l.jsonl", plan().budget), Checkpoints(tmp_path / "kept", 2)
    with pytest.raises(KeyboardInterrupt):
        attempt(ledger, kept, stop=3)
    attempt(ledger, kept)
    assert ledger.counts == {plan().event: 6}
    assert len(ledger.path.read_text().splitlines()) == 7


def test_a_step_whose_charge_failed_is_charged_when_it_is_taken(tmp_path, monkeypatch):
    """A full disk at the fourth step: the next attempt in this process pays for it."""
    ledger, kept = Ledger(tmp_path / "l.jsonl", plan().budget), Checkpoints(tmp_path / "kept", 2)
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if number == ledger._file.fileno() and calls.count(number) == 4:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        attempt(ledger, kept)
    assert ledger.counts == {plan().event: 3}
    attempt(ledger, kept)
    assert ledger.counts == {plan().event: 6}
    assert len(ledger.path.read_text().splitlines()) == 7


def test_an_interruption_does_not_free_the_noise_of_other_queries(tmp_path):
    """Two sums with one noise differ by what is in them and nothing else."""
    ledger, kept = (
        Ledger(tmp_path / "l.jsonl", Budget(math.inf, 1e-5)),
        Checkpoints(tmp_path / "k", 2),
    )
    sealed = PrivateRecords({"x": torch.ones(10, 4)}, name="toy", records=10)
    settings = {"size": 4, "clip": 1.0, "noise_multiplier": 1.0, "ledger": ledger, "noise_seed": 1}
    noisy_sum(sealed, lambda rows: torch.as_tensor(rows["x"]), **settings)
    with pytest.raises(KeyboardInterrupt):
        attempt(ledger, kept, stop=3)
    with pytest.raises(UserError, match="noise that another one has used"):
        noisy_sum(sealed, lambda rows: 0.9 * torch.as_tensor(rows["x"]), **settings)


@pytest.mark.parametrize("change", ["micro_batch", "loss"])
def test_a_step_that_is_taken_again_otherwise_is_refused(tmp_path, change):
    """Its noise is that of a step whose result may have been seen: the difference has none."""
    scale = [1.0]

    def loss(module, batch):
        noise = torch.rand(len(batch["x"]))
        return scale[0] * noise * squares(module, batch)

    ledger, kept = Ledger(tmp_path / "l.jsonl", plan().budget), Checkpoints(tmp_path / "kept", 2)
    with pytest.raises(KeyboardInterrupt):
        attempt(ledger, kept, stop=3, loss=loss, sampling_seed=2)
    # The sample is given, because a batch of one micro-batch is computed as before.
    changed = {"micro_batch": 3} if change == "micro_batch" else {}
    scale[0] = 1.0 if changed else 0.5
    with pytest.raises(UserError, match="computed otherwise"):
        attempt(ledger, kept, loss=loss, sampling_seed=2, **changed)
    scale[0] = 1.0
    attempt(ledger, kept, loss=loss, sampling_seed=2)
    assert ledger.counts == {plan().event: 6}


def test_a_changed_method_does_not_continue_a_checkpoint(tmp_path):
    """A loss that is a method is known by the file it is written in, as a function is."""
    from wavedp.dp.trainer import _written_in

    class Losses:
        def loss(self, module, batch):
            return squares(module, batch)

        def __call__(self, module, batch):
            return squares(module, batch)

    assert _written_in(Losses().loss) is Losses.loss
    assert _written_in(Losses()) is Losses
    assert _written_in(squares) is squares


def test_an_attempt_that_did_not_start_does_not_stand_in_the_way(tmp_path):
    ledger, kept = Ledger(tmp_path / "l.jsonl", plan().budget), Checkpoints(tmp_path / "kept", 2)
    with pytest.raises(UserError, match="bookeeping"):
        attempt(ledger, kept, engine="bookeeping")
    with pytest.raises(KeyboardInterrupt):
        attempt(ledger, kept, stop=0, ema_decay=0.5)
    attempt(ledger, kept)
    assert ledger.counts == {plan().event: 6}


def test_checkpoints_leave_the_files_of_others_alone(tmp_path):
    others = [tmp_path / name for name in ("mine.pt", "mine.key", "mine.tmp")]
    for path in others:
        path.write_text("mine")
    ledger, kept = Ledger(tmp_path / "l.jsonl", plan().budget), Checkpoints(tmp_path, 2)
    attempt(ledger, kept)
    kept.remove()
    assert sorted(tmp_path.iterdir()) == sorted([*others, ledger.path])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"micro_batch": "all"}, "micro_batch"),
        ({"recompute": nn.Linear}, "recompute"),
        ({"engine": "ghost"}, "ghost"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_spent(settings, named):
    with pytest.raises(UserError, match=named):
        Trainer(plan(), **settings)


def test_no_keys_are_left_by_a_run_that_was_killed_while_it_wrote_them(tmp_path, monkeypatch):
    real = os.replace

    def killed(partial, path):
        if str(path).endswith(".key"):
            raise SystemExit
        real(partial, path)

    kept = Checkpoints(tmp_path / "checkpoints", 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            kept.keep_streams("training 1", {"noise": Stream.fresh(None, "noise")})
    (left,) = kept.folder.glob("*.tmp")
    assert "noise" in json.loads(left.read_bytes().partition(b"\n")[2])
    fit(tmp_path, nn.Linear(3, 1), squares, vectors(), plan(), checkpoints=kept)
    assert not left.exists()


def test_a_public_training_resumes_with_its_running_statistics(tmp_path):
    """BatchNorm is allowed on public records."""

    def train(folder, last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

        def steps(steps, label):
            for step in steps:
                if step == last:
                    raise KeyboardInterrupt
                yield step

        sgd, kept = torch.optim.SGD(model.parameters(), lr=0.1), Checkpoints(folder, 2)
        trainer = Trainer(NonPrivatePlan(20, 6), checkpoints=kept, sampling_seed=0, progress=steps)
        trainer.fit(model, squares, vectors(), sgd)
        return model[1].running_mean

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", 3)
    torch.testing.assert_close(train(tmp_path / "stopped", -1), train(tmp_path / "whole", -1))
