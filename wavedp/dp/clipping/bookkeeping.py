"""The default engine: one forward and one backward pass, no per-example gradients held.

The layers' inputs and output gradients are kept; norms and the clipped sum are computed from
them (Bu et al. 2022, arXiv 2210.00038). Parameters do not require gradients during the pass,
so autograd never forms the ordinary weight gradients that would be thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import (
    Batch,
    PerExampleLoss,
    check_losses,
    check_no_cross_example_layers,
    clip_factors,
    trainable,
    zero_sums,
)
from wavedp.dp.clipping.layers import RULES, Gradients, Rule
from wavedp.dp.errors import UserError


@dataclass
class _Layer:
    """A layer with trainable parameters and what was kept of its calls."""

    name: str
    module: nn.Module
    rule: Rule
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class BookkeepingEngine:
    """Exact flat clipping for Linear, Embedding, LayerNorm and RMSNorm layers.

    Any other trainable parameter, and a parameter shared by two layers, is refused by name:
    its gradient would be missing from the norm.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float) -> None:
        check_no_cross_example_layers(model)
        self.sums = zero_sums(model)
        self._model, self._loss, self._clip = model, loss, clip
        self._parameters = trainable(model)
        self._layers = _find_layers(model)

    def add(self, batch: Batch, mask: Tensor) -> None:
        with self._kept():
            losses = self._loss(self._model, batch)
            check_losses(losses, len(mask))
            self._accumulate(losses, mask)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        handles = [layer.module.register_forward_hook(_keeper(layer)) for layer in self._layers]
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._parameters.values():
                parameter.requires_grad_(True)
            for handle in handles:
                handle.remove()
            for layer in self._layers:
                layer.inputs.clear()
                layer.outputs.clear()

    def _accumulate(self, losses: Tensor, mask: Tensor) -> None:
        used = [layer for layer in self._layers if layer.outputs]
        outputs = [output for layer in used for output in layer.outputs]
        found = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        slopes = iter(
            torch.zeros_like(o) if g is None else g for o, g in zip(outputs, found, strict=True)
        )
        calls = [(x, *_joined(x, [next(slopes) for _ in x.outputs], len(mask))) for x in used]
        gradients = _by_parameter(calls)
        squared = torch.zeros(len(mask), dtype=torch.float32, device=mask.device)
        for gradient in gradients.values():
            squared += gradient.squared_norms()
        sound = squared.isfinite()
        if not bool(sound.all()):
            # Zero times NaN is NaN: the rows of a bad record are cleared, not weighted.
            gradients = _by_parameter(
                (x, _cleared(a, sound), _cleared(g, sound)) for x, a, g in calls
            )
        factors = clip_factors(squared, mask, self._clip)
        for name, gradient in gradients.items():
            self.sums[name] += gradient.weighted_sum(factors)


def _by_parameter(calls: Iterable[tuple[_Layer, Tensor, Tensor]]) -> dict[str, Gradients]:
    return {
        f"{layer.name}.{name}".lstrip("."): gradient
        for layer, a, g in calls
        for name, gradient in layer.rule(layer.module, a, g).items()
    }


def _cleared(x: Tensor, sound: Tensor) -> Tensor:
    return x.where(sound.view(-1, *[1] * (x.dim() - 1)), 0)


def _joined(layer: _Layer, gradients: list[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients of all calls, side by side along the positions.

    Joining the calls before the norm keeps the cross terms of a layer that is used twice.
    """
    for a in layer.inputs:
        if a.shape[0] != rows:
            raise UserError(
                f"Layer {layer.name!r} got an input whose first dimension is {a.shape[0]}, not the "
                f"{rows} records of the batch; expand broadcast inputs to one row per record."
            )
    if len(gradients) == 1:
        return layer.inputs[0], _fp32(gradients[0])
    tail = layer.inputs[0].shape[2:] if layer.inputs[0].is_floating_point() else ()
    a = torch.cat([x.reshape(rows, -1, *tail[-1:]) for x in layer.inputs], 1)
    g = torch.cat([_fp32(x).reshape(rows, -1, x.shape[-1]) for x in gradients], 1)
    return a, g


def _fp32(x: Tensor) -> Tensor:
    return x.float()


def _keeper(layer: _Layer) -> Any:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        a = inputs[0].detach()
        layer.inputs.append(a.float() if a.is_floating_point() else a)
        # With frozen parameters the first layers' outputs are leaves without a gradient.
        if not output.requires_grad:
            output.requires_grad_(True)
        layer.outputs.append(output)

    return keep


def _find_layers(model: nn.Module) -> list[_Layer]:
    layers, owner = [], dict[int, str]()
    for name, module in model.named_modules():
        own = [(n, p) for n, p in module.named_parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        rule = RULES.get(type(module))
        if rule is None:
            raise UserError(
                f"Parameter {name + '.' if name else ''}{own[0][0]} belongs to a "
                f"{type(module).__name__}, which the bookkeeping engine cannot clip; freeze it "
                "or use engine=per_example."
            )
        frozen = [n for n, p in module.named_parameters(recurse=False) if not p.requires_grad]
        if frozen:
            raise UserError(
                f"Layer {name!r} is partly frozen ({', '.join(frozen)}); freeze all or none."
            )
        for parameter_name, parameter in own:
            if id(parameter) in owner:
                raise UserError(
                    f"Parameter {name}.{parameter_name} is shared with {owner[id(parameter)]}; "
                    "use engine=per_example for shared weights."
                )
            owner[id(parameter)] = f"{name}.{parameter_name}"
        layers.append(_Layer(name, module, rule))
    return layers


def build(model: nn.Module, loss: PerExampleLoss, clip: float) -> BookkeepingEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return BookkeepingEngine(model, loss, clip)
