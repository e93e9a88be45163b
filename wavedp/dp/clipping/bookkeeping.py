"""The default engine: one forward and one backward pass (Bu et al. 2022, arXiv 2210.00038).

The layers' inputs and output gradients are kept; norms and the clipped sum are computed from
them. Parameters do not require gradients during the pass, so autograd never forms the ordinary
weight gradients that would be thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from wavedp.dp.clipping import (
    Batch,
    PerExampleLoss,
    check_losses,
    check_no_cross_example_layers,
    clip_factors,
    full,
    trainable,
    zero_sums,
)
from wavedp.dp.clipping.gradients import Gradients, total
from wavedp.dp.clipping.layers import Rule, rule_of
from wavedp.dp.errors import UserError


@dataclass(frozen=True)
class _Layer:
    """A module with trainable parameters of its own."""

    name: str
    module: nn.Module
    rule: Rule
    parameters: dict[str, str]
    """Its names of its parameters to the model's names; layers may share one."""


@dataclass(frozen=True)
class _Call:
    """One call of a layer: what went in, and where in the graph its output is.

    The edge and not the tensor, which an in-place activation may overwrite.
    """

    layer: _Layer
    inputs: tuple[Tensor, ...]
    output: GradientEdge
    shape: torch.Size

    def gradients(self, slope: Tensor, sound: Tensor | None) -> Iterator[tuple[str, Gradients]]:
        """By the model's names; the rows of records that are not sound are cleared."""
        inputs, slope = self.inputs, full(slope)
        if sound is not None:
            inputs, slope = tuple(_cleared(x, sound) for x in inputs), _cleared(slope, sound)
        for own, found in self.layer.rule(self.layer.module, inputs, slope).items():
            yield self.layer.parameters[own], found


