"""What a release must not give away, and what a training must not see or mix up."""

import json
import math
import os

import numpy as np
import pytest
import torch
from test_traps import fit, plan, squares, vectors
from torch import nn

from wavedp.dp import Budget, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError, noisy_sum
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.clipping import TOLERANCE, clip_factors, make_engine
from wavedp.dp.clipping.gradients import Terms
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.randomness import Stream


class Centred(nn.Module):
    """Centres a hidden layer over the batch, as BatchNorm does, without being one."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.enter(x)
        return self.leave(torch.tanh(hidden - hidden.mean(0, keepdim=True)))


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("model", [Centred(), nn.Linear(4, 2)], ids=["layer", "loss"])
def test_a_loss_that_sees_other_records_is_refused(engine, model, rows):
    """Without one of the records, the sum would move by more than C."""

    def loss(module, batch):
        losses = module(batch["x"]).square().sum(1)
        return losses if isinstance(module, Centred) else losses - losses.mean()

    torch.manual_seed(0)
    tested = make_engine(engine, model, loss, 1.0)
    with pytest.raises(UserError, match="other records"):
        tested.add({"x": torch.randn(rows, 4)}, torch.ones(rows, dtype=torch.bool))


def by_largest(module, batch):
    hidden = module(batch["x"])
    return (hidden / hidden.detach().abs().max()).square().sum(1)


def by_number(module, batch):
    losses = module(batch["x"]).square().sum(1)
    return losses / len(losses)


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
@pytest.mark.parametrize("loss", [by_largest, by_number])
def test_a_loss_that_sees_others_without_a_gradient_is_refused(engine, loss):
    torch.manual_seed(0)
    tested = make_engine(engine, nn.Linear(4, 2), loss, 1.0)
    x = torch.randn(8, 4) * torch.arange(1, 9).unsqueeze(1)
    with pytest.raises(UserError, match="other records"):
        tested.add({"x": x}, torch.ones(8, dtype=torch.bool))


def test_two_passes_over_draws_that_cannot_be_repeated_are_refused():
    draws = np.random.default_rng(0)

    def loss(module, batch):
        return module(batch["x"] * (draws.random() < 0.5)).square().sum(1)

    tested = make_engine("two_pass", nn.Linear(4, 2), loss, 1.0)

    def often():
        for _ in range(20):
            tested.add({"x": torch.randn(2, 4)}, torch.ones(2, dtype=torch.bool))

    with pytest.raises(UserError, match=r"random numbers|other records|does not follow"):
        often()


class Idle(nn.Module):
    """Calls a layer that its output does not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        self.idle(x)
        return self.used(x)


class Query(nn.Module):
    """A parameter that is called for, not with, a record."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.ones(4))

    def forward(self):
        return self.value


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_layers_without_a_gradient_add_nothing_and_without_an_input_are_refused(engine):
    tested = make_engine(engine, Idle(), squares, 1.0)
    tested.add({"x": torch.randn(3, 4)}, torch.ones(3, dtype=torch.bool))
    assert tested.sums["used.weight"].any()
    assert not tested.sums["idle.weight"].any()
    asked = nn.ModuleDict({"query": Query(), "layer": nn.Linear(4, 2)})

    def loss(module, batch):
        return module["layer"](batch["x"] + module["query"]()).square().sum(1)

    tested = make_engine(engine, asked, loss, 1.0)
    with pytest.raises(UserError, match="'query' has parameters and is called without an input"):
        tested.add({"x": torch.randn(3, 4)}, torch.ones(3, dtype=torch.bool))


class Sometimes(nn.Module):
    """Uses a weight beside its module, for some records only."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) + x.relu() @ self.inner.weight


def test_two_passes_bound_records_unlike_the_first(tmp_path):
    model = Sometimes()
    tested = make_engine("two_pass", model, squares, 1.0)
    x = torch.stack([-torch.ones(4), 5 * torch.ones(4)])
    tested.add({"x": x}, torch.tensor([False, True]))
    norm = torch.sqrt(sum(total.square().sum() for total in tested.sums.values()))
    assert norm <= 1 + TOLERANCE[torch.float32]


def alone(left, right, entries):
    """The norm of what one record of these terms adds to a sum, at C = 1."""
    terms = Terms(left, right, entries)
    factors = clip_factors(terms.squared_norms(), torch.ones(1, dtype=torch.bool), 1.0)
    return terms.weighted_sum(factors).double().norm().item()


def test_terms_that_cancel_do_not_pass_the_clip_in_bfloat16():
    """Two positions that cancel but for the last bit: rounded by itself, each moves the sum."""
    norms = []
    for seed in range(40):
        torch.manual_seed(seed)
        left, right = torch.randn(1, 1, 64).bfloat16(), 8 * torch.randn(1, 1, 64).bfloat16()
        left = torch.cat([left, -(left * (1 + 2**-7)).bfloat16()], 1)
        norms.append(alone(left, right.expand(1, 2, 64), 64))
    assert max(norms) <= 1 + TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("kind", ["tiles", "embedding"])
def test_terms_that_cancel_do_not_pass_the_clip_in_float32(kind):
    """Positions that cancel to 1e-5 of their size."""
    norms = []
    for seed in range(20):
        torch.manual_seed(seed)
        left, right = torch.randn(1, 100, 8), 1e4 * torch.randn(1, 100, 8)
        right = torch.cat([right, right * (1 + 1e-5 * torch.randn(1, 100, 8))], 1)
        left = torch.cat([left, -left], 1)
        if kind == "embedding":
            left, right = torch.randint(0, 5, (1, 100)).repeat(1, 2), right * left.sign()
        norms.append(alone(left, right, 8))
    assert max(norms) <= 1 + TOLERANCE[torch.float32]


