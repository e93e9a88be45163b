"""The record: one validated JSON file per cell, from which every table and plot is made.

A record says what ran (resolved configuration, code revision, public weights, hardware), what it
cost in privacy (target, spent, every query) and in time and memory, and how it scored, with the
sample counts and the protocol of every metric. One of an older version is migrated when it is
loaded, and its file stays as it is: see ``MIGRATIONS``. A field that older records may lack needs
no new version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmarks.written import write
from wavedp.dp.errors import UserError

SCHEMA_VERSION = 1

Fields = dict[str, Any]

MIGRATIONS: Sequence[Callable[[Fields], Fields]] = ()
"""The first makes a record of version 2 of one of version 1, as their files have them, the next one
of version 3, and so on. Who raises ``SCHEMA_VERSION`` adds one, and keeps records of the version
before in ``tests/benchmarks/records``."""

Row = Literal["pretrained", "private", "non_private", "oracle"]

Direction = Literal["lower", "higher", "zero"]
"""What is better; ``zero`` is nearer to zero."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Query(_Part):
    """One kind of entry of the privacy ledger, counted."""

    sampling_probability: float
    noise_multiplier: float
    count: int


class Privacy(_Part):
    """The budget, and what was spent of it. Empty fields do not apply to the row.

    ``epsilon_target`` is 0 for the pretrained row (no private record was touched), inf for
    the non-private one, and None for the oracle, which is an evaluation and not a release.
    """

    epsilon_target: float | None
    epsilon_spent: float | None
    delta: float | None
    relation: str | None
    accountant: str | None
    unit: str = "one image with all its captions"
    records: int
    """N as declared in the dataset's config."""
    sampling: str | None = None
    sampling_probability: float | None = None
    noise_multiplier: float | None = None
    clip: float | None = None
    sensitivity: float | None = None
    """What the noise multiplier multiplies: the clip, and what rounding may add to it."""
    expected_batch: int | None = None
    steps: int | None = None
    reproducible_noise: bool = False
    """True if noise or Poisson seeds were given: then it is not a release."""
    queries: list[Query] = Field(default_factory=list)


class MetricValue(_Part):
    """One score. ``floor`` is what real images score against the same reference."""

    value: float
    direction: Direction
    n_samples: int
    n_reference: int | None = None
    floor: float | None = None
    protocol: str
    reads_private: bool = False
    """True for a metric that reads private records: an evaluation, never a release."""
    reads: Literal["nothing", "evaluation", "private"] | None = None
    """Which real images it reads, none of them covered by epsilon; None in older records."""
    unlike: str | None = None
    """The published measure that it must not be taken for, empty if there is none; None in older
    records."""
    standard_error: float | None = None
    """Of the value over draws of the samples; None where it cannot be estimated from one set."""
    weights: dict[str, str] = Field(default_factory=dict)
    """The metric's own public weights, by name in the registry, as SHA-256."""


class NotComputed(_Part):
    """A score that could not be computed, and why; no other number takes its place."""

    reason: str
    direction: Direction


class Evaluated(_Part):
    """Under which protocol the metrics were taken."""

    protocol: str
    prompts: int
    prompts_sha256: str
    """Of the prompts in order, each followed by a newline, in UTF-8."""
    reference: Literal["rest", "all"]
    preparation: str


class Rescored(_Part):
    """Metrics that a finished record gained later, from the samples that its cell had drawn.

    Nothing was trained and nothing released for them: privacy, cost and provenance stay those of
    the run.
    """

    metrics: list[str]
    code_revision: str
    torch_version: str
    device: str
    created: str
    """UTC, ISO 8601."""


class Cost(_Part):
    """Seconds, rates and memory. Training rates come from T x E[batch], a public number."""

    train_seconds: float | None = None
    train_examples_per_s: float | None = None
    sample_seconds: float | None = None
    sample_images_per_s: float | None = None
    score_seconds: float | None = None
    peak_memory_mb: float | None = None


class Provenance(_Part):
    """Where the numbers come from."""

    code_revision: str
    wavedp_version: str
    torch_version: str
    python_version: str
    weights: dict[str, str]
    """Public weights by part, as SHA-256."""
    overlap: Literal["none", "checked", "unknown"] | None = None
    """Whether the data behind those weights share images with the private records; None in
    older records."""
    created: str
    """UTC, ISO 8601."""