class BookkeepingEngine:
    """Exact flat clipping for any model whose trainable parameters sit in called modules.

    Once, on the first record, its gradients are compared with autograd's. So a parameter that
    is used without its module being called (as in ``nn.MultiheadAttention``) is refused and
    not left out of the norm.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, clip: float) -> None:
        check_no_cross_example_layers(model)
        self.sums = zero_sums(model)
        self._model, self._loss, self._clip = model, loss, clip
        self._parameters = trainable(model)
        self._layers = _find_layers(model)
        self._checked = False

    def add(self, batch: Batch, mask: Tensor) -> None:
        if not self._checked:
            record = {name: rows[:1] for name, rows in batch.items()}
            self._checked = self._agrees_with_autograd(record)
        calls, slopes = self._backward(batch, len(mask))
        gradients = _by_parameter(calls, slopes, None)
        squared = torch.stack([found.squared_norms() for found in gradients.values()]).sum(0)
        sound = squared.isfinite()
        if not bool(sound.all()):
            # Zero times NaN is NaN: the rows of a bad record are cleared, not weighted.
            gradients = _by_parameter(calls, slopes, sound)
        factors = clip_factors(squared, mask, self._clip)
        for name, found in gradients.items():
            self.sums[name] += found.weighted_sum(factors).view_as(self.sums[name])

    def _backward(self, batch: Batch, rows: int) -> tuple[list[_Call], list[Tensor]]:
        """Every call of a layer, and the gradient of the summed losses at its output."""
        with self._kept(rows) as calls:
            losses = self._loss(self._model, batch)
            check_losses(losses, rows)
            outputs = [call.output for call in calls]
            found = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        return calls, [
            losses.new_zeros(call.shape) if slope is None else slope
            for call, slope in zip(calls, found, strict=True)
        ]

    @contextmanager
    def _kept(self, rows: int) -> Iterator[list[_Call]]:
        calls: list[_Call] = []
        handles = [
            layer.module.register_forward_hook(_keeper(layer, rows, calls), with_kwargs=True)
            for layer in self._layers
        ]
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        try:
            yield calls
        finally:
            for parameter in self._parameters.values():
                parameter.requires_grad_(True)
            for handle in handles:
                handle.remove()

    def _agrees_with_autograd(self, record: Batch) -> bool:
        """Compare one record's gradients with autograd's, under the same random draws.

        Returns:
            False if they are not finite, so that nothing was shown.

        Raises:
            UserError: names the first parameter that differs.
        """
        device = next(iter(self._parameters.values())).device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            state = torch.random.get_rng_state()
            cuda_state = torch.cuda.get_rng_state(device) if cuda else None
            losses = self._loss(self._model, record)
            check_losses(losses, 1)
            names, parameters = zip(*self._parameters.items(), strict=True)
            expected = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
            torch.random.set_rng_state(state)
            if cuda_state is not None:
                torch.cuda.set_rng_state(cuda_state, device)
            found = _by_parameter(*self._backward(record, 1), None)
        for name, truth in zip(names, expected, strict=True):
            zero = torch.zeros_like(self.sums[name])
            mine = found[name].rows()[0].view_as(zero) if name in found else zero
            want = zero if truth is None else full(truth)
            if not bool(want.isfinite().all()):
                return False
            size = want.norm().clamp_min(mine.norm())
            # Loose enough for bfloat16; what this looks for is a gradient that is missing.
            if bool((mine - want).norm() > 0.05 * size + 1e-12):
                raise UserError(
                    f"The gradient of parameter {name} does not follow from the calls of its "
                    "module: it is used elsewhere, or changed on the way. Use "
                    "engine=per_example, or call the module that holds it."
                )
        return True


def _by_parameter(
    calls: Iterable[_Call], slopes: Iterable[Tensor], sound: Tensor | None
) -> dict[str, Gradients]:
    parts: dict[str, list[Gradients]] = {}
    for call, slope in zip(calls, slopes, strict=True):
        for name, found in call.gradients(slope, sound):
            parts.setdefault(name, []).append(found)
    return {name: total(found) for name, found in parts.items()}


def _cleared(x: Tensor, sound: Tensor) -> Tensor:
    return x.where(sound.view(-1, *[1] * (x.dim() - 1)), 0)


def _keeper(layer: _Layer, rows: int, calls: list[_Call]) -> Callable[..., Any]:
    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor:
        del module
        if kwargs or not all(isinstance(x, Tensor) for x in (*args, output)):
            raise UserError(
                f"Layer {layer.name!r} is called with keywords or with something that is not a "
                "tensor; pass tensors by position, or use engine=per_example."
            )
        lengths = {len(x) if x.dim() else 0 for x in args}
        if lengths == {1} and rows > 1:
            # One row for all records, such as position ids: give each record its own.
            args = tuple(x.expand(rows, *x.shape[1:]) for x in args)
            output = output.expand(rows, *output.shape[1:])
        elif lengths != {rows}:
            raise UserError(
                f"Layer {layer.name!r} got an input whose first dimension is "
                f"{sorted(lengths)[0]}, not the {rows} records of the batch; expand broadcast "
                "inputs to one row per record."
            )
        inputs = tuple(full(x.detach()) for x in args)
        if not output.requires_grad:
            # With frozen parameters the first layers' outputs need no gradient by themselves. The
            # copy lets an in-place activation follow, which a leaf would refuse.
            output = output.detach().requires_grad_(True).clone()
        calls.append(_Call(layer, inputs, get_gradient_edge(output), output.shape))
        return torch.as_tensor(output)

    return keep


def _find_layers(model: nn.Module) -> list[_Layer]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = []
    for name, module in model.named_modules():
        own = {
            own: names[id(parameter)]
            for own, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        }
        if own:
            layers.append(_Layer(name, module, rule_of(module), own))
    return layers


def build(model: nn.Module, loss: PerExampleLoss, clip: float) -> BookkeepingEngine:
    """See :func:`wavedp.dp.clipping.make_engine`."""
    return BookkeepingEngine(model, loss, clip)
