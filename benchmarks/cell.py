"""One cell of the grid: load, finetune, sample, score, record."""

from __future__ import annotations

import datetime
import hashlib
import math
import platform
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import wavedp
from benchmarks import hardware, ranks, stopping
from benchmarks.batches import Batches
from benchmarks.config import Cell, make, plain
from benchmarks.console import track, track_images
from benchmarks.evaluation import Evaluation
from benchmarks.finetuned import Finetuned
from benchmarks.paths import shortened, without_paths
from benchmarks.provenance import code_revision
from benchmarks.record import Cost, Evaluated, Privacy, Provenance, Query, Record, Row
from benchmarks.registry import overlap
from benchmarks.samples import Samples
from benchmarks.scorer import Scorer
from benchmarks.weights import digests, load_parts
from wavedp.data.schema import Dataset
from wavedp.dp.accounting import RELATION
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.clipping import check_engine
from wavedp.dp.distributed import World
from wavedp.dp.errors import UserError, one_line
from wavedp.dp.ledger import Ledger
from wavedp.dp.plan import DPPlan, NonPrivatePlan, Plan
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.untrained import untrained
from wavedp.protocol import ImageGenerator

FINETUNING = ("engine", "micro_batch", "ema_decay", "views")
"""Settings of a method's finetuning that are the trainer's."""


def identity_of(cell: Cell) -> str:
    """The name of a cell's record, with the public weights as they are on this machine.

    Raises:
        UserError: a checkpoint is missing.
    """
    return cell.identity(digests(files_of(cell)))


def files_of(cell: Cell) -> dict[str, str | None]:
    """All public weights of a cell, by part: what the harness loads and what a part reads itself.

    The latter are named under ``published`` in the config of the method. None where weights are
    random.
    """
    method = cell.config.method
    if cell.untrained:
        return {}
    return {**method.weights, **method.get("published", {})}


def make_plan(cell: Cell) -> Plan | None:
    """The plan of a cell; None for rows that touch no private record.

    Raises:
        UserError: no plan meets the budget, or a number is out of range.
    """
    budget, finetuning = cell.config.privacy, cell.method.finetuning
    check_engine(finetuning.get("engine", "bookkeeping"))
    if cell.row == "private":
        assert cell.epsilon is not None
        return DPPlan.calibrate(
            epsilon=cell.epsilon,
            delta=budget.delta,
            records=cell.config.dataset.private_records,
            expected_batch=finetuning.expected_batch,
            steps=finetuning.steps,
            clip=finetuning.clip,
            accountant=budget.accountant,
        )
    if cell.row == "non_private":
        return NonPrivatePlan(finetuning.expected_batch, finetuning.steps, budget.delta)
    return None


def make_generator(cell: Cell) -> ImageGenerator:
    """The method with its public weights, on the CPU and in evaluation mode.

    In a run that is ``untrained`` all weights are random; no other run can have such.

    Nothing changes a mode on the way from here to the record, unless the method does: one with
    dropout has to say in ``finetune`` that it trains. Those here have none, and what learns in
    training mode, a codebook, is never trained on private records.

    Raises:
        UserError: weights are missing or do not fit, or the resolution differs from the data's.
    """
    method = cell.method
    with untrained(cell.smaller) if cell.untrained else nullcontext():
        generator: ImageGenerator = make(method.generator)
    if generator.resolution != cell.config.dataset.resolution:
        raise UserError(
            f"Method {method.name} makes images of {generator.resolution} px and dataset "
            f"{cell.config.dataset.name} has {cell.config.dataset.resolution} px; set "
            f"dataset.resolution={generator.resolution}."
        )
    assert isinstance(generator, torch.nn.Module)
    if not cell.untrained:
        load_parts(generator, method.weights)
    generator.eval()
    return generator


def run_cell(cell: Cell, dataset: Dataset, scorer: Scorer, folder: Path) -> Record:
    """Run one cell and return its record; the caller saves it, with picture, samples and weights.

    Args:
        folder: the suite's results folder; the ledger goes there.
    """
    assert not cell.untrained, "random weights are never scored"
    config = cell.config
    weights = digests(files_of(cell))
    name = cell.identity(weights)
    device = hardware.pick_device(config.hardware.device)
    seed_everything(cell.seed)
    generator = make_generator(cell)
    assert isinstance(generator, torch.nn.Module)
    with hardware.PeakMemory(device) as peak:
        generator.to(device)
        trainer = finetune(cell, generator, dataset, ledger_of(folder, name), device)
        start = time.perf_counter()
        drawn = _samples(cell, generator, scorer.evaluation, device)
        count = images_of(cell.row, scorer.evaluation)
        images = samples_of(cell, name).write(drawn, count, dataset.resolution)
        sampled = time.perf_counter()
    keeps = trainer is not None and config.keep_weights
    kept = finetuned_of(cell, name).write(generator, config.method.weights) if keeps else None
    prompts = scorer.evaluation.prompts
    metrics = scorer.values(Batches(images), prompts, generator.conditioning)
    scored = time.perf_counter()
    return record_of(
        *(cell, dataset, weights),
        status="ok",
        privacy=privacy_of(cell, dataset, trainer),
        metrics=metrics,
        not_computed=scorer.missing(generator.conditioning),
        evaluated=evaluated(scorer.evaluation),
        cost=Cost(
            # Of a training that was interrupted, only the last part was timed.
            train_seconds=trainer.train_seconds if trainer and not trainer.resumed else None,
            train_examples_per_s=trainer.examples_per_s if trainer and trainer.examples else None,
            sample_seconds=sampled - start if cell.row != "oracle" else None,
            sample_images_per_s=count / (sampled - start) if cell.row != "oracle" else None,
            score_seconds=scored - sampled,
            peak_memory_mb=peak.megabytes,
        ),
        samples=f"samples/{name}.png",
        finetuned=kept,
    )