class Hardware(_Part):
    """The machine."""

    device: str
    processor: str
    threads: int
    memory_gb: float


class Record(_Part):
    """One cell of the grid."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    cell: str
    suite: str
    dataset: str
    dataset_version: str
    resolution: int
    method: str
    row: Row
    seed: int
    status: Literal["ok", "failed", "untrained"]
    """``untrained``: networks with random weights went the whole way, and nothing was measured."""
    reason: str | None = None
    """Why it failed, in one sentence."""
    privacy: Privacy
    metrics: dict[str, MetricValue] = Field(default_factory=dict)
    not_computed: dict[str, NotComputed] = Field(default_factory=dict)
    evaluated: Evaluated | None = None
    rescored: list[Rescored] = Field(default_factory=list)
    """In order; empty in older records."""
    cost: Cost = Field(default_factory=Cost)
    provenance: Provenance
    hardware: Hardware
    config: dict[str, Any]
    samples: str | None = None
    """A strip of samples, PNG, relative to the suite's folder."""
    finetuned: str | None = None
    """SHA-256 of the finetuned weights in the user's cache; None where none were kept, and in older
    records."""

    @model_validator(mode="after")
    def _random_weights_have_no_results(self) -> Record:
        if self.status == "untrained" and (self.metrics or self.samples or self.finetuned):
            raise ValueError("networks with random weights have no scores, samples or weights")
        return self


def save(record: Record, folder: Path) -> Path:
    """Write ``folder/<cell>.json`` atomically and return its path.

    Raises:
        UserError: the disk does not take it; what was there stays.
    """
    path = folder / f"{record.cell}.json"
    try:
        return write(path, record.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"The record {path} cannot be written ({error.strerror or error}): free some space or "
            "mend the folder, and run the same command again."
        ) from error


def load(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: the file cannot be read, is not a record, or is of a newer schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): mend it, or move it out of the "
            "results folder."
        ) from error
    return parse(content, path)


def parse(content: bytes, place: str | Path) -> Record:
    """Read one record from the content of its file.

    Args:
        place: where it lies, for the error.

    Raises:
        UserError: as :func:`load`.
    """
    try:
        fields = json.loads(content)
        version = fields["schema_version"]
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{place} is a record of schema {version}, and this WaveDP reads schema "
                f"{SCHEMA_VERSION} or older: update it, or move the file out of the results "
                "folder."
            )
        if version < SCHEMA_VERSION:
            content = json.dumps(_migrated(fields, version)).encode()
        return Record.model_validate_json(content)
    # Of a file that is not JSON, or of another shape; pydantic's error is a ValueError.
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(
            f"{place} is not a record of schema {SCHEMA_VERSION} or older, or is damaged: move it "
            "out of the results folder."
        ) from error


def _migrated(fields: Fields, version: int) -> Fields:
    """A record's fields as the present schema has them."""
    if version < 1:
        raise ValueError("there is no such version")
    for migrate in MIGRATIONS[version - 1 :]:
        fields, version = migrate(fields), version + 1
    return {**fields, "schema_version": version}


def load_folder(folder: Path) -> list[Record]:
    """All records of a folder, sorted by cell; an empty list if there is none.

    Raises:
        UserError: as :func:`load` or :func:`results_only`, or a file does not have the name of its
            cell, of which there may be another one.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        record = load(path)
        if record.cell != path.stem:
            raise UserError(
                f"{path} holds the record of {record.cell}: give it that name, or move it out of "
                "the results folder if it is a copy."
            )
        records.append(record)
    return results_only(records, folder)


def results_only(records: Iterable[Record], place: str | Path) -> list[Record]:
    """The records, if all of them may stand in a table.

    Args:
        place: where they lie, for the error.

    Raises:
        UserError: one is of a run with random weights, which is never a result.
    """
    found = list(records)
    for record in found:
        if record.status == "untrained":
            raise UserError(
                f"{place} holds {record.cell}, which networks with random weights made "
                "(untrained=true): it is no result, move it out of there."
            )
    return found
