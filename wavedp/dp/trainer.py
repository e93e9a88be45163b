"""The one training loop, private or not.

A step: draw a logical batch, add up its (clipped) per-example gradients micro-batch by
micro-batch, charge the ledger, add noise once, divide by the public expected batch size, and
let the optimizer step. An empty batch is a step like any other: it releases noise, and counts.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wavedp.dp.accounting import Spent
from wavedp.dp.average import Average
from wavedp.dp.checkpoint import Checkpoints, code_version
from wavedp.dp.clipping import Batch, PerExampleLoss, check_engine, trainable
from wavedp.dp.computing import Computing
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError
from wavedp.dp.gradient_sums import GradientSums
from wavedp.dp.ledger import Ledger
from wavedp.dp.plan import DPPlan, Plan
from wavedp.dp.private import PrivateRecords, open_columns
from wavedp.dp.progress import Progress, silent
from wavedp.dp.queries import Queries
from wavedp.dp.randomness import Stream
from wavedp.dp.resume import Resumable
from wavedp.dp.room import peak_bytes

Schedule = Callable[[float], float]
"""Fraction of training done, 0..1, to a factor on the learning rate."""


class Trainer:
    """Trains a model under a plan.

    The guarantee, for a :class:`~wavedp.dp.plan.DPPlan`: the weights after the last step, and all
    weights in between, are (epsilon, delta)-differentially private under adding or removing one
    record, with the epsilon that :meth:`spent` reports, if the loss of a record depends on no
    other record.

    Args:
        plan: a :class:`~wavedp.dp.plan.DPPlan` or a
            :class:`~wavedp.dp.plan.NonPrivatePlan`.
        ledger: where queries on private records are charged. Training on
            :class:`~wavedp.dp.private.PrivateRecords` without one is refused.
        engine: the clipping engine, see :mod:`wavedp.dp.clipping`.
        device, amp, compile, views, recompute: see :class:`~wavedp.dp.computing.Computing`.
        micro_batch: records per forward pass; memory, not privacy, depends on it. "auto" takes
            the largest that fits, tried with made-up records.
        pad: fill the last micro-batch up to that many rows, as compiled steps need.
        ema_decay: if positive, the model ends as the exponential moving average of its
            weights over the steps (post-processing, so free).
        checkpoints: where to continue from and to save to; None for neither.
        noise_seed, sampling_seed: by default from the operating system. Given seeds make a
            run reproducible and unfit for release.
        progress: wraps the steps for display.

    Attributes:
        train_seconds: of the steps that were taken by this object.
        resumed: whether a training went on from a checkpoint, so that these are not all its steps.
        sensitivity_used: the most by which one record moved a sum that was released, to which its
            noise was scaled; None before anything private was trained.
        peak_memory_mb: of the process on a CPU, of tensors on a GPU, at the end of the last one.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        ledger: Ledger | None = None,
        engine: str = "bookkeeping",
        device: torch.device | str = "cpu",
        amp: str | None = None,
        compile: bool = False,
        views: int = 1,
        recompute: Sequence[type[nn.Module]] = (),
        micro_batch: int | Literal["auto"] = 128,
        pad: bool = False,
        ema_decay: float = 0.0,
        checkpoints: Checkpoints | None = None,
        noise_seed: int | None = None,
        sampling_seed: int | None = None,
        progress: Progress = silent,
    ) -> None:
        self.plan = plan
        self.ledger = ledger
        self.device = torch.device(device)
        self.computing = Computing(self.device, amp, compile, views, recompute)
        self.train_seconds, self.resumed = 0.0, False
        self.peak_memory_mb = 0.0
        self.checkpoints = checkpoints
        self.progress = progress
        check_engine(engine)
        if not 0 <= ema_decay < 1:
            raise UserError(f"ema_decay={ema_decay} must lie in [0, 1); 0 takes the last weights.")
        if micro_batch != "auto" and not (isinstance(micro_batch, int) and micro_batch > 0):
            raise UserError(f"micro_batch={micro_batch!r} must be a positive number, or auto.")
        self._engine, self._ema_decay = engine, ema_decay
        self._micro_batch, self._pad = micro_batch, pad or compile
        self._seeds = {"noise": noise_seed, "sampling": sampling_seed}
        self._trainings, self._steps, self._public_seed = 0, 0, 0
        self._asked = 0  # private queries of the trainings so far, by whichever process
        self.sensitivity_used: float | None = None

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
            model: on ``device``, in training or evaluation mode as it is; its trainable
                parameters are what the optimizer holds.
            per_example_loss: ``(model, batch) -> [b]``, one loss per record, not averaged
                over the batch. Random numbers come from torch's default generator.
            records: sealed private records, or public columns of equal length. On a
                device other than the CPU, batches are moved as they are used.
            optimizer: gets the released mean gradient in ``.grad``.
            schedule: factor on the learning rate over the run.
            label: shown beside the progress bar, and the query's name in the ledger.

        Raises:
            UserError: the optimizer and the model disagree on what is trainable, the
                ledger is missing or would pass its target, the model has a layer that
                the engine cannot clip, or a checkpoint does not belong to this training.
            KeyboardInterrupt: somebody wants to stop, see
                :class:`~wavedp.dp.checkpoint.Checkpoints`; on all ranks.
        """
        private = isinstance(records, PrivateRecords)
        self._public_seed = 0 if private else int(torch.randint(2**62, ()))
        devices = [self.device] if self.device.type == "cuda" else []
        # The draws within are a step's own; what the caller draws afterwards must not show them.
        with torch.random.fork_rng(devices=devices):
            self._fit(model, per_example_loss, records, optimizer, schedule, label)
        self._trainings += 1
        self._asked += self.plan.steps if private else 0

    @contextmanager
    def queries(
        self, private: PrivateRecords, label: str, method: type | None = None
    ) -> Iterator[Queries]:
        """Ask the plan's queries as noisy sums or histograms, instead of training by gradients.

        All that is done inside counts as training time: what a method makes of the answers is
        free of privacy, not of work.

        Args:
            private: the records.
            label: the queries' name in the ledger.
            method: the class that asks; a checkpoint of other code is refused.

        Raises:
            UserError: the ledger is missing or would pass its target, the plan is for another
                number of records, or a checkpoint does not belong to these queries.
        """
        queries = Queries(
            private,
            self.plan,
            self._check_private(private, label),
            name=f"{label} {self._trainings + 1}",
            what=label,
            code=code_version(method),
            device=self.device,
            checkpoints=self.checkpoints,
            before=self._asked,
            fresh=lambda name: self._fresh_streams(name, private=True),
        )
        began = time.perf_counter()
        self._uses(self.plan.clip)  # sums in float64
        yield queries
        self._steps += queries.finish()
        self._asked += queries.asked
        self._trainings += 1
        self.resumed |= queries.resumed
        self.train_seconds += time.perf_counter() - began
        self.peak_memory_mb = peak_bytes(self.device) / 2**20

    def _fit(
        self,
        model: nn.Module,
        per_example_loss: PerExampleLoss,
        records: PrivateRecords | Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None,
        label: str,
    ) -> None:
        columns = self._open(records, label)
        parameters = _check_optimizer(model, optimizer)
        world = World.current()
        world.spread([*model.parameters(), *model.buffers()])
        private, sensitivity = isinstance(records, PrivateRecords), self.sensitivity(model)
        if private:
            self._uses(sensitivity)
        training = GradientSums(
            model,
            per_example_loss,
            columns,
            plan=self.plan,
            computing=self.computing,
            engine=self._engine,
            micro_batch=self._micro_batch,
            pad=self._pad,
            sensitivity=sensitivity,
            world=world,
        )
        resumable = Resumable(
            name=f"{label} {self._trainings + 1}",
            checkpoints=self.checkpoints,
            world=world,
            identity=self._identity(model, per_example_loss, records, optimizer),
            parameters=parameters,
            buffers=dict(model.named_buffers()),
            optimizer=optimizer,
            average=Average(parameters, self._ema_decay),
        )
        start, streams = resumable.restore(lambda name: self._fresh_streams(name, private))
        training.draw_from(streams)
        if private:
            self._reserve(training, start, label, resumable.replays)
        rates = resumable.rates
        began = time.perf_counter()
        with self._replayable(training, private):
            for step in self.progress(range(start, self.plan.steps), label):
                if schedule is not None:
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * schedule(step / self.plan.steps)
                training.add(step, private)
                training.add_noise(step)
                if private:
                    self._charge(training, step, label, resumable.replays)
                training.release(parameters)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                training.clear()
                resumable.advance(step + 1, last=step + 1 == self.plan.steps)
        resumable.finish()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.train_seconds += time.perf_counter() - began
        self._steps += self.plan.steps - start
        self.resumed |= start > 0
        self.peak_memory_mb = peak_bytes(self.device) / 2**20

    @property
    def examples(self) -> int:
        """Records seen in expectation, steps x E[batch]: public, unlike the realised number."""
        return self._steps * self.plan.expected_batch

    @property
    def examples_per_s(self) -> float:
        """Expected records per second of training so far."""
        return self.examples / max(self.train_seconds, 1e-9)

    def sensitivity(self, model: nn.Module) -> float:
        """The most by which one record can move a released sum of gradients, rounding included.

        C (1 + tol + eps E[batch]): tol bounds the error of a clipped gradient, see
        :data:`wavedp.dp.clipping.TOLERANCE`, and a sum of B gradients is rounded by up to eps B C.
        Of :meth:`queries`, which are in float64, it is C alone.
        """
        eps = torch.finfo(torch.float32).eps
        tolerance = self.computing.tolerance(model) + eps * self.plan.expected_batch
        return self.plan.clip * (1 + tolerance)

    def gradient_noise(self, model: nn.Module) -> float:
        """The standard deviation of the noise on each entry of the released mean gradient."""
        if self.plan.noise_multiplier == 0:
            return 0.0
        return self.plan.noise_multiplier * self.sensitivity(model) / self.plan.expected_batch

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
            return _tensors(records, label)
        self._check_private(records, label)
        return _tensors(open_columns(records), label)

    def _check_private(self, records: PrivateRecords, label: str) -> Ledger:
        """The ledger, if these records may be used under this plan."""
        if not isinstance(records, PrivateRecords):
            raise UserError(f"{label}: queries need PrivateRecords; sum public records directly.")
        if self.ledger is None:
            raise UserError(f"{label}: training on private records needs a ledger.")
        if self.ledger.budget.epsilon < self.plan.budget.epsilon:
            raise UserError(f"{label}: the plan's epsilon is larger than the ledger's target.")
        if isinstance(self.plan, DPPlan) and self.plan.records != records.records:
            raise UserError(
                f"{label}: the plan is for N={self.plan.records} records and the data set "
                f"{records.name} declares {records.records}; make the plan for the data set."
            )
        return self.ledger

    def _fresh_streams(self, name: str, private: bool) -> dict[str, Stream]:
        streams = {use: Stream.fresh(seed, f"{use} {name}") for use, seed in self._seeds.items()}
        # Dropout, the choice of captions and the like. On private records they are as secret as
        # the batches: who knew the draws of each row would see them move if a record is missing.
        seed = self._seeds["sampling"] if private else self._public_seed
        return {**streams, "model": Stream.fresh(seed, f"model {name}")}

    def _identity(
        self,
        model: nn.Module,
        loss: PerExampleLoss,
        records: Any,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Any]:
        """What must be the same for a run to continue from a checkpoint."""
        name = records.name if isinstance(records, PrivateRecords) else "public"
        shapes = {name: list(p.shape) for name, p in trainable(model).items()}
        return {
            "plan": repr(self.plan),
            "records": name,
            "parameters": repr(shapes),
            "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
            "engine": self._engine,
            "computing": self.computing.identity,
            "average": self._ema_decay,
            "code": code_version(type(model), _written_in(loss)),
        }

    def _charge(self, training: GradientSums, step: int, label: str, replays: bool) -> None:
        """Write the step down, on the first rank; only then may anything of it be seen."""
        ledger, tag, release = self.ledger, training.noise.stream.tag(step), training.mark()
        assert ledger is not None
        training.world.together(
            lambda: ledger.charge(self.plan.event, label, tag, replay=replays, release=release)
        )

    @contextmanager
    def _replayable(self, training: GradientSums, private: bool) -> Iterator[None]:
        """If steps are interrupted, a later attempt may take them again."""
        try:
            yield
        except BaseException:
            if private and self.ledger is not None:
                stream = training.noise.stream
                self.ledger.interrupted(stream.tag(step) for step in range(self.plan.steps))
            raise

    def _uses(self, sensitivity: float) -> None:
        self.sensitivity_used = max(sensitivity, self.sensitivity_used or 0.0)

    def _reserve(self, training: GradientSums, start: int, label: str, replays: bool) -> None:
        assert self.ledger is not None
        self.ledger.confirm(self.plan.event, self._asked + start)
        steps = range(start, self.plan.steps)
        tags = (training.noise.stream.tag(step) for step in steps)
        replayed = sum(self.ledger.paid(self.plan.event, label, tag) for tag in tags if replays)
        self.ledger.reserve(self.plan.event, len(steps), replayed)


def _written_in(loss: PerExampleLoss) -> object:
    """What has the source of a loss: a function, a method's function, or a callable's class."""
    function = inspect.unwrap(getattr(loss, "__func__", loss))
    return function if inspect.isfunction(function) else type(loss)


def _tensors(columns: Mapping[str, Any], label: str) -> dict[str, Tensor]:
    """Columns as tensors; arrays share their memory.

    Raises:
        UserError: a column is neither.
    """
    found = {}
    for name, values in columns.items():
        if not isinstance(values, Tensor | np.ndarray):
            raise UserError(
                f"{label}: column {name!r} is a {type(values).__name__}, and only tensors and "
                "arrays are trained on; map a function over the records that makes a tensor of it."
            )
        found[name] = torch.as_tensor(values)
    return found


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
