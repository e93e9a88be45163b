"""Per-example clipped gradient sums: one file per engine, one interface.

For a micro-batch every engine adds ``sum_i mask_i * min(1, C / ||g_i||) * g_i`` to its
``sums``, where ``g_i`` is the gradient of record i's own loss over all trainable parameters
(flat clipping, Abadi et al. 2016). The sums are float32 and un-noised: they never leave the
trainer.

How far a clipped gradient may exceed C through rounding is :data:`TOLERANCE`, by the type that
the layers compute in; the trainer's noise covers it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wavedp.dp.clipping.gradients import full
from wavedp.dp.errors import UserError

Batch = Mapping[str, Tensor]
PerExampleLoss = Callable[[nn.Module, Batch], Tensor]
"""``loss(model, batch) -> [b]``: one loss per record, not averaged over the batch."""

TRAINING_ENGINES = ("bookkeeping", "two_pass", "per_example")
ENGINES = (*TRAINING_ENGINES, "opacus")
"""Opacus serves tests and benchmarks: it does not see whether a loss mixes records."""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative error of clipped sums by computing type, as ``tests/dp/test_layers.py`` shows."""


class Engine(Protocol):
    """Adds clipped per-example gradients of micro-batches to ``sums``."""

    sums: dict[str, Tensor]
    """Parameter name to float32 sum, zeroed by the caller between logical batches."""

    def add(self, batch: Batch, mask: Tensor) -> None:
        """Add one micro-batch. Rows with ``mask`` False contribute exactly zero."""


def check_engine(name: str) -> None:
    """Refuse an unknown engine before any work starts.

    Raises:
        UserError: names the known ones.
    """
    if name not in ENGINES:
        known = ", ".join(TRAINING_ENGINES)
        raise UserError(f"Clipping engine {name!r} is not known; choose one of {known}.")


@dataclass(frozen=True)
class Passes:
    """How an engine runs the model.

    Attributes:
        views: rows that the layers see for each record, one record's after the other's.
        compiled: whether the passes are compiled; micro-batches must then have one shape.
    """

    views: int = 1
    compiled: bool = False

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled if so wanted."""
        return torch.compile(function, dynamic=False) if self.compiled else function


def make_engine(
    name: str, model: nn.Module, loss: PerExampleLoss, clip: float, passes: Passes | None = None
) -> Engine:
    """The engine called ``name``; a clip of infinity needs only ordinary gradients.

    Raises:
        UserError: unknown engine, or a layer, parameter or setting with which it cannot clip
            exactly.
    """
    check_engine(name)
    if not math.isinf(clip):
        check_no_cross_example_layers(model)
    module = "ordinary" if math.isinf(clip) else name
    engine: Engine = importlib.import_module(f"{__name__}.{module}").build(
        model, loss, clip, passes or Passes()
    )
    return engine


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Names and trainable parameters, each shared parameter once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def zero_sums(model: nn.Module) -> dict[str, Tensor]:
    """Zeros in the shapes of the trainable parameters, in float32 or better, without gaps."""
    return {
        name: full(torch.zeros_like(p.detach(), memory_format=torch.contiguous_format))
        for name, p in trainable(model).items()
    }


def clip_factors(squared_norms: Tensor, mask: Tensor, clip: float) -> Tensor:
    """``min(1, C / norm)`` per row; zero for padding and for rows that are not finite.

    A record whose gradient is NaN or infinite contributes nothing, which keeps the
    sensitivity bound and leaves the other records untouched.
    """
    usable = mask & squared_norms.isfinite()
    norms = squared_norms.clamp_min(1e-24).sqrt()
    return (clip / norms).clamp_max(1.0).where(usable, 0.0)


def check_losses(losses: Tensor, rows: int) -> None:
    """Refuse a loss that is not one number per record.

    Raises:
        UserError: the loss was averaged or summed over the batch.
    """
    if losses.shape != (rows,):
        raise UserError(
            f"The loss must return one value per record, shape [{rows}], not "
            f"{list(losses.shape)}: remove the average over the batch."
        )


def check_no_cross_example_layers(model: nn.Module) -> None:
    """Refuse layers through which one record changes another's gradient.

    Raises:
        UserError: names the layer.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"Layer {name!r} is a {type(module).__name__}, which mixes records of a batch; "
                "use GroupNorm or LayerNorm for training with differential privacy."
            )
