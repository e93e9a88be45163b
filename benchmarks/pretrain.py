"""Make the public checkpoints: ``python -m benchmarks.pretrain method=dp_wavelet``.

Trains the stages of a method on its public corpus, in order, and writes one checkpoint and
one record per stage into ``wavedp/weights``. ``stage=prior`` makes that one alone; stages that
exist are kept unless ``force=true``. What is interrupted goes on from its last checkpoint when the
same command is given again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks import hardware
from benchmarks.cell import seed_everything
from benchmarks.config import compose, make, plain
from benchmarks.console import console, run_command, track
from benchmarks.digest import sha256_of_lines
from benchmarks.provenance import code_revision
from benchmarks.weights import load_parts, path_of, save_part
from wavedp.data.schema import PublicDataset
from wavedp.dp.checkpoint import Checkpoints
from wavedp.dp.errors import UserError
from wavedp.dp.plan import NonPrivatePlan
from wavedp.dp.trainer import Trainer


def main(overrides: list[str]) -> int:
    """Pretrain the stages of the method that the overrides name; returns the exit code."""
    stages = [o.removeprefix("stage=") for o in overrides if o.startswith("stage=")]
    overrides = [o for o in overrides if not o.startswith("stage=")]
    config = compose(overrides)
    method = config.method
    device = hardware.pick_device(config.hardware.device)
    seed_everything(config.seed)  # weights begin from it, too
    generator: Any = make(method.generator).to(device)
    for name in stages:
        if name not in generator.stages:
            raise UserError(
                f"Method {method.name} has no stage {name!r}: "
                f"choose one of {', '.join(generator.stages)}."
            )
    # Later stages than the last one asked for play no part.
    last = max((generator.stages.index(name) for name in stages), default=None)
    for stage in generator.stages[: None if last is None else last + 1]:
        exists = path_of(method.weights[stage]).exists()
        if exists and not (config.force and (not stages or stage in stages)):
            load_parts(generator, {stage: method.weights[stage]})
            console.print(f"{stage}: {method.weights[stage]} exists (force=true makes it anew)")
        elif not stages or stage in stages:
            _make(stage, generator, config, device)
    return 0


def _make(stage: str, generator: Any, config: Any, device: torch.device) -> None:
    settings = config.method.pretraining[stage]
    public: PublicDataset = make(config.method.public)
    held_out = public.records(0, settings.held_out, track)
    records = public.records(settings.held_out, settings.held_out + settings.records, track)
    seed_everything(config.seed)
    kept = _checkpoints(stage, config)
    trainer = Trainer(
        NonPrivatePlan(settings.batch, settings.steps),
        device=device,
        micro_batch=settings.batch,
        sampling_seed=config.seed,
        ema_decay=settings.ema_decay,
        checkpoints=kept,
        progress=track,
    )
    generator.pretrain(stage, records, trainer)
    report = {k: round(v, 4) for k, v in generator.report(stage, held_out).items()}
    made = {
        "command": f"python -m benchmarks.pretrain method={config.method.name} stage={stage} "
        f"seed={config.seed} force=true",
        "public": {"name": public.name, "version": public.version, "records": len(records)},
        "settings": plain(settings),
        "generator": plain(config.method.generator),
        "report": report,
        "seconds": round(trainer.train_seconds, 1),
        "hardware": hardware.describe(device).model_dump(),
        "torch": torch.__version__,
        "code_revision": code_revision(),
    }
    path = save_part(generator.get_submodule(stage), config.method.weights[stage], made)
    kept.remove()
    figures = ", ".join(f"{name} {value:g}" for name, value in report.items())
    console.print(f"{stage}: {path.name}, {trainer.train_seconds:.0f} s of training; {figures}")


def _checkpoints(stage: str, config: Any) -> Checkpoints:
    """Where an interrupted stage goes on from: one folder for each set of settings."""
    method = config.method
    parts = (stage, plain(method.generator), plain(method.public), plain(method.pretraining[stage]))
    digest = sha256_of_lines([json.dumps([*parts, config.seed], sort_keys=True)])[:8]
    folder = Path(config.cache_dir) / "checkpoints" / f"pretrain-{method.name}-{stage}-{digest}"
    return Checkpoints(folder, config.hardware.checkpoint_every)


if __name__ == "__main__":
    run_command(main)
