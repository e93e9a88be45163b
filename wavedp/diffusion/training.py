"""How a denoiser is trained and sampled, with privacy or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wavedp.data.schema import Records
from wavedp.diffusion.denoiser import ADAPTABLE, Denoiser
from wavedp.diffusion.process import Process
from wavedp.dp.clipping import Batch
from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.images import to_float
from wavedp.nn.lora import adapted
from wavedp.nn.schedule import cosine
from wavedp.nn.text import TextEncoder
from wavedp.nn.text.choice import draw_captions, draw_text
from wavedp.wavelet.encoders import CaptionEncoder

CHUNK = 1000
"""Public images encoded at once."""
FIRST = 2000
"""Public images by which latents are brought to unit variance."""


class ImageEncoder(Protocol):
    """A frozen, public function of ``images`` to ``latents``, see :class:`PrivateRecords`."""

    @property
    def key(self) -> str: ...

    def __call__(self, columns: Mapping[str, Any]) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class DiffusionTraining:
    """How a denoiser is trained and sampled.

    Noise multiplicity, K draws of noise level and noise per record and step, is
    ``finetuning.views`` of the config of a method: the core averages a record's losses before it
    clips its gradient (De et al. 2022; Dockhorn et al. 2023, section 3.2).

    Attributes:
        process: the noise law and the solver.
        text: the frozen text encoder.
        captions: captions kept per record, a public constant.
        pretraining_rate, finetuning_rate: AdamW learning rates.
        condition_dropout: chance that a record trains without its caption.
        guidance: w of classifier-free guidance, ``without + w (with - without)``.
        steps: of the solver.
        batch: images drawn at once.
        lora_rank: finetune adapters of this rank in every attention, and nothing else; 0 finetunes
            the weights themselves.

    Raises:
        UserError: a setting is out of its range.
    """

    process: Process
    text: TextEncoder
    captions: int = 5
    pretraining_rate: float = 1e-3
    finetuning_rate: float = 1e-3
    weight_decay: float = 1e-2
    condition_dropout: float = 0.1
    guidance: float = 1.0
    steps: int = 20
    batch: int = 250
    lora_rank: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "captions": self.captions >= 1,
            "condition_dropout": 0 <= self.condition_dropout <= 1,
            "steps": self.steps >= 1,
            "batch": self.batch >= 1,
            "lora_rank": self.lora_rank >= 0,
        }
        for name, fits in ranges.items():
            if not fits:
                raise UserError(
                    f"training.{name}={getattr(self, name)} is out of range: condition_dropout "
                    "lies in [0, 1], lora_rank must not be negative, and captions, steps and "
                    "batch are at least 1."
                )

    def check(self) -> None:
        """Refuse settings of sampling that the solver cannot take.

        Raises:
            UserError: as the process says.
        """
        self.process.solver(self.steps)

    def pretrain(
        self, denoiser: Denoiser, encode: ImageEncoder, public: Records, trainer: Trainer
    ) -> None:
        """On public records, whose captions are encoded as they are drawn."""
        denoiser.belong_to(encode.key, self.text.key)
        starts = trainer.progress(range(0, len(public), CHUNK), "encoding public images")
        parts = [encode({"images": public.images[i : i + CHUNK]})["latents"] for i in starts]
        columns = {"latents": torch.cat(parts), "record": torch.arange(len(public))}
        denoiser.standardise(_floats(columns["latents"][:FIRST]))
        given = self.loss(self.condition_dropout)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            drawn = draw_captions(public.captions, batch["record"], self.captions)
            text = self.text(drawn).to(batch["latents"].device).unsqueeze(1)
            return given(model, {"latents": batch["latents"], "text": text})

        label = "pretraining the denoiser"
        self._fit(denoiser.train(), loss, columns, trainer, self.pretraining_rate, label)
        denoiser.eval()

    def finetune(
        self,
        denoiser: Denoiser,
        encode: ImageEncoder,
        private: PrivateRecords,
        trainer: Trainer,
    ) -> None:
        """DP-finetune what requires gradients; with ``lora_rank``, adapters alone."""
        captions = CaptionEncoder(self.text, self.captions)
        records = private.map(encode, captions, progress=trainer.progress)
        rank, label = self.lora_rank, "finetuning the denoiser"
        with adapted(denoiser, ADAPTABLE, rank) if rank else nullcontext():
            self._fit(
                denoiser,
                self.loss(self.condition_dropout),
                records,
                trainer,
                self.finetuning_rate,
                label,
            )

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
            return (answer - noised.target).square().mean((1, 2, 3))

        return loss

    def _fit(
        self,
        denoiser: Denoiser,
        loss: Callable[[nn.Module, Batch], Tensor],
        records: PrivateRecords | Batch,
        trainer: Trainer,
        rate: float,
        label: str,
    ) -> None:
        parameters = [p for p in denoiser.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=rate, weight_decay=self.weight_decay, betas=(0.9, 0.99)
        )
        trainer.fit(denoiser, loss, records, optimizer, cosine(), label)

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
