"""Nothing that is prepared, found or scored depends on how many workers did it.

Every pool of the project has as many workers as the machine has cores, so a machine is made
believe that it has one core, or more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cleanfid.resize import make_resizer
from metric_tools import captions_of, metric_of, prepared, tensor
from published_sets import picture, save

from benchmarks import doctor, features, prepare
from benchmarks.config import choices, compose, load_choice, make
from benchmarks.features import inception_768
from benchmarks.metrics import named
from benchmarks.metrics.fid import FID
from benchmarks.protocol import Protocol
from benchmarks.scorer import Scorer
from wavedp.data.schema import Records

WORKERS = (1, 2, 5)
PRIVATE, EVALUATION = 150, 60
"""More than a block of 64 images, so that there is something to share out."""


class Cores:
    """Sets how many cores there seem to be, and notes how many workers pools are made with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder, self.asked = monkeypatch, folder, set[int]()
        real = ThreadPoolExecutor.__init__

        def made(pool: ThreadPoolExecutor, workers: int | None = None, *rest: Any) -> None:
            self.asked.add(workers or 0)
            real(pool, workers, *rest)

        monkeypatch.setattr(ThreadPoolExecutor, "__init__", made)

    def set(self, count: int) -> None:
        self._patch.setattr("os.cpu_count", lambda: count)
        # Or features would be those that were kept from before.
        self._patch.setenv("WAVEDP_CACHE", str(self._folder / f"{count} workers"))
        self._patch.setattr(features, "_opened", {})  # spaces were opened with other workers
        features._pool.cache_clear()


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cores]:
    yield Cores(monkeypatch, tmp_path)
    features._pool.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with captions; some are there twice, so that the doctor has something to say."""
    root = tmp_path_factory.mktemp("mine")
    for side, first, count in (("train", 0, PRIVATE), ("test", 1000, EVALUATION)):
        for number in range(first, first + count):
            save(picture(number % 140, (48, 40)), root / side / f"{number:05d}.jpg", quality=90)
            (root / side / f"{number:05d}.txt").write_text(f"a picture of {number}")
    return root


def settings(folder: Path, cache: Path) -> list[str]:
    return [
        *("dataset=image_folder", f"dataset.root={folder}", f"cache_dir={cache}"),
        *(f"dataset.private_records={PRIVATE}", f"dataset.evaluation_records={EVALUATION}"),
    ]


def test_caches_and_the_values_on_them(folder: Path, tmp_path: Path, cores: Cores) -> None:
    """From files to numbers: ``prepare`` and then the scorer, byte by byte and bit by bit."""
    caches, values = [], []
    for count in WORKERS:
        cores.set(count)
        place = tmp_path / str(count)
        assert prepare.main(settings(folder, place)) == 0
        files = sorted(path for path in (place / "photos").rglob("*") if path.is_file())
        caches.append({path.relative_to(place): path.read_bytes() for path in files})
        dataset = make(compose(settings(folder, place)).dataset)
        everything = Protocol(name="all", prompts="records", reference="all")
        names = ["fd_toy", "clip_toy", "prdc_toy", "spectral", "memorisation"]
        scorer = Scorer.make(dataset, names, EVALUATION, everything)
        samples = [tensor(part) for part in dataset.evaluation().slice(7, EVALUATION).chunks(20)]
        values.append(scorer.score(samples, scorer.evaluation.prompts))
    assert cores.asked >= set(WORKERS)
    assert len(caches[0]) == 5  # images and checksums of both sides, and what they are
    assert len(values[0]) == 16
    for other_cache, other_values in zip(caches[1:], values[1:], strict=True):
        assert other_cache == caches[0]
        assert other_values == values[0]


def test_what_the_doctor_finds(folder: Path, tmp_path: Path, cores: Cores) -> None:
    reports = []
    for count in WORKERS:
        cores.set(count)
        path = tmp_path / f"{count}.json"
        assert doctor.main([*settings(folder, tmp_path / "cache"), f"json={path}"]) == 1
        reports.append(json.loads(path.read_text())["findings"])
    assert cores.asked >= set(WORKERS)
    assert reports[0] == reports[1] == reports[2]
    assert {finding["kind"] for finding in reports[0]} == {"exact duplicate"}


RESIZED = [
    name
    for name in choices("metric")
    if (metric := make(load_choice("metric", name))).weights not in [(), ("yardstick",)]
    and not isinstance(metric, FID)  # the features of KID, and long roots
]


@pytest.mark.parametrize("name", RESIZED)
def test_metrics_whose_images_are_resized_in_threads(
    name: str,
    random_weights: Path,
    faces: Records,
    cores: Cores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The very same numbers."""
    small = make_resizer("PIL", False, "bicubic", (107, 107))  # enough for a random network
    monkeypatch.setattr(inception_768, "build_resizer", lambda mode: small)
    values = []
    for count in WORKERS:
        cores.set(count)
        metric = prepared(metric_of(name), faces.slice(60, 90), faces.slice(90, 110))
        samples = faces.slice(0, 24)
        metric.update(tensor(samples), captions_of(samples), tensor(faces.slice(24, 48)))
        values.append(named(name, metric.compute()))
    if name not in ("kid_legacy", "lpips"):  # these are resized inside their networks
        assert cores.asked >= set(WORKERS[1:])
    assert values[0] == values[1] == values[2]
