"""Make the public checkpoints: ``python -m benchmarks.pretrain method=dp_wavelet``.

Trains the stages of a method on its public corpus, in order, and writes one checkpoint and
one record per stage into ``wavedp/weights``. ``stage=prior`` makes that one alone; stages that
exist are kept unless ``force=true``. A stage that was interrupted goes on from its last checkpoint
when it is asked for again, by the same settings and code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks import hardware, stopping
from benchmarks.cell import seed_everything
from benchmarks.config import compose, make, plain
from benchmarks.console import console, run_command, track
from benchmarks.digest import sha256_of_lines
from benchmarks.paths import told, without_paths
from benchmarks.provenance import code_revision
from benchmarks.weights import digests, load_parts, path_of, round_to_half, save_part
from wavedp.data.schema import PublicDataset
from wavedp.dp.checkpoint import Checkpoints, code_version
from wavedp.dp.errors import UserError
from wavedp.dp.plan import NonPrivatePlan
from wavedp.dp.trainer import Trainer


def main(overrides: list[str]) -> int:
    """Pretrain the stages of the method that the overrides name; returns the exit code."""
    chosen = [o.removeprefix("stage=") for o in overrides if o.startswith("stage=")]
    overrides = [o for o in overrides if not o.startswith("stage=")]
    config = compose(overrides)
    method = config.method
    device = hardware.pick_device(config.hardware.device)
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    seed_everything(config.seed)  # weights begin from it, too
    published = digests(method.get("published", {}))  # refuses what is missing
    generator: Any = make(method.generator).to(device)
    for name in chosen:
        if name not in generator.stages:
            raise UserError(
                f"Method {method.name} has no stage {name!r}: "
                f"choose one of {', '.join(generator.stages)}."
            )
    for stage in chosen or generator.stages:
        if path_of(method.weights[stage]).exists() and not config.force:
            console.print(f"{stage}: {method.weights[stage]} exists (force=true makes it anew)")
            continue
        needed = {name: method.weights[name] for name in generator.stages[stage]}
        digests(needed)  # refuses what is missing
        load_parts(generator, needed)
        command = " ".join(["python -m benchmarks.pretrain", *told(overrides), f"stage={stage}"])
        _make(stage, generator, config, device, command, published)
    return 0


def _make(
    stage: str,
    generator: Any,
    config: Any,
    device: torch.device,
    command: str,
    published: dict[str, str],
) -> None:
    settings = config.method.pretraining[stage]
    public: PublicDataset = make(config.method.public)
    held_out = public.records(0, settings.held_out, track)
    records = public.records(settings.held_out, settings.held_out + settings.records, track)
    seed_everything(config.seed)
    kept = _checkpoints(stage, generator, config)
    trainer = Trainer(
        NonPrivatePlan(settings.batch, settings.steps),
        device=device,
        amp=config.hardware.amp,
        compile=config.hardware.compile,
        micro_batch=settings.get("micro_batch", settings.batch),
        sampling_seed=config.seed,
        ema_decay=settings.ema_decay,
        checkpoints=kept,
        progress=track,
    )
    generator.pretrain(stage, records, trainer)
    part, half = generator.get_submodule(stage), settings.get("half", False)
    if half:
        round_to_half(part)  # the report is of what the file holds
    report = {k: round(v, 4) for k, v in generator.report(stage, held_out).items()}
    package = config.method.get("package")  # whose code it is, where it is not this project's
    made = {
        "command": command,
        "public": {"name": public.name, "version": public.version, "records": len(records)},
        "settings": plain(settings),
        "generator": without_paths(plain(config.method.generator)),
        **({"published": published} if published else {}),
        **({"package": plain(package)} if package else {}),
        "report": report,
        "seconds": None if trainer.resumed else round(trainer.train_seconds, 1),
        "hardware": hardware.describe(device).model_dump(),
        "torch": torch.__version__,
        "code_revision": code_revision(),
    }
    path = save_part(part, config.method.weights[stage], made, half=half)
    kept.remove()
    figures = ", ".join(f"{name} {value:g}" for name, value in report.items())
    console.print(f"{stage}: {path.name}, {trainer.train_seconds:.0f} s of training; {figures}")


def _checkpoints(stage: str, generator: Any, config: Any) -> Checkpoints:
    """Where an interrupted stage goes on from: a folder for what would give the same weights."""
    method = config.method
    needed = digests({name: method.weights[name] for name in generator.stages[stage]})
    settings = [plain(part) for part in (method.generator, method.public)]
    settings.append(plain(method.pretraining[stage]))
    same = [stage, *settings, needed, config.seed, code_version(type(generator))]
    digest = sha256_of_lines([json.dumps(same, sort_keys=True)])[:8]
    folder = Path(config.cache_dir) / "checkpoints" / f"pretrain-{method.name}-{stage}-{digest}"
    return Checkpoints(folder, config.hardware.checkpoint_every, wanted=stopping.asked)


if __name__ == "__main__":
    run_command(main)
