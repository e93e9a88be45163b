"""A reported suite, for the tests of the report; random weights, for those of the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import fake_weights
import pytest
from PIL import Image
from report_records import EVIL, grid_of_records

from benchmarks.record import (
    save,
)
from benchmarks.report import make_report
from wavedp.data.schema import Records
from wavedp.data.toyfaces import ToyFaces


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite's folder with records, strips and a hostile prompt, reported once."""
    folder = tmp_path_factory.mktemp("results") / "embedded"
    samples = folder / "samples"
    samples.mkdir(parents=True)
    strip = Image.new("RGB", (16 * 8, 8), (200, 30, 40))
    for item in grid_of_records():
        save(item, folder / "records")
        if item.samples:
            strip.save(folder / item.samples)
    for dataset in ("toy_shapes", "toy_faces"):
        strip.save(samples / f"real-{dataset}.png")
        prompts = [f"{EVIL} {place}" for place in range(16)]
        (samples / f"prompts-{dataset}.json").write_text(json.dumps(prompts), encoding="utf-8")
    make_report(folder)
    return folder


@pytest.fixture(scope="session")
def random_weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random networks under the names of the registry, written once."""
    folder = tmp_path_factory.mktemp("weights")
    fake_weights.write(folder)
    return folder


@pytest.fixture
def random_weights(random_weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registry finds random networks for the time of one test."""
    fake_weights.use(random_weights_folder, monkeypatch)
    return random_weights_folder


@pytest.fixture(scope="module")
def faces(cache: str) -> Records:
    """Two hundred evaluation images of toyfaces."""
    return ToyFaces(private_records=8, evaluation_records=200, cache_dir=cache).evaluation()
