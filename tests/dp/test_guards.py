"""What a release must not give away, and what a training must not see or mix up."""

import numpy as np
import pytest
import torch
from test_traps import fit, plan, squares, vectors
from torch import nn

from wavedp.dp import Budget, Ledger, PrivateRecords, Trainer, UserError, noisy_sum
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


SIGMA = 1.3


# Noise --------------------------------------------------------------------------------------


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


def test_columns_may_be_arrays_and_others_are_named(tmp_path):
    x = vectors()["x"].numpy()
    ledger, model = Ledger(tmp_path / "l.jsonl", plan().budget), nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(plan(), ledger=ledger)
    trainer.fit(model, squares, PrivateRecords({"x": x}, name="toy", records=100), sgd)
    words = PrivateRecords({"x": x, "words": ["a"] * 100}, name="toy", records=100)
    with pytest.raises(UserError, match="column 'words' is a list"):
        trainer.fit(model, squares, words, sgd)


def test_progress_does_not_tell_the_true_number_of_records():
    calls = []

    def progress(steps, label):
        calls.append(list(steps))
        return steps

    for size in (600, 1100):
        sealed = PrivateRecords(vectors(size), name="toy", records=1000)
        sealed.map(lambda rows: {"y": rows["x"]}, progress=progress)
    assert calls[0] == calls[1]
