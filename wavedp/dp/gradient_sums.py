"""The sums of clipped gradients of a training, step by step, and their release.

A step is added up over micro-batches and ranks, gets its noise once, is charged by the trainer, and
only then becomes gradients. Nothing of a sum leaves this file before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import PerExampleLoss, make_engine
from wavedp.dp.computing import Computing, exact_products
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.plan import Plan
from wavedp.dp.randomness import Stream
from wavedp.dp.room import largest_micro_batch
from wavedp.dp.sampling import micro_batches


class GradientSums:
    """One training in progress: sums of clipped gradients, and their release.

    Args:
        model, per_example_loss, columns: see :meth:`~wavedp.dp.trainer.Trainer.fit`.
        plan, computing, engine, micro_batch, pad: see :class:`~wavedp.dp.trainer.Trainer`.
        sensitivity: the most by which one record moves a sum; the noise is scaled to it.
        world: the ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        per_example_loss: PerExampleLoss,
        columns: Mapping[str, Any],
        *,
        plan: Plan,
        computing: Computing,
        engine: str,
        micro_batch: int | Literal["auto"],
        pad: bool,
        sensitivity: float,
        world: World,
    ) -> None:
        self._plan, self._computing, self.world = plan, computing, world
        self._model, self._columns = model, columns
        loss = computing.loss(per_example_loss)
        # Without noise the clip, and with it the sensitivity, may be infinite.
        sigma = plan.noise_multiplier
        self._std = sigma * sensitivity if sigma else 0.0
        self._size, self._pad = micro_batch, pad
        if self._size == "auto":
            with computing.recomputing(model), buffers_as_before(model):
                passes = replace(computing.passes, compiled=False)
                probed = make_engine(engine, model, loss, plan.clip, passes)
                self._size = largest_micro_batch(
                    probed, columns, computing.device, plan.expected_batch
                )
        if computing.compile:
            torch.compiler.reset()  # or it gives up after so many models in one process
        self._engine = make_engine(engine, model, loss, plan.clip, computing.passes)

    def draw_from(self, streams: Mapping[str, Stream]) -> None:
        """Use these streams for batches, noise and the model's own draws, from here on."""
        # Not earlier: a checkpoint may have brought others than the model was given with.
        self._buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        size = len(next(iter(self._columns.values())))
        self._batches = self._plan.batches(size, streams["sampling"])
        self._draws, self.noise = streams["model"], GaussianNoise(self._std, streams["noise"])

    def add(self, step: int, private: bool) -> None:
        """Add the clipped gradients of this rank's part of the step's logical batch.

        Raises:
            UserError: on this rank or another one, so that none waits for the others.
        """

        def work() -> None:
            with self._with_still_buffers() if private else nullcontext():
                self._add(step)

        self.world.together(work)

    def _add(self, step: int) -> None:
        torch.manual_seed(self._draws.seed(step) + self.world.rank)
        rows = self.world.part(self._batches.at(step))
        device = self._computing.device
        with self._computing.recomputing(self._model), exact_products(device):
            for micro in micro_batches(rows, int(self._size), self._pad):
                batch = {k: v[micro.index].to(device) for k, v in self._columns.items()}
                self._engine.add(batch, micro.mask.to(device))

    def add_noise(self, step: int) -> None:
        """Add the sums up at the first rank, and the step's noise to them."""
        self.world.add_up(self._engine.sums)
        if self.world.leads:
            self.noise.add_to(self._engine.sums, step)

    def mark(self) -> int | None:
        """A number that tells these noisy sums from others; None on ranks that have none."""
        if not self.world.leads:
            return None
        bits = {4: torch.int32, 8: torch.int64}
        sums = self._engine.sums.values()
        # Of the bits, so that the order of adding them up does not matter.
        found = [total.view(bits[total.element_size()]).sum() for total in sums]
        return hash(tuple(torch.stack(found).tolist()))

    def release(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Turn the noisy sums into mean gradients. Only after the ledger was charged."""
        sums = self._engine.sums
        self.world.spread(sums.values())
        for name, parameter in parameters.items():
            parameter.grad = sums[name].div_(self._plan.expected_batch).to(parameter.dtype)

    def clear(self) -> None:
        """Forget the sums of the step, which were the gradients until now."""
        for total in self._engine.sums.values():
            total.zero_()

    @contextmanager
    def _with_still_buffers(self) -> Iterator[None]:
        """See to it that the model learns through its gradients alone.

        Raises:
            UserError: names a buffer that has changed; it is as before.
        """
        try:
            yield
        finally:
            changed = [
                name
                for name, buffer in self._model.named_buffers()
                if name not in self._buffers or not _same(buffer, self._buffers[name])
            ]
            if changed:
                for name, buffer in self._model.named_buffers():
                    if name in self._buffers:
                        buffer.data.copy_(self._buffers[name])
                raise UserError(
                    f"Buffer {changed[0]} changed while private records were computed (a running "
                    "average, a codebook): nothing would bound what it keeps of them; put that "
                    "module in eval mode or freeze it."
                )


@contextmanager
def buffers_as_before(model: nn.Module) -> Iterator[None]:
    """Undo what happens to buffers meanwhile."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.data.copy_(before[name])


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN being the same as NaN."""
    return one.shape == other.shape and bool(
        ((one == other) | (one != one) & (other != other)).all()
    )
