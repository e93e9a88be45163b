"""Adapters: nothing at the start, part of the weights at the end, and nothing else moves."""

import pytest
import torch
from torch import nn

from wavedp.dp import UserError
from wavedp.nn.lora import Adapter, adapted


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8, bias=False), nn.Linear(8, 2))
    return made.double()


def test_an_adapter_adds_a_product_of_low_rank():
    torch.manual_seed(0)
    adapter, x = Adapter(nn.Linear(6, 5), 2), torch.randn(4, 3, 6)
    assert torch.equal(adapter(x), adapter.layer(x))
    nn.init.normal_(adapter.up.weight)
    weight = adapter.layer.weight + adapter.up.weight @ adapter.down.weight
    expected = x @ weight.mT + adapter.layer.bias
    torch.testing.assert_close(adapter(x), expected)
    torch.testing.assert_close(adapter.merged()(x), expected)


def test_what_was_trained_is_in_the_weights_under_their_own_names():
    made, x = network(), torch.randn(7, 6).double()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with adapted(made, ("0", "2"), rank=3):
        trained = {name for name, p in made.named_parameters() if p.requires_grad}
        assert trained == {f"{i}.{part}.weight" for i in (0, 2) for part in ("down", "up")}
        optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            made(x).square().sum().backward()
            optimizer.step()
        expected = made(x)
    after = made.state_dict()
    assert after.keys() == before.keys()
    assert all(p.requires_grad for p in made.parameters())
    torch.testing.assert_close(made(x), expected)
    again = network()
    again.load_state_dict(after)
    torch.testing.assert_close(again(x), expected)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"0.weight", "2.weight"}
    assert 1 <= torch.linalg.matrix_rank(after["0.weight"] - before["0.weight"]) <= 3


def test_layers_are_whole_again_after_an_error():
    made = network()
    before = made.state_dict().keys()
    with pytest.raises(KeyError), adapted(made, ("0",), rank=1):
        raise KeyError
    assert made.state_dict().keys() == before


def test_nothing_to_adapt_and_no_rank_are_refused():
    with (
        pytest.raises(UserError, match="no linear layer called qkv"),
        adapted(network(), ["qkv"], 2),
    ):
        pass
    with pytest.raises(UserError, match="lora_rank=0"), adapted(network(), ["0"], 0):
        pass
