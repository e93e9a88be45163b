"""How a denoiser is trained and sampled, with privacy or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wavedp.conditional import ConditionalTraining
from wavedp.data.schema import Records
from wavedp.diffusion.denoiser import ADAPTABLE, Denoiser
from wavedp.diffusion.process import Process
from wavedp.dp.clipping import Batch
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float
from wavedp.nn.text.choice import draw_text
from wavedp.wavelet.encoders import CaptionEncoder

FIRST = 2000
"""Public images by which latents are brought to unit variance."""


class ImageEncoder(Protocol):
    """A frozen, public function of ``images`` to ``latents``, see :class:`PrivateRecords`."""

    @property
    def key(self) -> str: ...

    def __call__(self, columns: Mapping[str, Any]) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class DiffusionTraining(ConditionalTraining):
    """How a denoiser is trained and sampled.

    Noise multiplicity, K draws of noise level and noise per record and step, is
    ``finetuning.views`` of the config of a method: the core averages a record's losses before it
    clips its gradient (De et al. 2022; Dockhorn et al. 2023, section 3.2).

    Attributes:
        process: the noise law and the solver.
        steps: of the solver.
    """

    process: Process
    steps: int = 20
    batch: int = 250

    def _ranges(self) -> dict[str, tuple[bool, str]]:
        return super()._ranges() | {"steps": (self.steps >= 1, "be at least 1")}

    def check(self) -> None:
        """Refuse settings of sampling that the solver cannot take.

        Raises:
            UserError: as the process says.
        """
        self.process.solver(self.steps)

    def pretrain(
        self, denoiser: Denoiser, encode: ImageEncoder, public: Records, trainer: Trainer
    ) -> None:
        """On public records, in latents brought to unit variance."""
        denoiser.belong_to(encode.key, self.text.key)
        columns = self.encoded(encode, public, trainer)
        denoiser.standardise(_floats(columns["latents"][:FIRST]))
        loss, label = self.loss(self.condition_dropout), "pretraining the denoiser"
        self.fit_public(denoiser.train(), loss, columns, public, trainer, label)
        denoiser.eval()

    def finetune(
        self,
        denoiser: Denoiser,
        encode: ImageEncoder,
        private: PrivateRecords,
        trainer: Trainer,
    ) -> None:
        """DP-finetune what requires gradients, or adapters in every attention."""
        captions = CaptionEncoder(self.text, self.captions)
        records = private.map(encode, captions, progress=trainer.progress)
        loss, label = self.loss(self.condition_dropout), "finetuning the denoiser"
        self.fit_private(denoiser, loss, records, trainer, ADAPTABLE, label)

    def loss(self, condition_dropout: float) -> Callable[[nn.Module, Batch], Tensor]:
        """Mean squared error of what the process asks for, per record ``[b]``.

        Batches have ``latents`` ``[b, c, h, w]``, floats or images of 0..255, and ``text``
        ``[b, captions, slots, width]``.
        """

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, Denoiser)
            text = draw_text(batch["text"], condition_dropout, model.without_text)
            clean = (_floats(batch["latents"]) - model.shift) / model.scale
            noised = self.process.noised(clean)
            answer = model(noised.inputs, noised.times, text).float()
            return noised.weight * (answer - noised.target).square().mean((1, 2, 3))

        return loss

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Batches of latents ``[b, c, h, w]``, one row per caption, in order."""
        device = next(denoiser.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        shape = denoiser.channels, denoiser.side, denoiser.side
        for start in range(0, len(captions), self.batch):
            text = self.text(captions[start : start + self.batch]).to(device)
            x = torch.randn(len(text), *shape, generator=generator, device=device)
            x = self._solve(denoiser.eval(), x, text, generator)
            yield x * denoiser.scale + denoiser.shift

    def _solve(
        self, denoiser: Denoiser, x: Tensor, text: Tensor, generator: torch.Generator
    ) -> Tensor:
        solver = self.process.solver(self.steps)
        solver.set_timesteps(self.steps, device=x.device)
        x = x * solver.init_noise_sigma
        read, none = (denoiser.reader(t) for t in (text, denoiser.without_text(text)))
        for time in solver.timesteps:
            inputs = solver.scale_model_input(x, time)
            answer = denoiser.answer(inputs, time.expand(len(x)), read)
            if self.guidance != 1:
                plain = denoiser.answer(inputs, time.expand(len(x)), none)
                answer = plain + self.guidance * (answer - plain)
            x = solver.step(answer, time, x, generator=generator).prev_sample
        return x

    @torch.no_grad()
    def report(
        self, denoiser: Denoiser, encode: ImageEncoder, held_out: Records
    ) -> dict[str, float]:
        """Mean loss on public records that it has not seen, over random noise levels."""
        captions = CaptionEncoder(self.text, self.captions)
        device, total, loss = next(denoiser.parameters()).device, 0.0, self.loss(0.0)
        for part in held_out.chunks(self.batch):
            given = {"images": part.images, "captions": part.captions}
            batch = {**encode(given), **captions(given)}
            total += float(loss(denoiser, {k: v.to(device) for k, v in batch.items()}).sum())
        return {"loss": total / len(held_out)}


def _floats(latents: Tensor) -> Tensor:
    """Latents, or images of 0..255 as [-1, 1]."""
    return latents.float() if latents.is_floating_point() else to_float(latents)
