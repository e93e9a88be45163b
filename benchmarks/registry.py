"""The registry of public weights: what each file is, where it comes from and where it lies here.

One file per set of weights in ``configs/weights``. Checkpoints that this project makes itself
are entries like the others; their digests are in the records of their making, beside them.

A file is looked for in the folders of ``WAVEDP_WEIGHTS``, then where the project keeps its own
checkpoints, then in the Hugging Face cache and in torch hub's folder.

Nothing is scored with a file that is not known by its digest: the registry's, or, where its source
publishes none, the one that ``benchmarks.fetch`` took when it came (:mod:`benchmarks.pin`). A
TorchScript file is a program that torch runs, with all that this process may do, so looking into
it tells nothing: it is trusted by its digest alone, and an entry that is a ``program`` must have
the whole of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

import wavedp.weights
from benchmarks.config import CONFIGS
from benchmarks.digest import sha256
from benchmarks.paths import VARIABLE, weights_folders
from benchmarks.pin import pin_of, pinned
from wavedp.dp.errors import UserError, one_line

Overlap = Literal["none", "checked", "unknown"]
"""Do the weights' training data share images with a private set? ``none``: impossible by their
making. ``checked``: the two were compared; the entry's note says what was found. ``unknown``:
nobody looked, as for most networks trained on the web."""

ENTRIES = CONFIGS / "weights"
OWN = Path(wavedp.weights.__file__).parent


class Unavailable(UserError):
    """What a metric needs and this machine lacks; the message says what and how to get it."""


class MissingWeights(Unavailable):
    """Weights that are not on this machine."""


class Unpinned(Unavailable):
    """Weights that are here, and nothing says which file they should be."""


class Weights(BaseModel):
    """One entry of the registry.

    Attributes:
        file: name of the file in every place but the Hugging Face cache.
        source: who published it, for people.
        url: where it can be fetched; None where only its owner can give it.
        hub, hub_file: repository on the Hugging Face hub and the file's name in it, where it is
            published there.
        sha256: hex digest, or the leading digits if the publisher states no more (torch hub
            writes eight of them into the name); None where no digest is known: then the file is
            pinned when it is fetched.
        program: True for TorchScript, which runs code of its own when it is used.
        licence: of the weights, or what is known of it.
        megabytes: size of the file, in 10^6 bytes; None for what is made here.
        trained_on: public data they were trained on.
        overlap: by data set; ``default`` holds for every other one.
        made_here: True if ``python -m benchmarks.pretrain`` or its siblings make it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    file: str
    source: str
    url: str | None = None
    hub: str | None = None
    hub_file: str | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{8,64}$")
    licence: str
    megabytes: float | None = None
    trained_on: str
    overlap: dict[str, Overlap] = Field(default_factory=dict)
    made_here: bool = False
    program: bool = False
    note: str | None = None

    @model_validator(mode="after")
    def _a_program_is_known_by_its_whole_digest(self) -> Weights:
        if self.program and len(self.sha256 or "") < 64:
            raise ValueError("a program needs its whole SHA-256: it is trusted by nothing else")
        return self

    @property
    def address(self) -> str | None:
        """Where it can be fetched, if anywhere."""
        if self.url or not self.hub:
            return self.url
        return f"https://huggingface.co/{self.hub}/resolve/main/{self.hub_file}"

    @property
    def digest(self) -> str | None:
        """The SHA-256 that the file must have, or its leading digits, if it is known."""
        made = OWN / Path(self.file).with_suffix(".json")
        if self.made_here and made.exists():
            return str(json.loads(made.read_text(encoding="utf-8"))["sha256"])
        return self.sha256

    def overlap_with(self, dataset: str) -> Overlap:
        """Whether the training data share images with ``dataset``."""
        return self.overlap.get(dataset, self.overlap.get("default", "unknown"))

    @property
    def remedy(self) -> str:
        """How to get the file."""
        if self.made_here:
            return "`make checkpoints`"
        if self.address:
            return f"`python -m benchmarks.weights {self.name}` where there is a network"
        return f"putting {self.file} ({self.source}) into a folder that {VARIABLE} names"


@lru_cache(maxsize=1)
def entries() -> dict[str, Weights]:
    """The registry, by name.

    Raises:
        UserError: a file of ``configs/weights`` is not an entry.
    """
    return {path.stem: _read(path) for path in sorted(ENTRIES.glob("*.yaml"))}


def _read(path: Path) -> Weights:
    try:
        return Weights.model_validate(
            OmegaConf.to_container(OmegaConf.load(path)) | {"name": path.stem}  # type: ignore[operator]
        )
    except (ValidationError, OmegaConfBaseException, YAMLError, TypeError) as error:
        raise UserError(
            f"{path} is not an entry of the weights registry: {one_line(error)}"
        ) from error


def entry(name: str) -> Weights:
    """One entry.

    Raises:
        UserError: there is none of that name.
    """
    if name not in entries():
        known = ", ".join(entries())
        raise UserError(f"Unknown weights {name!r}: choose one of {known}.")
    return entries()[name]


def locate(weights: Weights) -> Path | None:
    """Where the file lies on this machine, or None."""
    return next((path for path in _places(weights) if path.is_file()), None)


def find(name: str) -> Path:
    """Where the file called ``name`` in the registry lies, checked against its digest.

    Raises:
        MissingWeights: it is not on this machine; says how to get it.
        Unpinned: no digest says which file it should be; says how to pin it.
        UserError: there is no such entry, or the file is another one than it should be.
    """
    weights = entry(name)
    path = locate(weights)
    if path is None:
        raise MissingWeights(f"weights {name} missing, get them by {weights.remedy}")
    digest = weights.digest or pinned(path)
    if digest is None:
        raise Unpinned(
            f"weights {name} are here, and no digest says that they are the right file: pin it by "
            f"`python -m benchmarks.weights {name}` if you trust it"
        )
    if not digest_of(path).startswith(digest):
        own = "" if weights.digest else f" and {pin_of(path).name}"
        raise UserError(
            f"{path} is not the file that the registry calls {name}: its SHA-256 does not begin "
            f"with {digest[:16]}; remove it{own} and fetch it again."
        )
    return path


def digest_of(path: Path) -> str:
    """SHA-256 of a file, computed once as long as its size and time stay the same."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    del size, changed
    return sha256(path)


def overlap(names: Mapping[str, str | None], dataset: str) -> Overlap:
    """The least sure of the overlaps of some parts' weights with a data set.

    Args:
        names: part to name in the registry; a name that is not in it is unknown.
    """
    found = {
        entries()[name].overlap_with(dataset) if name in entries() else "unknown"
        for name in names.values()
    }
    order: tuple[Overlap, ...] = ("unknown", "checked")
    return next((level for level in order if level in found), "none")


def download_folder() -> Path:
    """Where fetched weights go: the first of ``WAVEDP_WEIGHTS``, else torch hub's folder."""
    return (weights_folders() or [_torch_hub()])[0]


def _torch_hub() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _places(weights: Weights) -> Iterator[Path]:
    yield from (folder / weights.file for folder in weights_folders())
    if weights.made_here:
        yield OWN / weights.file
    if weights.hub:
        yield from (snapshot / str(weights.hub_file) for snapshot in snapshots(weights.hub))
    yield _torch_hub() / weights.file


def snapshots(name: str) -> list[Path]:
    """What the Hugging Face cache holds of a repository, one folder per commit."""
    return sorted((_hub_cache() / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))


def _hub_cache() -> Path:
    """The hub's cache, by the variables that the ``huggingface_hub`` package documents."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HF_HOME") or Path(base) / "huggingface") / "hub"
