"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): few weights trained, none added."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError


class Adapter(nn.Module):
    """A frozen layer and what is trained beside it: ``W x + B A x`` (equation 3, alpha = rank).

    Args:
        layer: W, ``[p, d]``.
        rank: A is ``[rank, d]`` and starts at random, B is ``[p, rank]`` and starts at zero.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        place = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.down = nn.Linear(layer.in_features, rank, bias=False, **place)
        self.up = nn.Linear(rank, layer.out_features, bias=False, **place)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., d] -> [..., p]``."""
        return torch.as_tensor(self.layer(x) + self.up(self.down(x)))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer, with what was trained added to it."""
        # In float64: the sum is rounded once.
        update = self.up.weight.double() @ self.down.weight.double()
        self.layer.weight.copy_(self.layer.weight.double() + update)
        return self.layer


@contextmanager
def adapted(network: nn.Module, layers: Collection[str], rank: int) -> Iterator[None]:
    """Within, only adapters are trainable; afterwards they are part of the layers' weights.

    So a state dict has the same names before and after, and nobody who loads it needs to know.

    Args:
        layers: how the paths of the linear layers end that get one, wherever they are.
        rank: of the adapters.

    Raises:
        UserError: the rank is not positive, or there is no such layer.
    """
    if rank < 1:
        raise UserError(f"lora_rank={rank} must be at least 1.")
    ends = tuple(f".{layer}" for layer in layers)
    places = [
        (network.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], layer)
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and f".{path}".endswith(ends)
    ]
    if not places:
        raise UserError(f"There is no linear layer called {' or '.join(layers)} to adapt.")
    trained = [p for p in network.parameters() if p.requires_grad]
    network.requires_grad_(False)
    adapters = [Adapter(layer, rank) for _, _, layer in places]
    for (parent, name, _), adapter in zip(places, adapters, strict=True):
        setattr(parent, name, adapter)
    try:
        yield
    finally:
        for (parent, name, _), adapter in zip(places, adapters, strict=True):
            setattr(parent, name, adapter.merged())
        for parameter in trained:
            parameter.requires_grad_(True)
