"""Half precision, compiled passes, views and recomputed activations change no released sum."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_clipping import Net, error, one_by_one, token_loss
from torch import nn

from wavedp.dp import Ledger, NonPrivatePlan, PrivateRecords, Trainer, UserError
from wavedp.dp.accounting import Budget
from wavedp.dp.clipping import Passes, make_engine
from wavedp.dp.plan import DPPlan

PLAN = DPPlan(Budget(math.inf, 1e-5), 48, 24, 2, 1.0, 0.5)


class Block(nn.Module):
    """Layers with dropout, to be recomputed."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.narrow, self.drop = nn.Linear(3 * width, width), nn.Dropout(0.1)

    def forward(self, x):
        return x + self.drop(self.narrow(F.gelu(self.wide(self.norm(x)))))


class Blocks(nn.Module):
    """The second block is called twice."""

    def __init__(self, width=8):
        super().__init__()
        self.tokens = nn.Embedding(7, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 7)

    def forward(self, ids):
        x = self.tokens(ids)
        for block in (*self.blocks, self.blocks[1]):
            x = block(x)
        return self.head(x)


def tokens(rows=48, positions=10):
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randint(0, 7, (rows, positions), generator=draw) for name in "xy"}


def fit(tmp_path, model, loss=token_loss, plan=PLAN, data=None, **settings):
    """The change of all weights after two steps with given seeds."""
    start = [p.detach().clone() for p in model.parameters()]
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    settings = {"micro_batch": 8, "noise_seed": 1, "sampling_seed": 2} | settings
    trainer = Trainer(plan, ledger=Ledger(path, plan.budget), **settings)
    sealed = PrivateRecords(data or tokens(), name="toy", records=plan.records)
    trainer.fit(model, loss, sealed, torch.optim.SGD(model.parameters(), lr=0.1))
    parameters = zip(start, model.parameters(), strict=True)
    return torch.cat([(p.detach() - old).flatten() for old, p in parameters])


def made(kind=Blocks):
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_recomputed_activations_change_nothing(tmp_path, engine):
    """Hooks fire twice then; dropout must be the same the second time."""
    kept = fit(tmp_path, made(), engine=engine)
    again = fit(tmp_path, made(), engine=engine, recompute=(Block,))
    torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-7)
    assert kept.norm() > 0


def test_recomputing_keeps_fewer_activations():
    held = []

    def weigh(tensor):
        held[-1] += tensor.numel()
        return tensor

    model, batch = made(), tokens()
    for recompute in ((), (Block,)):
        trainer = Trainer(NonPrivatePlan(8, 1), recompute=recompute)
        held.append(0)
        with (
            torch.autograd.graph.saved_tensors_hooks(weigh, lambda x: x),
            trainer.computing.recomputing(model),
        ):
            token_loss(model, batch)
    assert held[1] < held[0] / 2
    assert "forward" not in vars(model.blocks[0])


def test_bfloat16_releases_nearly_the_same_sum_and_more_noise(tmp_path):
    quiet = DPPlan(Budget(math.inf, 1e-5), 48, 24, 2, 1.0, 1e-9)
    without = Net(16, 10)
    exact = fit(tmp_path, _copy(without), plan=quiet)
    halved = fit(tmp_path, _copy(without), plan=quiet, amp="bf16")
    assert 0 < (halved - exact).norm() < 0.02 * exact.norm()
    noises = [
        Trainer(PLAN, amp=amp).gradient_noise(without) * PLAN.expected_batch / (0.5 * 1.0)
        for amp in (None, "bf16")
    ]
    rounded = 24 * 2**-23  # the sum of a batch
    assert noises == pytest.approx([1 + 1e-5 + rounded, 1 + 1e-2 + rounded], rel=1e-9)


def _copy(model):
    twin = Net(16, 10)
    twin.load_state_dict(model.state_dict())
    return twin


def test_no_clipped_gradient_in_bfloat16_is_larger_than_the_noise_covers():
    """Each record alone: what it adds to the sum stays below C (1 + tol)."""
    torch.manual_seed(0)
    model, clip = Net(24, 30), 1e-3
    batch = {name: torch.randint(0, 7, (12, 30)) for name in "xy"}

    def halved(module, rows):
        with torch.autocast("cpu", torch.bfloat16):
            return token_loss(module, rows).float()

    for row in range(12):
        mask = torch.arange(12) == row
        tested = make_engine("bookkeeping", model, halved, clip)
        tested.add(batch, mask)
        norm = torch.sqrt(sum(total.square().sum() for total in tested.sums.values()))
        assert 0.9 * clip < norm <= clip * (1 + 1e-2)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_compiled_passes_add_the_same_sums(monkeypatch, engine, backend):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend=backend, **k))
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Net(12, 10, padding=3)
    mask = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    tested = make_engine(engine, model, token_loss, 1.0, Passes(compiled=True))
    for seed in range(2):
        torch.manual_seed(seed)
        batch = {name: torch.randint(0, 7, (6, 10)) for name in "xy"}
        expected = one_by_one(model, token_loss, batch, mask, 1.0)
        for total in tested.sums.values():
            total.zero_()
        tested.add(batch, mask)
        assert error(tested.sums, expected) < 1e-5


