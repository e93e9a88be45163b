"""Traps of DP training that the other tests of the core do not spring.

``tests/mutants`` plants every known trap and shows that a test here, or in another file, fails.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from wavedp.dp import DPPlan, Ledger, PrivateRecords, Trainer
from wavedp.dp.accounting import Budget
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.clipping import make_engine
from wavedp.dp.clipping.gradients import Sum, Terms, full
from wavedp.dp.clipping.layers import Call, Convolved, rule_of
from wavedp.dp.noise import GaussianNoise

QUIET = 1e-9
"""A noise multiplier that leaves sums as they are."""


def plan(records=100, batch=20, steps=5, sigma=QUIET, clip=1.0):
    """Without a target, so that nothing is accounted for here."""
    return DPPlan(Budget(math.inf, 1e-5), records, batch, steps, clip, sigma)


def fit(folder, model, loss, columns, a_plan, rate=1.0, momentum=0.0, **settings):
    """Train with SGD and given seeds; returns the weights after each step and the trainer."""
    folder.mkdir(exist_ok=True)
    records = PrivateRecords(columns, name="toy", records=a_plan.records)
    ledger = Ledger(folder / "ledger.jsonl", a_plan.budget)
    trainer = Trainer(a_plan, ledger=ledger, noise_seed=1, sampling_seed=2, **settings)
    weights, seen = [p for p in model.parameters() if p.requires_grad], []
    sgd = torch.optim.SGD(weights, lr=rate, momentum=momentum)
    sgd.register_step_post_hook(lambda *_: seen.append([p.detach().clone() for p in weights]))
    trainer.fit(model, loss, records, sgd)
    return seen, trainer


def squares(model, batch):
    return model(batch["x"]).flatten(1).square().sum(1)


def vectors(n=100, width=3, seed=0):
    return {"x": torch.randn(n, width, generator=torch.Generator().manual_seed(seed))}


# A pair of scales: every record adds exactly C to the one weight, so a step moves it by what was
# added up, over what it was divided by.


def scales():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def uphill(model, batch):
    return -3.0 * model(batch["x"]).squeeze(1)


def weighed(folder, a_plan, size=100, **settings):
    """Records in the batch of each step, by the scales; and the trainer."""
    seen, trainer = fit(folder, scales(), uphill, {"x": torch.ones(size, 1)}, a_plan, **settings)
    places = [0.0, *(step[0].item() for step in seen)]
    return np.diff(places) * a_plan.expected_batch / a_plan.clip, trainer


@pytest.mark.parametrize("size", [100, 60])
def test_batches_of_a_training_are_poisson_over_the_true_records(tmp_path, size):
    """q and the divisor are public: with 60 of 100 declared records, batches are smaller."""
    steps = 400
    batches, trainer = weighed(tmp_path, plan(steps=steps), size, micro_batch=7)
    mean, variance = size * 0.2, size * 0.2 * 0.8
    # Four standard errors of a mean and of a variance.
    assert batches.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / steps))
    assert batches.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / steps))
    assert batches.max() > mean + 2 * math.sqrt(variance)  # the draw is never cut
    assert trainer.ledger.counts == {trainer.plan.event: steps}


@pytest.mark.parametrize(("batch", "steps", "micro"), [(30, 7, 1), (70, 5, 4), (100, 3, 128)])
def test_a_plan_takes_its_steps_whatever_q_and_the_micro_batches(tmp_path, batch, steps, micro):
    a_plan = plan(batch=batch, steps=steps)
    batches, trainer = weighed(tmp_path, a_plan, micro_batch=micro)
    assert len(batches) == steps
    assert trainer.ledger.counts == {a_plan.event: steps}
    assert a_plan.event.sampling_probability == batch / 100


@pytest.mark.parametrize(("momentum", "moved"), [(0.0, [1, 1, 1, 1]), (0.5, [1, 1.5, 1.75, 1.875])])
def test_a_step_holds_nothing_of_the_steps_before(tmp_path, momentum, moved):
    """All records take part in every step and release the same, unless momentum adds to it."""
    everyone = plan(batch=100, steps=4)
    batches, _ = weighed(tmp_path, everyone, micro_batch=33, momentum=momentum)
    assert batches / 100 == pytest.approx(moved, rel=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 128])
def test_noise_is_added_once_whatever_the_number_of_micro_batches(tmp_path, micro_batch):
    """Without gradients, what is released is noise: sigma C / B, as the optimizer is told."""
    model, a_plan = nn.Linear(100, 200), plan(batch=50, steps=1, sigma=3.0, clip=0.7)
    start = model.weight.detach().clone()

    def flat(module, batch):
        return 0.0 * module(batch["x"]).sum(1)

    columns = vectors(width=100)
    _, trainer = fit(tmp_path, model, flat, columns, a_plan, micro_batch=micro_batch)
    released = (start - model.weight.detach()).std().item()
    assert released == pytest.approx(3.0 * 0.7 / 50, rel=0.03)
    assert trainer.gradient_noise(model) == pytest.approx(released, rel=0.03)


def test_noise_is_as_fine_as_float32_and_so_are_the_sums_of_a_bfloat16_model():
    """bfloat16 has 8 bits: among 20,000 of its normal draws are hardly 2,000 different ones."""
    sums = {"w": torch.zeros(20_000)}
    GaussianNoise(1.0).add_to(sums, 0)
    assert len(sums["w"].unique()) > 19_900
    model = nn.Linear(4, 4).bfloat16()
    engine = make_engine("bookkeeping", model, squares, 1.0)
    assert {total.dtype for total in engine.sums.values()} == {torch.float32}


def test_views_of_a_record_are_averaged_before_they_are_clipped(tmp_path):
    """One record, two views, gradients (3, 0) and (0, 4): their mean (1.5, 2) is clipped to
    (0.6, 0.8). Clipped one by one they would give (0.5, 0.5), or (1, 1) if added up.
    """
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    directions = torch.tensor([[3.0, 0.0], [0.0, 4.0]])

    def loss(module, batch):
        views = torch.arange(len(batch["x"])) % 2
        return module(batch["x"] * directions[views]).squeeze(1)

    fit(tmp_path, model, loss, {"x": torch.ones(1, 2)}, plan(1, 1, 1), views=2)
    torch.testing.assert_close(model.weight.detach(), -torch.tensor([[0.6, 0.8]]))


# Numbers ------------------------------------------------------------------------------------

LAYERS = {  # layer, shape of the input, shape of the output gradient
    "gram": (nn.Linear(40, 40), (6, 20, 40), (6, 20, 40)),
    "gram in blocks": (nn.Linear(200, 200), (2, 150, 200), (2, 150, 200)),
    "tiles": (nn.Linear(24, 24), (6, 40, 24), (6, 40, 24)),
    "held": (nn.Linear(3, 3), (6, 60, 3), (6, 60, 3)),
    "convolution": (nn.Conv2d(16, 24, 3), (4, 16, 6, 6), (4, 24, 4, 4)),
    "layer norm": (nn.LayerNorm(32), (6, 20, 32), (6, 20, 32)),
    "group norm": (nn.GroupNorm(2, 8), (6, 8, 5, 5), (6, 8, 5, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_norms_and_sums_of_bfloat16_operands_are_added_up_in_float32(kind):
    """Against float64 on the same operands; bfloat16 sums would be off by 1e-3 and more."""
    layer, *shapes = LAYERS[kind]
    torch.manual_seed(0)
    x, slope = (torch.randn(shape).bfloat16() for shape in shapes)
    found, exact = (
        rule_of(layer)(Call(layer.to(dtype), frozenset(dict(layer.named_parameters())), *call))
        for dtype, call in [
            (torch.float32, ((x,), slope, len(x))),
            (torch.float64, ((x.double(),), slope.double(), len(x))),
        ]
    )
    for name, form in found.items():
        rows = exact[name].rows().flatten(1)
        torch.testing.assert_close(as_added_up(form), rows.square().sum(1), rtol=3e-6, atol=0)
        whole = form.weighted_sum(torch.ones(len(x))).flatten().double()
        assert (whole - rows.sum(0)).norm() < 1e-5 * rows.norm()


@pytest.mark.parametrize("tied", [False, True])
def test_norms_of_a_bfloat16_embedding_are_added_up_in_float32(tied):
    """Also where its table is the output layer, whose cross terms enter the norm."""
    torch.manual_seed(0)
    slopes = [torch.randn(4, 50, width).bfloat16() for width in (16, 5, 16)]
    parts = [Terms(torch.randint(0, 5, (4, 50)), slopes[0], 5), Terms(slopes[1], slopes[2], 5)]
    form = Sum(parts) if tied else parts[0]
    exact = [part.rebuilt([_wide(x) for x in part.tensors()]).rows() for part in parts[: 1 + tied]]
    norms = sum(exact).flatten(1).square().sum(1)
    torch.testing.assert_close(as_added_up(form), norms, rtol=3e-6, atol=0)


def as_added_up(form):
    """Squared norms without what is added because terms may cancel."""
    found = form.squared_norms().double()
    for part in getattr(form, "parts", [form]):
        terms = part._terms() if isinstance(part, Convolved) else part
        if isinstance(terms, Terms):
            sizes = full(terms.right).norm(dim=2)
            sizes = sizes if terms.picks else sizes * full(terms.left).norm(dim=2)
            found = found - terms._rounding(sizes)
    return found


def _wide(x):
    return x.double() if x.is_floating_point() else x


# Runs ---------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    """Stopped after step 7, with a checkpoint of step 5; weights, average and dropout agree."""

    class Stop(Exception):
        pass

    def stop(steps, label):
        for step in steps:
            if step == 7:
                raise Stop
            yield step

    def train(folder, **settings):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        settings |= {"checkpoints": Checkpoints(folder / "checkpoints", 5), "ema_decay": 0.5}
        a_plan = plan(sigma=1.0, steps=12)
        _, trainer = fit(folder, model, squares, vectors(), a_plan, rate=0.1, **settings)
        assert trainer.ledger.counts == {a_plan.event: 12}
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    with pytest.raises(Stop):
        train(tmp_path / "stopped", progress=stop)
    assert torch.equal(train(tmp_path / "stopped"), train(tmp_path / "whole"))


class Adapted(nn.Module):
    """A frozen layer with a trainable update of rank 8 (LoRA, Hu et al. 2021)."""

    def __init__(self, base, rank=8, scale=2.0):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), scale
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.scale * self.up(self.down(x))


def adapted(seed):
    """Public weights, the same every time, and adapters that start at random."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 16), nn.Linear(16, 1)]
    torch.manual_seed(seed)
    return nn.Sequential(Adapted(layers[0]), nn.GELU(), Adapted(layers[1]))


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_a_checkpoint_of_adapters_reproduces_the_trained_output(tmp_path, ema_decay):
    """On public weights that come from elsewhere, and adapters that started otherwise."""
    kept, probe = Checkpoints(tmp_path / "checkpoints", 2), vectors(9, 6, seed=1)["x"]
    settings = {"rate": 0.1, "checkpoints": kept, "ema_decay": ema_decay}
    trained, again = adapted(1), adapted(2)
    fit(tmp_path, trained, squares, vectors(width=6), plan(), **settings)
    weights = kept.load("training 1")["weights"]
    assert set(weights) == {f"{i}.{part}.weight" for i in (0, 2) for part in ("down", "up")}
    steps, trainer = fit(tmp_path, again, squares, vectors(width=6), plan(), **settings)
    assert not steps
    assert trainer.ledger.counts == {plan().event: 5}
    assert torch.equal(again(probe), trained(probe))
    if not ema_decay:
        other = adapted(3)
        assert not torch.equal(other(probe), trained(probe))
        other.load_state_dict(weights, strict=False)
        assert torch.equal(other(probe), trained(probe))


