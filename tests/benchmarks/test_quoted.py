"""Numbers of papers are called quoted, and stand apart from measured ones where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_records import record

from benchmarks.record import Record
from benchmarks.report.frame import write_summary
from benchmarks.report.html import Pictures, render
from benchmarks.report.latex import latex
from benchmarks.report.notes import footer, headlines
from benchmarks.report.quoted import WARNING, quoted, rows
from benchmarks.report.tables import markdown

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dataset"


def cells(dataset: str = "mmcelebahq", resolution: int = 256) -> list[Record]:
    made = [record(method, fd=fd, dataset=dataset) for method, fd in (("a", 200.0), ("b", 300.0))]
    return [item.model_copy(update={"resolution": resolution}) for item in made]


def page(records: list[Record]) -> str:
    pictures = Pictures(plots={}, grids=(), grid=None, glance=None, prompts=())
    return render(records, {records[0].dataset: pictures})


def test_every_row_names_its_source_and_a_data_set_of_its_size() -> None:
    assert rows()
    for row in rows():
        assert None not in row
        assert all(row.values())
        assert float(row["value"]) > 0
        for name in row["datasets"].split():
            config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
            assert config["name"] == name
            assert config["resolution"] == int(row["resolution"])
    assert len({tuple(row.values()) for row in rows()}) == len(rows())


@pytest.mark.parametrize(
    "records",
    [
        cells("toyfaces", 32),
        cells("toyfaces", 256),
        cells("mmcelebahq", 64),
        cells("mmcelebahq64", 256),
        [*cells(), *cells(resolution=64)],
    ],
    ids=["toys", "large toys", "small faces", "regenerated captions", "two sizes"],
)
def test_nothing_is_quoted_beside_other_data_or_sizes(records: list[Record]) -> None:
    assert quoted(records, records[0].dataset) == []
    for text in (markdown(records), latex(records), page(records)):
        assert "quoted" not in text.lower()


def test_quoted_rows_have_a_section_of_their_own_with_their_source() -> None:
    records = cells()
    table, tex, shown = markdown(records), latex(records), page(records)
    measured, _, rest = table.partition("#### Mmcelebahq, quoted")
    assert "quoted" not in measured.lower()
    row = "| SPTI | 1 | FID | 33.27 (quoted) | arXiv 2506.07555, table: unstated |"
    assert row in rest.splitlines()
    assert rest.strip().startswith(WARNING)
    # What was measured is what it would be without them.
    other = [item.model_copy(update={"resolution": 64}) for item in records]
    assert measured + rest[rest.index("- ε is the target") :] == markdown(other)
    first, second = tex.split(r"\begin{table*}")[1:]
    assert "33.27" not in first
    assert r"SPTI & 1 & FID & 33.27 (quoted) & arXiv 2506.07555" in second
    assert "protocol of its own paper" in second
    before, _, after = shown.partition('<h2 id="quoted">')
    assert "33.27" not in before
    assert "<td>33.27 (quoted)</td><td>arXiv 2506.07555, table: unstated</td>" in after
    assert "10.9" not in rest  # of MS-COCO


def test_quoted_rows_are_no_records(tmp_path: Path) -> None:
    """They are the best of nothing and in no file for machines."""
    records = cells()
    summary = write_summary(records, tmp_path / "summary.csv").read_text()
    assert len(summary.splitlines()) == 1 + len(records)
    assert "SPTI" not in summary + " ".join([*footer(records), *headlines(records)])
    assert "**200.0**" in markdown(records)
