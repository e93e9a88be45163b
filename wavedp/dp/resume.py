"""A training that can be killed at any moment and continues as if it had not been.

What a training needs to go on from a logical step: weights, optimizer, average, the step, and the
keys of its random streams. A step that is replayed has the same weights, batch and noise as the
first time, hence the same release, for which the ledger was charged; within one process, where the
first one may have been seen, the ledger checks that it is the same. In another process the first
one is gone: what was not written was not released. Without the keys (they were deleted, or the
training had ended) the streams are new ones and the steps are charged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.dp.average import Average
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError
from wavedp.dp.randomness import Stream

Streams = dict[str, Stream]


@dataclass
class Resumable:
    """The part of a training that checkpoints keep.

    Attributes:
        name: the training's name and number within its run.
        checkpoints: None to keep nothing.
        world: the first rank saves; all ranks load.
        identity: what must be the same for a checkpoint to belong to this training.
        buffers: of the model; public training may change them.
        rates: the optimizer's learning rates before any schedule.
        replays: whether steps that an earlier run has taken are taken again, with its noise.
    """

    name: str
    checkpoints: Checkpoints | None
    world: World
    identity: Mapping[str, Any]
    parameters: Mapping[str, nn.Parameter]
    buffers: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    average: Average
    rates: list[float] = field(init=False)
    replays: bool = False

    def __post_init__(self) -> None:
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def restore(self, fresh: Callable[[str], Streams]) -> tuple[int, Streams]:
        """Go back to the last checkpoint, or make the first one.

        Args:
            fresh: makes new streams, given the training's name.

        Returns:
            The step to go on with, and its streams.

        Raises:
            UserError: the checkpoint is damaged or belongs to another training.
        """
        kept = self.checkpoints
        if kept is None:
            return 0, self.world.agreed(fresh(self.name))
        state = kept.load(self.name)
        streams = None
        if state is not None and state["step"] == 0 and self._differing(state["identity"]):
            state = None  # of another attempt; what it has charged, if anything, stays charged
        if state is not None:
            self._check(state["identity"])
            self._load(state)
            streams = kept.streams(self.name)
            self.replays = streams is not None
        if streams is None:
            streams = fresh(self.name)
            if self.world.leads:
                kept.keep_streams(self.name, streams)
                self._save(0 if state is None else state["step"])
        step = 0 if state is None else int(state["step"])
        found = self.world.all(step)
        if len(set(found)) > 1:
            raise UserError(
                f"The ranks of {self.name!r} found checkpoints of steps {sorted(set(found))}; put "
                "the checkpoints where every rank can read them."
            )
        return step, self.world.agreed(streams)

    def advance(self, step: int, last: bool) -> None:
        """After a logical step: average, save if it is time, and stop if somebody wants to.

        Raises:
            KeyboardInterrupt: on all ranks after the same step, which is saved.
        """
        self.average.update()
        kept = self.checkpoints
        if kept is None:
            return
        stops = not last and self.world.agreed(kept.wanted())
        if self.world.leads and (last or stops or kept.due(step)):
            self._save(step)
        if stops:
            self.world.stop()

    def finish(self) -> None:
        """The average becomes the weights; nobody needs the keys any more."""
        self.average.write_back()
        if self.checkpoints is not None and self.world.leads:
            self.checkpoints.forget_streams(self.name)

    def _save(self, step: int) -> None:
        assert self.checkpoints is not None
        state = {
            "identity": dict(self.identity),
            "step": step,
            "weights": {name: p.detach() for name, p in self.parameters.items()},
            "buffers": dict(self.buffers),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
        }
        self.checkpoints.save(self.name, state)

    def _load(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
            for name, buffer in self.buffers.items():
                buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])

    def _differing(self, identity: Mapping[str, Any]) -> list[str]:
        return [key for key, value in self.identity.items() if identity.get(key) != value]

    def _check(self, identity: Mapping[str, Any]) -> None:
        if differing := self._differing(identity):
            assert self.checkpoints is not None
            raise UserError(
                f"The checkpoint of {self.name!r} in {self.checkpoints.folder} has another "
                f"{' and '.join(differing)}; go back to what made it, or remove that folder to "
                "start anew (in a suite: force=true), which spends the budget again."
            )
