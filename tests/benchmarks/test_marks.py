"""No reader meets a number that reads real images without its mark, wherever the number stands."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from report_records import record
from rich.console import Console

from benchmarks.record import MetricValue, Record, save
from benchmarks.report import make_report
from benchmarks.report.facts import metrics_of
from benchmarks.report.intervals import intervals
from benchmarks.report.marks import read_by, reading, score_line, shown_name
from benchmarks.report.notes import footer, headlines
from benchmarks.report.plots import plot as drawing
from benchmarks.report.plots.epsilon import metric_figure
from benchmarks.report.tables import markdown, print_tables

SHOWN = {
    "agreement": "agreement",
    "fid_768": "fid_768†",
    "memorisation_768_distance": "memorisation_768_distance† (reads private records)",
}
"""How a metric is shown that reads nothing, the evaluation split and private records."""


def score(reads: str | None, **changes: Any) -> MetricValue:
    fields = {"value": 2.5, "direction": "lower", "n_samples": 9, "floor": 1.5, "protocol": "p"}
    fields |= {"reads": reads, "reads_private": reads == "private", "standard_error": 0.5}
    return MetricValue(**fields | changes)


def cell(method: str = "a", row: str = "private", value: float = 2.5, **changes: Any) -> Record:
    """A cell with a metric of every kind, the one that reads private records first."""
    reads = ("private", "evaluation", "nothing")
    names = sorted(SHOWN, reverse=True)
    scores = {n: score(r, value=value, unlike="") for n, r in zip(names, reads, strict=True)}
    epsilon = {"private": 1.0, "pretrained": 0.0}.get(row)
    base = record(method, row, epsilon, **changes)
    return base.model_copy(update={"metrics": scores, "samples": None})


@pytest.fixture
def records() -> list[Record]:
    return [
        *(cell(m, value=v, seed=s) for m, v in (("a", 2.5), ("b", 9.5)) for s in (0, 1)),
        cell("a", "oracle"),
    ]


@pytest.fixture
def folder(records: list[Record], tmp_path: Path) -> Path:
    for item in records:
        save(item, tmp_path / "records")
    make_report(tmp_path)
    return tmp_path


def bare(text: str, name: str) -> list[str]:
    """Where a metric's name stands without its mark."""
    return re.findall(rf".{{0,40}}{name}(?!†).{{0,40}}", text)


def spread(text: str) -> str:
    """A page as a reader sees it, without tags and style."""
    return re.sub(
        r"\s+", " ", re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", text)
    )


def test_the_shown_name_says_in_words_what_reads_private_records() -> None:
    assert [shown_name("x", reading([score(r)])) for r in ("nothing", "evaluation", "private")] == [
        "x",
        "x†",
        "x† (reads private records)",
    ]


def test_the_most_serious_reading_of_a_metric_counts_and_silence_is_marked() -> None:
    """Older records do not say what a metric reads: nobody takes that for nothing."""
    assert reading([score("nothing"), score("evaluation")]) == "evaluation"
    assert reading([score("evaluation"), score(None), score("private")]) == "private"
    assert reading([score(None)]) == "unstated"
    assert reading([score(None, reads_private=True)]) == "private"
    assert reading([]) == "nothing"
    old = record().model_copy(update={"metrics": {"energy": score(None)}})
    assert metrics_of([old])[0].title == "energy† ↓"
    assert "† energy reads what an older record does not say: evaluation, not private" in " ".join(
        footer([old])
    )


def test_markdown_marks_headings_floors_and_oracles(records: list[Record]) -> None:
    text = markdown(records)
    heading = next(line for line in text.splitlines() if line.startswith("| method | row |"))
    assert all(f"| {shown} ↓ |" in heading for shown in SHOWN.values())
    assert "| A | oracle† |" in text
    assert "| real images† | floor | 1.500 |" in text