def failed_record(cell: Cell, dataset: Dataset, error: Exception, folder: Path) -> Record:
    """The record of a cell that raised.

    It tells what the ledger holds by then. Of an error that is not meant for users it tells the
    type and the place, not the text, which may quote a value of a private record.
    """
    try:
        weights = digests(files_of(cell))
    except UserError:
        weights = {}
    spent = _spent(ledger_of(folder, cell.identity(weights)), cell)
    return record_of(
        *(cell, dataset, weights),
        status="failed",
        reason=reason_of(error, cell),
        privacy=privacy_of(cell, dataset, None).model_copy(update={"epsilon_spent": spent}),
    )


def record_of(cell: Cell, dataset: Dataset, weights: dict[str, str], **found: Any) -> Record:
    """A record of this run of a cell: what is known of it beforehand, and what was found.

    Args:
        weights: digests of the public files that it begins with.
    """
    config = cell.config
    return Record(
        cell=cell.identity(weights),
        suite=config.suite.name,
        dataset=dataset.name,
        dataset_version=dataset.version,
        resolution=dataset.resolution,
        method=config.method.name,
        row=cell.row,
        seed=cell.seed,
        provenance=provenance(cell, weights),
        hardware=hardware.describe(hardware.pick_device(config.hardware.device)),
        config=public_config(cell),
        **found,
    )


def reason_of(error: Exception, cell: Cell) -> str:
    """Why something failed, as a record may tell it: see :func:`failed_record`."""
    if isinstance(error, UserError):
        return shortened(one_line(error, most=None), plain(cell.config))[:500]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _spent(path: Path, cell: Cell) -> float | None:
    """Epsilon of the queries that a failed cell made before it failed; None if nobody knows."""
    if not path.exists():
        return 0.0 if cell.row == "pretrained" else None
    plan = make_plan(cell)
    assert plan is not None
    try:
        return Ledger(path, plan.budget, writes=False).spent().epsilon
    except UserError:  # a damaged ledger may be why it failed
        return None


def seed_everything(seed: int) -> None:
    """Seeds of initialisation, captions and sampling; DP noise and Poisson draws have their own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still use it
    torch.manual_seed(seed)


def finetune(
    cell: Cell, generator: Any, dataset: Dataset, ledger_path: Path, device: torch.device
) -> Trainer | None:
    """Finetune a cell's generator on private records; None for rows that touch none.

    Every query goes into the ledger at ``ledger_path`` before it is released. All ranks take part:
    the first one calls the others.
    """
    plan = make_plan(cell)
    if plan is None:
        return None
    world = World.current()
    settings, machine = cell.method.finetuning, cell.config.hardware
    seeds = cell.config.privacy
    kept = checkpoints_of(cell, ledger_path)
    if world.leads:
        if not kept.started:
            keep_earlier(ledger_path)
        ranks.call(ledger_path.stem)
    with ranks.together():
        trainer = Trainer(
            plan,
            ledger=Ledger(ledger_path, plan.budget),
            device=device,
            amp=machine.amp,
            compile=machine.compile,
            pad=device.type != "cpu",
            checkpoints=kept,
            noise_seed=_own_seed(cell, seeds.noise_seed),
            sampling_seed=_own_seed(cell, seeds.sampling_seed),
            # Ranks leave together, where the trainer asks the first one: after a step.
            progress=partial(track, stops=world.size == 1),
            # A method that asks queries instead of training by gradients has none of these.
            **{k: settings[k] for k in FINETUNING if k in settings},
        )
        world.all(None)  # nobody charges a ledger that another rank has still to open
        generator.finetune(_sealed(dataset), trainer)
    return trainer


def _own_seed(cell: Cell, given: int | None) -> int | None:
    """A given seed, made the cell's own: seeds whose noise were the same would be no replicates."""
    if given is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{given} {cell.label}".encode()).digest()[:8])


def _sealed(dataset: Dataset) -> PrivateRecords:
    """The private records.

    Raises:
        UserError: they cannot be read. It does not say why: a record keeps the sentence, and a
            reason may name the file of a private record.
    """
    try:
        return dataset.private()
    except UserError as error:
        raise UserError(
            f"The private records of {dataset.name} cannot be read: look at the data set with "
            "`python -m benchmarks.doctor`, which says why."
        ) from error


