"""Finished cells that lack a metric: scored from their kept samples, never run again for it.

A metric may be asked for later, its weights fetched later, or its ruler changed since: another
protocol, other weights, another number of reference images. The samples are released already, so
to score them trains nothing, charges no ledger and changes nothing else in the record. Scores on
other prompts do not belong beside those of a table: that is refused before a run starts.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.batches import Batches
from benchmarks.cell import evaluated, identity_of, images_of, samples_of
from benchmarks.config import Cell, conditioning_of, load_choice, make
from benchmarks.evaluation import Evaluation
from benchmarks.hardware import describe
from benchmarks.metrics import Metric, directions
from benchmarks.provenance import code_revision
from benchmarks.record import Direction, MetricValue, NotComputed, Record, Rescored, load
from benchmarks.registry import Unavailable
from benchmarks.scorer import Ruler, Scorer, ruler_of
from wavedp.dp.errors import UserError

GONE = (
    "the samples of this cell are not kept on this machine; force=true draws them anew, which for "
    "a private row is another release whose epsilon composes with the first"
)
OTHER_RULER = (
    "the number shown was taken by another ruler (protocol, weights or number of reference images) "
    f"than newer ones, and {GONE}"
)
LOST = (GONE, OTHER_RULER)
"""What a record says of scores that would take samples which are no more."""


def finished(cell: Cell, folder: Path) -> Record | None:
    """The record of a cell that succeeded and is not to be run again, if there is one.

    Args:
        folder: the suite's results folder.
    """
    path = folder / "records" / f"{identity_of(cell)}.json"
    if cell.config.force or not path.exists():
        return None
    record = load(path)
    return record if record.status == "ok" else None


def lacking(
    cell: Cell, record: Record, names: Sequence[str], evaluation: Evaluation
) -> dict[str, dict[str, Direction]]:
    """Those of some metrics that say something of the cell's method and have no score yet.

    A score that was taken by another ruler than the metric's on this machine is none.

    Returns:
        For each such metric its numbers without a score, and their directions.
    """
    conditioning = conditioning_of(cell)
    found: dict[str, dict[str, Direction]] = {}
    for name in names:
        metric: Metric = make(load_choice("metric", name))
        if not metric.applies_to(conditioning):
            continue
        ruler: Ruler | None = None
        with suppress(Unavailable):  # nothing here could measure anew what is there
            ruler = ruler_of(metric, evaluation, cell.config.dataset.private_records)
        parts = {
            part: direction
            for part, direction in directions(name, metric).items()
            if part not in record.metrics or (ruler and not ruler.took(record.metrics[part]))
        }
        if parts:
            found[name] = parts
    return found


def rescore(
    cell: Cell,
    record: Record,
    names: Sequence[str],
    scorer: Scorer,
    folder: Path,
    device: torch.device,
) -> Record:
    """The record with the metrics that it lacked, as far as they can be computed now.

    Where they cannot, it says why. Privacy, cost, provenance and all other scores stay.

    Args:
        names: the metrics that are asked for; those of them that ``scorer`` has open are computed.
        folder: the suite's results folder.
    """
    wanted = lacking(cell, record, names, scorer.evaluation)
    missing = scorer.missing(conditioning_of(cell))
    count, strip = images_of(cell.row, scorer.evaluation), folder / (record.samples or "")
    images = samples_of(cell, record.cell).open(count, strip)
    if images is None:
        why = {
            part: NotComputed(
                reason=OTHER_RULER if part in record.metrics else GONE, direction=direction
            )
            for parts in wanted.values()
            for part, direction in parts.items()
        }
        return _with(record, {}, missing | why)
    prompts, chosen = scorer.evaluation.prompts, [n for n in wanted if n in scorer.metrics]
    values = scorer.values(Batches(images), prompts, conditioning_of(cell), chosen)
    new = _with(record, values, missing)
    if not values:
        return new
    note = Rescored(
        metrics=list(values),
        code_revision=code_revision(),
        torch_version=torch.__version__,
        device=describe(device).device,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return new.model_copy(update={"rescored": [*record.rescored, note]})


def _with(
    record: Record, values: dict[str, MetricValue], missing: dict[str, NotComputed]
) -> Record:
    scores = record.metrics | values
    # Of samples that were gone and are here again, nothing is left to say.
    earlier = {name: why for name, why in record.not_computed.items() if why.reason not in LOST}
    absent = {
        name: why
        for name, why in (earlier | missing).items()
        if name not in scores or why.reason == OTHER_RULER
    }
    return record.model_copy(update={"metrics": scores, "not_computed": absent})


def check_prompts(records: Iterable[Record], evaluation: Evaluation, folder: Path) -> None:
    """Refuse to put scores on other prompts into the table of a results folder.

    Args:
        records: what the folder holds of one data set, but for what is to be run again.
        evaluation: what this run scores on.

    Raises:
        UserError: a record was scored under another protocol, or on more, fewer or other prompts.
    """
    for record in records:
        difference = _difference(record, evaluation)
        if difference:
            raise UserError(
                f"{folder} holds {record.cell}, scored {difference}draw all rows anew in a table "
                "of their own (suite.name=...) or in this one (force=true), which for private rows "
                "is another release whose epsilon composes with the first."
            )


def _difference(record: Record, evaluation: Evaluation) -> str:
    """What is not as it was, and the way that costs nothing; empty if the two agree."""
    had, asked = record.evaluated, evaluated(evaluation)
    if had is not None and had.protocol != asked.protocol:
        return f"under protocol {had.protocol}, and this run is under {asked.protocol}: "
    # Older records tell the number of samples alone.
    counts = [had.prompts] if had else [score.n_samples for score in record.metrics.values()]
    now = asked.prompts if had else images_of(record.row, evaluation)
    if counts and max(counts) != now:
        count = max(counts)
        return (
            f"on {count:,} prompts, and this run asks for {now:,}: set suite.samples={count}, or "
        )
    if had and (had.prompts_sha256, had.reference) != (asked.prompts_sha256, asked.reference):
        return "on other prompts, as captions or protocol have changed since: restore them, or "
    return ""