# What leaves a training ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass", "per_example"])
def test_nothing_but_the_weights_depends_on_the_private_records(tmp_path, engine, capfd, caplog):
    """Other records, fewer, larger and one not finite: the same is seen."""
    other = {"x": 50 * vectors(60, seed=1)["x"]}
    other["x"][7] = math.nan
    caplog.set_level(0)
    seen = []
    for name, columns in [("a", vectors()), ("b", other)]:
        calls = []

        def progress(steps, label, calls=calls):
            calls.append((steps, label))
            return steps

        settings = {"engine": engine, "progress": progress, "micro_batch": 8}
        _, trainer = fit(
            tmp_path / name, nn.Linear(3, 1), squares, columns, plan(sigma=2.0), **settings
        )
        trainer.train_seconds = trainer.peak_memory_mb = 0.0  # of the machine
        trainer.progress = trainer.ledger = None
        shown = [*capfd.readouterr(), *(record.getMessage() for record in caplog.records)]
        caplog.clear()
        files = {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*")}
        seen.append(SimpleNamespace(calls=calls, shown=shown, files=files, kept=vars(trainer)))
    assert seen[0].shown == seen[1].shown == ["", ""]
    assert seen[0].files == seen[1].files
    assert repr(seen[0].calls) == repr(seen[1].calls)
    assert repr(seen[0].kept) == repr(seen[1].kept)


@pytest.mark.parametrize("slope", [0.0, 3.0], ids=["nothing to learn", "back and forth"])
def test_neither_the_end_nor_the_choice_of_weights_depends_on_the_records(tmp_path, slope):
    """All steps of the plan, then the weights after the last one: both are public."""
    model = scales()

    def loss(module, batch):
        return slope * module(batch["x"]).squeeze(1) ** 2

    columns = {"x": torch.ones(100, 1)}
    seen, trainer = fit(tmp_path, model, loss, columns, plan(sigma=5.0, steps=29))
    assert len(seen) == trainer.ledger.counts[trainer.plan.event] == 29
    assert torch.equal(seen[-1][0], model.weight.detach())
