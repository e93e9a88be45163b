"""The T queries of a plan as noisy sums and histograms, for methods without gradients of records.

Private Evolution asks T histograms and DP-MERF one sum: the plan, ledger, seeds and checkpoints of
DP-SGD, and other vectors than gradients. What was released is kept in the checkpoint. So a method
that was killed runs its public computation again, gets the answers that it had, and asks only what
it had not asked; a query that was paid for and whose answer was lost is asked with the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError
from wavedp.dp.ledger import Ledger
from wavedp.dp.mechanisms import Contribution, PerRecordTensor, Query
from wavedp.dp.plan import Plan
from wavedp.dp.private import PrivateRecords
from wavedp.dp.randomness import Stream

Fresh = Callable[[str], Mapping[str, Stream]]


class Queries:
    """The queries of one method, at most ``plan.steps``; made by :meth:`Trainer.queries`.

    Each is one Gaussian mechanism with the plan's q, sigma and C, computed in float64, so that C
    is its sensitivity.

    Args:
        name: of the training within its run.
        what: the queries' name in the ledger.
        code: the version of the code that asks.
        before: queries of the same plan that the run's earlier trainings asked.
        fresh: makes the streams ``noise`` and ``sampling``, given the name.

    Attributes:
        resumed: whether answers of an earlier process were used.
    """

    def __init__(
        self,
        private: PrivateRecords,
        plan: Plan,
        ledger: Ledger,
        *,
        name: str,
        what: str,
        code: str,
        device: torch.device,
        checkpoints: Checkpoints | None,
        before: int,
        fresh: Fresh,
    ) -> None:
        self._private, self._plan, self._ledger = private, plan, ledger
        self._name, self._what, self._device = name, what, device
        self._kept, self._world = checkpoints, World.current()
        self._identity = {"plan": repr(plan), "records": private.name, "code": code}
        self._next = 0
        self._released: list[Tensor] = []
        self._streams: Mapping[str, Stream] = {}
        self._replays = False
        restored = self._restore(fresh) if self._world.leads else None
        self._released, self._streams, self._replays = self._world.agreed(
            restored or ([], {}, False)
        )
        self._restored = len(self._released)
        self.resumed = self._restored > 0
        ledger.confirm(plan.event, before + self._restored)
        self._reserve()

    def sum(self, vectors: PerRecordTensor, *, size: int) -> Tensor:
        """The next query as a noisy sum, float64 ``[size]``; see :func:`noisy_sum`.

        Divide by ``plan.event.sampling_probability`` times the declared N for an estimate of the
        mean over records.

        Raises:
            UserError: all queries of the plan are asked, or as :func:`noisy_sum`.
            KeyboardInterrupt: on all ranks, if somebody wants to stop; the answer is saved.
        """
        query = self._query(size)
        return self._answer(query, query.of_vectors(vectors))

    def histogram(self, votes: PerRecordTensor, *, bins: int) -> Tensor:
        """The next query as a noisy histogram, float64 ``[bins]``; see :func:`noisy_histogram`.

        Raises:
            UserError: all queries of the plan are asked, or as :func:`noisy_histogram`.
            KeyboardInterrupt: on all ranks, if somebody wants to stop; the answer is saved.
        """
        query = self._query(bins)
        return self._answer(query, query.of_votes(votes))

    @property
    def asked(self) -> int:
        """Queries so far, those that an earlier process asked among them."""
        return self._next

    def finish(self) -> int:
        """Forget the keys of noise and sampling; returns how many queries were asked here."""
        if self._kept is not None and self._world.leads:
            self._kept.forget_streams(self._name)
        return max(0, self._next - self._restored)

    def _query(self, size: int) -> Query:
        if self._next == self._plan.steps:
            raise UserError(
                f"{self._what}: the plan is for {self._plan.steps} queries and another one was "
                "asked; raise finetuning.steps."
            )
        return Query(self._what, size, self._plan.clip, self._plan.event, self._device, chunk=512)

    def _answer(self, query: Query, contribution: Contribution) -> Tensor:
        step, self._next = self._next, self._next + 1
        if step < self._restored:
            return self._known(query, step)
        noise, sample = self._streams["noise"], self._streams["sampling"]
        released = query.release(
            self._private, contribution, self._ledger, noise, sample, step, self._replays
        )
        self._released.append(released.cpu())
        self._save()
        kept, last = self._kept, self._next == self._plan.steps
        if kept is not None and not last and self._world.agreed(kept.wanted()):
            self._world.stop()
        return released

    def _known(self, query: Query, step: int) -> Tensor:
        """The answer of an earlier process."""
        answer = self._released[step]
        if len(answer) != query.size:
            raise UserError(
                f"{self._what}: the checkpoint holds {len(answer)} numbers for query {step + 1} "
                f"and {query.size} were asked; go back to the settings that made it, or remove it "
                "to start anew (in a suite: force=true), which spends the budget again."
            )
        return answer.to(self._device)

    def _restore(self, fresh: Fresh) -> tuple[list[Tensor], Mapping[str, Stream], bool]:
        """Answers so far, streams, and whether these are those of an earlier process."""
        kept = self._kept
        if kept is None:
            return [], fresh(self._name), False
        state = kept.load(self._name)
        if state is not None and not state["released"] and state["identity"] != self._identity:
            state = None  # of another attempt; what it has charged, if anything, stays charged
        if state is not None:
            self._check(state["identity"])
            self._released = list(state["released"])
            if streams := kept.streams(self._name):
                return self._released, streams, True
        streams = dict(fresh(self._name))
        if len(self._released) < self._plan.steps:
            kept.keep_streams(self._name, streams)
            self._save()
        return self._released, streams, False

    def _save(self) -> None:
        if self._kept is not None and self._world.leads:
            self._kept.save(self._name, {"identity": self._identity, "released": self._released})

    def _reserve(self) -> None:
        """Check that all queries that are still to be asked are affordable, before work starts."""
        event, steps = self._plan.event, range(self._restored, self._plan.steps)
        tags = (self._streams["noise"].tag(step) for step in steps)
        paid = sum(self._ledger.paid(event, self._what, tag) for tag in tags if self._replays)
        self._ledger.reserve(event, len(steps), paid)

    def _check(self, identity: Mapping[str, Any]) -> None:
        differing = [key for key, value in self._identity.items() if identity.get(key) != value]
        if differing:
            assert self._kept is not None
            raise UserError(
                f"The checkpoint of {self._name!r} in {self._kept.folder} has another "
                f"{' and '.join(differing)}; go back to what made it, or remove that folder to "
                "start anew (in a suite: force=true), which spends the budget again."
            )
