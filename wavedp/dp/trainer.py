"""The one training loop, private or not.

A step: draw a logical batch, add up its (clipped) per-example gradients micro-batch by
micro-batch, charge the ledger, add noise once, divide by the public expected batch size, and
let the optimizer step. An empty batch is a step like any other: it releases noise, and counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavedp.dp.accounting import Spent
from wavedp.dp.clipping import Batch, Engine, PerExampleLoss, make_engine, trainable
from wavedp.dp.errors import UserError
from wavedp.dp.ledger import Ledger
from wavedp.dp.noise import GaussianNoise
from wavedp.dp.plan import Plan
from wavedp.dp.private import PrivateRecords, open_columns
from wavedp.dp.progress import Progress, silent
from wavedp.dp.sampling import micro_batches

Schedule = Callable[[float], float]
"""Fraction of training done, 0..1, to a factor on the learning rate."""


class Trainer:
    """Trains a model under a plan.

    Args:
        plan: a :class:`~wavedp.dp.plan.DPPlan` or a
            :class:`~wavedp.dp.plan.NonPrivatePlan`.
        ledger: where queries on private records are charged. Training on
            :class:`~wavedp.dp.private.PrivateRecords` without one is refused.
        engine: the clipping engine, see :mod:`wavedp.dp.clipping`.
        device: where to compute.
        micro_batch: rows per forward pass; memory, not privacy, depends on it.
        pad: fill the last micro-batch up to that many rows, as compiled steps need.
        ema_decay: if positive, the model ends as the exponential moving average of its
            weights over the steps (post-processing, so free).
        noise_seed, sampling_seed: by default from the operating system. Given seeds make a
            run reproducible and unfit for release.
        progress: wraps the steps for display.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        ledger: Ledger | None = None,
        engine: str = "bookkeeping",
        device: torch.device | str = "cpu",
        micro_batch: int = 128,
        pad: bool = False,
        ema_decay: float = 0.0,
        noise_seed: int | None = None,
        sampling_seed: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.plan = plan
        self.ledger = ledger
        self.device = torch.device(device)
        self.train_seconds = 0.0
        self._engine, self._ema_decay = engine, ema_decay
        self._micro_batch, self._pad = micro_batch, pad
        self._sampling = np.random.default_rng(sampling_seed)
        std = 0.0 if plan.noise_multiplier == 0 else plan.noise_multiplier * plan.clip
        self._noise = GaussianNoise(std, self.device, noise_seed)
        self.progress = progress

    def fit(
        self,
        model: nn.Module,
        per_example_loss: PerExampleLoss,
        records: PrivateRecords | Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None = None,
        label: str = "training",
    ) -> None:
        """Run all steps of the plan; the model is released as it is after the last one.

        Args:
            model: its trainable parameters are what the optimizer holds.
            per_example_loss: ``(model, batch) -> [b]``, one loss per record.
            records: sealed private records, or public columns of equal length. On a
                device other than the CPU, batches are moved as they are used.
            optimizer: gets the released mean gradient in ``.grad``.
            schedule: factor on the learning rate over the run.
            label: shown beside the progress bar.

        Raises:
            UserError: the optimizer and the model disagree on what is trainable, the
                ledger is missing or would pass its target, or the model has a layer that
                the engine cannot clip.
        """
        columns = self._open(records, label)
        parameters = _check_optimizer(model, optimizer)
        engine = make_engine(self._engine, model, per_example_loss, self.plan.clip)
        size = len(next(iter(columns.values())))
        batches = iter(self.plan.batches(size, self._sampling))
        average = _Average(parameters, self._ema_decay)
        rates = [group["lr"] for group in optimizer.param_groups]
        model.train()
        start = time.perf_counter()
        for step in self.progress(range(self.plan.steps), label):
            if schedule is not None:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(step / self.plan.steps)
            for micro in micro_batches(next(batches), self._micro_batch, self._pad):
                rows = {k: v[micro.index].to(self.device) for k, v in columns.items()}
                engine.add(rows, micro.mask.to(self.device))
            self._release(engine, parameters, label, private=isinstance(records, PrivateRecords))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update()
        average.write_back()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.train_seconds += time.perf_counter() - start
        model.eval()

    @property
    def examples(self) -> int:
        """Records seen in expectation, T x E[batch]: public, unlike the realised number."""
        return self.plan.steps * self.plan.expected_batch

    def spent(self) -> Spent:
        """Epsilon of what ran, from the ledger.

        Raises:
            UserError: there is no ledger.
        """
        if self.ledger is None:
            raise UserError("This trainer has no ledger, so nothing private was trained with it.")
        return self.ledger.spent()

    def _open(self, records: PrivateRecords | Batch, label: str) -> Mapping[str, Any]:
        if not isinstance(records, PrivateRecords):
            if self.plan.noise_multiplier:
                raise UserError(f"{label}: a private plan needs PrivateRecords, not plain tensors.")
            return records
        if self.ledger is None:
            raise UserError(f"{label}: training on private records needs a ledger.")
        if self.ledger.budget.epsilon < self.plan.budget.epsilon:
            raise UserError(f"{label}: the plan's epsilon is larger than the ledger's target.")
        self.ledger.reserve(self.plan.event, self.plan.steps)
        return open_columns(records)

    def _release(
        self, engine: Engine, parameters: Mapping[str, nn.Parameter], label: str, private: bool
    ) -> None:
        """Turn the engine's sums into released gradients and clear them."""
        if private and self.ledger is not None:
            self.ledger.charge(self.plan.event, label)
        self._noise.add_to(engine.sums)
        for name, parameter in parameters.items():
            total = engine.sums[name]
            parameter.grad = (total / self.plan.expected_batch).to(parameter.dtype)
            total.zero_()


class _Average:
    """Exponential moving average of the weights, corrected for its start (as in Adam)."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._weight = parameters, decay, 0.0
        self._sums = {name: torch.zeros_like(p) for name, p in parameters.items()} if decay else {}

    def update(self) -> None:
        self._weight = self._decay * self._weight + (1 - self._decay)
        for name, total in self._sums.items():
            total.lerp_(self._parameters[name].detach(), 1 - self._decay)

    def write_back(self) -> None:
        for name, total in self._sums.items():
            self._parameters[name].data.copy_(total / self._weight)


def _check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    parameters = trainable(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in parameters.items() if id(p) not in held]
    if missing:
        raise UserError(
            f"Trainable parameter {missing[0]} (of {len(missing)}) is not in the optimizer; "
            "freeze it or hand it to the optimizer."
        )
    if len(held) > len(parameters):
        raise UserError(
            f"The optimizer holds {len(held) - len(parameters)} parameters that are frozen or not "
            "part of the model; they would be outside the clipping norm."
        )
    return parameters
