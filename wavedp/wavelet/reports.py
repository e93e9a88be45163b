"""What pretraining tells about a part, on public images that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.nn.images import to_float
from wavedp.nn.prior import CodePrior
from wavedp.nn.tokenizer import Tokenizer
from wavedp.wavelet.training import PriorTraining, next_token_loss

BATCH = 250


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [-1, 1]."""
    return 10 * math.log10(4 / max(squared_error, 1e-12))


@torch.no_grad()
def report_tokenizer(tokenizer: Tokenizer, held_out: Records) -> Mapping[str, float]:
    """PSNR in dB decoded from the first scales, and how much of each codebook is in use.

    With several scales the first has its own codebooks, the details share theirs.

    ``used`` is the share of entries that some token chose, ``perplexity`` the effective number of
    entries by the entropy of the choices, over K.
    """
    tokenizer.eval()
    # Without scale-causal attention there are whole images only.
    decoded = range(1 if tokenizer.causal else tokenizer.scales, tokenizer.scales + 1)
    errors = torch.zeros(tokenizer.scales, dtype=torch.float64)
    shape = (2, tokenizer.codes, tokenizer.codebook_size)
    counts = torch.zeros(shape, dtype=torch.float64)
    for images in images_in(held_out, device_of(tokenizer)):
        tokens = tokenizer.encode(images)
        first = tokenizer.tokens_per_scale
        for scales in decoded:
            made = tokenizer.decode(tokens[:, : scales * first]).clamp(-1, 1)
            target = F.adaptive_avg_pool2d(images, made.shape[-1])
            errors[scales - 1] += (made - target).square().mean((1, 2, 3)).sum().cpu()
        for kind, part in enumerate((tokens[:, :first], tokens[:, first:])):
            for code in range(tokenizer.codes):
                counts[kind, code] += part[..., code].flatten().bincount(minlength=shape[2]).cpu()
    found = {
        f"psnr_{tokenizer.side(scales)}px": psnr(float(errors[scales - 1]) / len(held_out))
        for scales in decoded
    }
    shares = counts / counts.sum(-1, keepdim=True)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(-1)
    names = ("approximation", "detail") if tokenizer.scales > 1 else ("codebook",)
    for kind, name in enumerate(names):
        found[f"used_{name}"] = float((counts[kind] > 0).double().mean())
        found[f"perplexity_{name}"] = float(entropy[kind].exp().mean() / shape[2])
    return found


@torch.no_grad()
def report_prior(
    prior: CodePrior, tokenizer: Tokenizer, training: PriorTraining, held_out: Records
) -> Mapping[str, float]:
    """Bits per code of unseen public records, given their captions."""
    device = device_of(prior)
    loss, total = next_token_loss(0.0), 0.0
    prior.eval()
    for part in held_out.chunks(BATCH):
        batch = {k: v.to(device) for k, v in training.columns(tokenizer, part).items()}
        total += float(loss(prior, batch).sum())
    return {"bits_per_code": total / len(held_out) / math.log(2)}


@torch.no_grad()
def report_upsampler(
    upsample: Callable[[Tensor], Tensor], held_out: Records, device: torch.device
) -> Mapping[str, float]:
    """PSNR in dB of images whose true low band is upsampled.

    Args:
        upsample: full images to images made of their low bands alone.
        device: where it runs.
    """
    error = sum(
        float((upsample(x).clamp(-1, 1) - x).square().mean((1, 2, 3)).sum())
        for x in images_in(held_out, device)
    )
    return {"psnr": psnr(error / len(held_out))}


def device_of(network: nn.Module) -> torch.device:
    """Where its parameters are."""
    return next(network.parameters()).device


def images_in(records: Records, device: torch.device) -> Iterator[Tensor]:
    """Batches of images in [-1, 1], in order."""
    for part in records.chunks(BATCH):
        yield to_float(torch.from_numpy(np.array(part.images)).to(device))
