"""Layer rules: from a layer's inputs and output gradient to per-example gradients.

A rule sees one call of a layer: the tensors it was called with, and the gradient ``g`` of the
loss with respect to what it returned, the record first in both. It gives the gradients of the
layer's own parameters by name. Layers without a rule go through :func:`any_module`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from wavedp.dp.clipping.gradients import Gradients, Held, Terms, outer
from wavedp.dp.errors import UserError

Rule = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Mapping[str, Gradients]]


def linear(layer: nn.Module, inputs: tuple[Tensor, ...], g: Tensor) -> dict[str, Gradients]:
    """``nn.Linear`` with any leading dimensions."""
    a, g = _positions(inputs[0]), _positions(g)
    found: dict[str, Gradients] = {}
    if _trains(layer, "weight"):
        found["weight"] = outer(g, a)
    if _trains(layer, "bias"):
        found["bias"] = Held(g.sum(1))
    return found


def embedding(layer: nn.Module, inputs: tuple[Tensor, ...], g: Tensor) -> dict[str, Gradients]:
    """``nn.Embedding`` on ids of any shape; the padding entry has no gradient."""
    assert isinstance(layer, nn.Embedding)
    ids, g = inputs[0].reshape(len(inputs[0]), -1), _positions(g)
    if layer.padding_idx is not None:
        g = g * (ids != layer.padding_idx).unsqueeze(2)
    return {"weight": Terms(ids, g, layer.num_embeddings)}


def last_dimension_norm(
    layer: nn.Module, inputs: tuple[Tensor, ...], g: Tensor
) -> dict[str, Gradients]:
    """``nn.LayerNorm`` and ``nn.RMSNorm`` over the last dimension."""
    a = inputs[0]
    if isinstance(layer, nn.LayerNorm):
        if len(layer.normalized_shape) > 1:
            return any_module(layer, inputs, g)
        normalised = F.layer_norm(a, layer.normalized_shape, None, None, layer.eps)
    else:
        assert isinstance(layer, nn.RMSNorm)
        if len(layer.normalized_shape) > 1:
            return any_module(layer, inputs, g)
        normalised = F.rms_norm(a, list(layer.normalized_shape), None, layer.eps)
    return _scale_and_shift(layer, _positions(normalised), _positions(g))


def group_norm(layer: nn.Module, inputs: tuple[Tensor, ...], g: Tensor) -> dict[str, Gradients]:
    """``nn.GroupNorm`` on ``[b, channels, ...]``."""
    assert isinstance(layer, nn.GroupNorm)
    normalised = F.group_norm(inputs[0], layer.num_groups, None, None, layer.eps)
    return _scale_and_shift(layer, normalised.flatten(2).mT, g.flatten(2).mT)


def _scale_and_shift(layer: nn.Module, normalised: Tensor, g: Tensor) -> dict[str, Gradients]:
    """Gradients of ``weight * normalised + bias`` for ``[b, t, d]``."""
    found: dict[str, Gradients] = {}
    if _trains(layer, "weight"):
        found["weight"] = Held((normalised * g).sum(1))
    if _trains(layer, "bias"):
        found["bias"] = Held(g.sum(1))
    return found


def convolution(layer: nn.Module, inputs: tuple[Tensor, ...], g: Tensor) -> dict[str, Gradients]:
    """``nn.Conv1d`` and ``nn.Conv2d``, any stride, padding, dilation and groups.

    A convolution is a linear layer on its patches, one per output position.
    """
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    found: dict[str, Gradients] = {}
    if _trains(layer, "bias"):
        found["bias"] = Held(g.flatten(2).sum(2))
    if _trains(layer, "weight"):
        left, right = g.flatten(2).mT, _patches(layer, inputs[0])
        if layer.groups == 1:
            found["weight"] = outer(left, right)
        else:
            left = left.unflatten(2, (layer.groups, -1)).transpose(1, 2)
            right = right.unflatten(2, (layer.groups, -1)).transpose(1, 2)
            found["weight"] = Held((left.mT @ right).flatten(1, 2))
    return found


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """What each output position sees, ``[b, positions, channels * kernel]``."""
    # torch keeps the padding that it needs, also for "same" and for non-zero modes.
    padding = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, padding, mode=mode)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    return F.unfold(x, kernel, dilation, 0, stride).mT


def any_module(module: nn.Module, inputs: tuple[Tensor, ...], g: Tensor) -> dict[str, Gradients]:
    """Any module with parameters of its own, by differentiating it once per record.

    Exact wherever the module's forward pass vmaps; slower than a rule, because the module runs
    again. Parameters of submodules are constants here: they have rules of their own.

    Raises:
        UserError: it does not vmap.
    """
    own = {
        name: parameter.detach()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }

    def one(row: tuple[Tensor, ...], slope: Tensor) -> dict[str, Tensor]:
        def run(parameters: dict[str, Tensor]) -> Tensor:
            batched = tuple(value.unsqueeze(0) for value in row)
            result: Tensor = functional_call(module, parameters, batched)
            return result.squeeze(0)

        pull = vjp(run, own)[1]
        found: dict[str, Tensor] = pull(slope)[0]
        return found

    try:
        rows = vmap(one, randomness="error")(inputs, g)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # Its text is not passed on: it may quote a value of a private record.
        raise UserError(
            f"A {type(module).__name__} with parameters of its own cannot be run again record by "
            "record, for example because it draws random numbers: move the parameters into a "
            "module that does not, freeze them, or use engine=per_example."
        ) from error
    return {name: Held(value) for name, value in rows.items()}


def _positions(x: Tensor) -> Tensor:
    """``[b, ..., d] -> [b, t, d]``."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _trains(layer: nn.Module, name: str) -> bool:
    parameter = layer._parameters.get(name)
    return parameter is not None and parameter.requires_grad


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Embedding: embedding,
    nn.LayerNorm: last_dimension_norm,
    nn.RMSNorm: last_dimension_norm,
    nn.GroupNorm: group_norm,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
}


def rule_of(module: nn.Module) -> Rule:
    """The rule for a module, by its exact type; :func:`any_module` where there is none."""
    return RULES.get(type(module), any_module)
