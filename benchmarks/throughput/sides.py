"""Both sides of a comparison: the ordinary step, and private training by every engine.

A private side is a function that takes steps for as long as ``steps`` goes on, so that whoever
gives them can look at the clock between two steps. Every step is forward to optimizer with
exactly ``case.batch`` records; clipping, noise and, for ours, the ledger are part of it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.throughput.cases import Case
from wavedp.dp import DPPlan, Ledger, PrivateRecords, Trainer
from wavedp.dp.accounting import Budget
from wavedp.dp.progress import Progress

CLIP, NOISE_MULTIPLIER = 1.0, 1.0


class Ordinary:
    """Plain PyTorch: mean loss, backward, AdamW, on a batch that is on the device already."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._model, self._optimizer = _fresh(case)
        self._micro_batches = _micro_batches(case)
        self._loss = torch.compile(case.loss) if case.compiled else case.loss

    def step(self) -> None:
        for micro in self._micro_batches:
            with _autocast(self._case):
                losses = self._loss(self._model, micro)
            # The mean over the step's batch, also where it comes in several parts.
            (losses.mean() / len(self._micro_batches)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def train(case: Case, engine: str, progress: Progress) -> None:
    """Private training by ``engine`` for the steps that ``progress`` lets through.

    Raises:
        UserError: our core refuses the engine or the model.
        ImportError: Opacus is not installed.
    """
    if engine in ("hooks", "ghost"):
        _opacus(case, ghost=engine == "ghost", steps=progress(range(_ENDLESS), engine))
    else:
        _trainer(case, engine, progress)


_ENDLESS = 10**6


def _trainer(case: Case, engine: str, progress: Progress) -> None:
    """Ours: with q = 1 every Poisson batch is the whole data."""
    plan = DPPlan(Budget(math.inf, 1e-5), case.batch, case.batch, _ENDLESS, CLIP, NOISE_MULTIPLIER)
    records = PrivateRecords(case.data(case.batch), name="synthetic", records=case.batch)
    settings: dict[str, Any] = {"engine": engine, "device": case.device, "progress": progress}
    if case.amp:
        settings["amp"] = "bf16"
    if case.compiled:
        settings["compile"] = True
    model, optimizer = _fresh(case)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", plan.budget)
        trainer = Trainer(plan, ledger=ledger, micro_batch=case.micro_batch, **settings)
        trainer.fit(model, case.loss, records, optimizer)


def _opacus(case: Case, ghost: bool, steps: Iterable[int]) -> None:
    """Opacus through its public API, noise and clipping included."""
    model, optimizer, losses = _ghost(case) if ghost else _hooks(case)
    micro_batches = _micro_batches(case)
    for _ in steps:
        for number, micro in enumerate(micro_batches, start=1):
            optimizer.signal_skip_step(number < len(micro_batches))
            with _autocast(case):
                loss = losses(model, micro)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def _hooks(case: Case) -> tuple[Any, Any, Any]:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model, optimizer = _fresh(case)
    private = DPOptimizer(optimizer, **_noise(case))
    return GradSampleModule(model), private, lambda *batch: case.loss(*batch).mean()


def _ghost(case: Case) -> tuple[Any, Any, Any]:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    model, optimizer = _fresh(case)
    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIP)
    private = DPOptimizerFastGradientClipping(optimizer, **_noise(case))
    # Opacus sets an attribute on the criterion, hence one of its own.
    losses = DPLossFastGradientClipping(wrapped, private, lambda *batch: case.loss(*batch))
    return wrapped, private, losses


def _noise(case: Case) -> dict[str, Any]:
    return {
        "noise_multiplier": NOISE_MULTIPLIER,
        "max_grad_norm": CLIP,
        "expected_batch_size": case.batch,
    }


def _fresh(case: Case) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The same weights on every side, and AdamW in one pass over them."""
    torch.manual_seed(0)
    with torch.device(case.device):
        model = case.make().train()
    held = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(held, lr=1e-4, fused=True)


def _micro_batches(case: Case) -> list[dict[str, Tensor]]:
    batch = {name: column.to(case.device) for name, column in case.data(case.batch).items()}
    return [
        {name: column[start : start + case.micro_batch] for name, column in batch.items()}
        for start in range(0, case.batch, case.micro_batch)
    ]


def _autocast(case: Case) -> AbstractContextManager[Any]:
    return torch.autocast(case.device, torch.bfloat16, enabled=case.amp)
