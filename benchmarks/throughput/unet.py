"""The tested denoising U-Nets, plain torch: in pixels as in DDPM, in latents as in SD 1.

Sources: Ho et al. 2020 (arXiv 2006.11239); Rombach et al. 2022 (arXiv 2112.10752).
Shapes: b records, c channels, h and w pixels, e width of the time embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.throughput.transformer import CrossAttention, SelfAttention
from wavedp.dp.clipping import Batch


def norm(channels: int) -> nn.GroupNorm:
    """32 groups, or fewer of four channels: one channel each would undo what is added to it."""
    return nn.GroupNorm(min(32, channels // 4), channels)


class Residual(nn.Module):
    """Two convolutions, the time embedding added between them."""

    def __init__(self, channels: int, out: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.time = nn.Linear(embedding, out)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class PixelAttention(nn.Module):
    """Attention among the pixels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = norm(channels), SelfAttention(channels, heads)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        return x + _picture(self.attention(_positions(self.norm(x))), x)


class TextTransformer(nn.Module):
    """Attention among the pixels, to the text, and a gated MLP."""

    def __init__(self, channels: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.enter, self.leave = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.within = SelfAttention(channels, heads)
        self.across = CrossAttention(channels, heads, context)
        self.up, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        y = self.enter(_positions(self.norm(x)))
        y = y + self.within(self.norms[0](y))
        y = y + self.across(self.norms[1](y), context)
        value, gate = self.up(self.norms[2](y)).chunk(2, dim=2)
        return x + _picture(self.leave(y + self.down(value * F.gelu(gate))), x)


class Stage(nn.Module):
    """A residual block, and attention where this resolution has it."""

    def __init__(self, residual: Residual, mixer: nn.Module | None) -> None:
        super().__init__()
        self.residual, self.mixer = residual, mixer

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None) -> Tensor:
        x = self.residual(x, time, context)
        return x if self.mixer is None else self.mixer(x, time, context)


class UNet(nn.Module):
    """Predicts the noise in ``[b, c, h, w]`` at times ``[b]``.

    Args:
        channels: of the picture.
        base: channels at full resolution; ``multipliers`` give those of each level.
        blocks: per level on the way down; one more on the way up.
        attended: the levels with attention; the middle always has it.
        heads: of every attention.
        context: width of the text's features; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        base: int,
        multipliers: Sequence[int],
        blocks: int,
        attended: Sequence[int],
        heads: int,
        context: int = 0,
    ) -> None:
        super().__init__()
        embedding = 4 * base
        self.base = base
        self.time = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )

        def mixer(width: int) -> nn.Module:
            if context:
                return TextTransformer(width, heads, context)
            return PixelAttention(width, heads)

        def stage(width: int, out: int, level: int) -> Stage:
            residual = Residual(width, out, embedding)
            return Stage(residual, mixer(out) if level in attended else None)

        widths = [base * multiplier for multiplier in multipliers]
        self.enter = nn.Conv2d(channels, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, kept = base, [base]
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.down.append(stage(width, out, level))
                width = out
                kept.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                kept.append(width)
        self.middle = nn.ModuleList(
            [Stage(Residual(width, width, embedding), mixer(width)), stage(width, width, -1)]
        )
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(stage(width + kept.pop(), out, level))
                width = out
            if level:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm, self.leave = norm(width), nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None = None) -> Tensor:
        embedded = self.time(_waves(time, self.base))
        x = self.enter(x)
        kept = [x]
        for part in self.down:
            x = part(x, embedded, context) if isinstance(part, Stage) else part(x)
            kept.append(x)
        for part in self.middle:
            x = part(x, embedded, context)
        for part in self.up:
            if isinstance(part, Stage):
                x = part(torch.cat([x, kept.pop()], 1), embedded, context)
            else:
                x = part(F.interpolate(x, scale_factor=2.0))
        return self.leave(F.silu(self.norm(x)))


def noisy_pictures(records: int, shape: Sequence[int], context: Sequence[int] = ()) -> Batch:
    """Random pictures, noise and times in (0, 1), with ``context`` a text's features, too."""
    batch = {
        "picture": torch.randn(records, *shape),
        "noise": torch.randn(records, *shape),
        "time": torch.rand(records),
    }
    return batch | {"context": torch.randn(records, *context)} if context else batch


def denoising_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the predicted noise per record, ``[b]``; a cosine schedule."""
    angle = (batch["time"] * math.pi / 2)[:, None, None, None]
    noisy = angle.cos() * batch["picture"] + angle.sin() * batch["noise"]
    predicted = model(noisy, batch["time"], batch.get("context"))
    return (predicted - batch["noise"]).square().flatten(1).mean(1)


def _waves(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of ``[b]``, ``[b, width]``."""
    rates = torch.exp(torch.linspace(0, -math.log(10_000), width // 2, device=time.device))
    angles = 1000 * time[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def _positions(x: Tensor) -> Tensor:
    """``[b, c, h, w]`` to ``[b, h w, c]``."""
    return x.flatten(2).mT


def _picture(x: Tensor, like: Tensor) -> Tensor:
    """Back to the shape of ``like``."""
    return x.mT.unflatten(2, like.shape[2:])
