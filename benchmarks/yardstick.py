"""Make the embedded yardstick, and check that it is a good ruler.

``python -m benchmarks.yardstick train`` trains it on the public ``toyatlas`` and writes
``wavedp/weights/yardstick.safetensors`` with the record of its making.
``python -m benchmarks.yardstick check`` damages real evaluation images step by step (blur,
noise, shifted attributes, dropped modes) and writes how its distance answers to
``results/yardstick/check.csv``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import hardware
from benchmarks.cell import seed_everything
from benchmarks.console import console, run_command, track
from benchmarks.metrics.clip_toy import ClipToy
from benchmarks.metrics.fd_toy import FDToy
from benchmarks.metrics.yardstick import WEIGHTS, Yardstick, contrastive_loss
from benchmarks.provenance import code_revision
from benchmarks.weights import save_part
from benchmarks.written import write
from wavedp.data.toyatlas import ToyAtlas
from wavedp.data.toyfaces import FaceLaw, ToyFaces
from wavedp.dp.errors import UserError
from wavedp.dp.plan import NonPrivatePlan
from wavedp.dp.trainer import Trainer
from wavedp.nn.schedule import cosine

RECORDS, STEPS, BATCH, SEED, RATE = 60_000, 2000, 256, 0, 2e-3


def train() -> None:
    """Train on public toy data and write the weights and their record."""
    public = ToyAtlas(resolution=32)
    with console.status(f"drawing {RECORDS} public images"):
        records = public.records(0, RECORDS)
    seed_everything(SEED)
    yardstick = Yardstick()
    flat = [caption for own in records.captions for caption in own]
    texts = torch.cat(
        [yardstick.encode(flat[i : i + 5000]).half() for i in range(0, len(flat), 5000)]
    )
    columns = {
        "images": torch.from_numpy(np.array(records.images)),
        "text": texts.view(len(records), -1, texts.shape[1]),
    }
    trainer = Trainer(
        NonPrivatePlan(BATCH, STEPS),
        micro_batch=BATCH,
        sampling_seed=SEED,
        ema_decay=0.998,
        progress=track,
    )
    optimizer = torch.optim.AdamW(yardstick.parameters(), lr=RATE, weight_decay=0.05)
    trainer.fit(yardstick, contrastive_loss, columns, optimizer, cosine(), "training the yardstick")
    made = {
        "command": "python -m benchmarks.yardstick train",
        "public": {"name": public.name, "version": public.version, "records": RECORDS},
        "settings": {"steps": STEPS, "batch": BATCH, "rate": RATE, "seed": SEED},
        "seconds": round(trainer.train_seconds, 1),
        "hardware": hardware.describe(torch.device("cpu")).model_dump(),
        "torch": torch.__version__,
        "code_revision": code_revision(),
    }
    path = save_part(yardstick, WEIGHTS, made)
    console.print(f"{path.name}, {path.stat().st_size / 1e6:.2f} MB")


def blur(images: Tensor, strength: float) -> Tensor:
    """A mix with a 5x5 average, ``strength`` in 0..1."""
    smooth = F.avg_pool2d(F.pad(images.float(), (2, 2, 2, 2), mode="replicate"), 5, 1)
    return ((1 - strength) * images + strength * smooth).round().to(torch.uint8)


def noise(images: Tensor, strength: float) -> Tensor:
    """Gaussian noise of standard deviation ``64 * strength`` grey levels."""
    generator = torch.Generator().manual_seed(0)
    added = 64 * strength * torch.randn(images.shape, generator=generator)
    return (images + added).round().clamp(0, 255).to(torch.uint8)


LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0)


def damages(dataset: ToyFaces, images: Tensor) -> dict[str, Callable[[float], Tensor]]:
    """Ways to damage a set of real images, each a function of a strength in 0..1.

    The last two change which images occur, not what they look like: a share of them is
    replaced by faces of which nine in ten wear a hat, or by copies of a few images.
    """
    indices = range(20_000_000, 20_000_000 + len(images))
    hats = torch.from_numpy(dataset.draw(indices, law=FaceLaw(hat=0.9)))
    few = images[torch.arange(len(images)) % 20]

    def replaced(other: Tensor, strength: float) -> Tensor:
        count = round(strength * len(images))
        return torch.cat([other[:count], images[count:]])

    return {
        "blur": lambda s: blur(images, s),
        "noise": lambda s: noise(images, s),
        "attribute_shift": lambda s: replaced(hats, s),
        "mode_dropping": lambda s: replaced(few, s),
    }


def check(folder: Path) -> pd.DataFrame:
    """The yardstick's answer to each damage; saved as ``check.csv``."""
    dataset = ToyFaces(resolution=32, private_records=1000, evaluation_records=6000)
    records = dataset.evaluation()
    distance, agreement = FDToy(), ClipToy()
    distance.prepare(records.slice(0, 5000))
    images = torch.from_numpy(np.array(records.images[5000:6000]))
    captions = [own[0] for own in records.captions[5000:6000]]
    rows = []
    for name, damage in damages(dataset, images).items():
        for level in LEVELS:
            damaged = damage(level)
            distance.update(damaged, captions)
            agreement.update(damaged, captions)
            rows.append((name, level, distance.compute(), agreement.compute()))
    frame = pd.DataFrame(rows, columns=["damage", "strength", "fd_toy", "clip_toy"])
    write(folder / "check.csv", frame.round(3).to_csv(index=False))
    return frame


def main(arguments: list[str]) -> int:
    """``train`` or ``check``."""
    if arguments == ["train"]:
        train()
    elif arguments == ["check"]:
        console.print(check(Path("results/yardstick")).to_string(index=False))
    else:
        raise UserError("Say what to do: python -m benchmarks.yardstick train, or check.")
    return 0


if __name__ == "__main__":
    run_command(main)
