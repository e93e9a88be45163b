"""What a method costs: finetuning at matched records seen, and sampling, beside DP-Wavelet.

    python -m benchmarks.throughput.methods           # what is missing from this machine's table
    python -m benchmarks.throughput.methods --fresh   # all of it again, most of an hour

Writes ``results/throughput/methods-<hardware>.csv``. The ratio of a row is the method's time over
DP-Wavelet's, which takes turns with it: so many times dearer. Finetuning encodes the records once
and then sees as many, in expectation, with every method; one that asks queries instead of training
by gradients does all that it does. Networks have random weights, which take as long, published ones
too, unless a method reads files of a kind that is not known beforehand: those follow the options,
for whoever reads them, as in ``method.published.upsampler=/data/weights/imdn_x4.safetensors``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks.cell import FINETUNING
from benchmarks.config import choices, compose, make
from benchmarks.hardware import pick_device
from benchmarks.throughput.comparison import Comparison, Sides
from benchmarks.throughput.sheet import Sheet
from benchmarks.throughput.table import device_here
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError
from wavedp.dp.ledger import Ledger
from wavedp.dp.plan import DPPlan
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.untrained import untrained
from wavedp.protocol import ImageGenerator

BASE = "dp_wavelet"


@dataclass(frozen=True)
class Size:
    """Methods of one size, and how much of their work is timed.

    Attributes:
        name: as a row has it.
        folder: of the configs, such as ``px64/``.
        methods: without the folder; None takes all that are there.
        pixels: per side of an image.
        records: private ones; each is encoded once.
        batch, steps: expected records per step, and steps.
        drawn: images that are sampled.
        gpu: too large to be measured on a CPU.
    """

    name: str
    folder: str
    methods: tuple[str, ...] | None
    pixels: int
    records: int
    batch: int
    steps: int
    drawn: int
    gpu: bool = False

    def all(self) -> Sequence[str]:
        """Its methods, DP-Wavelet first."""
        found = self.methods or choices(f"method/{self.folder}")
        return sorted(found, key=lambda method: (method != BASE, method))


def sizes() -> Sequence[Size]:
    """Embedded, 64 px and that of the paper."""
    embedded = tuple(compose(["suite=quick"]).suite.grid.method)
    return (
        Size("32 px", "", embedded, 32, records=200, batch=160, steps=4, drawn=100),
        Size("64 px", "px64/", None, 64, records=100, batch=80, steps=2, drawn=32),
        Size("256 px", "paper/", None, 256, records=100, batch=64, steps=2, drawn=16, gpu=True),
    )


def planned(overrides: Sequence[str] = ()) -> list[Comparison]:
    """Finetuning and sampling of every method."""
    rows = []
    for size in sizes():
        for method in size.all():
            case = f"{method}, {size.name}"
            sampling = partial(sides, size, method, overrides, Work.sample)
            tuning = partial(sides, size, method, overrides, Work.finetune)
            rows.append(Comparison("finetune", case, size.batch * size.steps, tuning, turns=5))
            rows.append(Comparison("sample", case, size.drawn, sampling, turns=5))
    return rows


class Work:
    """A method with random weights, ready to be finetuned and sampled.

    Args:
        folder: for ledgers.

    Raises:
        UserError: it needs a GPU and there is none, or a published file that is not given.
    """

    def __init__(self, size: Size, method: str, overrides: Sequence[str], folder: Path) -> None:
        if size.gpu and device_here() == "cpu":
            raise UserError("no GPU here")
        chosen = [f"method={size.folder}{method}", f"dataset.resolution={size.pixels}"]
        composed = compose(chosen)
        if own := _own(composed.method.get("published") or {}, overrides):
            composed = compose([*chosen, *own])
        config = composed.method
        torch.manual_seed(0)
        self._size, self._settings = size, config.finetuning
        self._device = pick_device("auto")
        with untrained():
            self.generator: ImageGenerator = _on(make(config.generator), self._device)
        given = faces(size.records, size.pixels)
        self._captions = [captions[0] for captions in given.captions]
        self._columns = {"images": given.images, "captions": given.captions}
        self._ledgers = (folder / f"{method}-{number}" for number in count())
        # Such methods ask queries of all records.
        queries = config.finetuning.expected_batch == composed.dataset.private_records
        self._plan = DPPlan.calibrate(
            epsilon=10,
            delta=1e-5,
            records=size.records,
            expected_batch=size.records if queries else size.batch,
            steps=config.finetuning.steps if queries else size.steps,
            clip=config.finetuning.clip,
        )

    def finetune(self) -> None:
        """On all records, from where the last turn left off."""
        trainer = Trainer(
            self._plan,
            ledger=Ledger(next(self._ledgers), self._plan.budget),
            device=self._device,
            **{k: self._settings[k] for k in FINETUNING if k in self._settings},
        )
        private = PrivateRecords(self._columns, name="toyfaces", records=self._size.records)
        self.generator.finetune(private, trainer)

    def sample(self) -> None:
        """Images, one per caption."""
        drawn = self.generator.generate(self._captions[: self._size.drawn], 0)
        assert sum(len(images) for images in drawn) == self._size.drawn


def sides(size: Size, method: str, overrides: Sequence[str], work: Any, folder: Path) -> Sides:
    """A method's work, beside DP-Wavelet's own."""
    own = partial(work, Work(size, method, overrides, folder))
    base = None if method == BASE else partial(work, Work(size, BASE, (), folder / "base"))
    return Sides(own, base, peak=work is Work.finetune)


def faces(count: int, pixels: int) -> Records:
    """Drawn faces. Those larger than they are drawn in have each pixel repeated."""
    drawn = ToyFaces(resolution=min(pixels, 64))
    times = pixels // drawn.resolution
    images = drawn.draw(range(count)).repeat(times, axis=2).repeat(times, axis=3)
    return Records(images, drawn.captions(range(count)), drawn.name)


def _own(published: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Those of the files given that a method reads."""
    places = {f"method.published.{name}" for name in published}
    return [override for override in overrides if override.partition("=")[0] in places]


def _on(generator: Any, device: torch.device) -> Any:
    return generator.to(device).eval()


SHEET = Sheet("methods", planned)

if __name__ == "__main__":
    own = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    rest = [word for word in sys.argv[1:] if word not in own]
    sheet = Sheet(SHEET.name, partial(planned, own))
    sys.exit(sheet.main("What methods cost, beside DP-Wavelet.", rest))
