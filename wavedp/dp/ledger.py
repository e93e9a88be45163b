"""The ledger: every private query, on disk before anything of it is released.

An append-only file of JSON lines. The first line states the budget, every other line is one
query. A line is flushed to the disk (fsync) before :meth:`Ledger.charge` returns, so after a
crash the ledger never shows less than was released. It refuses a query that would pass the
target.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from wavedp.dp.accounting import Budget, Event, Spent, epsilon_of
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError

FORMAT = 1


class Ledger:
    """Queries charged against a budget.

    Args:
        path: the file; created with its folder if missing, continued if it exists.
        budget: the target. Continuing a file that was opened with another one is refused.
        writes: False for the ranks of a distributed run that only follow what the first one
            writes: they count and refuse the same queries and never touch the file. By default
            the first rank writes.
    """

    def __init__(self, path: str | Path, budget: Budget, *, writes: bool | None = None) -> None:
        writes = World.current().leads if writes is None else writes
        self.path = Path(path)
        self.budget = budget
        self.counts: Counter[Event] = Counter()
        self._affordable: Counter[Event] = Counter()
        self._earlier: Counter[tuple[str, Event, str]] = Counter()
        self._here: dict[str, tuple[str, Event, str]] = {}
        self._releases: dict[str, int] = {}
        self._file: BinaryIO | None = None
        header = {"ledger": FORMAT, **_budget_as_json(budget)}
        if writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._lock()
        if self.path.exists() and self.path.stat().st_size:
            self._load(header, writes)
        if writes and not self.path.stat().st_size:
            self._write(header)

    def _lock(self) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise UserError(
                f"The ledger {self.path} is in use by another run, which spends the same budget; "
                "wait for it, close() it if it is your own, or choose another results folder."
            ) from error

    def _load(self, header: dict[str, Any], writes: bool) -> None:
        text = self.path.read_bytes()
        # A line without its end was cut off before its flush: nothing of it was released.
        whole = text[: text.rfind(b"\n") + 1]
        if writes and len(whole) < len(text):
            os.truncate(self.path, len(whole))
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            if lines and lines[0] != header:  # without any line the header itself was cut off
                raise UserError(
                    f"The ledger {self.path} was opened for another budget; "
                    "choose another results folder or remove that run."
                )
            for line in lines[1:]:
                event = Event(line["sampling_probability"], line["noise_multiplier"])
                self.counts[event] += 1
                if "noise" in line:
                    self._earlier[line["query"], event, line["noise"]] += 1
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The ledger {self.path} has a line that is not a query: it was changed, or is "
                "another file; what was spent cannot be known from it, so nothing was started."
            ) from error

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        text = (json.dumps(line) + "\n").encode()
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(text) < len(text):
                raise OSError("the line was not written whole")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            raise UserError(
                f"The ledger {self.path} cannot be written ({error.strerror or error}), so the "
                "query was not run; free some space and start again, the run continues from its "
                "last checkpoint."
            ) from error

    def reserve(self, event: Event, count: int, replayed: int = 0) -> None:
        """Check that ``count`` more of ``event`` are affordable, before work starts.

        Args:
            replayed: how many of them an earlier run has paid for, see :meth:`charge`.

        Raises:
            UserError: they would pass the target.
        """
        wanted = self.counts + Counter({event: max(0, count - replayed)})
        self._refuse_above_target(wanted)
        self._affordable = wanted

    def confirm(self, event: Event, count: int) -> None:
        """Check that ``count`` queries whose results a run goes on from are written down.

        Raises:
            UserError: there are fewer, so that epsilon would not describe what is released.
        """
        if (known := self.counts[event]) < count:
            raise UserError(
                f"The ledger {self.path} has {known} queries and a checkpoint goes on from {count}"
                ": put the ledger of that run back, or remove the checkpoint to start anew (in a "
                "suite: force=true), which spends the budget again."
            )

    def paid(self, event: Event, what: str, noise: str) -> bool:
        """Whether an earlier run has paid for this query with this noise, and it is unclaimed."""
        return self._earlier[what, event, noise] > 0

    def charge(
        self,
        event: Event,
        what: str,
        noise: str | None = None,
        *,
        replay: bool = False,
        release: int | None = None,
    ) -> None:
        """Write one query down. Only after this returns may its result be released.

        Args:
            what: the query's name.
            noise: names the randomness of a query that can be replayed.
            replay: whether this run continues from a checkpoint of the one that may have paid. It
                repeats the steps after it: the same sums with the identical noise are the same
                release, and cost nothing again.
            release: a number that tells what is to be released, noise included, from anything else.
                What this process has already computed with the same noise must have the same one.

        Raises:
            UserError: the query would pass the target, the same noise was used before in this
                process for something else, or the disk does not take it; nothing was written.
        """
        if noise is not None:
            if noise in self._here:
                raise UserError(
                    f"The query {what!r} would use noise that another one has used, and their "
                    "difference would have none; give it another name or noise_seed."
                )
            if self._releases.get(noise, release) != release:
                raise UserError(
                    f"The query {what!r} was computed otherwise before it was interrupted (another "
                    "micro-batch, loss, schedule or an inexact device), and the difference of the "
                    "two would have no noise; go on with what it was, or restart the process, "
                    "which forgets the weights of the interrupted run."
                )
        if noise is not None and replay and self.paid(event, what, noise):
            self._earlier[what, event, noise] -= 1
        else:
            wanted = self.counts + Counter({event: 1})
            if any(wanted[e] > self._affordable[e] for e in wanted):
                self._refuse_above_target(wanted)
                self._affordable = wanted
            line = {"query": what, **event.as_dict()}
            self._write(line if noise is None else {**line, "noise": noise})
            self.counts = wanted
        if noise is not None:
            self._here[noise] = what, event, noise
            if release is not None:
                self._releases[noise] = release

    def interrupted(self, noises: Iterable[str]) -> None:
        """What was charged with these noises may be replayed: the training that did it ended."""
        ended = [self._here.pop(noise) for noise in noises if noise in self._here]
        self._earlier.update(ended)

    def spent(self) -> Spent:
        """Epsilon of everything written so far, on the fine grid."""
        b = self.budget
        epsilon = epsilon_of(self.counts, b.delta, b.accountant)
        return Spent(epsilon, b.delta, b.relation, b.accountant)

    def _refuse_above_target(self, counts: Counter[Event]) -> None:
        if math.isinf(self.budget.epsilon):
            return
        epsilon = epsilon_of(counts, self.budget.delta, self.budget.accountant)
        if epsilon > self.budget.epsilon:
            raise UserError(
                f"The query would bring epsilon to {epsilon:.4g}, past the target "
                f"{self.budget.epsilon:g}; it was not run."
            )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _budget_as_json(budget: Budget) -> dict[str, Any]:
    epsilon = "inf" if math.isinf(budget.epsilon) else budget.epsilon
    return {
        "epsilon": epsilon,
        "delta": budget.delta,
        "relation": budget.relation,
        "accountant": budget.accountant,
    }
