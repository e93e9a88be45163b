"""The report in a real browser, on a desktop and on a phone; skipped where there is no Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from PIL import Image
from report_records import grid_of_records

from benchmarks.record import save
from benchmarks.report import make_report

HOSTILE = (
    '<script>window.ran = "script"</script><img src="http://wavedp.invalid/x.png" '
    "onerror=\"window.ran = 'image'\">"
)
"""As text it is harmless. As markup it runs, has no alternative text and asks the network."""
PHONE, DESKTOP = 390, 1280
TABLE = "table[data-sortable]"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a suite in which every text that a record brings is hostile."""
    folder = tmp_path_factory.mktemp("results") / "embedded"
    (folder / "samples").mkdir(parents=True)
    strip = Image.new("RGB", (16 * 8, 8), (200, 30, 40))
    for item in grid_of_records():
        hostile = {"reason": HOSTILE} if item.reason else {}
        save(item.model_copy(update={**hostile, "dataset_version": HOSTILE}), folder / "records")
        if item.samples:
            strip.save(folder / item.samples)
    for dataset in ("toy_shapes", "toy_faces"):
        prompts = json.dumps([f"{HOSTILE} {place}" for place in range(16)])
        (folder / "samples" / f"prompts-{dataset}.json").write_text(prompts, encoding="utf-8")
    return make_report(folder)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    program = browser.find()
    if program is None:
        pytest.skip("there is no Chromium to open the report in (Debian: apt-get install chromium)")
    with browser.running(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


def column(chromium: browser.Browser, place: int) -> list[Any]:
    """The values of one column of the first table, from above."""
    cells = f"[...document.querySelector('{TABLE}').tBodies[0].rows].map((row) => row.cells"
    found: list[Any] = chromium.value(f"{cells}[{place}].dataset.value)")
    return found


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_fits_its_window_and_runs_and_fetches_nothing_of_its_records(
    width: int, page: Path, chromium: browser.Browser
) -> None:
    chromium.open(page, width)
    chromium.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert chromium.value("window.innerWidth") == width
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert HOSTILE in chromium.value("document.body.textContent")
    assert chromium.value("window.ran") is None
    addresses = [event["request"]["url"] for event in chromium.seen("Network.requestWillBeSent")]
    assert page.as_uri() in addresses
    assert all(address.startswith("data:image/") for address in set(addresses) - {page.as_uri()})
    # What the page's policy refused never was a request; the browser's log has it.
    assert chromium.seen("Log.entryAdded") == []
    assert chromium.seen("Runtime.exceptionThrown") == []
    images = chromium.value(
        "[...document.images].map((image) => [image.alt.trim().length, image.naturalWidth])"
    )
    assert len(images) >= 8
    assert all(words > 20 and pixels > 0 for words, pixels in images)


def test_a_heading_sorts_by_mouse_and_keyboard_and_missing_scores_stay_last(
    page: Path, chromium: browser.Browser
) -> None:
    chromium.open(page, DESKTOP)
    place = 2
    heading = f"{TABLE} thead th:nth-child({place + 1})"
    before = column(chromium, place)
    unsorted = [float(value) for value in before if value != "nan"]
    scores = sorted(unsorted)
    assert scores != unsorted
    assert len(scores) < len(before)
    chromium.click(f"{heading} button")
    rising = column(chromium, place)
    assert [float(value) for value in rising[: len(scores)]] == scores
    assert set(rising[len(scores) :]) == {"nan"}
    sorted_by = f"document.querySelector('{heading}').getAttribute('aria-sort')"
    assert chromium.value(sorted_by) == "ascending"

    chromium.open(page, DESKTOP)
    for _ in range(40):
        chromium.press("Tab")
        if chromium.value(f"document.activeElement.closest('th')?.matches('{heading}')"):
            break
    else:
        pytest.fail("no Tab reaches the heading")
    for expected in (scores, scores[::-1]):
        chromium.press("Enter")
        found = column(chromium, place)
        assert [float(value) for value in found[: len(scores)]] == expected
        assert set(found[len(scores) :]) == {"nan"}
    assert chromium.value(sorted_by) == "descending"
