"""The loop: what is released, what it costs, and what a method cannot do."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from wavedp.dp import DPPlan, Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.dp.accounting import Budget
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.private import open_columns
from wavedp.dp.randomness import Stream
from wavedp.dp.sampling import PoissonBatches, ShuffledBatches, micro_batches


def plan(records=100, batch=20, steps=5, sigma=1.0, clip=1.0, epsilon=50.0):
    return DPPlan(Budget(epsilon, 1e-5), records, batch, steps, clip, sigma)


def squared(model, batch):
    return (model(batch["x"]).squeeze(1) - batch["y"]).square()


def columns(n=100, width=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator)
    return {"x": x, "y": x.sum(1)}


def train(tmp_path, a_plan, data=None, private=True, **settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    data = columns() if data is None else data
    declared = getattr(a_plan, "records", 100)
    records = PrivateRecords(data, name="toy", records=declared) if private else data
    ledger = Ledger(tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl", a_plan.budget)
    trainer = Trainer(a_plan, ledger=ledger, noise_seed=1, sampling_seed=2, **settings)
    trainer.fit(model, squared, records, torch.optim.SGD(model.parameters(), lr=0.1))
    return model, trainer


def test_every_step_is_charged_before_release_and_scored(tmp_path):
    _, trainer = train(tmp_path, plan(steps=5))
    assert trainer.ledger.counts == {plan().event: 5}
    assert 0 < trainer.spent().epsilon < 50


def test_seeds_make_a_run_reproducible_and_micro_batches_do_not_matter(tmp_path):
    settings = [{"micro_batch": 4}, {"micro_batch": 64}, {"micro_batch": 64}]
    settings += [{"micro_batch": 4, "pad": True}, {"micro_batch": 64, "pad": True}]
    weights = [train(tmp_path, plan(), **each)[0].weight.detach() for each in settings]
    for other in weights[1:]:
        torch.testing.assert_close(weights[0], other)
    assert torch.equal(weights[1], weights[2])


def test_released_gradient_is_sum_plus_noise_over_the_expected_batch(tmp_path):
    """Steps of SGD with rate r move the weights by r/B (sum + noise); the noise is known."""
    a_plan = plan(steps=1, sigma=3.0, clip=0.5)
    noisy, _ = train(tmp_path, a_plan)
    quiet, _ = train(tmp_path, plan(steps=1, sigma=1e-9, clip=0.5, epsilon=math.inf))
    expected = {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}
    noise = Stream.fresh(1, "noise training 1")
    GaussianNoise(3.0 * 0.5 * (1 + 1e-5 + 20 * 2**-23), noise).add_to(expected, 0)
    moved = (quiet.weight - noisy.weight).detach() * a_plan.expected_batch / 0.1
    torch.testing.assert_close(moved, expected["weight"], rtol=1e-4, atol=1e-4)


def test_empty_batches_still_release_noise_and_count(tmp_path):
    tiny = plan(records=10**6, batch=1, steps=4)  # on 100 true records nearly always empty
    model, trainer = train(tmp_path, tiny)
    torch.manual_seed(0)
    start = nn.Linear(3, 1)
    assert trainer.ledger.counts[tiny.event] == 4
    assert not torch.equal(model.weight, start.weight)


def test_the_divisor_is_public_whatever_the_true_number_of_records(tmp_path):
    """With all records equal and no noise, twice the records give twice the sum."""
    one = {"x": torch.ones(50, 3), "y": torch.full((50,), 9.0)}
    two = {"x": torch.ones(100, 3), "y": torch.full((100,), 9.0)}
    everyone = plan(batch=100, steps=1, sigma=1e-9, epsilon=math.inf)
    torch.manual_seed(0)
    start = nn.Linear(3, 1).weight.detach()
    moved = [train(tmp_path, everyone, data)[0].weight.detach() - start for data in (one, two)]
    torch.testing.assert_close(2 * moved[0], moved[1])


def test_noise_has_the_stated_standard_deviation():
    sums = {"w": torch.zeros(200_000)}
    GaussianNoise(2.5).add_to(sums, 0)
    assert sums["w"].std().item() == pytest.approx(2.5, rel=0.02)
    assert sums["w"].mean().item() == pytest.approx(0, abs=0.03)
    assert sums["w"].dtype == torch.float32


def test_noise_is_fresh_from_the_operating_system_without_a_seed():
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        sums = {"w": torch.zeros(8)}
        GaussianNoise(1.0).add_to(sums, 0)
        drawn.append(sums["w"])
    assert not torch.equal(*drawn)


def test_non_private_training_learns(tmp_path):
    model, trainer = train(tmp_path, NonPrivatePlan(20, 300), private=False)
    torch.testing.assert_close(model.weight, torch.ones(1, 3), atol=0.02, rtol=0)
    assert trainer.examples == 6000
    assert trainer.examples_per_s == pytest.approx(6000 / trainer.train_seconds)
    assert trainer.peak_memory_mb > 10


def test_average_of_weights_follows_its_formula(tmp_path):
    """Decay d over T steps: sum_t (1-d) d^(T-t) w_t / (1 - d^T)."""
    seen = []
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    sgd.register_step_post_hook(lambda *_: seen.append(model.weight.detach().clone()))
    trainer = Trainer(NonPrivatePlan(20, 6), ema_decay=0.5, sampling_seed=0)
    trainer.fit(model, squared, columns(), sgd)
    weights = [0.5 * 0.5 ** (5 - t) / (1 - 0.5**6) for t in range(6)]
    expected = sum(w * s for w, s in zip(weights, seen, strict=True))
    torch.testing.assert_close(model.weight.detach(), expected)


def test_wrong_use_is_refused(tmp_path):
    data = columns()
    sealed = PrivateRecords(data, name="toy", records=100)
    model = nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="ledger"):
        Trainer(plan()).fit(model, squared, sealed, sgd)
    with pytest.raises(UserError, match="PrivateRecords"):
        Trainer(plan()).fit(model, squared, data, sgd)
    poor = Ledger(tmp_path / "p.jsonl", Budget(1.0, 1e-5))
    with pytest.raises(UserError, match="larger than the ledger"):
        Trainer(plan(), ledger=poor).fit(model, squared, sealed, sgd)
    half = torch.optim.SGD([model.weight], lr=0.1)
    with pytest.raises(UserError, match="bias"):
        Trainer(NonPrivatePlan(8, 1)).fit(model, squared, data, half)
    with pytest.raises(UserError, match="no ledger"):
        Trainer(plan()).spent()


def test_a_buffer_that_learns_from_private_records_is_refused(tmp_path):
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            if self.training:
                self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            return self.layer(x - self.mean.detach())

    model, everyone = Running(), plan(batch=100)
    weight = model.layer.weight.detach().clone()
    ledger = Ledger(tmp_path / "l.jsonl", everyone.budget)
    sealed = PrivateRecords(columns(), name="toy", records=100)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="Buffer mean"):
        Trainer(everyone, ledger=ledger).fit(model, squared, sealed, sgd)
    assert not model.mean.any()
    assert torch.equal(model.layer.weight, weight)
    assert not ledger.counts
    Trainer(NonPrivatePlan(20, 2)).fit(model, squared, columns(), sgd)  # public records may
    assert model.mean.any()


def test_a_plan_for_another_number_of_records_is_refused(tmp_path):
    model, ledger = nn.Linear(3, 1), Ledger(tmp_path / "l.jsonl", plan().budget)
    sealed = PrivateRecords(columns(), name="toy", records=50)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="N=100 records and the data set toy declares 50"):
        Trainer(plan(records=100), ledger=ledger).fit(model, squared, sealed, sgd)


def test_a_second_fit_on_the_same_budget_is_refused(tmp_path):
    full = DPPlan.calibrate(epsilon=1, delta=1e-5, records=100, expected_batch=20, steps=5)
    model, trainer = train(tmp_path, full)
    sealed = PrivateRecords(columns(), name="toy", records=100)
    with pytest.raises(UserError, match="past the target"):
        trainer.fit(model, squared, sealed, torch.optim.SGD(model.parameters(), lr=0.1))


# Sampling -----------------------------------------------------------------------------------


def test_poisson_batches_include_each_record_with_probability_q():
    batches = PoissonBatches(50, 0.3, Stream.fresh(0, "test"))
    counts, sizes = np.zeros(50), []
    for step in range(4000):
        rows = batches.at(step)
        assert len(set(rows)) == len(rows)
        counts[rows] += 1
        sizes.append(len(rows))
    assert np.abs(counts / 4000 - 0.3).max() < 0.03
    # Var of Binomial(50, 0.3) is 10.5; a fixed-size batch would have none.
    assert np.var(sizes) == pytest.approx(10.5, rel=0.1)


def test_poisson_draws_are_never_capped():
    batches = PoissonBatches(1000, 0.5, Stream.fresh(0, "test"))
    sizes = [len(batches.at(step)) for step in range(300)]
    assert max(sizes) > 530
    assert min(sizes) < 470


def test_poisson_is_cheap_for_a_billion_records_and_exact_for_tiny_q():
    batches = PoissonBatches(10**9, 3e-8, Stream.fresh(0, "test"))
    sizes = [len(batches.at(step)) for step in range(2000)]
    assert np.mean(sizes) == pytest.approx(30, rel=0.03)


@pytest.mark.parametrize(("pad", "last"), [(True, 4), (False, 3)])
def test_micro_batches_hold_every_row_once_and_padding_is_masked(pad, last):
    parts = micro_batches(np.arange(10, 21), 4, pad)
    assert [p.index.shape for p in parts] == [(4,), (4,), (last,)]
    assert [int(p.mask.sum()) for p in parts] == [4, 4, 3]
    assert torch.cat([p.index[p.mask] for p in parts]).tolist() == list(range(10, 21))
    assert micro_batches(np.array([], dtype=np.int64), 4, pad) == []


def test_shuffled_batches_see_every_record_once_an_epoch():
    batches = ShuffledBatches(12, 4, Stream.fresh(0, "test"))
    seen = np.concatenate([batches.at(step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(12))


# The seal -----------------------------------------------------------------------------------


def test_private_records_cannot_be_read_copied_or_pickled():
    sealed = PrivateRecords({"x": torch.arange(5)}, name="toy", records=5)
    for attempt in (
        lambda: sealed[0],
        lambda: list(sealed),
        lambda: len(sealed),
        lambda: pickle.dumps(sealed),
        lambda: copy.copy(sealed),
        lambda: copy.deepcopy(sealed),
        lambda: 3 in sealed,
    ):
        with pytest.raises(TypeError, match="cannot be read"):
            attempt()
    with pytest.raises((AttributeError, TypeError)):
        vars(sealed)
    assert "0" not in repr(sealed).replace("records=5", "")


def test_map_is_per_record_whatever_the_chunks_order_or_company():
    x = torch.randn(11, 4)

    def double(rows):
        return {"y": 2 * torch.as_tensor(rows["x"])}

    def mapped(data, chunk=512):
        sealed = PrivateRecords({"x": data}, name="toy", records=11)
        return open_columns(sealed.map(double, chunk=chunk))["y"]

    order = torch.randperm(11)
    assert torch.equal(mapped(x, 3), mapped(x))
    assert torch.equal(mapped(x[order]), mapped(x)[order])
    assert torch.equal(mapped(x[1:]), mapped(x)[1:])


def test_map_must_return_a_row_per_record():
    sealed = PrivateRecords({"x": torch.randn(6, 2)}, name="toy", records=6)
    with pytest.raises(UserError, match="one row per record"):
        sealed.map(lambda rows: {"mean": rows["x"].mean(0, keepdim=True)})
