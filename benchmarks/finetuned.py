"""What finetuning made of a cell's generator: kept in the user's cache, to be published from there.

The weights after the last step are what a private training releases. Without them, to publish a
generator would take another training, which is another release. Only weights are kept, as they were
when the samples were drawn: nothing of the optimizer, no key, no sum. The folder opens for its
owner only, as the weights of non-private rows are covered by no epsilon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.weights import state_of
from benchmarks.written import Provisional, write
from wavedp.dp.errors import UserError

PARTS = "public parts"
"""In the file's metadata: which parts the harness loads from public checkpoints."""


class Finetuned(Provisional):
    """Where the finetuned weights of one cell are.

    :meth:`write` puts them into a file of another name, and :meth:`keep` gives them their own when
    the record is saved, which knows them by their digest.

    Args:
        cache_dir: the user's cache.
        cell: the cell's identity, which is the record's name.
    """

    def __init__(self, cache_dir: str | Path, cell: str) -> None:
        super().__init__(Path(cache_dir) / "finetuned" / f"{cell}.safetensors")

    def write(self, generator: nn.Module, weights: Mapping[str, str]) -> str:
        """Write what is not in the public checkpoints as it is there.

        Args:
            weights: public checkpoints by part, as the generator was made with them.

        Returns:
            The file's SHA-256.

        Raises:
            UserError: the disk does not take it.
        """
        public = state_of(weights)
        state = {name: tensor.detach().cpu() for name, tensor in generator.state_dict().items()}
        changed = {  # copies, as tied weights share memory, which the format has no word for
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in state.items()
            if not (name in public and _equal(tensor, public[name]))
        }
        content = save(changed, {PARTS: " ".join(weights)})
        try:
            write(self._begin(), content, for_owner=True)
        except OSError as error:
            raise UserError(
                f"The finetuned weights {self._partial} cannot be written "
                f"({error.strerror or error}); free some space, set cache_dir to another disk, or "
                "do without them (keep_weights=false)."
            ) from error
        return hashlib.sha256(content).hexdigest()

    def open(self, digest: str) -> bytes | None:
        """The kept file, if it is the one of that SHA-256: cells of two suites may have one name,
        and each its own noise."""
        return _known(self.file, digest)

    def finish(self, digest: str | None) -> None:
        """Keep what was written for a record, if its process was killed between the two.

        Args:
            digest: what the record says; None where it knows of no weights.
        """
        self.settle(digest is not None and _known(self._partial, digest) is not None)

    @property
    def public_parts(self) -> list[str]:
        """The parts of the kept weights' generator that public checkpoints hold."""
        with safe_open(self.file, "pt") as opened:
            return str((opened.metadata() or {}).get(PARTS, "")).split()


def _known(path: Path, digest: str) -> bytes | None:
    """A file's content, if it is the one of that SHA-256."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
