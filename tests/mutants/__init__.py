"""Every known trap of DP training, planted in the code to show that a test falls over it.

``python -m tests.mutants`` plants them all, ``python -m tests.mutants 7 24`` those of two traps.
A trap is caught if, for each of its mutants, each test that is named for it fails: by an
assertion, or by the error that the mutant says. A test that does not run is not a failure.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

TRAPS = {
    1: "dividing by the realised batch size",
    2: "constants of sampling from the private number of records",
    3: "the mean of losses not rescaled to one per record",
    4: "noise for each micro-batch",
    5: "sums and gradients that share memory, or are not reset",
    6: "an empty Poisson batch skipped, uncounted or crashing",
    7: "an empty batch on one rank only",
    8: "steps counted with int(1 / q)",
    9: "shuffled batches accounted as Poisson",
    10: "a batch silently capped",
    11: "neighbouring relations mixed up",
    12: "one record that is not finite poisons the sum",
    13: "norms added up in bfloat16, or lost where terms cancel",
    14: "noise in bfloat16",
    15: "tied or reused weights without their cross terms",
    16: "a trainable parameter outside the norm",
    17: "broadcast inputs taken for records",
    18: "layers across records",
    19: "views of a record clipped one by one",
    20: "noise that depends on the number of ranks",
    21: "a resumed run replays noise or loses a sum",
    22: "micro-batches counted as steps",
    23: "clipping by layer with the noise of one clip",
    24: "DP-Adam's bias",
    25: "special settings of convolutions and embeddings ignored",
    26: "Bernoulli(q) as coarse as float32",
    27: "losses scaled before clipping",
    28: "un-noised numbers of private records shown or kept",
    29: "a checkpoint of adapters that does not reproduce the output",
    30: "hooks that fire twice where activations are recomputed",
    31: "buffers that learn from private records",
    32: "constants computed from private records",
    33: "stopping or choosing weights by a private quantity",
}


@dataclass(frozen=True)
class Mutant:
    """A change of one file that plants a trap.

    Attributes:
        trap: its number.
        what: how it is planted.
        file: from the root of the repository.
        old, new: text that occurs once in the file, and what takes its place.
        tests: pytest's names of the tests that must fail.
        error: the error by which they may fail; an assertion if empty.
    """

    trap: int
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    error: str = ""

    def planted(self, source: str) -> str:
        """The source with the trap.

        Raises:
            ValueError: the old text is not there exactly once, so the table is out of date.
        """
        count = source.count(self.old)
        if count != 1:
            raise ValueError(
                f"trap {self.trap} ({self.what}): the text to replace occurs {count} times "
                f"in {self.file}, not once; change tests/mutants with the code."
            )
        return source.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """All of them, by trap."""
    parts = [importlib.import_module(f"{__name__}.{p}") for p in ("steps", "clipping", "releases")]
    return sorted((m for part in parts for m in part.MUTANTS), key=lambda mutant: mutant.trap)
