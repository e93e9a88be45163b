"""Checkpoints of a training run, whole or not at all.

A checkpoint is taken between logical steps only: a partial sum over records is un-noised private
data and is never saved. Weights and optimizer states are made of released gradients, so a
checkpoint may be looked at. The keys of the random streams may not: who has them can take the
noise away. They lie in a file of their own, for its owner's eyes only, which exists while the
training runs and is deleted at its end.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from wavedp.dp.errors import UserError
from wavedp.dp.randomness import Stream

_MARK = b"WaveDP checkpoint 1 "


def code_version(*used: object) -> str:
    """A digest of source code: what a checkpoint continues with must be what made it.

    Args:
        used: functions and classes whose files count, beside this library's.
    """
    files = set(Path(__file__).parent.parent.rglob("*.py"))
    for each in used:
        with suppress(TypeError, OSError):  # typed in at a prompt
            files.add(Path(inspect.getfile(each)))  # type: ignore[arg-type]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Checkpoints:
    """The checkpoints of one run's trainings, one file each.

    Args:
        folder: made if missing; files whose names begin with ``wavedp-`` are ours there.
        every: logical steps between checkpoints; the last one is always taken.
        wanted: asked after every step, of the first rank; True takes one and stops the training, by
            KeyboardInterrupt on all ranks.
    """

    def __init__(
        self, folder: str | Path, every: int = 50, wanted: Callable[[], bool] = lambda: False
    ) -> None:
        if every < 1:
            raise UserError(f"a checkpoint every {every} steps is not possible; use 1 or more.")
        self.folder, self.every, self.wanted = Path(folder), every, wanted

    def due(self, step: int) -> bool:
        """Whether to save after so many steps."""
        return step % self.every == 0

    @property
    def started(self) -> bool:
        """Whether there is something to go on from."""
        return any(self.folder.glob("wavedp-*.pt"))

    def keep_streams(self, training: str, streams: Mapping[str, Stream]) -> None:
        """Put a training's keys on disk, before anything is drawn with them."""
        self._sweep()
        keys = {name: stream.key.hex() for name, stream in streams.items()}
        self._write(self._path(training, "key"), lambda file: file.write(json.dumps(keys).encode()))

    def streams(self, training: str) -> dict[str, Stream] | None:
        """The keys of a training that was interrupted; None if they are gone."""
        path = self._path(training, "key")
        if not path.exists():
            return None
        with _opened(path) as file:
            keys = json.loads(file.read())
        return {name: Stream(bytes.fromhex(key)) for name, key in keys.items()}

    def save(self, training: str, state: Mapping[str, Any]) -> None:
        """Replace the training's checkpoint.

        Raises:
            UserError: the disk does not take it; the last one stays.
        """
        self._write(self._path(training, "pt"), lambda file: torch.save(dict(state), file))

    def load(self, training: str) -> dict[str, Any] | None:
        """The training's checkpoint; None if there is none.

        Raises:
            UserError: it is damaged.
        """
        path = self._path(training, "pt")
        if not path.exists():
            return None
        try:
            with _opened(path) as file:
                state = torch.load(file, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise _damaged(path) from error
        return dict(state)

    def forget_streams(self, training: str) -> None:
        """Delete the keys of a training that has ended."""
        self._path(training, "key").unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Delete what was being written when a run was killed: it may hold keys."""
        for path in self.folder.glob("wavedp-*.tmp"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete everything, once the run's result is kept elsewhere."""
        self._sweep()
        for path in [*self.folder.glob("wavedp-*.pt"), *self.folder.glob("wavedp-*.key")]:
            path.unlink(missing_ok=True)

    def _path(self, training: str, kind: str) -> Path:
        return self.folder / f"wavedp-{re.sub(r'[^a-z0-9]+', '-', training.lower())}.{kind}"

    def _write(self, path: Path, fill: Callable[[Any], object]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Made for its owner only.
            handle, partial = tempfile.mkstemp(dir=self.folder, prefix="wavedp-", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    _fill(file, fill)
                os.replace(partial, path)
            except Exception:
                Path(partial).unlink(missing_ok=True)
                raise
            _sync(self.folder)
        except OSError as error:
            raise UserError(
                f"The checkpoint {path} cannot be written ({error.strerror or error}); the last "
                "one is kept: free some space and start again, the run continues from it."
            ) from error


def _fill(file: BinaryIO, fill: Callable[[Any], object]) -> None:
    """Write a checkpoint through to the disk; it is never whole in memory."""
    file.write(_head(""))  # the digest is known when all is written
    digested = _Digested(file)
    try:
        fill(digested)
    except RuntimeError as error:  # what torch makes of it
        raise digested.failure or error from None
    file.seek(0)
    file.write(_head(digested.digest.hexdigest()))
    file.flush()
    os.fsync(file.fileno())


class _Digested:
    """Writes to a file, digests what is written, and remembers what went wrong."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _head(digest: str) -> bytes:
    return _MARK + digest.ljust(64, "0").encode() + b"\n"


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A checkpoint where its content begins, after it was read once and is whole."""
    with path.open("rb") as file:
        head = file.read(len(_head("")))
        if head != _head(hashlib.file_digest(file, "sha256").hexdigest()):
            raise _damaged(path)
        file.seek(len(head))
        yield file


def _damaged(path: Path) -> UserError:
    return UserError(
        f"The checkpoint {path} is damaged, or from another version; remove it to start that "
        "training anew, which spends its budget again."
    )


def _sync(folder: Path) -> None:
    """Make a renamed file survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
