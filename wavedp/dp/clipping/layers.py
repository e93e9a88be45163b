"""Layer rules: from a layer's inputs and output gradient to per-example gradients.

A rule sees one :class:`Call` of a layer and gives the gradients of the layer's own trained
parameters by name. A record may have several rows (its views, one after the other): they are
more positions of the same record. Layers without a rule go through :func:`any_module`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from wavedp.dp.clipping.gradients import (
    Gradients,
    Held,
    Terms,
    full,
    outer,
    product,
    worth_holding,
)
from wavedp.dp.errors import UserError


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: the module.
        trained: its own names of the parameters that are trained.
        inputs: the tensors it was called with, ``[records * views, ...]``.
        slope: the gradient of the loss with respect to its output, ``[records * views, ...]``.
        records: how many records these are.
    """

    layer: nn.Module
    trained: frozenset[str]
    inputs: tuple[Tensor, ...]
    slope: Tensor
    records: int


Rule = Callable[[Call], Mapping[str, Gradients]]


def linear(call: Call) -> dict[str, Gradients]:
    """``nn.Linear`` with any leading dimensions."""
    g = _positions(call.slope, call.records)
    found: dict[str, Gradients] = {}
    if "weight" in call.trained:
        found["weight"] = outer(g, _positions(call.inputs[0], call.records).to(g.dtype))
    if "bias" in call.trained:
        found["bias"] = Held(g.sum(1, dtype=_wide(g)))
    return found


def embedding(call: Call) -> dict[str, Gradients]:
    """``nn.Embedding`` on ids of any shape; the padding entry has no gradient."""
    layer = call.layer
    assert isinstance(layer, nn.Embedding)
    ids, g = call.inputs[0].reshape(call.records, -1), _positions(call.slope, call.records)
    if layer.padding_idx is not None:
        g = g * (ids != layer.padding_idx).unsqueeze(2)
    return {"weight": Terms(ids.long(), g, layer.num_embeddings)}


def last_dimensions_norm(call: Call) -> dict[str, Gradients]:
    """``nn.LayerNorm`` and ``nn.RMSNorm`` over the last dimensions."""
    layer, a = call.layer, full(call.inputs[0])
    assert isinstance(layer, nn.LayerNorm | nn.RMSNorm)
    shape = list(layer.normalized_shape)
    if isinstance(layer, nn.LayerNorm):
        normalised = F.layer_norm(a, shape, None, None, layer.eps)
    else:
        normalised = F.rms_norm(a, shape, None, layer.eps)
    last = -len(shape)
    g = _positions(full(call.slope).flatten(last), call.records)
    return _scale_and_shift(call, _positions(normalised.flatten(last), call.records), g)


def group_norm(call: Call) -> dict[str, Gradients]:
    """``nn.GroupNorm`` on ``[b, channels, ...]``."""
    layer = call.layer
    assert isinstance(layer, nn.GroupNorm)
    a = F.group_norm(full(call.inputs[0]), layer.num_groups, None, None, layer.eps)
    channels = a.shape[1]
    parts = [x.reshape(call.records, -1, channels, x[0, 0].numel()) for x in (a, full(call.slope))]
    return _scale_and_shift(call, parts[0].transpose(1, 2), parts[1].transpose(1, 2))


def _scale_and_shift(call: Call, normalised: Tensor, g: Tensor) -> dict[str, Gradients]:
    """Gradients of ``weight * normalised + bias``, from ``[b, t, d]`` or ``[b, d, views, t]``."""
    others = 1 if g.dim() == 3 else (2, 3)
    found: dict[str, Gradients] = {}
    if "weight" in call.trained:
        found["weight"] = Held((normalised * g).sum(others))
    if "bias" in call.trained:
        found["bias"] = Held(g.sum(others))
    return found


