"""What public tokenizers and upsamplers keep of real images: the best that a method can reach.

    python -m benchmarks.oracles                                    toyfaces
    WAVEDP_WEIGHTS=../shared/real/weights python -m benchmarks.oracles ../shared/real

With a folder of photographs also 64 px faces and held-out photographs of the ImageNet sample.
Writes ``results/oracles/<set>.csv``, and beside it a ``.json`` that says with what. Nothing private
is released here: faces are scored as the evaluation images that they are.

Half of the images go through each part. ``oracle`` compares what comes out with the other half, as
a method's oracle row does; ``reconstruction`` compares it with the same images as they went in,
which is rFID where the metric is an FID. Photographs that are not faces show what tokenizers keep
alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import hardware
from benchmarks.batches import Batches
from benchmarks.cell import seed_everything
from benchmarks.config import compose, load_choice, make
from benchmarks.console import console, run_command, track
from benchmarks.evaluation import make_evaluation
from benchmarks.metrics import Scores
from benchmarks.metrics.frechet import FrechetMetric
from benchmarks.protocol import Protocol
from benchmarks.provenance import code_revision
from benchmarks.registry import find
from benchmarks.scorer import CPU
from benchmarks.weights import digests, load_parts
from benchmarks.written import write
from wavedp.data.schema import Dataset, Records
from wavedp.dp.errors import UserError
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.reports import psnr
from wavedp.wavelet.upsamplers.published import PublishedUpsampler

FOLDER = Path("results/oracles")
HALVES = Protocol(name="quick")
BATCH = 100

Change = Callable[[Tensor], Tensor]
"""Images in [-1, 1], ``[b, 3, R, R]``, to images of the same or a smaller size."""


@dataclass(frozen=True)
class Oracle:
    """One row.

    Attributes:
        part: what the images go through.
        given: pixels per side of what it is given of an image, or codes.
        makes: see :data:`Change`.
        factor: how many times smaller than the image is what it makes.
    """

    part: str
    given: str
    makes: Change
    factor: int = 1


@dataclass(frozen=True)
class Shown:
    """Evaluation images, as a scorer wants them.

    Attributes:
        records: the images.
        metric: that has a meaning for them.
    """

    records: Records
    metric: str
    private_records: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return self.records.name

    def evaluation(self) -> Records:
        """See :class:`wavedp.data.schema.Dataset`."""
        return self.records

    def ruler(self) -> Ruler:
        """Distances to both halves, in the space of its metric.

        Raises:
            UserError: the metric cannot be computed on this machine.
        """
        # Asks for the evaluation side of a data set alone.
        evaluation = make_evaluation(cast(Dataset, self), len(self.records), HALVES)
        held = torch.cat(list(evaluation.held_images)).numpy()
        captions = [(caption,) for caption in evaluation.prompts[: len(held)]]
        other, same = (make(load_choice("metric", self.metric)) for _ in range(2))
        for metric, records in (
            (other, evaluation.reference),
            (same, Records(held, captions, self.records.name)),
        ):
            metric.open(CPU)
            metric.prepare(records)
        # Kept on disk since it was prepared: the network sees each real image once.
        real = same.reference_features(Records(held, captions, self.records.name))
        return Ruler(other, same, evaluation.held, _number(other.score(real)))

    def smaller(self, factor: int) -> Shown:
        """Their LL bands as images."""
        if factor == 1:
            return self
        parts = [_pooled(part, factor) for part in Batches(self.records.images)]
        records = Records(torch.cat(parts).numpy(), self.records.captions, self.records.name)
        return Shown(records, self.metric)


def _pooled(images: Tensor, factor: int) -> Tensor:
    return to_uint8(F.avg_pool2d(to_float(images), factor))


class Changed:
    """Images after a change, a batch at a time; sized, as a scorer wants them."""

    def __init__(self, images: Batches, change: Change) -> None:
        self._images, self._change = images, change

    def __len__(self) -> int:
        return len(self._images)

    @torch.no_grad()
    def __iter__(self) -> Iterator[Tensor]:
        for images in self._images:
            parts = [self._change(to_float(part)) for part in images.split(BATCH)]
            yield to_uint8(torch.cat(parts))


@dataclass(frozen=True)
class Ruler:
    """How far images made of one half are from real ones.

    Attributes:
        other, same: distances to the other half, and to the same images.
        held: rows of the half that is changed.
        floor: what that half scores as it is.
    """

    other: FrechetMetric
    same: FrechetMetric
    held: Sequence[int]
    floor: float

    def read(self, shown: Shown, change: Change) -> dict[str, str]:
        """The columns of a row; each image passes the network once."""
        made = Changed(Batches(shown.records.images, self.held), change)
        features = np.concatenate([self.other.space(images) for images in made])
        found = {"floor": f"{self.floor:.4g}"}
        for column, metric in (("reconstruction", self.same), ("oracle", self.other)):
            found[column] = f"{_number(metric.score(features)):.4g}"
            spread = _number(metric.standard_error(features))
            found[f"{column}_se"] = f"{spread:.2g}" if math.isfinite(spread) else ""
        return found


def _number(score: Scores) -> float:
    assert isinstance(score, float)
    return score


def measure(shown: Shown, oracles: Sequence[Oracle]) -> Iterator[dict[str, Any]]:
    """A row per oracle."""
    sizes = {oracle.factor: shown.smaller(oracle.factor) for oracle in oracles}
    rulers = {
        factor: images.ruler()
        for factor, images in sizes.items()
        if factor == 1 or shown.metric != "fd_toy"  # whose network reads whole images alone
    }
    for oracle in track(oracles, f"{shown.name}: oracles"):
        row: dict[str, Any] = {"part": oracle.part, "given": oracle.given}
        row["px"] = shown.records.images.shape[-1] // oracle.factor
        whole = Batches(shown.records.images)
        targets = Batches(sizes[oracle.factor].records.images)
        made = Changed(whole, oracle.makes)
        error = sum(_squared(a, b) for a, b in zip(made, targets, strict=True))
        row["psnr_db"] = f"{psnr(error / len(shown.records)):.2f}"
        row["metric"] = shown.metric
        ruler = rulers.get(oracle.factor)
        yield row | (ruler.read(shown, oracle.makes) if ruler else {})


def _squared(made: Tensor, target: Tensor) -> float:
    """The sum over images of the mean squared error in [-1, 1]."""
    return float((to_float(made) - to_float(target)).square().mean((1, 2, 3)).sum())


def networks(method: str, parts: Sequence[str], seed: int = 0) -> tuple[Any, dict[str, str]]:
    """A method with some of its public parts loaded, and their digests.

    Raises:
        UserError: a checkpoint is missing.
    """
    config = compose([f"method={method}"]).method
    weights = {part: config.weights[part] for part in parts}
    found = digests(weights)
    seed_everything(seed)
    generator = make(config.generator)
    load_parts(generator, weights)
    return generator.eval(), found


def parts_of(size: str) -> tuple[list[Oracle], Mapping[str, str]]:
    """The rows that every set has.

    Args:
        size: folder of method configs, such as ``px64/``; empty for embedded ones.
    """
    half, digests1 = networks(f"{size}dp_wavelet", ("tokenizer", "upsampler"))
    quarter, digests2 = networks(f"{size}dp_wavelet_quarter", ("upsampler",))
    raster, digests3 = networks(f"{size}dp_llamagen", ("tokenizer",))
    sit = half.tokenizer
    per_scale = sit.tokens_per_scale * sit.codes
    rows = [
        Oracle(
            f"SIT, {scales} of {sit.scales} scales",
            f"{scales * per_scale} codes",
            _through(sit, scales),
            2 ** (sit.scales - scales),
        )
        for scales in range(1, sit.scales + 1)
    ]
    codes = raster.tokenizer.tokens_per_scale * raster.tokenizer.codes
    rows.append(Oracle("raster VQ", f"{codes} codes", _through(raster.tokenizer)))
    for generator, factor in ((half, 2), (quarter, 4)):
        given = f"LL {sit.resolution // factor} px"
        rows.append(Oracle("detail network", given, _upsampled(generator.upsampler, factor)))
        rows.append(Oracle("bicubic", given, _bicubic(factor)))
    return rows, {
        "tokenizer": digests1["tokenizer"],
        "upsampler": digests1["upsampler"],
        "upsampler of a quarter": digests2["upsampler"],
        "raster": digests3["tokenizer"],
    }


def _through(tokenizer: Any, *scales: int) -> Change:
    return lambda images: tokenizer.decode(tokenizer.encode(images, *scales)).clamp(-1, 1)


def _upsampled(upsampler: Any, factor: int) -> Change:
    def change(images: Tensor) -> Tensor:
        low = F.avg_pool2d(images, factor)
        return torch.as_tensor(upsampler.upsample(low, [""] * len(low), 0))

    return change


def _bicubic(factor: int) -> Change:
    def change(images: Tensor) -> Tensor:
        low = F.avg_pool2d(images, factor)
        return F.interpolate(low, images.shape[-1], mode="bicubic").clamp(-1, 1)

    return change


@dataclass(frozen=True)
class Job:
    """A table.

    Attributes:
        shown: the images.
        rows: what they go through.
        weights: digests of the parts, by name.
    """

    shown: Shown
    rows: Sequence[Oracle]
    weights: Mapping[str, str]

    def write(self) -> None:
        """Measure, write the table and with what it was made, and show it."""
        table = pd.DataFrame(list(measure(self.shown, self.rows))).fillna("")
        name = self.shown.name.split()[0]
        write(FOLDER / f"{name}.csv", table.to_csv(index=False))
        made = {
            "images": self.shown.name,
            "n": len(self.shown.records),
            "weights": dict(self.weights),
            "hardware": hardware.describe(CPU).model_dump(),
            "torch": torch.__version__,
            "code_revision": code_revision(),
        }
        write(FOLDER / f"{name}.json", json.dumps(made, indent=1) + "\n")
        console.print(f"{self.shown.name}, {len(self.shown.records)} images")
        console.print(table.to_string(index=False), soft_wrap=True)


def embedded(cache: str) -> Job:
    """Toy faces, and rows that only they have: the prior goes on from LL without a caption."""
    rows, found = parts_of("")
    prior, digest = networks("dp_wavelet_continuation", ("upsampler.tokenizer", "upsampler.prior"))
    rows.append(Oracle("continuation", "LL 16 px", _upsampled(prior.upsampler, 2)))
    dataset = make(compose(["dataset=toyfaces", f"cache_dir={cache}"]).dataset)
    dataset.check()
    shown = Shown(dataset.evaluation().slice(0, 2000), "fd_toy")
    return Job(shown, rows, {**found, "prior": digest["upsampler.prior"]})


def photographs(root: Path, cache: str) -> Iterator[Job]:
    """64 px faces and crops of held-out photographs; IMDN enlarges a quarter."""
    rows, found = parts_of("px64/")
    imdn = find("imdn-x4")
    rows.append(Oracle("IMDN", "LL 16 px", _upsampled(PublishedUpsampler(str(imdn), 4), 4)))
    overrides = [
        "method=px64/dp_wavelet",
        f"method.public.photos.root={root / 'public'}",
        "dataset=mmcelebahq64",
        "dataset.resolution=64",
        f"dataset.root={root / 'mmcelebahq64'}",
        f"cache_dir={cache}",
    ]
    config = compose(overrides)
    faces = make(config.dataset)
    faces.check(track)
    held_out = config.method.pretraining.tokenizer.held_out
    public = make(config.method.public).records(0, held_out, track)
    found = {**found, "imdn": digests({"imdn": str(imdn)})["imdn"]}
    yield Job(Shown(faces.evaluation(), "fid_768"), rows, found)
    tokenizers = [row for row in rows if row.given.endswith("codes")]
    yield Job(Shown(public, "fid_768"), tokenizers, found)


def main(arguments: list[str]) -> int:
    """Write the tables."""
    if len(arguments) > 1:
        raise UserError("Say where the photographs are: benchmarks.oracles ../shared/real")
    torch.set_grad_enabled(False)
    cache = str(compose([]).cache_dir)
    embedded(cache).write()
    for job in photographs(Path(arguments[0]).resolve(), cache) if arguments else ():
        job.write()
    return 0


if __name__ == "__main__":
    run_command(main)
