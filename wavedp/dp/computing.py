"""How a loss is computed, apart from what it is: half precision, views, recomputed activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavedp.dp.clipping import TOLERANCE, Batch, Passes, PerExampleLoss
from wavedp.dp.errors import UserError


@dataclass(frozen=True)
class Computing:
    """Settings of speed and memory; none of them changes what is trained, or its privacy.

    Attributes:
        device: where to compute.
        amp: "bf16" computes layers in bfloat16 under autocast, with losses, norms and sums in
            float32. None for the model's own type.
        compile: ``torch.compile`` the passes. Micro-batches are then padded to one shape.
        views: K, rows that a record's loss is averaged over, each with random draws of its own
            (noise or augmentation multiplicity, De et al. 2022): one clipped gradient per record
            all the same, so no privacy cost, and K times the compute.
        recompute: types of modules whose activations are computed again in the backward pass
            instead of kept (activation checkpointing).
    """

    device: torch.device
    amp: str | None = None
    compile: bool = False
    views: int = 1
    recompute: Sequence[type[nn.Module]] = ()

    def __post_init__(self) -> None:
        if self.amp not in (None, "bf16"):
            raise UserError(f"amp={self.amp!r} is not known; use bf16 or None.")
        if self.views < 1:
            raise UserError(f"{self.views} views of a record are not possible; use 1 or more.")
        if not isinstance(self.recompute, Sequence):
            raise UserError("recompute takes a sequence of types of modules, such as (Block,).")

    @property
    def identity(self) -> str:
        """What changes results a little, for a checkpoint to compare.

        Not the model of GPU, which may change them, too: see :mod:`wavedp.dp.resume`.
        """
        names = [module.__name__ for module in self.recompute]
        return f"{self.device.type} amp={self.amp} compile={self.compile} {self.views} {names}"

    @property
    def passes(self) -> Passes:
        """What an engine needs to know."""
        return Passes(self.views, self.compile)

    def tolerance(self, model: nn.Module) -> float:
        """How far rounding may take a clipped gradient past C, relatively."""
        types = {torch.bfloat16} if self.amp else {p.dtype for p in model.parameters()}
        unknown = types - TOLERANCE.keys()
        if unknown:
            raise UserError(f"Parameters of type {unknown.pop()} are not trained; use float32.")
        return max(TOLERANCE[dtype] for dtype in types)

    def loss(self, per_example_loss: PerExampleLoss) -> PerExampleLoss:
        """The loss under autocast, averaged over views."""
        if self.amp is None and self.views == 1:
            return per_example_loss

        def computed(model: nn.Module, batch: Batch) -> Tensor:
            if self.views > 1:
                batch = {k: rows.repeat_interleave(self.views, 0) for k, rows in batch.items()}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp is not None):
                losses = per_example_loss(model, batch)
            losses = losses.float() if self.amp else losses
            if self.views == 1:
                return losses
            return losses.unflatten(0, (-1, self.views)).mean(1)

        return computed

    @contextmanager
    def recomputing(self, model: nn.Module) -> Iterator[None]:
        """While open, modules of the types in ``recompute`` keep no activations."""
        wrapped = [m for m in model.modules() if isinstance(m, tuple(self.recompute))]
        for module in wrapped:
            module.forward = _again(module.forward)
        try:
            yield
        finally:
            for module in wrapped:
                del module.forward


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Keep a GPU from rounding float32 operands to TF32: norms and sums would differ by it."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
