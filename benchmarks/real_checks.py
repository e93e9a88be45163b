"""What metrics say of real photographs, scored as the samples of a method would be.

    WAVEDP_WEIGHTS=../shared/real/weights python -m benchmarks.real_checks ../shared/real

Writes ``results/real_checks/metrics.csv``, and beside it a ``.json`` that says with what. Here is
shown that the ways run and that the values make sense, nothing of any method: identical sets are at
0, other images of the same law are near, other photographs are far, copies of private records are
found. The folder has 24,000 faces of 64 px and 122 photographs of MS-COCO; it is not part of the
project, and no image of it goes into the results. Evaluation, not private.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from benchmarks import hardware
from benchmarks.batches import Batches
from benchmarks.config import compose, make
from benchmarks.console import console, run_command
from benchmarks.protocol import Protocol
from benchmarks.provenance import code_revision
from benchmarks.record import MetricValue
from benchmarks.scorer import Scorer
from benchmarks.written import write
from wavedp.data.schema import Dataset
from wavedp.dp.errors import UserError

FOLDER = Path("results/real_checks")
PROTOCOL = Protocol(name="all", prompts="records", reference="all")
FACES, PHOTOGRAPHS = 2000, 40
PARTS = 3
DISTANCES = ("fid_768", "prdc_768", "spectral")


@dataclass(frozen=True)
class Side:
    """Some images of the folder: one of ``PARTS`` that follow one another in its order."""

    of: str
    part: int

    @property
    def count(self) -> int:
        """How many."""
        return FACES if self.of == "faces" else PHOTOGRAPHS

    @property
    def next(self) -> Side:
        """The part behind it, and behind the last the first."""
        return Side(self.of, (self.part + 1) % PARTS)

    def dataset(self, root: Path, cache: Path) -> Dataset:
        """A data set with these images for evaluation and the next ones private."""
        layout = {
            "faces": (
                *("dataset=image_folder", f"dataset.root={root}/mmcelebahq64"),
                *("dataset.private.folder=image", "dataset.evaluation.folder=image"),
                "dataset.template='{label}'",
            ),
            "photographs": ("dataset=coco_mini", f"dataset.root={root}/coco_mini"),
        }[self.of]
        made: Dataset = make(
            compose(
                [
                    *layout,
                    *("dataset.resolution=64", f"cache_dir={cache}/{self.part}"),
                    f"dataset.evaluation_records={self.count}",
                    f"dataset.evaluation.start={self.part * self.count}",
                    f"dataset.private_records={self.count}",
                    f"dataset.private.start={self.next.part * self.count}",
                ]
            ).dataset
        )
        return made


@dataclass(frozen=True)
class Check:
    """Samples that some metrics score against a reference."""

    reference: Side
    samples: Side
    what: str
    metrics: tuple[str, ...]


def checks() -> list[Check]:
    """Of both sets."""
    faces, photographs = Side("faces", 0), Side("photographs", 0)
    both = ("memorisation", "memorisation_768")
    found = []
    for side, memories in ((faces, both[:1]), (photographs, both)):
        found += [
            Check(side, side.next.next, f"other {side.of}", DISTANCES + memories),
            Check(side, side, f"the same {side.of}", DISTANCES),
            Check(side, side.next, f"copies of private {side.of}", memories),
        ]
    return [*found, Check(faces, photographs, "photographs of other things", DISTANCES)]


def measure(root: Path, cache: Path) -> Iterator[tuple[Check, dict[str, MetricValue]]]:
    """Every check with its values.

    Raises:
        UserError: an image or a file of weights is missing or damaged.
    """
    scorers: dict[Side, Scorer] = {}
    for check in checks():
        if check.reference not in scorers:
            names = {n: None for c in checks() if c.reference == check.reference for n in c.metrics}
            dataset = check.reference.dataset(root, cache)
            scorers[check.reference] = Scorer.make(
                dataset, list(names), check.reference.count, PROTOCOL
            )
        scorer = scorers[check.reference]
        if missing := scorer.missing("text"):
            raise UserError(next(iter(missing.values())).reason)
        samples = Batches(check.samples.dataset(root, cache).evaluation().images)
        captions = scorer.evaluation.prompts[: check.samples.count]
        yield check, scorer.values(samples, captions, "none", check.metrics)


def figure(value: float | None) -> str:
    """As the table has it: with what differs between machines rounded off; empty for None."""
    return "" if value is None else f"{value:.4f}".replace("-0.0000", "0.0000")


def table(root: Path) -> pd.DataFrame:
    """One row per number."""
    rows = []
    with TemporaryDirectory(prefix="wavedp-real-checks-") as cache:
        for check, values in measure(root, Path(cache)):
            console.print(f"{check.what}, against {check.reference.count} {check.reference.of}")
            rows += [
                {
                    "reference": check.reference.of,
                    "samples": check.what,
                    "metric": name,
                    "value": figure(value.value),
                    "standard_error": figure(value.standard_error),
                    "n_samples": value.n_samples,
                    "n_reference": value.n_reference,
                    "reads": value.reads,
                    "protocol": value.protocol,
                }
                for name, value in values.items()
            ]
    return pd.DataFrame(rows)


def main(arguments: list[str]) -> int:
    """Write the table of the folder that the argument names."""
    if len(arguments) != 1:
        raise UserError("Say where the photographs are: benchmarks.real_checks ../shared/real")
    found = table(Path(arguments[0]).resolve())
    write(FOLDER / "metrics.csv", found.to_csv(index=False))
    with_what = {
        "command": "WAVEDP_WEIGHTS=../shared/real/weights "
        "python -m benchmarks.real_checks ../shared/real",
        "hardware": hardware.describe(torch.device("cpu")).model_dump(),
        "torch": torch.__version__,
        "code_revision": code_revision(),
    }
    write(FOLDER / "metrics.json", json.dumps(with_what, indent=1) + "\n")
    console.print(found.iloc[:, :5].to_string(index=False), soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
