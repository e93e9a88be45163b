"""Where the records of one side come from: a folder, or a folder as a git revision has it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from benchmarks.record import Record, load_folder, parse, results_only
from wavedp.dp.errors import UserError

RECORDS = "records"
"""The folder of records in that of a suite."""


def records_of(place: str) -> list[Record]:
    """The records of one side.

    Args:
        place: a suite's folder, a folder of records, or either as a git revision has it, such as
            ``HEAD~1:results/embedded``.

    Raises:
        UserError: there is no such place, it holds no records, or one of them cannot be read.
    """
    folder = Path(place)
    if folder.is_dir():
        inner = folder / RECORDS
        records = load_folder(inner if inner.is_dir() else folder)
    elif ":" in place:
        records = _of_revision(place)
    else:
        raise UserError(
            f"{place} is no folder: name a suite's folder such as results/embedded, or that of a "
            "git revision, REVISION:results/embedded."
        )
    if not records:
        raise UserError(f"There are no records in {place}; name a suite's folder that holds some.")
    return records


def _of_revision(place: str) -> list[Record]:
    """The records in a tree that git knows, read without checking it out."""
    command = ["git", "archive", "--format=tar", "--end-of-options", place]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{place} names a git revision, and there is no git here: install it, or give a folder."
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"git does not know {place} as a folder of a revision ({said[0] if said else '?'}): "
            "write it as REVISION:FOLDER, from the top of the repository."
        ) from error
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {
            PurePosixPath(member.name): file.read()
            for member in archive
            if member.name.endswith(".json") and (file := archive.extractfile(member)) is not None
        }
    inner = {path: text for path, text in found.items() if path.parts[:-1] == (RECORDS,)}
    flat = {path: text for path, text in found.items() if len(path.parts) == 1}
    read = (parse(text, f"{place}/{path}") for path, text in sorted((inner or flat).items()))
    return results_only(read, place)
