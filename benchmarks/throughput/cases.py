"""What is measured: a model, its data, and how many records a step takes.

Batches are large enough that noise and optimizer cost little beside forward and backward, as
with the large logical batches of training with privacy, and small enough for the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from benchmarks.throughput.transformer import (
    Transformer,
    next_token_loss,
    sequences,
    with_lora,
)
from benchmarks.throughput.unet import UNet, denoising_loss, noisy_pictures
from wavedp.dp.clipping import Batch, PerExampleLoss

ENGINES = ("bookkeeping", "two_pass", "hooks", "ghost")
"""Ours by their names in ``wavedp.dp.clipping``, then Opacus by its own."""


@dataclass(frozen=True)
class Case:
    """One row of the table but for the engine.

    Attributes:
        model: its name in the table.
        make: builds it.
        data: ``records -> columns``, synthetic.
        loss: one number per record.
        tokens: positions of a record at full resolution.
        batch: records of a step.
        micro_batch: records of a forward pass.
        device: "cpu" or "cuda".
        amp: bfloat16 autocast on both sides, otherwise float32.
        compiled: ``torch.compile`` on both sides.
        engines: those that are measured.
    """

    model: str
    make: Callable[[], nn.Module]
    data: Callable[[int], Batch]
    loss: PerExampleLoss
    tokens: int
    batch: int
    micro_batch: int
    device: str = "cpu"
    amp: bool = False
    compiled: bool = False
    engines: tuple[str, ...] = ENGINES

    @property
    def dtype(self) -> str:
        """What most of the arithmetic is done in."""
        return "bfloat16" if self.amp else "float32"


def transformer(
    model: str,
    length: int,
    width: int,
    depth: int,
    heads: int,
    batch: int,
    micro_batch: int,
    vocabulary: int = 512,
    lora: bool = False,
) -> Case:
    """The autoregressive transformer on ``length`` tokens."""

    def make() -> nn.Module:
        network = Transformer(vocabulary, length, width, depth, heads)
        return with_lora(network) if lora else network

    data = partial(sequences, vocabulary=vocabulary, length=length)
    return Case(model, make, data, next_token_loss, length, batch, micro_batch)


def unet(
    model: str,
    make: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    batch: int,
    micro_batch: int,
    context: tuple[int, ...] = (),
) -> Case:
    """A denoising U-Net on pictures of ``shape``."""
    data = partial(noisy_pictures, shape=shape, context=context)
    tokens = shape[1] * shape[2]
    return Case(model, make, data, denoising_loss, tokens, batch, micro_batch)


CPU = (
    transformer("ar-0.9m", 16, 128, 4, 4, batch=1024, micro_batch=256),
    transformer("ar-7m", 16, 384, 4, 6, batch=512, micro_batch=256),
    transformer("ar-3m", 64, 256, 4, 4, batch=256, micro_batch=64),
    transformer("ar-11m", 256, 384, 6, 6, batch=64, micro_batch=16),
    transformer("ar-3m-lora", 64, 256, 4, 4, batch=256, micro_batch=64, lora=True),
    unet(
        "unet-1m",
        partial(UNet, 3, 32, (1, 2, 2), blocks=1, attended=(2,), heads=4),
        (3, 32, 32),
        batch=64,
        micro_batch=64,
    ),
)


def _on_gpu(case: Case) -> tuple[Case, Case]:
    """As it is, and compiled: Opacus' hooks are measured as it is only."""
    eager = ("bookkeeping", "two_pass", "hooks", "ghost")
    case = replace(case, device="cuda", amp=True, engines=eager)
    return case, replace(case, compiled=True, engines=("bookkeeping", "two_pass"))


def _large(model: str, length: int, batch: int, micro_batch: int, lora: bool = False) -> Case:
    return transformer(model, length, 1024, 24, 16, batch, micro_batch, 16_384, lora)


_GPU = (
    _large("ar-350m", 256, batch=256, micro_batch=64),
    _large("ar-350m", 576, batch=112, micro_batch=28),
    _large("ar-350m", 1024, batch=64, micro_batch=16),
    _large("ar-350m-lora", 256, batch=256, micro_batch=64, lora=True),
    unet(
        "unet-36m",
        partial(UNet, 3, 128, (1, 2, 2, 2), blocks=2, attended=(1,), heads=1),
        (3, 32, 32),
        batch=512,
        micro_batch=128,
    ),
    unet(
        "latent-unet-860m",
        partial(UNet, 4, 320, (1, 2, 4, 4), blocks=2, attended=(0, 1, 2), heads=8, context=768),
        (4, 32, 32),
        batch=128,
        micro_batch=32,
        context=(77, 768),
    ),
)
GPU = tuple(variant for case in _GPU for variant in _on_gpu(case))