@dataclass(frozen=True)
class Convolved(Gradients):
    """Gradients of a convolution's kernel, as its input and output gradient.

    Attributes:
        inputs: ``[b, views, channels, ...]``, padded where the padding is not plain zeros.
        slopes: ``[b, views, output channels, ...]``.
        layer: the convolution.
        padding: zeros that the convolution itself adds on either side.
    """

    TENSORS = ("inputs", "slopes")
    inputs: Tensor
    slopes: Tensor
    layer: nn.Conv1d | nn.Conv2d
    padding: tuple[int, ...]

    def squared_norms(self) -> Tensor:
        return self._terms().squared_norms()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        scaled = full(self.slopes) * factors.view(-1, *[1] * (self.slopes.dim() - 1))
        kernel = full(self.layer.weight.detach())
        return self._kernels(self.inputs.flatten(0, 1), scaled.flatten(0, 1), kernel, 1)

    def rows(self) -> Tensor:
        weight, records, groups = self.layer.weight, len(self.inputs), self.layer.groups
        # A GPU has no fast kernel for what follows; and torch confuses the layouts of one pixel.
        if self.inputs.is_cuda or self.inputs[0, 0, 0].numel() == 1:
            left, right = self._patches_beside_slopes()
            left = left.unflatten(1, (groups, -1)).flatten(0, 1)
            right = right.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
            return product(left, right).view(records, *weight.shape)
        # Records as groups of one convolution: a kernel's gradient for each, at the cost of one.
        x, g = (y.transpose(0, 1).flatten(1, 2) for y in (self.inputs, self.slopes))
        kernels = full(weight.detach()).new_empty(records * len(weight), *weight.shape[1:])
        return self._kernels(x, g, kernels, records).view(records, *weight.shape)

    def held_if_cheaper(self) -> Gradients:
        """These, or held if that takes less time."""
        weight = self.layer.weight
        t = self.slopes.shape[1] * self.slopes[0, 0, 0].numel()
        p, d = len(weight), weight[0].numel()
        if self.layer.groups > 1 or worth_holding(t, p, d, weight.is_cuda):
            return Held(self.rows())
        return self

    def _kernels(self, x: Tensor, g: Tensor, kernels: Tensor, records: int) -> Tensor:
        """The ordinary gradient of ``kernels`` from inputs and output gradients.

        In float32 or better: sums over records that are rounded would move with every record.
        """
        layer, x, g = self.layer, full(x).contiguous(), full(g).contiguous()
        zeros, groups = [0] * len(layer.stride), records * layer.groups
        found = torch.ops.aten.convolution_backward(
            g, x, kernels, None, list(layer.stride), list(self.padding),
            list(layer.dilation), False, zeros, groups, [False, True, False],
        )  # fmt: skip
        return torch.as_tensor(found[1])

    def _terms(self) -> Terms:
        left, right = self._patches_beside_slopes()
        return Terms(left.mT, right, self.slopes.shape[2])

    def _patches_beside_slopes(self) -> tuple[Tensor, Tensor]:
        """Slopes ``[b, p, t]`` and what each position saw, ``[b, t, channels * kernel]``."""
        b, views = self.inputs.shape[:2]
        x, layer = self.inputs.flatten(0, 1), self.layer
        settings = layer.kernel_size, layer.dilation, self.padding, layer.stride
        if isinstance(layer, nn.Conv1d):
            x = x.unsqueeze(2)
            kernel, dilation, padding, stride = settings
            settings = (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
        patches = F.unfold(x, *settings).unflatten(0, (b, views))
        right = patches.transpose(1, 2).flatten(2).mT
        return self.slopes.flatten(3).transpose(1, 2).flatten(2), right.to(self.slopes.dtype)


def convolution(call: Call) -> dict[str, Gradients]:
    """``nn.Conv1d`` and ``nn.Conv2d``, any stride, padding, dilation and groups."""
    layer, g = call.layer, _views(call.slope, call.records)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    found: dict[str, Gradients] = {}
    if "bias" in call.trained:
        found["bias"] = Held(g.flatten(3).sum((1, 3), dtype=_wide(g)))
    if "weight" in call.trained:
        # torch keeps the padding that it needs, last dimension first, also for "same".
        ends = layer._reversed_padding_repeated_twice
        before, after = ends[-2::-2], ends[-1::-2]
        x, padding = call.inputs[0], tuple(before)
        if layer.padding_mode != "zeros" or before != after:
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x, padding = F.pad(x, ends, mode=mode), (0,) * len(before)
        found["weight"] = Convolved(_views(x, call.records), g, layer, padding).held_if_cheaper()
    return found


def any_module(call: Call) -> dict[str, Gradients]:
    """Any module with parameters of its own, by differentiating it once per record.

    Exact wherever the module's forward pass vmaps; slower than a rule, because the module runs
    again. Parameters of submodules are constants here: they have rules of their own.

    Raises:
        UserError: it does not vmap.
    """
    module = call.layer
    own = {name: p.detach() for name, p in module.named_parameters() if name in call.trained}

    def one(row: tuple[Tensor, ...], slope: Tensor) -> dict[str, Tensor]:
        def run(parameters: dict[str, Tensor]) -> Tensor:
            result: Tensor = functional_call(module, parameters, row)
            return result.to(slope.dtype)

        pull = vjp(run, own)[1]
        found: dict[str, Tensor] = pull(slope)[0]
        return found

    inputs = tuple(_views(x, call.records) for x in call.inputs)
    try:
        rows = vmap(one, randomness="error")(inputs, _views(call.slope, call.records))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        # Its text is not passed on: it may quote a value of a private record.
        raise UserError(
            f"A {type(module).__name__} with parameters of its own cannot be run again record by "
            "record, for example because it draws random numbers: move the parameters into a "
            "module that does not, freeze them, or use engine=per_example."
        ) from None
    return {name: Held(full(value)) for name, value in rows.items()}


def _views(x: Tensor, records: int) -> Tensor:
    """``[b * views, ...] -> [b, views, ...]``."""
    return x.unflatten(0, (records, -1))


def _positions(x: Tensor, records: int) -> Tensor:
    """``[b * views, ..., d] -> [b, t, d]``."""
    return x.reshape(records, -1, x.shape[-1])


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Embedding: embedding,
    nn.LayerNorm: last_dimensions_norm,
    nn.RMSNorm: last_dimensions_norm,
    nn.GroupNorm: group_norm,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
}


def rule_of(module: nn.Module) -> Rule:
    """The rule for a module, by its exact type; :func:`any_module` where there is none."""
    return RULES.get(type(module), any_module)
