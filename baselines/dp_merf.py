"""DP-MERF (Harder, Adamczewski and Park, AISTATS 2021, arXiv 2002.11603): one noisy mean embedding.

The mean of random Fourier features over the private records is released once; a small generator
is then trained to have the same mean. That needs neither private nor public images, so all that
depends on records is that one vector. Here the features are of the low band's pixels, and the
generator draws low bands, which bicubic interpolation enlarges. Captions are ignored.

Shapes: b images or records, F frequencies, r pixels per side of the low band, d = 3 r r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float, to_uint8
from wavedp.nn.schedule import cosine
from wavedp.wavelet.encoders import LowBandEncoder

BATCH = 500
"""Images drawn at once."""


class DPMerf(nn.Module):
    """A generator of low bands, matched to one private vector.

    Args:
        resolution: R, pixels per side of the images.
        side: r, of the low band that is embedded and generated: R halved some times.
        frequencies: F; the embedding has a cosine and a sine of each.
        lengthscales: of the Gaussian kernels whose mean the embedding approximates, in units of
            one root mean square difference per pixel, of pixels in [-1, 1]. Public constants: the
            usual median distance would be a statistic of private records.
        noise, width: of the generator's input, and of its hidden layers.
        iterations, batch, rate: of its training, by AdamW.
    """

    stages: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    conditioning: ClassVar[Literal["text", "none"]] = "none"
    private_parts: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        resolution: int = 32,
        side: int = 8,
        frequencies: int = 1000,
        lengthscales: Sequence[float] = (0.25, 0.5, 1.0),
        noise: int = 32,
        width: int = 256,
        iterations: int = 1000,
        batch: int = 500,
        rate: float = 3e-3,
    ) -> None:
        super().__init__()
        if not lengthscales or min(lengthscales) <= 0 or frequencies < len(lengthscales):
            raise UserError(
                f"DP-MERF needs positive lengthscales and a frequency for each, got "
                f"{list(lengthscales)} and {frequencies}; set generator.lengthscales and "
                "generator.frequencies."
            )
        if min(noise, width, iterations, batch) < 1 or rate <= 0:
            raise UserError(
                f"noise={noise}, width={width}, iterations={iterations}, batch={batch} and "
                f"rate={rate} must be positive; set them in the config of the method."
            )
        self.resolution = resolution
        self._encoder = LowBandEncoder(resolution, side)
        self._frequencies, self._lengthscales = frequencies, tuple(lengthscales)
        self._noise, self._iterations, self._batch, self._rate = noise, iterations, batch, rate
        self.network = nn.Sequential(
            *(nn.Linear(noise, width), nn.GELU(), nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, 3 * side * side), nn.Tanh()),
        )

    def pretrain(self, stage: str, public: Records, trainer: Trainer) -> None:
        """There is nothing to pretrain."""

    def report(self, stage: str, held_out: Records) -> Mapping[str, float]:
        """There is nothing to report."""
        return {}

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`. Prompts are not read."""

    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """Release the mean embedding, then match it: the paper's method for data without labels.

        A plan of several queries releases the sum as often, and their average is matched.
        """
        records = private.map(self._encoder, progress=trainer.progress)
        plan, size = trainer.plan, 3 * self._encoder.side**2
        # From the run's seed: frequencies and training are public.
        public = torch.Generator(trainer.device).manual_seed(int(torch.randint(2**62, ())))
        embedding = FourierFeatures.draw(size, self._frequencies, self._lengthscales, public)
        with trainer.queries(records, "mean embedding", type(self)) as queries:
            sums = [
                queries.sum(lambda rows: embedding(rows["low"]), size=embedding.size)
                for _ in range(plan.steps)
            ]
            expected = plan.steps * plan.event.sampling_probability * private.records
            mean = torch.stack(sums).sum(0) / expected
            self._match(mean.float(), embedding, public, trainer)

    def _match(
        self,
        mean: Tensor,
        embedding: FourierFeatures,
        public: torch.Generator,
        trainer: Trainer,
    ) -> None:
        """Train the generator until its mean embedding is near the released one."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self._rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine()(step / self._iterations)
        )
        for _ in trainer.progress(range(self._iterations), "matching the mean embedding"):
            made = self.network(_normal(self._batch, self._noise, public))
            optimizer.zero_grad(set_to_none=True)
            made.backward(embedding.gradient(made.detach(), mean))
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Independent draws of the generator, one per caption."""
        device = next(self.network.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        for start in range(0, len(captions), BATCH):
            count = min(BATCH, len(captions) - start)
            yield self._enlarged(self.network(_normal(count, self._noise, generator)))

    @torch.no_grad()
    def oracle(self, images: Tensor) -> Tensor:
        """The real low bands, enlarged."""
        return self._enlarged(self._encoder.of(to_float(images)))

    def _enlarged(self, low: Tensor) -> Tensor:
        """``[b, d]`` in [-1, 1] to uint8 ``[b, 3, R, R]``."""
        side = self._encoder.side
        size = (self.resolution, self.resolution)
        return to_uint8(F.interpolate(low.view(-1, 3, side, side), size, mode="bicubic"))


class FourierFeatures:
    """Random Fourier features (Rahimi and Recht 2007) of norm 1: ``(cos Wx, sin Wx) / sqrt(F)``.

    So a record moves a sum of them by exactly 1 in L2, whatever it is.

    Args:
        frequencies: W, ``[F, d]``.
    """

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies

    @classmethod
    def draw(
        cls, size: int, count: int, lengthscales: Sequence[float], generator: torch.Generator
    ) -> FourierFeatures:
        """Frequencies of Gaussian kernels, in equal parts of each lengthscale.

        Args:
            size: d.
            count: F.
            lengthscales: times sqrt(d): a root mean square per number, not a distance.
        """
        scales = torch.tensor(lengthscales, device=generator.device) * math.sqrt(size)
        each = scales[torch.arange(count, device=generator.device) % len(scales)]
        return cls(_normal(count, size, generator) / each.unsqueeze(1))

    @property
    def size(self) -> int:
        """2 F."""
        return 2 * len(self._frequencies)

    def __call__(self, rows: Tensor) -> Tensor:
        """``[b, d]`` to ``[b, 2 F]``."""
        angles = rows.to(self._frequencies) @ self._frequencies.T
        return torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(len(self._frequencies))

    def gradient(self, rows: Tensor, mean: Tensor) -> Tensor:
        """Of ``|mean embedding of rows - mean|^2`` in the rows, ``[b, d]``.

        By hand, as cosine and sine are each other's derivatives: autograd computes both twice, and
        an iteration takes a third longer.

        Args:
            rows: ``[b, d]``.
            mean: ``[2 F]``.
        """
        count, scale = len(self._frequencies), math.sqrt(len(self._frequencies))
        angles = rows @ self._frequencies.T
        cos, sin = angles.cos(), angles.sin_()
        off_cos, off_sin = cos.mean(0) / scale - mean[:count], sin.mean(0) / scale - mean[count:]
        slope = cos.mul_(off_sin) - sin.mul_(off_cos)
        return 2 / (scale * len(rows)) * slope @ self._frequencies


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device)
