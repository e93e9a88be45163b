"""Publish a finetuned generator: ``python -m benchmarks.export RECORD FOLDER``.

Writes the generator of a recorded cell as a folder: its weights, as safetensors, its settings, a
model card and the record. ``wavedp.published.load`` reads it. The weights are those that the run
has kept in the user's cache; nothing is trained, and no budget is spent.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save

from benchmarks.card import card, not_a_release
from benchmarks.console import console, run_command
from benchmarks.finetuned import Finetuned
from benchmarks.record import Cost, Record, load
from benchmarks.weights import digests, state_of
from wavedp import published
from wavedp.dp.accounting import Event, epsilon_of
from wavedp.dp.errors import UserError

SLACK = 1e-6
"""Relative: by how much an epsilon that is computed again may differ on another machine."""


def main(arguments: list[str]) -> int:
    """Write the folder that the arguments name; returns the exit code."""
    given = _parser().parse_args(arguments)
    record = _record(given.record)
    _check(record, given.not_a_release)
    if given.folder.exists() and (not given.folder.is_dir() or any(given.folder.iterdir())):
        raise UserError(f"{given.folder} exists and is not empty; name a new folder.")
    files = dict(part.partition("=")[::2] for part in given.weights)
    finetuned, public = _weights(record, given.cache, files)
    _write(record, given.folder, finetuned, public)
    console.print(f"Wrote {given.folder}; its README.md says what it is.", soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.export",
        description="Write the finetuned generator of a recorded cell as a folder to publish.",
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="results/SUITE/records/*.json")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new one")
    parser.add_argument(
        "--cache", default=".cache", metavar="DIR", help="the run's cache_dir (default: .cache)"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="PART=FILE",
        help="public weights that the run was given as paths, which records do not tell",
    )
    parser.add_argument(
        "--not-a-release",
        action="store_true",
        help="export weights that no privacy covers: non-private rows, reproducible noise",
    )
    return parser


def _record(path: Path) -> Record:
    if not path.is_file():
        raise UserError(f"There is no record {path}; name one, results/SUITE/records/CELL.json.")
    return load(path)


def _check(record: Record, allowed: bool) -> None:
    """Refuse what was not finetuned, what protects nobody, and an epsilon that does not follow."""
    if record.status != "ok":
        raise UserError(f"{record.cell} failed, so there is no generator of it: run it again.")
    if record.row not in ("private", "non_private"):
        raise UserError(
            f"{record.cell} is a row of public weights alone, and nothing of it was finetuned: "
            "name the record of a private row."
        )
    warning = not_a_release(record)
    if warning and not allowed:
        raise UserError(
            f"{record.cell} is not a release: {warning} Give --not-a-release if you want it all "
            "the same."
        )
    privacy = record.privacy
    if record.row != "private":
        return
    assert privacy.delta is not None
    assert privacy.accountant is not None
    counts = {Event(q.sampling_probability, q.noise_multiplier): q.count for q in privacy.queries}
    again = epsilon_of(counts, privacy.delta, privacy.accountant)
    if again > (privacy.epsilon_spent or 0.0) * (1 + SLACK):
        raise UserError(
            f"The record of {record.cell} says epsilon {privacy.epsilon_spent}, and its queries "
            f"cost {again:.6g}: it was changed, so restore the one that the run wrote."
        )


def _weights(record: Record, cache: str, files: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    """The kept file of finetuned weights, and the public checkpoints of the others by part."""
    kept = Finetuned(cache, record.cell)
    content = kept.open(record.finetuned) if record.finetuned else None
    if content is None:
        raise UserError(
            f"The finetuned weights of {record.cell} are not in {kept.file.parent}: name the "
            "cache_dir of the run by --cache, or run the cell again (force=true "
            "keep_weights=true), which for a private row is another release whose epsilon "
            "composes with the first."
        )
    names = {**record.config["method"].get("weights", {}), **files}
    parts = kept.public_parts
    for part in files:
        if part not in parts:
            raise UserError(
                f"--weights {part}=... is for no part of this generator: choose one of "
                f"{', '.join(parts) or 'none'}."
            )
    for part in parts:
        if part not in names:
            raise UserError(
                f"The record does not tell where the public weights of the part {part!r} lie: "
                f"give --weights {part}=FILE."
            )
    public = {part: names[part] for part in parts}
    for part, digest in digests(public).items():
        if digest != record.provenance.weights[part]:
            raise UserError(
                f"The public weights {public[part]} of the part {part!r} are not those of the run "
                f"(SHA-256 {record.provenance.weights[part][:16]}…): restore that file, or give "
                f"--weights {part}=FILE."
            )
    return content, public


def _write(record: Record, folder: Path, finetuned: bytes, public: Mapping[str, str]) -> None:
    """Write the folder beside its place, and give it its name when it is whole."""
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.tmp")
    partial.mkdir(parents=True)
    own = load_tensors(finetuned)
    rest = {name: tensor for name, tensor in state_of(public).items() if name not in own}
    told = public_record(record)
    try:
        published.write(
            partial,
            record.method,
            record.config["method"]["generator"],
            record.provenance.weights,
            finetuned=finetuned,
            public=save(rest),
        )
        files = json.loads((partial / published.CONFIG).read_text(encoding="utf-8"))["files"]
        (partial / "README.md").write_text(card(told, list(public), files), encoding="utf-8")
        (partial / "record.json").write_text(told.model_dump_json(indent=1) + "\n", "utf-8")
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); free some space or name "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def public_record(record: Record) -> Record:
    """The record without what depends on private records and is covered by no epsilon.

    Those are scores that read them, what training took on the machine, and seeds of the noise.
    """
    cost = record.cost
    privacy = {k: v for k, v in record.config["privacy"].items() if not k.endswith("_seed")}
    return record.model_copy(
        update={
            "metrics": {k: v for k, v in record.metrics.items() if not v.reads_private},
            "cost": Cost(
                sample_seconds=cost.sample_seconds,
                sample_images_per_s=cost.sample_images_per_s,
                score_seconds=cost.score_seconds,
            ),
            "config": record.config | {"privacy": privacy},
        }
    )


if __name__ == "__main__":
    run_command(main)
