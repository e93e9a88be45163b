"""A variational autoencoder (Kingma and Welling 2014) of low bands, trained by DP-SGD alone.
No public data, no captions, one small network: expect blurred images of the right colours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.encoders import LowBandEncoder


class DPVae(nn.Module):
    """Draws low bands of r x r pixels, which are then enlarged to images of R x R pixels."""

    stages: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # what public pretraining makes
    private_parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")  # what it does not
    conditioning: ClassVar[Literal["text", "none"]] = "none"  # do samples follow captions?

    def __init__(self, resolution: int, side: int, latent: int, width: int, rate: float) -> None:
        super().__init__()
        if min(latent, width) < 1 or rate <= 0:
            raise UserError("Set generator.latent, .width and .rate to positive numbers.")
        self.resolution, self.latent, self.rate = resolution, latent, rate
        self.low, dim = LowBandEncoder(resolution, side), 3 * side**2
        self.encoder = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.GELU(), nn.Linear(width, dim))
        square, enlarge = (3, side, side), nn.Upsample(resolution, mode="bicubic")
        self.enlarged = nn.Sequential(nn.Unflatten(1, square), enlarge)

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """Train one of the stages on public records; there is none."""

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        return {}

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse weights or prompts that do not fit, by a UserError; all do."""

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        records = private.map(self.low, progress=trainer.progress)
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.rate)
        trainer.fit(self, lambda model, batch: model(batch["low"]), records, optimizer)

    def forward(self, low: Tensor) -> Tensor:
        """Minus the ELBO: ``[b, 3 r r]`` to ``[b]``, each number of one record alone."""
        mean, log_variance = self.encoder(low).chunk(2, dim=1)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = 5 * (self.decoder(latent) - low).square().sum(1)
        return error + (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        draws = torch.Generator().manual_seed(seed)
        latents = torch.randn(len(captions), self.latent, generator=draws)
        for part in latents.to(next(self.parameters()).device).split(500):
            yield to_uint8(self.enlarged(self.decoder(part)))

    def oracle(self, images: Tensor) -> Tensor:
        return to_uint8(self.enlarged(self.low.of(to_float(images))))