def start_anew(cell: Cell, folder: Path) -> None:
    """Let the next run of a cell begin without a checkpoint, and with a ledger of its own."""
    ledger = ledger_of(folder, identity_of(cell))
    checkpoints_of(cell, ledger).remove()
    keep_earlier(ledger)


def ledger_of(folder: Path, name: str) -> Path:
    """The ledger of the latest run of a cell, in the suite's results folder."""
    return folder / "ledgers" / f"{name}.jsonl"


def checkpoints_of(cell: Cell, ledger: Path) -> Checkpoints:
    """Where an interrupted cell goes on from; to be removed when its record is saved.

    They belong to the ledger that was charged for their steps: the same cell of another suite or
    another results folder has one of its own, and begins anew.
    """
    place = hashlib.sha256(str(ledger.resolve()).encode()).hexdigest()[:8]
    folder = Path(cell.config.cache_dir) / "checkpoints" / f"{ledger.stem}-{place}"
    return Checkpoints(folder, cell.config.hardware.checkpoint_every, wanted=stopping.asked)


def samples_of(cell: Cell, name: str) -> Samples:
    """Where the cell's samples are; to be kept when its record is saved."""
    return Samples(cell.config.cache_dir, name)


def finetuned_of(cell: Cell, name: str) -> Finetuned:
    """Where the cell's finetuned weights are; to be kept when its record is saved."""
    return Finetuned(cell.config.cache_dir, name)


def images_of(row: Row, evaluation: Evaluation) -> int:
    """How many images a cell draws: one per prompt, or for the oracle one per held-out image."""
    return len(evaluation.held if row == "oracle" else evaluation.prompts)


def keep_earlier(ledger: Path) -> None:
    """Set aside the ledger of an earlier run of the same cell, under a number of its own.

    The new run draws new noise and is another generator with its own epsilon. What the earlier
    one spent stays on disk: its weights or samples may have been seen, and the two compose.
    """
    if not ledger.exists() or len(ledger.read_bytes().splitlines()) < 2:
        return  # killed before it asked anything: there is nothing to compose with
    number = 1
    while (aside := ledger.with_suffix(f".{number}.jsonl")).exists():
        number += 1
    ledger.rename(aside)


def _samples(
    cell: Cell, generator: Any, evaluation: Evaluation, device: torch.device
) -> Iterator[Tensor]:
    prompts = evaluation.prompts
    if cell.row == "oracle":
        for real in evaluation.held_images:
            yield generator.oracle(real.to(device)).cpu()
        return
    for images in track_images(generator.generate(prompts, cell.seed), len(prompts), "sampling"):
        yield images.cpu()


def privacy_of(cell: Cell, dataset: Dataset, trainer: Trainer | None) -> Privacy:
    """The budget and what was spent of it; without a trainer no private record was touched."""
    seeds = cell.config.privacy
    public: dict[str, Any] = {"epsilon_target": cell.epsilon, "records": dataset.private_records}
    if trainer is None:
        spent = 0.0 if cell.row == "pretrained" else None
        return Privacy(**public, epsilon_spent=spent, delta=None, relation=None, accountant=None)
    assert trainer.ledger is not None
    plan, spent_now = trainer.plan, trainer.spent()
    private = isinstance(plan, DPPlan)
    counts: Counter[Any] = trainer.ledger.counts
    return Privacy(
        **public,
        epsilon_spent=spent_now.epsilon,
        delta=spent_now.delta if private else None,
        relation=RELATION if private else None,
        accountant=spent_now.accountant if private else None,
        sampling="poisson" if private else "shuffled",
        sampling_probability=plan.expected_batch / dataset.private_records,
        noise_multiplier=plan.noise_multiplier,
        clip=plan.clip if math.isfinite(plan.clip) else None,
        sensitivity=trainer.sensitivity_used if private else None,
        expected_batch=plan.expected_batch,
        steps=plan.steps,
        reproducible_noise=private
        and not (seeds.noise_seed is None and seeds.sampling_seed is None),
        queries=[
            Query(
                sampling_probability=event.sampling_probability,
                noise_multiplier=event.noise_multiplier,
                count=count,
            )
            for event, count in counts.items()
        ],
    )


def public_config(cell: Cell) -> dict[str, Any]:
    """The resolved configuration without paths of the user's machine."""
    config: dict[str, Any] = without_paths(plain(cell.config))
    return config


def evaluated(evaluation: Evaluation) -> Evaluated:
    """The protocol as a record keeps it."""
    return Evaluated(
        protocol=evaluation.protocol.name,
        prompts=len(evaluation.prompts),
        prompts_sha256=evaluation.prompts_sha256,
        reference=evaluation.protocol.reference,
        preparation=evaluation.protocol.preparation,
    )


def provenance(cell: Cell, weights: dict[str, str]) -> Provenance:
    """Versions, code revision and digests of public weights, now."""
    return Provenance(
        code_revision=code_revision(),
        wavedp_version=wavedp.__version__,
        torch_version=torch.__version__,
        python_version=platform.python_version(),
        weights=weights,
        overlap=overlap(files_of(cell), cell.config.dataset.name),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
