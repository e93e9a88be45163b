"""The ledger: every private query, on disk before anything of it is released.

An append-only file of JSON lines. The first line states the budget, every other line is one
query. A line is flushed to the disk (fsync) before :meth:`Ledger.charge` returns, so after a
crash the ledger never shows less than was released. It refuses a query that would pass the
target.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from wavedp.dp.accounting import Budget, Event, Spent, epsilon_of
from wavedp.dp.errors import UserError

FORMAT = 1


class Ledger:
    """Queries charged against a budget.

    Args:
        path: the file; created with its folder if missing, continued if it exists.
        budget: the target. Continuing a file that was opened with another one is refused.
    """

    def __init__(self, path: str | Path, budget: Budget) -> None:
        self.path = Path(path)
        self.budget = budget
        self.counts: Counter[Event] = Counter()
        self._affordable: Counter[Event] = Counter()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = {"ledger": FORMAT, **_budget_as_json(budget)}
        if self.path.exists() and self.path.stat().st_size:
            self._load(header)
            self._file = self.path.open("a", encoding="utf-8")
        else:
            self._file = self.path.open("a", encoding="utf-8")
            self._write(header)

    def _load(self, header: dict[str, Any]) -> None:
        text = self.path.read_bytes()
        # A line without its end was cut off before its flush: nothing of it was released.
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self.path, len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines or lines[0] != header:
            raise UserError(
                f"The ledger {self.path} was opened for another budget; "
                "choose another results folder or remove that run."
            )
        for line in lines[1:]:
            self.counts[Event(line["sampling_probability"], line["noise_multiplier"])] += 1

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def reserve(self, event: Event, count: int) -> None:
        """Check that ``count`` more of ``event`` are affordable, before work starts.

        Raises:
            UserError: they would pass the target.
        """
        wanted = self.counts + Counter({event: count})
        self._refuse_above_target(wanted)
        self._affordable = wanted

    def charge(self, event: Event, what: str) -> None:
        """Write one query down. Only after this returns may its result be released.

        Raises:
            UserError: the query would pass the target; nothing was written.
        """
        wanted = self.counts + Counter({event: 1})
        if any(wanted[e] > self._affordable[e] for e in wanted):
            self._refuse_above_target(wanted)
            self._affordable = wanted
        self._write({"query": what, **event.as_dict()})
        self.counts = wanted

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
        self._file.close()


def _budget_as_json(budget: Budget) -> dict[str, Any]:
    epsilon = "inf" if math.isinf(budget.epsilon) else budget.epsilon
    return {
        "epsilon": epsilon,
        "delta": budget.delta,
        "relation": budget.relation,
        "accountant": budget.accountant,
    }
