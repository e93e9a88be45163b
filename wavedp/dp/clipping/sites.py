"""Where layers are called in a loss, and what leaves the backward pass there.

Shapes: b records; what is handed out has the record first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import clip_factors
from wavedp.dp.clipping.gradients import Gradients, full, total
from wavedp.dp.clipping.layers import Call, Rule, rule_of


@dataclass(frozen=True)
class Layer:
    """A module with trained parameters of its own.

    Attributes:
        parameters: its names of its parameters to the model's names; layers may share one.
    """

    name: str
    module: nn.Module
    rule: Rule
    parameters: dict[str, str]

    def call(self, inputs: Sequence[Tensor], slope: Tensor, records: int) -> Call:
        """One of its calls."""
        return Call(self.module, frozenset(self.parameters), tuple(inputs), slope, records)


@dataclass(frozen=True)
class Weights:
    """What a clipped sum is formed with.

    Attributes:
        factors: ``[b]``, zero for records that do not count.
        sound: ``[b]``, False for records that are not finite; None if all are.
    """

    factors: Tensor
    sound: Tensor | None

    def sum(self, form: Gradients) -> Tensor:
        """The weighted sum of a parameter's gradients."""
        return (form if self.sound is None else form.cleared(self.sound)).weighted_sum(self.factors)


@dataclass(frozen=True)
class Site:
    """A place in the loss where a layer is called.

    Attributes:
        forms: the forms that its rule gives, on the meta device; empty if the rule runs after the
            backward pass.
        alone: whether its parameters are used nowhere else. Their norms are then taken during the
            backward pass, while the output gradient is still in the processor's cache.
        kept: whether the forms leave the backward pass. If not, their sum does, in a second one.
        copied: whether the output is handed on as a copy, which an activation may overwrite.
        handed: shape per record and type of each tensor that leaves the first backward pass.
    """

    layer: Layer
    forms: dict[str, Gradients]
    alone: bool
    kept: bool
    copied: bool
    handed: list[tuple[torch.Size, torch.dtype]]

    def hand_out(
        self, inputs: Sequence[Tensor], slope: Tensor, records: int, weights: Weights | None
    ) -> list[Tensor]:
        """What leaves the backward pass: with one row per record, or with weights their sums."""
        if not self.forms:
            return [x.unflatten(0, (records, -1)) for x in (slope, *inputs)]
        found = self.layer.rule(self.layer.call(inputs, slope, records))
        if weights is not None:
            sums = ((name, weights.sum(form)) for name, form in found.items())
            return [total.view(self.layer.module.get_parameter(n).shape) for n, total in sums]
        forms = found.values()
        norms = [added(form.squared_norms() for form in forms)] if self.alone else []
        return norms + ([x for form in forms for x in form.tensors()] if self.kept else [])

    def take(self, handed: Sequence[Tensor]) -> tuple[dict[str, Gradients], Tensor | None]:
        """Gradients by the layer's names of its parameters, and their norms if it is alone."""
        if not self.forms:
            slope, *inputs = (x.flatten(0, 1) for x in handed)
            return dict(self.layer.rule(self.layer.call(inputs, slope, len(handed[0])))), None
        rest = iter(handed)
        norms = next(rest) if self.alone else None
        forms = self.forms if self.kept else {}
        found = {
            name: form.rebuilt([next(rest).to(x.dtype) for x in form.tensors()])
            for name, form in forms.items()
        }
        return found, norms

    def carriers(self, records: int, weighted: bool) -> list[Tensor]:
        """Zeros that take no memory, for :meth:`hand_out`'s tensors to be the gradients of."""
        parameters = [self.layer.module.get_parameter(name) for name in self.forms]
        if weighted:
            sums = [] if self.kept else [full(p.detach()) for p in parameters]
            shapes = [(x.shape, x.dtype) for x in sums]
        else:
            shapes = [(torch.Size([records, *shape]), dtype) for shape, dtype in self.handed]
        device = next(self.layer.module.parameters()).device
        return [
            torch.zeros((), dtype=carrying(dtype), device=device).expand(shape).requires_grad_()
            for shape, dtype in shapes
        ]


def by_parameter(
    layers: Sequence[Layer], found: Sequence[Mapping[str, Gradients]]
) -> dict[str, Gradients]:
    """The gradients of each parameter of the model, from all calls of the layers that hold it."""
    parts: dict[str, list[Gradients]] = {}
    for layer, forms in zip(layers, found, strict=True):
        for own, form in forms.items():
            parts.setdefault(layer.parameters[own], []).append(form)
    return {name: total(forms) for name, forms in parts.items()}


def clipping_weights(squared: Tensor, mask: Tensor, clip: float) -> Weights:
    """Weights of a clipped sum, from squared norms ``[b]`` and the mask of rows that count."""
    sound: Tensor | None = squared.isfinite()
    # To look at the flags would make a GPU wait, so there the rows are cleared in any case.
    if not (squared.is_cuda or torch.compiler.is_compiling()) and bool(squared.isfinite().all()):
        sound = None
    return Weights(clip_factors(squared, mask, clip), sound)


def find_layers(model: nn.Module) -> list[Layer]:
    """The modules that hold trained parameters, in the model's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = []
    for name, module in model.named_modules():
        own = {
            own: names[id(parameter)]
            for own, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        }
        if own:
            layers.append(Layer(name, module, rule_of(module), own))
    return layers


def added(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def carrying(dtype: torch.dtype) -> torch.dtype:
    """Only floating-point tensors have gradients; float64 holds every index exactly."""
    return dtype if dtype.is_floating_point else torch.float64
