"""Every layer rule against a loop over single examples, in float64 and float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clipping import error, one_by_one
from torch import nn

from wavedp.dp.clipping import TOLERANCE, make_engine
from wavedp.dp.clipping.gradients import Terms
from wavedp.dp.errors import UserError


class Reduced(nn.Module):
    """A layer on its input, reduced to one vector per record by a fixed nonlinear map."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return torch.sin(self.layer(x)).flatten(1)


def loss(model, batch):
    out = model(batch["x"])
    # Not the square of a sum, whose slope may cancel to rounding errors.
    return (out * (torch.linspace(-1, 1, out.shape[1], dtype=out.dtype) + out)).sum(1)


class Scaled(nn.Module):
    """Parameters of its own and a submodule with a rule."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width))
        self.shift = nn.Parameter(torch.rand(width))
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return self.scale * torch.tanh(self.inner(x * self.scale)) + self.shift


class Tied(nn.Module):
    """An embedding that is also the output layer, beside a layer that is used twice."""

    def __init__(self, classes, width):
        super().__init__()
        self.tokens = nn.Embedding(classes, width)
        self.twice = nn.Linear(width, width)
        self.head = nn.Linear(width, classes, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids)
        x = x + torch.tanh(self.twice(x))
        x = x + torch.tanh(self.twice(x[:, :1]))
        return self.head(x)


class LowRank(nn.Module):
    """A frozen layer with a trainable update of rank 2."""

    def __init__(self, width):
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down = nn.Linear(width, 2, bias=False)
        self.up = nn.Linear(2, width, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Attention(nn.Module):
    """Scaled dot-product attention between layers, in a residual."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Places(nn.Module):
    """One row of position ids for all records."""

    def __init__(self, length, width):
        super().__init__()
        self.places = nn.Embedding(length, width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        return self.out(x + self.places(torch.arange(x.shape[1]).unsqueeze(0)))


def ids(rows, length, classes):
    return torch.randint(0, classes, (rows, length))


CASES = {
    "linear": lambda b, t: (nn.Linear(6, 5), torch.randn(b, 6)),
    "linear on positions": lambda b, t: (nn.Linear(6, 5), torch.randn(b, t, 6)),
    "linear on (b, h, w, c)": lambda b, t: (nn.Linear(6, 5), torch.randn(b, t, 2, 6)),
    "linear without bias": lambda b, t: (nn.Linear(3, 2, bias=False), torch.randn(b, t, 3)),
    "embedding": lambda b, t: (nn.Embedding(4, 3), ids(b, t, 4)),
    "embedding with padding": lambda b, t: (nn.Embedding(4, 3, padding_idx=1), ids(b, t, 4)),
    "embedding of strided ids": lambda b, t: (nn.Embedding(9, 3), ids(b, 2 * t, 9)[:, ::2]),
    "layer norm": lambda b, t: (nn.LayerNorm(5), torch.randn(b, t, 5)),
    "layer norm of two dimensions": lambda b, t: (nn.LayerNorm((t, 5)), torch.randn(b, t, 5)),
    "rms norm": lambda b, t: (nn.RMSNorm(5), torch.randn(b, t, 5)),
    "group norm": lambda b, t: (nn.GroupNorm(2, 4), torch.randn(b, 4, t, 3)),
    "conv1d": lambda b, t: (nn.Conv1d(3, 4, 3, 2, padding=1), torch.randn(b, 3, t + 4)),
    "conv1d, circular, same": lambda b, t: (
        nn.Conv1d(2, 4, 4, padding="same", padding_mode="circular"),
        torch.randn(b, 2, t + 5),
    ),
    "conv2d": lambda b, t: (nn.Conv2d(3, 4, 3, padding=1), torch.randn(b, 3, t + 2, 5)),
    "conv2d, strided and dilated": lambda b, t: (
        nn.Conv2d(2, 4, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        torch.randn(b, 2, t + 4, 7),
    ),
    "conv2d in groups": lambda b, t: (
        nn.Conv2d(4, 6, 3, groups=2, padding=1),
        torch.randn(b, 4, t + 2, 4),
    ),
    "conv2d, depthwise": lambda b, t: (
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        torch.randn(b, 4, t + 3, 4),
    ),
    "conv2d, reflected": lambda b, t: (
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        torch.randn(b, 2, t + 2, 4),
    ),
    "transposed convolution": lambda b, t: (
        nn.ConvTranspose2d(2, 3, 2, stride=2),
        torch.randn(b, 2, t, 3),
    ),
    "bare parameters": lambda b, t: (Scaled(4), torch.randn(b, t, 4)),
    "tied and used twice": lambda b, t: (Tied(6, 4), ids(b, t, 6)),
    "low rank": lambda b, t: (LowRank(6), torch.randn(b, t, 6)),
    "attention": lambda b, t: (Attention(4), torch.randn(b, t, 4)),
    "broadcast positions": lambda b, t: (Places(t, 4), torch.randn(b, t, 4)),
}


def halved(module, batch):
    """The loss with layers in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return loss(module, batch).float()


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 6),
    positions=st.sampled_from([1, 2, 3, 7, 30]),
    clip=st.sampled_from([1e-2, 1.0, 1e3]),
)
def test_a_rule_equals_a_loop_over_single_examples(
    engine, case, dtype, seed, rows, positions, clip
):
    torch.manual_seed(seed)
    layer, x = CASES[case](rows, positions)
    model = Reduced(layer).to(dtype)
    batch = {"x": x.to(dtype) if x.is_floating_point() else x}
    mask = torch.rand(rows) < 0.8
    mask[0] = True
    expected = one_by_one(model, loss, batch, mask, clip)
    tested = make_engine(engine, model, loss, clip)
    tested.add(batch, mask)
    assert all(value.dtype == dtype for value in tested.sums.values())
    assert error(tested.sums, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_rule_in_bfloat16_agrees_to_one_percent(engine, case, seed):
    torch.manual_seed(seed)
    layer, x = CASES[case](5, 7)
    model, batch, mask = Reduced(layer), {"x": x}, torch.tensor([1, 1, 0, 1, 1]).bool()
    expected = one_by_one(model, halved, batch, mask, 1.0)
    tested = make_engine(engine, model, halved, 1.0)
    tested.add(batch, mask)
    assert all(value.dtype == torch.float32 for value in tested.sums.values())
    assert error(tested.sums, expected) < TOLERANCE[torch.bfloat16]


# Opacus gives the padding entry of an embedding a gradient, pads "same" and circular
# convolutions as zeros, and has no rule for the others that are left out.
OPACUS = [
    "linear", "linear on positions", "embedding", "layer norm", "rms norm", "group norm",
    "conv1d", "conv2d", "conv2d, strided and dilated", "conv2d in groups", "conv2d, depthwise",
    "low rank", "attention",
]  # fmt: skip


@pytest.mark.parametrize("case", OPACUS)
def test_a_rule_equals_opacus(case):
    torch.manual_seed(0)
    layer, x = CASES[case](5, 7)
    model, batch, mask = Reduced(layer), {"x": x}, torch.ones(5, dtype=torch.bool)
    sums = []
    for name in ("opacus", "bookkeeping", "two_pass"):
        tested = make_engine(name, model, loss, 0.5)
        tested.add(batch, mask)
        sums.append(tested.sums)
    assert error(sums[1], sums[0]) < 1e-5
    assert error(sums[2], sums[0]) < 1e-5


class Stack(nn.Module):
    """Layers in the order that hypothesis draws, some of them used twice or tied."""

    def __init__(self, kinds, width):
        super().__init__()
        self.tokens = nn.Embedding(5, width)
        made = [KINDS[kind](width) for kind, _ in kinds]
        self.layers = nn.ModuleList(made)
        self.again = [again for _, again in kinds]
        linear = [layer for layer in made if isinstance(layer, nn.Linear)]
        if len(linear) > 1:
            linear[-1].weight = linear[0].weight

    def forward(self, ids):
        x = self.tokens(ids)
        for layer, again in zip(self.layers, self.again, strict=True):
            for _ in range(1 + again):
                channels_first = isinstance(layer, nn.Conv1d | nn.GroupNorm)
                out = layer(x.mT).mT if channels_first else layer(x)
                x = x + torch.tanh(out)
        return x


KINDS = {
    "linear": lambda d: nn.Linear(d, d),
    "no bias": lambda d: nn.Linear(d, d, bias=False),
    "layer norm": nn.LayerNorm,
    "rms norm": nn.RMSNorm,
    "group norm": lambda d: nn.GroupNorm(1, d),
    "conv1d": lambda d: nn.Conv1d(d, d, 3, padding=1),
    "in groups": lambda d: nn.Conv1d(d, d, 3, padding=2, dilation=2, groups=2),
    "scale": Scaled,
    "attention": Attention,
    "low rank": LowRank,
}


@pytest.mark.parametrize("engine", ["bookkeeping", "two_pass"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), max_size=5),
    width=st.sampled_from([8, 12]),
    positions=st.sampled_from([1, 5, 40]),
)
def test_any_stack_of_layers_equals_a_loop(engine, dtype, seed, kinds, width, positions):
    torch.manual_seed(seed)
    model = Reduced(Stack(kinds, width)).to(dtype)
    batch, mask = {"x": ids(4, positions, 5)}, torch.tensor([True, True, False, True])
    expected = one_by_one(model, loss, batch, mask, 1.0)
    tested = make_engine(engine, model, loss, 1.0)
    tested.add(batch, mask)
    assert error(tested.sums, expected) < TOLERANCE[dtype]


def test_terms_that_cancel_are_not_scaled_past_the_clip():
    """The Gram sum loses a small norm to rounding; the record must not grow for it."""
    torch.manual_seed(0)
    for scale in (1e-2, 1e-3, 1e-4, 1e-5):
        left, right = torch.randn(3, 1, 64), torch.randn(3, 1, 64)
        # Positions in pairs of opposite sign, and a little of something else.
        left = torch.cat([left, -left], 1).repeat(1, 8, 1)
        left = left + scale * torch.randn_like(left)
        terms = Terms(left, right.expand(3, 16, 64), 64)
        true = terms.rows().double().flatten(1).norm(dim=1)
        assert bool((terms.squared_norms().sqrt() >= true * (1 - 1e-5)).all())


def test_one_row_of_ids_as_long_as_the_batch_is_not_taken_for_records():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(4, 3)

        def forward(self, x):
            return x + self.places(torch.arange(4))

    model = Reduced(Flat())
    tested = make_engine("bookkeeping", model, loss, 1.0)
    with pytest.raises(UserError, match="expand broadcast"):
        tested.add({"x": torch.randn(4, 4, 3)}, torch.ones(4, dtype=torch.bool))


def test_a_parameter_used_without_its_module_is_refused_by_name():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x) + x @ self.inner.weight

    for model, name in [
        (Around(), "inner.weight"),
        (nn.MultiheadAttention(4, 2, batch_first=True), "layer.attention"),
    ]:
        run = model if isinstance(model, Around) else _self_attention(model)
        tested = make_engine("bookkeeping", Reduced(run), loss, 1.0)
        with pytest.raises(UserError, match=name):
            tested.add({"x": torch.randn(3, 5, 4)}, torch.ones(3, dtype=torch.bool))


def _self_attention(attention):
    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x)[0]

    return Called()


def test_activations_may_work_in_place():
    torch.manual_seed(0)
    model = Reduced(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))
    batch, mask = {"x": torch.randn(5, 4)}, torch.ones(5, dtype=torch.bool)
    expected = one_by_one(model, loss, batch, mask, 1.0)
    tested = make_engine("bookkeeping", model, loss, 1.0)
    tested.add(batch, mask)
    assert error(tested.sums, expected) < 1e-5


def test_random_draws_beside_bare_parameters_are_refused():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return F.dropout(x * self.scale, 0.5, training=True)

    tested = make_engine("bookkeeping", Reduced(Noisy()), loss, 1.0)
    with pytest.raises(UserError, match="Noisy with parameters of its own"):
        tested.add({"x": torch.randn(3, 4)}, torch.ones(3, dtype=torch.bool))
