"""What a suite needs and this machine lacks: data, published weights, weights that are made here.

A method's config says under ``needs`` which published files it reads and how they are had; those
under ``weights`` are made by ``benchmarks.pretrain``. All is told from the configs alone: no file
is read, and networks are made without memory, for their sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.config import NEEDS, Cell, load_choice, make, plain
from benchmarks.metrics import Metric
from benchmarks.protocol import metrics_of, protocol_of
from benchmarks.registry import entries, entry, locate, snapshots
from benchmarks.weights import path_of
from wavedp.dp.errors import UserError, one_line


class Need(BaseModel):
    """Published files that a part of a method reads itself.

    Attributes:
        name: what they are called where they are published.
        at: the file or folder, or the name on the Hugging Face Hub, that the part is given.
        gigabytes: of what it reads, in 10^9 bytes; None where it is not known.
        licence: of the weights.
        get: the command, or the words, that get them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    at: str | None
    gigabytes: float | None
    licence: str
    get: str

    @property
    def here(self) -> bool:
        """Whether it is on this machine; its content is looked at when it is read."""
        if self.at is None:
            return False
        return Path(self.at).expanduser().exists() or bool(snapshots(self.at))


class Lack(NamedTuple):
    """Attributes:
    what: is missing, with its size and licence where they are known.
    remedy: the command that gets it, or what to set.
    """

    what: str
    remedy: str


def lacking(grid: Sequence[Cell]) -> list[Lack]:
    """What has to be there before a grid can run and is not, each once: data first."""
    datasets = _first_of(grid, lambda cell: str(cell.config.dataset.name))
    found: list[Lack | None] = [_data(cell) for cell in datasets]
    trained = [cell for cell in grid if not cell.untrained]
    methods = _first_of(trained, lambda cell: cell.choice)
    for part in (_published, _made_here, _corpus):
        found += [lack for cell in methods for lack in part(cell)]
    return list({lack.what: lack for lack in reversed(found) if lack}.values())[::-1]


def lacking_metrics(config: DictConfig) -> list[Lack]:
    """Weights without which a suite runs, and some of its metrics are not computed."""
    found = []
    for name in metrics_of(config.suite, protocol_of(config.suite)):
        metric: Metric = make(load_choice("metric", name))
        for weights in map(entry, metric.weights):
            if locate(weights) is None:
                size = "" if weights.megabytes is None else f"{weights.megabytes:g} MB, "
                what = f"{weights.name} ({size}{weights.licence})"
                found.append(Lack(what, weights.remedy.replace("`", "")))
    return list(dict.fromkeys(found))


def _first_of(grid: Sequence[Cell], key: Callable[[Cell], str]) -> list[Cell]:
    """One cell for each value of a key, in order."""
    return list({key(cell): cell for cell in reversed(grid)}.values())[::-1]


def _data(cell: Cell) -> Lack | None:
    dataset = cell.config.dataset
    counts = dataset.get("private_records"), dataset.get("evaluation_records")
    if "root" not in dataset or not all(isinstance(count, int) for count in counts):
        return None  # drawn by a program, or refused by its own check, which has a sentence for it
    if dataset.root is not None and Path(dataset.root).expanduser().is_dir():
        return None
    private, evaluation = counts
    what = (
        f"{dataset.name}: {private:,} private and {evaluation:,} evaluation records at "
        f"{dataset.resolution} px"
    )
    source = f"its source and terms: configs/dataset/{dataset.name}.yaml"
    return Lack(what, f"dataset.root=/data/{dataset.name}   ({source})")


def _published(cell: Cell) -> Iterator[Lack]:
    method = cell.config.method
    needs = [_need(cell, key, value) for key, value in method.get(NEEDS, {}).items()]
    for need in needs:
        if not need.here:
            size = "" if need.gigabytes is None else f"{need.gigabytes:g} GB, "
            yield Lack(f"{need.name} ({size}{need.licence})", need.get)
    for part, name in method.get("published", {}).items():
        told = any(need.at and str(name).startswith(need.at) for need in needs)
        if not told and not (name and path_of(name).exists()):
            what = f"a file of published weights for the part {part!r} of {cell.choice}"
            yield Lack(what, f"method.published.{part}=...")


def _need(cell: Cell, key: str, value: DictConfig) -> Need:
    try:
        return Need.model_validate(plain(value))
    except ValidationError as error:
        raise UserError(
            f"needs.{key} of method {cell.choice} does not say what is needed: {one_line(error)}"
        ) from error


def _made_here(cell: Cell) -> Iterator[Lack]:
    for part, name in _unmade(cell).items():
        known = entries().get(name)
        licence = f", {known.licence}" if known else ""
        what = f"{name}.safetensors ({_megabytes(cell, part)}made here{licence})"
        yield Lack(what, f"python -m benchmarks.pretrain method={cell.choice} stage={part}")


def _unmade(cell: Cell) -> Mapping[str, str]:
    """Stages of a method whose weights are not there, and their names."""
    method = cell.config.method
    return {
        part: name
        for part, name in method.weights.items()
        if not path_of(name).exists() and method.pretraining.get(part)
    }


def _megabytes(cell: Cell, part: str) -> str:
    with torch.device("meta"):
        network = make(OmegaConf.select(cell.config.method.generator, part))
    size = sum(v.numel() * v.element_size() for v in network.state_dict().values())
    return f"{size / 1e9:.2g} GB, " if size > 1e9 else f"{size / 1e6:.2g} MB, "


def _corpus(cell: Cell) -> Iterator[Lack]:
    public = cell.config.method.public
    found = next(_rooted(public, "method.public"), None) if public and _unmade(cell) else None
    if found is None:
        return
    place, corpus = found
    if corpus.root is None:
        count = f"{corpus.public_records:,} images of {corpus.resolution} px"
        yield Lack(
            f"the public corpus {corpus.name} {corpus.version}, {count}, for what is made here",
            f"{place}.root=/data/{corpus.name}   (with each of these commands)",
        )


def _rooted(config: DictConfig, place: str) -> Iterator[tuple[str, DictConfig]]:
    """The parts of a public corpus that lie in a folder, and where in the config they are."""
    if "root" in config:
        yield place, config
    for key, value in config.items():
        if isinstance(value, DictConfig):
            yield from _rooted(value, f"{place}.{key}")
