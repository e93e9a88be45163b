"""Listing the registry of weights, and fetching what this machine lacks.

A file whose source publishes no digest is pinned to the one that it comes with, and so is one that
lies here already when it is asked for by name.
"""

from __future__ import annotations

import os
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.console import console, track
from benchmarks.digest import sha256
from benchmarks.pin import pin, pinned
from benchmarks.registry import Weights, download_folder, entries, entry, locate
from wavedp.dp.errors import UserError

Opener = Callable[[str], Any]
"""From an address to a readable binary response, as :func:`open_address`."""

PIECE = 1 << 20
TIMEOUT = 60
"""Seconds that a server may stay silent, before it answers and while it sends."""


def open_address(address: str) -> Any:
    """The response of a server, whose silence ends in an error."""
    return urllib.request.urlopen(address, timeout=TIMEOUT)


def chosen(names: Sequence[str]) -> list[Weights]:
    """The entries of these names; all of them if there are none.

    Raises:
        UserError: an unknown name.
    """
    return [entry(name) for name in names] if names else list(entries().values())


def show(names: Sequence[str] = ()) -> None:
    """Print what the registry knows and where each file lies here, two lines an entry."""
    for weights in chosen(names):
        path = locate(weights)
        state = _state(weights, path)
        overlaps = ", ".join(f"{status} ({name})" for name, status in weights.overlap.items())
        console.print(
            f"{weights.name}: {state}, {_size(weights, path)}, {weights.licence}; trained on "
            f"{weights.trained_on}; overlap with private sets: {overlaps or 'unknown'}",
            soft_wrap=True,
        )
        console.print(f"    {path or f'get it by {weights.remedy}'}", soft_wrap=True)


def _size(weights: Weights, path: Path | None) -> str:
    megabytes = path.stat().st_size / 1e6 if path else weights.megabytes
    return "of unknown size" if megabytes is None else f"{megabytes:.3g} MB"


def _state(weights: Weights, path: Path | None) -> str:
    if path is None:
        return "[red]missing[/red]"
    return "here" if weights.digest or pinned(path) else "[red]here, not pinned[/red]"


def fetch_all(names: Sequence[str] = (), opener: Opener = open_address) -> int:
    """Fetch the entries that this machine lacks; returns 1 if one could not be fetched, else 0.

    What cannot be reached does not stop the others. A file that is here without a digest is pinned
    only where it is named: somebody has to say that it is the right one.
    """
    failed = 0
    for weights in chosen(names):
        found = locate(weights)
        if found and (weights.digest or pinned(found) or not names):
            continue
        try:
            if found:
                pin(found)
            path = found or fetch(weights, opener)
            known = "as the registry says" if weights.digest else "none is published, so pinned"
            console.print(
                f"{weights.name}: {path}, SHA-256 {sha256(path)}, {known}", soft_wrap=True
            )
        except UserError as error:
            console.print(f"[red]{weights.name}[/red]: {error}", soft_wrap=True)
            failed = 1
    return failed


def fetch(weights: Weights, opener: Opener = open_address) -> Path:
    """Fetch one file into the download folder, whole and checked, or not at all.

    Raises:
        UserError: it has no address, cannot be reached, or is not the file of the registry.
    """
    if weights.made_here or weights.address is None:
        raise UserError(f"{weights.name} cannot be fetched; get it by {weights.remedy}.")
    folder = download_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=weights.file, suffix=".part")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _copy(weights, opener, file)
        _compare(weights, partial)
        os.replace(partial, folder / weights.file)
    finally:
        partial.unlink(missing_ok=True)
    if not weights.digest:
        pin(folder / weights.file)
    return folder / weights.file


def _copy(weights: Weights, opener: Opener, file: BinaryIO) -> None:
    assert weights.address is not None
    try:
        with opener(weights.address) as response:
            # The size is the registry's, for the bar alone; what comes after it is read too.
            for _ in track(range(int(weights.megabytes or 0) + 1), weights.name):
                file.write(response.read(PIECE))
            while piece := response.read(PIECE):
                file.write(piece)
            _check_length(response, file.tell())
    except (OSError, HTTPException) as error:  # urllib's own errors are OSErrors
        raise UserError(
            f"{weights.address} cannot be reached ({error}); fetch {weights.file} elsewhere and "
            f"put it into {download_folder()}."
        ) from error


def _check_length(response: Any, received: int) -> None:
    """Python takes a connection that breaks for the end of the file.

    Raises:
        OSError: fewer bytes came than the server announced.
    """
    announced = getattr(response, "headers", {}).get("Content-Length")
    if announced is not None and received != int(announced):
        raise OSError(f"{received} of {announced} bytes came")


def _compare(weights: Weights, path: Path) -> None:
    found = sha256(path)
    if weights.digest and not found.startswith(weights.digest):
        raise UserError(
            f"{weights.address} gave a file with SHA-256 {found[:16]}..., not "
            f"{weights.digest[:16]}...; it was discarded: try again, or tell the publisher."
        )
