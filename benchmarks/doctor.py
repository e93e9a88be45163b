"""Examine a data set: ``python -m benchmarks.doctor dataset=coco2017 dataset.root=/data/coco``.

Finds and explains what is wrong with a copy: missing, corrupt and unsafe files, images without
captions, wrong counts, swapped splits, leakage between training and evaluation, duplicates within
and between the private, evaluation and public sides, odd captions and images. It reads every image
in full. ``public=parquet public.root=...`` examines a public corpus together with the data set.

It changes nothing: what to do is the owner's decision, and the private set is what the config
declares. What it says depends on private images: it is for their owner and is **not a release**.
The report goes to a folder that only its owner can open, or to ``json=path``.

``suite=real64 dataset.root=...`` examines the data set of a suite, as a run of it would use it.

Exit code: 0 nothing found, 1 something found, 2 it could not run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.config import cells, compose, make
from benchmarks.console import console, run_command, track
from benchmarks.diagnosis import Examination, diagnose
from benchmarks.written import write
from wavedp.data.findings import Finding
from wavedp.data.photos import PRIVATE, PUBLIC, PhotoCorpus, PhotoFolder
from wavedp.dp.errors import UserError
from wavedp.dp.store import private_folder

NOTE = (
    "This report depends on private images: it is for their owner's eyes and is not a release. "
    "Do not publish it, and base no choice on it that is released without privacy."
)
_SHOWN = 3


def main(overrides: list[str]) -> int:
    """Examine the data set that the overrides name; returns the exit code."""
    start = time.perf_counter()
    wanted = [o.removeprefix("json=") for o in overrides if o.startswith("json=")]
    config = _config([_placed(o) for o in overrides if not o.startswith("json=")])
    dataset = _examinable(make(config.dataset))
    corpus = _examinable(make(config.public)) if "public" in config else None
    if corpus is not None and not isinstance(corpus, PhotoCorpus):
        raise UserError(f"{corpus.name} is no public corpus: name one, e.g. public=parquet.")
    path = _report_path(wanted, dataset, Path(config.cache_dir))
    findings: list[Finding] = []
    sides = [
        Examination.of(folder, side, photos, track)
        for folder in (dataset, *([corpus] if corpus else []))
        for side, photos in folder.survey(findings.append).items()
    ]
    findings += diagnose(sides, track)
    seconds = time.perf_counter() - start
    _write(path, dataset, sides, findings, seconds)
    _show(dataset, sides, condensed(findings), seconds)
    console.print(f"Report: {path}", soft_wrap=True, markup=False)
    return 1 if findings else 0


def condensed(findings: Sequence[Finding]) -> list[Finding]:
    """For people: where a kind was found many times on a side, one finding for all of them.

    The report in JSON keeps them apart.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.side), []).append(finding)
    return [finding for group in groups.values() for finding in _condensed(group)]


def _condensed(group: list[Finding]) -> list[Finding]:
    if len(group) <= _SHOWN:
        return group
    items = tuple(item for finding in group for item in finding.items)
    text = f"Found {len(group)} times. The first: {group[0].text}"
    return [Finding(group[0].kind, group[0].side, items, text)]


def _config(overrides: list[str]) -> DictConfig:
    """The configuration; a suite that is named without a data set brings its own, the first one."""
    named = {o.partition("=")[0] for o in overrides}
    if "suite" in named and "dataset" not in named:
        return cells(overrides)[0].config
    return compose(overrides)


def _placed(override: str) -> str:
    """``public=parquet`` is a choice from the group of data sets, put at ``public``."""
    name, equals, value = override.partition("=")
    return f"+dataset@public={value}" if name == PUBLIC and equals else override


def _examinable(dataset: Any) -> PhotoFolder:
    if not isinstance(dataset, PhotoFolder):
        raise UserError(
            f"{dataset.name} is drawn by a program and has no files to examine: name a data set "
            "of photographs, e.g. dataset=coco2017 dataset.root=/data/coco."
        )
    return dataset


def _report_path(wanted: Sequence[str], dataset: PhotoFolder, cache: Path) -> Path:
    """Where the report goes; found out before the work, which can take an hour."""
    try:
        if wanted:
            path = Path(wanted[-1]).expanduser()
            if path.is_dir():
                raise UserError(f"json={path} is a folder: name a file.")
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            path = private_folder(cache / "doctor") / f"{dataset.name}-{dataset.version}.json"
        if not os.access(path.parent, os.W_OK):
            raise OSError(f"no permission in {path.parent}")
    except OSError as error:
        raise UserError(
            f"The report cannot be written ({error}): set json= to a file that can be written."
        ) from error
    return path


def _write(
    path: Path,
    dataset: PhotoFolder,
    sides: Sequence[Examination],
    findings: Sequence[Finding],
    seconds: float,
) -> None:
    content = {
        "schema_version": 1,
        "note": NOTE,
        "dataset": dataset.name,
        "version": dataset.version,
        "examined": {side.side: len(side.photos) for side in sides},
        "seconds": round(seconds, 1),
        "findings": [
            {
                "kind": str(finding.kind),
                "side": finding.side,
                "count": len(finding.items),
                "items": finding.items,
                "text": finding.text,
            }
            for finding in findings
        ],
    }
    write(path, json.dumps(content, indent=1) + "\n", for_owner=True)


def _show(
    dataset: PhotoFolder,
    sides: Sequence[Examination],
    findings: Sequence[Finding],
    seconds: float,
) -> None:
    """A table for people, of at most the terminal's width."""
    out = Console(highlight=False)
    counts = ", ".join(f"{len(side.photos):,} {side.side}" for side in sides)
    out.print(f"{dataset.name} {dataset.version}: {counts} records, {seconds:.0f} s", markup=False)
    if findings:
        out.print(_table(findings))
    for number, finding in enumerate(findings, 1):
        out.print(f"{number}. {finding.text}{_more(finding)}\n", markup=False)
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    out.print(f"{count}, explained above." if findings else "Nothing found.")
    if any(side.side == PRIVATE for side in sides):
        out.print(NOTE, markup=False)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "finding", "side", "count", "first")
    for number, finding in enumerate(findings, 1):
        cells = (str(number), str(finding.kind), finding.side, f"{len(finding.items):,}")
        table.add_row(*cells, escape(finding.items[0]))
    return table


def _more(finding: Finding) -> str:
    """A few of the other items; the report has all."""
    items = finding.items[1 : 1 + _SHOWN]
    rest = ", ..." if len(finding.items) > 1 + _SHOWN else ""
    return f" Others: {', '.join(items)}{rest}" if items else ""


if __name__ == "__main__":
    run_command(main)