def test_draws_of_a_private_training_are_as_secret_as_its_batches(tmp_path):
    """Who knows the draws of each row sees that they move to other records if one is missing."""
    first = []
    for run in range(2):
        drawn = []

        def loss(model, batch, drawn=drawn):
            drawn.append(torch.rand(()).item())
            return squares(model, batch)

        torch.manual_seed(0)
        model, ledger = nn.Linear(3, 1), Ledger(tmp_path / f"{run}.jsonl", plan().budget)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        sealed = PrivateRecords(vectors(), name="toy", records=100)
        Trainer(plan(), ledger=ledger).fit(model, loss, sealed, sgd)
        first.append(drawn[0])
    assert first[0] != first[1]


def test_another_training_with_the_same_seeds_is_charged(tmp_path):
    """Two releases, and the same noise in both: their difference has none."""
    for rate in (0.1, 0.3):
        _, trainer = fit(tmp_path, nn.Linear(3, 1), squares, vectors(), plan(steps=5), rate)
        trainer.ledger.close()
    assert trainer.ledger.counts == {plan().event: 10}


def test_a_ledger_is_written_by_one_process(tmp_path):
    first = Ledger(tmp_path / "ledger.jsonl", Budget(1.0, 1e-5))
    with pytest.raises(UserError, match="in use"):
        Ledger(tmp_path / "ledger.jsonl", Budget(1.0, 1e-5))
    first.close()
    Ledger(tmp_path / "ledger.jsonl", Budget(1.0, 1e-5)).close()


# Noise --------------------------------------------------------------------------------------

SIGMA = 1.3


def share_explained(released, total):
    """How many numbers are, to the last bit, this total and noise of float32.

    One of three neighbours in float32 may be the noise, because the sum was rounded.
    """
    guess = ((released.double() - total) / SIGMA).numpy().astype(np.float32)
    explained = np.zeros(len(guess), dtype=bool)
    for noise in (guess, np.nextafter(guess, np.float32(9)), np.nextafter(guess, np.float32(-9))):
        again = torch.full_like(released, total)
        again.add_(torch.from_numpy(noise), alpha=SIGMA)
        explained |= (again == released).numpy()
    return explained.mean()


def of_a_mechanism(tmp_path):
    private = PrivateRecords({"x": torch.full((1, 4000), 0.1)}, name="toy", records=1)
    ledger = Ledger(tmp_path / "ledger.jsonl", plan().budget)
    released = noisy_sum(
        private, lambda c: c["x"].double() * 0 + 0.1, size=4000, clip=1e3,
        noise_multiplier=SIGMA / 1e3, ledger=ledger,
    )  # fmt: skip
    return released, 0.1


def of_sums(dtype):
    def release(tmp_path):
        sums = {"w": torch.full((4000,), 0.1, dtype=dtype)}
        total = sums["w"][0].item()
        GaussianNoise(SIGMA).add_to(sums, 0)
        return sums["w"], total

    return release


@pytest.mark.parametrize(
    "release",
    [of_a_mechanism, of_sums(torch.float64), of_sums(torch.float32)],
    ids=["mechanism", "float64", "float32"],
)
def test_the_last_bits_of_a_release_do_not_tell_its_sum(tmp_path, release):
    """Mironov (2012): some sums cannot give the released number, whatever the noise.

    With noise of float32, every number is explained by the true sum; by another one, none in
    float64 and four of five in float32.
    """
    released, total = release(tmp_path)
    assert abs(share_explained(released, total) - share_explained(released, total + 0.001)) < 0.05


def test_a_stream_does_not_show_its_key():
    key = bytes(range(32))
    assert repr(key) not in repr(Stream(key))


# Attempts ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_draws_that_rarely_matter_do_not_make_a_loss_depend_on_its_company(engine):
    """Of two dropouts over three features most draws change nothing."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.Dropout(0.1), nn.Linear(3, 1))

    def loss(module, batch):
        return module(batch["x"]).square().sum(1)

    for seed in range(40):
        torch.manual_seed(seed)
        tested = make_engine(engine, model, loss, 1.0)
        tested.add({"x": torch.randn(5, 3)}, torch.ones(5, dtype=torch.bool))


def test_parameters_in_another_memory_layout_are_released(tmp_path):
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    sealed = PrivateRecords({"x": torch.randn(100, 3, 5, 5)}, name="toy", records=100)
    trainer = Trainer(plan(steps=2), ledger=Ledger(tmp_path / "l.jsonl", plan().budget))

    def loss(module, batch):
        return module(batch["x"]).square().sum((1, 2, 3))

    before = model.weight.detach().clone()
    trainer.fit(model, loss, sealed, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not torch.equal(before, model.weight)


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


def test_columns_may_be_arrays_and_others_are_named(tmp_path):
    x = vectors()["x"].numpy()
    ledger, model = Ledger(tmp_path / "l.jsonl", plan().budget), nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(plan(), ledger=ledger)
    trainer.fit(model, squares, PrivateRecords({"x": x}, name="toy", records=100), sgd)
    words = PrivateRecords({"x": x, "words": ["a"] * 100}, name="toy", records=100)
    with pytest.raises(UserError, match="column 'words' is a list"):
        trainer.fit(model, squares, words, sgd)


# Files and counts ---------------------------------------------------------------------------


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


def test_progress_does_not_tell_the_true_number_of_records():
    calls = []

    def progress(steps, label):
        calls.append(list(steps))
        return steps

    for size in (600, 1100):
        sealed = PrivateRecords(vectors(size), name="toy", records=1000)
        sealed.map(lambda rows: {"y": rows["x"]}, progress=progress)
    assert calls[0] == calls[1]
