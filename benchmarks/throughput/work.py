"""What the methods of the paper compute: operations per record and per image, and parameters.

    python -m benchmarks.throughput.work

Writes ``results/throughput/work.csv``: counted in networks of the real sizes without memory, so the
same on every machine. It says what a grid takes where no speed was measured. Left out is what runs
once: encoding the private records, and Flan-T5 on their captions and on the prompts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.config import choices, compose, make
from benchmarks.throughput.counts import COLUMNS, TABLE, Work
from benchmarks.written import write
from wavedp.diffusion.autoencoder import LatentEncoder
from wavedp.dp.clipping import Batch
from wavedp.nn.untrained import untrained
from wavedp.wavelet.encoders import CaptionEncoder, TokenEncoder
from wavedp.wavelet.upsamplers import diffusion

FOLDER = "paper"
PACKAGES = ("wavedp", "baselines", "diffusers", "transformers")
"""Whose objects networks are looked for in."""


def work_of(choice: str) -> Work:
    """Counted in the method's networks, on the device that has no memory.

    Args:
        choice: the method as an override names it.
    """
    config = compose([f"method={choice}"]).method
    settings = _without_memory(config.generator)
    with torch.device("meta"), untrained():
        generator = make(settings)
        seen = _Seen()
        generator.finetune(seen, seen)
        return Work(
            parameters=float(sum(_networks(generator, {}).values())),
            trained=seen.trained,
            record=seen.operations,
            image=_drawing(generator, settings, seen),
        )


def _without_memory(generator: DictConfig) -> DictConfig:
    """The settings of a generator whose text encoder has no memory either, if it is a network."""
    settings = OmegaConf.create(OmegaConf.to_container(generator))
    for text in _texts(settings):
        if "model" in text:
            with open_dict(text):
                text.device = "meta"
    return settings


def _texts(settings: DictConfig) -> Iterator[DictConfig]:
    for key, value in settings.items():
        if isinstance(value, DictConfig):
            if key == "text":
                yield value
            yield from _texts(value)


@dataclass
class _Seen:
    """In the place of private records and of a trainer: what a method would train, on what."""

    trained: float = 0.0
    operations: float = 0.0
    scales: int = 0
    columns: dict[str, Tensor] = field(default_factory=dict)
    progress: Callable[..., Any] | None = None

    def map(self, *encoders: Any, progress: Any = None) -> Batch:
        """One record as the encoders would make it, by their sizes."""
        for encoder in encoders:
            self.columns |= _column(encoder)
        return self.columns

    def fit(
        self, model: nn.Module, loss: Callable[..., Tensor], records: Batch, *_: object
    ) -> None:
        """Count, and train nothing."""
        self.trained = _count(p for p in model.parameters() if p.requires_grad)
        self.operations = _operations(lambda: loss(model, records))


def _column(encoder: Any) -> dict[str, Tensor]:
    if isinstance(encoder, TokenEncoder):
        given = encoder.tokenizer
        shape = 1, encoder.scales * given.tokens_per_scale, given.codes
        return {"tokens": torch.zeros(shape, dtype=torch.long)}
    if isinstance(encoder, LatentEncoder):
        into = encoder.autoencoder
        return {"latents": torch.zeros(1, into.channels, into.side, into.side)}
    assert isinstance(encoder, CaptionEncoder)
    return {"text": torch.zeros(1, encoder.captions, encoder.text.slots, encoder.text.width)}


def _drawing(generator: Any, settings: DictConfig, seen: _Seen) -> float:
    """Guidance takes two passes of the network; a cached draw of all tokens takes one in all."""
    training = settings.training
    passes = (1 if training.guidance == 1 else 2) * training.get("steps", 1)
    if "autoencoder" in settings:
        latents, denoiser = seen.columns["latents"], generator.denoiser
        read = denoiser.reader(seen.columns["text"][:, 0])  # once, before the solver begins
        one = _operations(lambda: denoiser.answer(latents, torch.zeros(1), read))
        return passes * one + _operations(lambda: generator.autoencoder.decode(latents))
    tokens, decode = seen.columns["tokens"], generator.tokenizer.decode
    made = passes * seen.operations + _operations(lambda: decode(tokens))
    return made + (_upsampling(generator, settings, passes) if "upsampler" in settings else 0.0)


def _upsampling(generator: Any, settings: DictConfig, passes: int) -> float:
    upsampler = settings.upsampler
    if "given_scales" in upsampler:  # the public prior draws what is finer
        prior, tokenizer = generator.upsampler.prior, generator.upsampler.tokenizer
        count = tokenizer.scales * tokenizer.tokens_per_scale
        tokens = torch.zeros(1, count, tokenizer.codes, dtype=torch.long)
        text = torch.zeros(1, prior.text_slots, prior.text_width)
        drawn = _operations(lambda: prior(tokens, text))
        return passes * drawn + _operations(lambda: tokenizer.decode(tokens))
    unet = UNet2DConditionModel(**diffusion.UNET)
    side = generator.resolution // generator.upsampler.factor
    text = torch.zeros(2, 77, diffusion.UNET["cross_attention_dim"])
    given = torch.zeros(2, diffusion.UNET["in_channels"], side, side)
    level = torch.zeros(2, dtype=torch.long)
    return upsampler.get("steps", diffusion.STEPS) * _operations(
        lambda: unet(given, level, text, class_labels=level)
    )


def _networks(thing: Any, found: dict[int, int]) -> dict[int, int]:
    """Sizes of all parameters that an object reaches, by identity: parts may hide in attributes."""
    if id(thing) in found or not hasattr(thing, "__dict__"):
        return found
    found[id(thing)] = 0
    own = thing.parameters(recurse=False) if isinstance(thing, nn.Module) else ()
    found |= {id(p): p.numel() for p in own}
    for value in [*vars(thing).values()]:
        for part in value.values() if isinstance(value, dict) else [value]:
            if type(part).__module__.partition(".")[0] in PACKAGES or isinstance(part, nn.Module):
                _networks(part, found)
    return found


def _operations(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _count(parameters: Iterator[nn.Parameter]) -> float:
    return float(sum(p.numel() for p in parameters))


def main(methods: Sequence[str] = ()) -> int:
    """Count all methods of the paper's size and write the table."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for method in methods or choices(f"method/{FOLDER}"):
        work = work_of(f"{FOLDER}/{method}")
        sizes = (f"{n / 1e6:.1f}" for n in (work.parameters, work.trained))
        rows.writerow(
            [f"{FOLDER}/{method}", *sizes, *(f"{n / 1e9:.1f}" for n in (work.record, work.image))]
        )
    write(TABLE, text.getvalue())
    print(text.getvalue(), end="")
    return 0


if __name__ == "__main__":
    main()