def test_compiled_training_pads_to_one_shape(tmp_path, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend="aot_eager", **k))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        compiled = fit(tmp_path, _seeded(), compile=True)
    eager = fit(tmp_path, _seeded())
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)


def _seeded():
    torch.manual_seed(0)
    return Net(16, 10)


# Views ----------------------------------------------------------------------------------------


def convolved():
    """A small image network with every kind of layer that folds views differently."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(),
        nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3),
    )  # fmt: skip


def noisy_loss(model, batch):
    """A loss with a random draw for each row, as diffusion has."""
    x = batch["x"]
    return (model(x + 0.5 * torch.randn_like(x)) - batch["y"]).square().sum(1)


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
def test_views_of_a_record_are_averaged_before_clipping(engine):
    """K rows per record are one gradient: the definition, a record at a time."""
    model, views = convolved(), 3
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(4, views, 2, 6, 6, generator=draw)
    wanted = torch.randn(4, 3, generator=draw)

    def averaged(module, batch):
        x = batch["x"].flatten(0, 1)
        y = batch["y"].repeat_interleave(views, 0)
        return (module(x) - y).square().sum(1).unflatten(0, (-1, views)).mean(1)

    batch, mask = {"x": images, "y": wanted}, torch.ones(4, dtype=torch.bool)
    expected = one_by_one(model, averaged, batch, mask, 0.3)
    tested = make_engine(engine, model, averaged, 0.3, Passes(views=views))
    tested.add(batch, mask)
    assert error(tested.sums, expected) < 1e-5


def test_views_cost_no_privacy_and_reduce_the_variance_of_the_gradient(tmp_path):
    data = {"x": torch.randn(48, 2, 6, 6), "y": torch.randn(48, 3)}
    everyone = DPPlan(Budget(math.inf, 1e-5), 48, 48, 1, 1e6, 1e-12)

    def spread(views):
        moves = []
        for seed in range(12):
            model = convolved()
            path = tmp_path / f"{views}-{seed}.jsonl"
            trainer = Trainer(everyone, ledger=Ledger(path, everyone.budget), views=views)
            sealed = PrivateRecords(data, name="toy", records=48)
            torch.manual_seed(seed)
            before = model[-1].weight.detach().clone()
            sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            trainer.fit(model, noisy_loss, sealed, sgd)
            assert sum(trainer.ledger.counts.values()) == 1
            moves.append((model[-1].weight.detach() - before).flatten())
        return torch.stack(moves).var(0).mean()

    assert spread(8) < spread(1) / 3


def test_a_released_sum_with_views_is_bounded_by_the_clip(tmp_path):
    """Views that were clipped one by one would add up to K times the clip."""
    alone = DPPlan(Budget(math.inf, 1e-5), 1, 1, 1, 0.25, 1e-12)
    data = {"x": torch.randn(1, 2, 6, 6), "y": 100 * torch.ones(1, 3)}
    moved = fit(tmp_path, convolved(), noisy_loss, alone, data, views=4)
    assert moved.norm().item() == pytest.approx(0.1 * 0.25, rel=1e-3)


# Settings -------------------------------------------------------------------------------------


def test_auto_finds_a_micro_batch_from_shapes_alone(tmp_path):
    """Records of zeros stand in: with NaN for records, the search does not notice."""
    poison = {"x": torch.full((48, 2, 6, 6), math.nan), "y": torch.zeros(48, 3)}
    seen = []

    def counting(model, batch):
        seen.append((len(batch["x"]), bool(batch["x"].isfinite().all())))
        return noisy_loss(model, batch)

    fit(tmp_path, convolved(), counting, data=poison, micro_batch="auto")
    tried = [rows for rows, zeros in seen if zeros]
    assert max(tried) == 32  # the largest power of two below twice the expected batch of 24
    assert all(rows <= 64 for rows, _ in seen)


@pytest.mark.parametrize(("settings", "named"), [({"amp": "fp8"}, "amp"), ({"views": 0}, "views")])
def test_unknown_settings_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        Trainer(PLAN, **settings)


def test_parameters_in_half_precision_are_refused():
    with pytest.raises(UserError, match="use float32"):
        Trainer(PLAN).sensitivity(nn.Linear(2, 2).half())