def test_the_terminal_shows_the_words_in_80_columns(records: list[Record]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    print_tables(records, console)
    lines = console.export_text().splitlines()
    top = next(i for i, line in enumerate(lines) if "memorisation_768_distance†" in line)
    assert "(reads private records) ↓" in lines[top + 1]
    assert any("fid_768† ↓" in line for line in lines)
    assert any("real images†" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_footer_tells_both_kinds_apart_and_marks_the_floors(records: list[Record]) -> None:
    sentences = footer(records)
    covered = "evaluation, not private; covered by no ε and never a release."
    for names in (
        "memorisation_768_distance reads private records",
        "fid_768 reads the evaluation",
    ):
        found = [s for s in sentences if s.startswith(f"† {names}")]
        assert len(found) == 1
        assert found[0].endswith(covered)
    floors = next(s for s in sentences if s.startswith("real images†:"))
    assert "evaluation, not private, and covered by no ε" in floors
    told = "oracle†: what the method's public parts keep of real held-out images"
    assert any(told in s for s in sentences)


def test_headlines_mark_the_metric_that_they_rank_by(records: list[Record]) -> None:
    assert f"the best mean {SHOWN['memorisation_768_distance']}, " in headlines(records)[0]


def test_intervals_show_marked_names(records: list[Record], folder: Path) -> None:
    assert {entry.metric for entry in intervals(records)} == set(SHOWN.values())
    page = (folder / "report.html").read_text(encoding="utf-8")
    table = page.split('aria-label="Intervals"')[1].split("</table>")[0]
    for shown in SHOWN.values():
        assert f">{shown}</td>" in table
    assert "<td>oracle†</td>" in table


def test_every_name_on_the_page_is_marked_but_where_the_mark_is_explained(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = spread(page)
    for name in ("fid_768", "memorisation_768_distance"):
        assert text.count(f"{name}†") >= 3
        unmarked = bare(text, name)
        assert len(unmarked) == 1
        assert f"† {name} reads" in unmarked[0]
    assert not bare(page.split('alt="Line plots of')[1].split('"')[0], "fid_768")
    heading = page.split("<thead>")[1].split("</thead>")[0]
    assert f'<th scope="col" class="n words">{SHOWN["memorisation_768_distance"]} ↓</th>' in heading
    measured = page.split('aria-label="Metrics and their protocols"')[1].split("</table>")[0]
    assert '<td class="failed">private records</td>' in measured
    assert "<td>the evaluation split</td>" in measured
    assert "Real images†" in text
    assert "† evaluation, not private: covered by no ε" in text


def test_the_summary_has_a_column_that_says_what_was_read(folder: Path) -> None:
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["row"]: row["evaluation_not_private"] for row in csv.DictReader(file)}
    read = (
        "memorisation_768_distance reads private records; fid_768 reads the evaluation split",
        "; agreement reads the evaluation split",
    )
    assert rows == {"private": read[0], "oracle": "".join(read)}
    assert read_by(record(reason="no memory")) == ""


def drawn(records: Sequence[Record], monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(drawing, "flat_png", lambda figure: figures.append(figure) or b"")
    metric_figure(records, "toy_shapes")
    return figures[0]


def test_plots_mark_titles_legends_and_explain_the_mark(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(records, monkeypatch)
    titles = [ax.get_title(loc="left").split("(lower")[0].split() for ax in figure.axes]
    assert [" ".join(words) for words in titles if words] == sorted(SHOWN.values(), reverse=True)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["A", "B", "A, oracle†", "real images†"]
    explained = figure.legends[0].get_title().get_text()
    assert explained == "† evaluation, not private: covered by no ε"


def test_the_console_line_of_a_cell_explains_its_marks() -> None:
    assert score_line(cell()) == (
        "memorisation_768_distance† (reads private records) 2.50, fid_768† 2.50, agreement 2.50; "
        "† evaluation, not private: covered by no ε"
    )
    plain = record().model_copy(update={"metrics": {"agreement": score("nothing")}})
    assert score_line(plain) == "agreement 2.50"
    real = plain.model_copy(update={"row": "oracle"})  # made of real held-out images
    assert score_line(real).startswith("agreement† 2.50; †")


def test_metrics_that_declare_what_they_are_not_are_named_in_the_footer() -> None:
    scores = {
        "fid": score("evaluation", unlike=""),
        "fid_768": score("evaluation", unlike="FID"),
        "fd_clip": score("evaluation", unlike="FID"),
        "agreement": score("nothing", unlike="CLIP score"),
    }
    sentences = footer([record().model_copy(update={"metrics": scores})])
    assert (
        "fid_768† and fd_clip† are not FID and agreement is not CLIP score: not comparable with "
        "published numbers."
    ) in sentences
    assert not any("Older records" in sentence for sentence in sentences)
    old = record().model_copy(update={"metrics": {"fid_768": score("evaluation")}})
    assert any(
        "do not say which published measures fid_768† may be compared with" in sentence
        for sentence in footer([old])
    )
