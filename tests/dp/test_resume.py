"""A run that is killed goes on to the identical weights, and never shows less than it spent."""

import json
import multiprocessing
import os
import random
import resource
import signal
import stat
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from wavedp.dp import Ledger, PrivateRecords, Trainer, UserError, checkpoint
from wavedp.dp.accounting import Budget
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.plan import DPPlan, NonPrivatePlan

STEPS = 40
PLAN = DPPlan(Budget(50.0, 1e-5), 200, 20, STEPS, 1.0, 1.0)
FORK = multiprocessing.get_context("fork")


class Net(nn.Module):
    """With dropout, so that the model's own randomness has to come back, too."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x):
        return self.layers(x).squeeze(1)


def squared(model, batch):
    return (model(batch["x"]) - batch["y"]).square()


def columns():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    return {"x": x, "y": x.sum(1)}


def run(folder, seeds=True, plan=PLAN, every=3, pause=0.0, **settings):
    """Train in ``folder``, from its checkpoint if there is one; returns model and trainer."""
    torch.manual_seed(5)
    model = Net()
    given = {"noise_seed": 1, "sampling_seed": 2} if seeds else {}

    def slowly(steps, label):
        for step in steps:
            time.sleep(pause)
            yield step

    ledger = Ledger(folder / "ledger.jsonl", plan.budget)
    checkpoints = Checkpoints(folder / "checkpoints", every)
    trainer = Trainer(
        plan, ledger=ledger, checkpoints=checkpoints, progress=slowly, ema_decay=0.9, **given,
        **settings,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    records = PrivateRecords(columns(), name="toy", records=200)
    try:
        trainer.fit(model, squared, records, optimizer, schedule=lambda done: 1 - done)
    finally:
        ledger.close()
    return model, trainer


def child(folder, seeds, every):
    model, _ = run(Path(folder), seeds, every=every, pause=0.001)
    torch.save(model.state_dict(), Path(folder) / "partial.pt")
    os.replace(Path(folder) / "partial.pt", Path(folder) / "weights.pt")


def killed_until_done(folder, moments, seeds=True, every=3):
    """Kill the run at random moments until it is done; returns how often it was killed."""
    folder.mkdir()
    killed = 0
    while True:
        process = FORK.Process(target=child, args=(str(folder), seeds, every))
        process.start()
        process.join(moments.uniform(0.005, 0.15) * (1 + killed / 5))  # ever longer, to be done
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if (folder / "weights.pt").exists():
            return killed
        assert killed < 500


def charged(folder):
    return len((folder / "ledger.jsonl").read_bytes().splitlines()) - 1


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    model, trainer = run(tmp_path_factory.mktemp("undisturbed"))
    return model.state_dict(), trainer.spent()


def test_fifty_kills_resume_to_identical_weights_and_epsilon(tmp_path, undisturbed):
    weights, spent = undisturbed
    moments, kills, runs = random.Random(0), 0, 0
    while kills < 50:
        folder = tmp_path / str(runs)
        kills += killed_until_done(folder, moments, every=moments.choice([1, 3, 7, 100]))
        runs += 1
        assert same(torch.load(folder / "weights.pt", weights_only=True), weights)
        assert charged(folder) == STEPS
        assert Ledger(folder / "ledger.jsonl", PLAN.budget).spent() == spent


def test_ten_runs_with_seeds_of_the_system_resume_and_pay_for_every_step(tmp_path):
    moments, resumed = random.Random(1), 0
    found = []
    while resumed < 10:
        folder = tmp_path / str(len(found))
        resumed += killed_until_done(folder, moments, seeds=False) > 0
        assert charged(folder) == STEPS  # what was replayed had the identical noise
        found.append(torch.load(folder / "weights.pt", weights_only=True))
    assert not same(found[0], found[1])


def interrupted(folder, at, **settings):
    """Stop right after step ``at`` was charged and applied, like a kill between checkpoints."""

    class Stop(Exception):
        pass

    def stop(steps, label):
        for step in steps:
            if step == at:
                raise Stop
            yield step

    torch.manual_seed(5)
    model = Net()
    ledger = Ledger(folder / "ledger.jsonl", PLAN.budget)
    checkpoints = Checkpoints(folder / "checkpoints", settings.pop("every", 10))
    trainer = Trainer(
        PLAN, ledger=ledger, checkpoints=checkpoints, progress=stop, ema_decay=0.9, **settings
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    records = PrivateRecords(columns(), name="toy", records=200)
    with pytest.raises(Stop):
        trainer.fit(model, squared, records, optimizer, schedule=lambda done: 1 - done)
    ledger.close()


def test_a_replay_without_the_identical_noise_is_charged_again(tmp_path):
    interrupted(tmp_path, 15)
    assert charged(tmp_path) == 15
    for key in (tmp_path / "checkpoints").glob("*.key"):
        key.unlink()
    run(tmp_path, seeds=False, every=10)
    assert charged(tmp_path) == 15 + 30  # steps 10..39 once more, with other noise


@pytest.mark.parametrize("left", [0, 9])
def test_a_checkpoint_whose_ledger_is_gone_is_refused(left, tmp_path):
    """Ten steps are in the weights: epsilon of fewer would not describe them."""
    interrupted(tmp_path, 15)
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[: left and 1 + left]))
    message = rf"has {left} queries and a checkpoint goes on from 10: put .* back"
    with pytest.raises(UserError, match=message):
        run(tmp_path, seeds=False, every=10)
    assert charged(tmp_path) == left


def test_every_training_of_a_run_needs_its_own_queries_in_the_ledger(tmp_path):
    def both():
        plan = DPPlan(Budget(50.0, 1e-5), 200, 20, 6, 1.0, 1.0)
        ledger = Ledger(tmp_path / "ledger.jsonl", plan.budget)
        kept = Checkpoints(tmp_path / "checkpoints")
        trainer = Trainer(plan, ledger=ledger, checkpoints=kept)
        records = PrivateRecords(columns(), name="toy", records=200)
        try:
            for seed in (0, 1):
                torch.manual_seed(seed)
                model = Net()
                sgd = torch.optim.SGD(model.parameters(), lr=0.1)
                trainer.fit(model, squared, records, sgd)
        finally:
            ledger.close()

    both()
    both()  # both have ended, and nothing is charged again
    assert charged(tmp_path) == 12
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:12]))
    with pytest.raises(UserError, match="has 11 queries and a checkpoint goes on from 12"):
        both()


def test_a_replay_that_does_not_fit_the_budget_is_refused_before_it_starts(tmp_path):
    tight = DPPlan.calibrate(
        epsilon=2, delta=1e-5, records=200, expected_batch=20, steps=STEPS, clip=1.0
    )
    ledger = Ledger(tmp_path / "ledger.jsonl", tight.budget)
    ledger.charge(tight.event, "training", "of an earlier run")
    ledger.close()
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match="past the target"):
        run(tmp_path, plan=tight)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_keys_are_secret_while_the_run_lasts_and_gone_at_its_end(tmp_path):
    interrupted(tmp_path, 15)
    folder = tmp_path / "checkpoints"
    key = next(folder.glob("*.key"))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = json.loads(key.read_bytes().partition(b"\n")[2])["noise"]
    for other in [*folder.glob("*.pt"), tmp_path / "ledger.jsonl"]:
        assert secret.encode() not in other.read_bytes()
        assert bytes.fromhex(secret) not in other.read_bytes()
    run(tmp_path, seeds=False)
    assert not list(folder.glob("*.key"))


def test_a_checkpoint_holds_no_sum_of_gradients(tmp_path):
    """Only weights, moments of released gradients and averages: nothing between steps."""
    interrupted(tmp_path, 15)
    state = Checkpoints(tmp_path / "checkpoints").load("training 1")
    assert set(state) == {"identity", "step", "weights", "buffers", "optimizer", "average"}
    assert state["step"] == 10
    assert set(state["average"]) == {"weight", "sums"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"plan": DPPlan(Budget(50.0, 1e-5), 200, 20, STEPS, 0.5, 1.0)}, "plan"),
        ({"engine": "two_pass"}, "engine"),
        ({"amp": "bf16"}, "computing"),
    ],
)
def test_a_checkpoint_of_another_plan_or_setting_is_refused(tmp_path, change, named):
    interrupted(tmp_path, 15)
    kept = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    with pytest.raises(UserError, match=f"another {named}"):
        run(tmp_path, seeds=False, **change)
    assert {p: p.read_bytes() for p in kept} == kept


def test_a_checkpoint_of_other_code_is_refused(tmp_path, monkeypatch):
    interrupted(tmp_path, 15)
    monkeypatch.setattr("wavedp.dp.trainer.code_version", lambda *used: "other")
    with pytest.raises(UserError, match="another code"):
        run(tmp_path, seeds=False)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    interrupted(tmp_path, 15)
    path = next((tmp_path / "checkpoints").glob("*.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"training-1\.pt is damaged"):
        run(tmp_path, seeds=False)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    kept = Checkpoints(tmp_path / "checkpoints")
    kept.save("training 1", {"step": Evil()})
    with pytest.raises(UserError, match="damaged"):
        kept.load("training 1")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("writes", "named"), [(2, "ledger"), (5, "checkpoint")])
def test_a_full_disk_leaves_checkpoint_and_ledger_whole(tmp_path, monkeypatch, writes, named):
    """Continued at step 10 with five steps paid: five charges are written, then a checkpoint."""
    interrupted(tmp_path, 15)
    folder = tmp_path / "checkpoints"
    before = {p: p.read_bytes() for p in folder.glob("*.*")}
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > writes:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"The {named} .* cannot be written .No space left"):
        run(tmp_path, seeds=False, every=10)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert charged(tmp_path) == 15 + writes
    assert (tmp_path / "ledger.jsonl").read_bytes().endswith(b"\n")
    run(tmp_path, seeds=False, every=10)
    assert charged(tmp_path) == STEPS


@pytest.mark.parametrize("size", [1 << 12, 1 << 20])
def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_the_last_one(tmp_path, size):
    """A limit on the size of files, in the first tensor or in the one after it."""
    kept = Checkpoints(tmp_path)
    kept.save("training", {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\)"):
            kept.save("training", {"a": torch.zeros(size), "b": torch.zeros(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept.load("training") == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_takes_no_memory_beside_what_it_saves(tmp_path, monkeypatch):
    """It is written in parts, of which none is as large as what is saved."""
    written = []
    real = checkpoint._Digested.write

    def spied(self, content):
        written.append(len(content))
        return real(self, content)

    monkeypatch.setattr(checkpoint._Digested, "write", spied)
    state = {str(part): torch.randn(1 << 16) for part in range(20)}
    Checkpoints(tmp_path).save("training", state)
    assert max(written) <= 4 << 16
    found = Checkpoints(tmp_path).load("training")
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_two_trainings_of_a_run_are_both_kept(tmp_path):
    """The first is not trained again when the second was interrupted."""

    def both(folder, stop):
        torch.manual_seed(0)
        models = [Net(), Net()]
        trainer = Trainer(
            NonPrivatePlan(20, 6),
            checkpoints=Checkpoints(folder, 2),
            sampling_seed=0,
            progress=stop,
        )
        for name, model in zip("ab", models, strict=True):
            sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            trainer.fit(model, squared, columns(), sgd, label=name)
        return models

    seen = []

    def stopping(steps, label):
        for step in steps:
            if label == "b" and step == 3:
                raise KeyboardInterrupt
            yield step

    def counting(steps, label):
        for step in steps:
            seen.append((label, step))
            yield step

    with pytest.raises(KeyboardInterrupt):
        both(tmp_path / "a", stopping)
    resumed = both(tmp_path / "a", counting)
    assert seen == [("b", step) for step in range(2, 6)]
    whole = both(tmp_path / "b", lambda steps, label: steps)
    for one, other in zip(resumed, whole, strict=True):
        assert same(one.state_dict(), other.state_dict())
