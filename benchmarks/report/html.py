"""The report as one HTML file that fetches nothing: images, style and script are inside."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.record import Record
from benchmarks.report.comparison import compare
from benchmarks.report.facts import clean, datasets, epsilon_text, label, line_label, number
from benchmarks.report.frame import LineKey, lines, select
from benchmarks.report.grid import Grid, Row
from benchmarks.report.intervals import intervals
from benchmarks.report.marks import EXPLANATION, FLOOR_TITLE, READ
from benchmarks.report.notes import footer, headlines, overspent
from benchmarks.report.plots import Plot
from benchmarks.report.quoted import COLUMNS, WARNING, quoted, title
from benchmarks.report.setup import evaluation

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Pictures:
    """The images of one dataset; nothing where there are none."""

    plots: Mapping[str, Plot]
    """By name, see :data:`benchmarks.report.plots.FIGURES`."""
    grids: tuple[Grid, ...]
    """All prompts, for the page."""
    grid: bytes | None
    """The first prompts as one picture, PNG, for files beside the page."""
    glance: bytes | None
    """That of all methods at the largest finite epsilon alone, for pages with less room."""
    prompts: tuple[str, ...]


def render(records: Sequence[Record], pictures: Mapping[str, Pictures]) -> str:
    """The whole report as HTML, from records and their pictures by dataset."""
    ordered = select(records)
    page = environment()
    page.filters |= {"data_uri": data_uri, "label": label, "number": number, "row_alt": row_alt}
    return page.get_template(TEMPLATE).render(
        suite=label(ordered[0].suite),
        facts=_facts(ordered),
        headlines=headlines(ordered),
        sections=[_section(ordered, name, pictures[name]) for name in datasets(ordered)],
        bands=any("bands" in images.plots for images in pictures.values()),
        footer=footer(ordered),
        intervals=intervals(ordered),
        ledger=[_ledger(r, key) for key, cells in lines(ordered).items() for r in cells],
        provenance=_provenance(ordered),
        floor_title=FLOOR_TITLE,
        quoted_columns=COLUMNS,
        quoted_warning=WARNING,
        explanation=EXPLANATION,
        read=READ,
    )


def environment() -> Environment:
    """Where templates of pages are; whatever they are given is escaped."""
    # The suffix .j2 hides the type of the file, so escaping is switched on by hand.
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as the address of an image inside the page."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def row_alt(row: Row) -> str:
    """What a row of samples shows, for who does not see it."""
    return f"{row.group}{f', {row.title}' if row.title else ''}: images for the same prompts."


def _facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The handful of counts under the title."""
    failed = sum(record.status == "failed" for record in records)
    private = {r.privacy.epsilon_target for r in records if r.row == "private"}
    budgets = ", ".join(epsilon_text(e) for e in sorted(e for e in private if e is not None))
    return [
        ("methods", str(len({record.method for record in records}))),
        ("datasets", str(len({record.dataset for record in records}))),
        ("private budgets ε", budgets or "none"),
        ("seeds", str(len({record.seed for record in records}))),
        ("cells", f"{len(records)}, {failed} failed" if failed else str(len(records))),
    ]


def _section(records: Sequence[Record], dataset: str, pictures: Pictures) -> dict[str, Any]:
    mine = [record for record in records if record.dataset == dataset]
    return {
        "name": label(dataset),
        "anchor": f"d{datasets(records).index(dataset)}",
        "about": _about(mine),
        "comparison": compare(records, dataset),
        "pictures": pictures,
        "quoted": quoted(records, dataset),
        "quoted_title": title(dataset),
    }


def _about(records: Sequence[Record]) -> str:
    sizes = sorted({record.resolution for record in records})
    versions = sorted({clean(record.dataset_version) for record in records})
    counts = sorted({record.privacy.records for record in records})
    protocols = sorted({clean(text) for text in map(evaluation, records) if text})
    return (
        f"{', '.join(f'{size} × {size}' for size in sizes)} pixels, "
        f"{', '.join(f'{count:,}' for count in counts)} private records, "
        f"version {', '.join(versions)}{''.join(f'; {text}' for text in protocols)}"
    )


def _ledger(record: Record, key: LineKey) -> dict[str, Any]:
    privacy = record.privacy
    queries = [
        f"{query.count:,} × (q = {number(query.sampling_probability)}, "
        f"σ = {number(query.noise_multiplier)})"
        for query in privacy.queries
    ]
    texts = (privacy.relation, privacy.accountant, privacy.sampling)
    return {
        "record": record,
        "title": line_label(key),
        "over": overspent(record),
        "target": _epsilon(privacy.epsilon_target),
        "spent": _epsilon(privacy.epsilon_spent),
        "delta": "–" if privacy.delta is None else f"{privacy.delta:.3g}",
        "texts": [clean(text.replace("_", " ")) if text else "–" for text in texts],
        "queries": queries,
    }


def _epsilon(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else epsilon_text(value)


def _weights(record: Record) -> dict[str, str]:
    """The weights of the method, by part, and those of the metrics, by name."""
    metrics = {
        f"metric: {name}": digest
        for score in record.metrics.values()
        for name, digest in score.weights.items()
    }
    return {**record.provenance.weights, **metrics}


def _provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Code, versions, machines and weights, each with the number of cells it stands behind."""
    code = Counter(
        (
            r.provenance.code_revision,
            r.provenance.wavedp_version,
            r.provenance.torch_version,
            r.provenance.python_version,
        )
        for r in records
    )
    machines = Counter(
        (r.hardware.device, r.hardware.processor, r.hardware.threads, r.hardware.memory_gb)
        for r in records
    )
    weights = Counter(item for r in records for item in _weights(r).items())
    created = sorted(record.provenance.created for record in records)
    return {
        "code": sorted(code.items()),
        "machines": sorted(machines.items()),
        "weights": sorted(weights.items()),
        "first": created[0],
        "last": created[-1],
    }
