"""Clipped sums against a plain loop over single examples, for every engine."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wavedp.dp import UserError
from wavedp.dp.clipping import ENGINES, make_engine, trainable


class Net(nn.Module):
    """Every layer kind with a rule; ``twice`` is used two times, ids repeat within a record."""

    def __init__(self, width, positions, padding=None, classes=7):
        super().__init__()
        self.tokens = nn.Embedding(classes, width, padding_idx=padding)
        self.places = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.twice = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width)
        self.rms = nn.RMSNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, ids):
        places = torch.arange(ids.shape[1]).expand(ids.shape[0], -1)
        x = self.tokens(ids) + self.places(places)
        x = x + self.twice(self.norm(x))
        x = x + torch.tanh(self.twice(x))
        x = x + self.narrow(F.gelu(self.wide(x)))
        return self.head(self.rms(x))


def token_loss(model, batch):
    return F.cross_entropy(model(batch["x"]).mT, batch["y"], reduction="none").sum(1)


def one_by_one(model, loss, batch, mask, clip):
    """The definition: a backward pass per record."""
    sums = {name: torch.zeros_like(p) for name, p in trainable(model).items()}
    for row in range(len(mask)):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        names, parameters = zip(*trainable(model).items(), strict=True)
        gradients = torch.autograd.grad(loss(model, single).sum(), parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        for name, gradient in zip(names, gradients, strict=True):
            sums[name] += mask[row] * gradient * min(1.0, clip / max(norm.item(), 1e-30))
    return sums


def error(found, expected):
    """Largest relative error in the L2 norm over parameters."""
    total = torch.sqrt(sum(e.square().sum() for e in expected.values()))
    wrong = sum((found[name] - expected[name]).square().sum() for name in expected)
    return (torch.sqrt(wrong) / total.clamp_min(1e-30)).item()


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.sampled_from([8, 24]),
    positions=st.integers(1, 40),
    rows=st.integers(1, 6),
    clip=st.sampled_from([1e-3, 1.0, 20.0]),
)
def test_equals_a_loop_over_single_examples(engine, seed, width, positions, rows, clip):
    torch.manual_seed(seed)
    # Opacus 1.6 gives the padding row a gradient, which torch does not.
    model = Net(width, positions, padding=None if engine == "opacus" else 3)
    batch = {name: torch.randint(0, 7, (rows, positions)) for name in "xy"}
    mask = torch.rand(rows) < 0.8
    mask[0] = True
    expected = one_by_one(model, token_loss, batch, mask, clip)
    tested = make_engine(engine, model, token_loss, clip)
    tested.add(batch, mask)
    assert error(tested.sums, expected) < 1e-5


def test_hand_worked_example():
    """Two records, one weight each way: g = 2 (w x - y) x, clipped at 1.

    w = (0, 0). Record 1: x = (3, 4), y = 1/2: g = -(3, 4), norm 5, clipped -(0.6, 0.8).
    Record 2: x = (0.5, 0), y = 0.5: g = -(0.5, 0), below the norm. Sum: -(1.1, 0.8).
    """
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    batch = {"x": torch.tensor([[3.0, 4.0], [0.5, 0.0]]), "y": torch.tensor([0.5, 0.5])}

    def squared(module, rows):
        return (module(rows["x"]).squeeze(1) - rows["y"]).square()

    for name in ENGINES:
        engine = make_engine(name, model, squared, 1.0)
        engine.add(batch, torch.tensor([True, True]))
        torch.testing.assert_close(engine.sums["weight"], torch.tensor([[-1.1, -0.8]]))


@pytest.mark.parametrize("engine", ENGINES)
def test_sensitivity_no_record_moves_the_sum_by_more_than_the_clip(engine):
    torch.manual_seed(0)
    model, clip = Net(8, 5), 0.7
    batch = {name: torch.randint(0, 7, (6, 5)) for name in "xy"}
    moved = []
    for without in range(6):
        mask = torch.ones(6, dtype=torch.bool)
        both = []
        for present in (True, False):
            mask[without] = present
            tested = make_engine(engine, model, token_loss, clip)
            tested.add(batch, mask)
            both.append(tested.sums)
        moved.append(torch.sqrt(sum((a - b).square().sum() for a, b in _pairs(*both))).item())
    assert max(moved) <= clip * (1 + 1e-5)
    assert max(moved) > 0.99 * clip


def _pairs(a, b):
    return [(a[name], b[name]) for name in a]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_record_that_is_not_finite_contributes_nothing(engine, poison):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    batch = {"x": torch.randn(5, 4), "y": torch.randn(5, 2)}

    def loss(module, rows):
        return (module(rows["x"]) - rows["y"]).square().sum(1)

    everyone = torch.ones(5, dtype=torch.bool)
    without = everyone.clone()
    without[2] = False
    clean = make_engine(engine, model, loss, 1.0)
    clean.add(batch, without)
    batch["x"] = batch["x"].clone()
    batch["x"][2, 1] = poison
    tested = make_engine(engine, model, loss, 1.0)
    tested.add(batch, everyone)
    assert error(tested.sums, clean.sums) < 1e-6


def test_refuses_what_it_cannot_clip_by_name():
    def loss(model, batch):
        return batch["x"].sum(1)

    for engine in ENGINES:
        with pytest.raises(UserError, match="BatchNorm"):
            make_engine(engine, nn.Sequential(nn.BatchNorm1d(2)), loss, 1.0)
    with pytest.raises(UserError, match="not known"):
        make_engine("ghost", nn.Linear(2, 2), loss, 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_refuses_a_loss_that_is_already_averaged(engine):
    model = nn.Linear(2, 1)
    tested = make_engine(engine, model, lambda m, b: m(b["x"]).mean(), 1.0)
    with pytest.raises(UserError, match="one value per record"):
        tested.add({"x": torch.randn(4, 2)}, torch.ones(4, dtype=torch.bool))


def test_bookkeeping_refuses_a_broadcast_input():
    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(3, 2)

        def forward(self, x):
            return x + self.places(torch.arange(3))

    tested = make_engine("bookkeeping", Broadcast(), lambda m, b: m(b["x"]).sum((1, 2)), 1.0)
    with pytest.raises(UserError, match="expand broadcast"):
        tested.add({"x": torch.randn(4, 3, 2)}, torch.ones(4, dtype=torch.bool))
