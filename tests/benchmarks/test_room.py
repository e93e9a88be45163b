"""Room on disk and in memory: what is mapped counts on disk, what is held in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import hardware, room
from benchmarks.config import cells
from benchmarks.protocol import load_protocol
from benchmarks.registry import OWN
from benchmarks.room import cached_mb, check_room, room_for
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError


def published(**changes: Any) -> Any:
    fields = {"name": "coco2014", "version": "1", "private_records": 82_783, "resolution": 256}
    return SimpleNamespace(**(fields | changes))


def test_images_of_coco_are_on_disk_and_not_in_memory() -> None:
    """123,287 images and 30,000 samples of ten cells, 192 kB each, worked by hand."""
    found = room_for(published(), 40_504, 30_000, cells=10, private_metrics=0)
    images, samples, mapped = (123_287 * 192, 10 * 30_000 * 192, 82_783 * 16)
    assert found.disk_mb == pytest.approx((images + samples + mapped) / 1024)
    # The images alone are 23 GB; mapped records, captions and 70,504 rows of features are held.
    held = 82_783 * 16 + 123_287 * 1 + 70_504 * 32 + 4 * 500 * 192
    assert found.memory_mb == pytest.approx(1000 + held / 1024)
    assert found.memory_mb < 6_000


def test_more_of_anything_needs_more() -> None:
    base = room_for(published(), 100, 100, 1, 0)
    assert room_for(published(), 100, 100, 2, 0).disk_mb > base.disk_mb
    assert room_for(published(), 100, 200, 1, 0).disk_mb > base.disk_mb
    assert room_for(published(), 100, 100, 1, 1).memory_mb > base.memory_mb
    assert room_for(published(resolution=512), 100, 100, 1, 0).disk_mb > 3 * base.disk_mb


def test_what_is_cached_already_is_not_asked_for_again(tmp_path: Path) -> None:
    dataset = ToyFaces(private_records=700, evaluation_records=4, cache_dir=str(tmp_path))
    assert cached_mb(tmp_path, dataset) == 0
    dataset.check()
    assert cached_mb(tmp_path, dataset) == pytest.approx(704 * 3 / 1024, rel=0.02)
    np.save(tmp_path / "toy" / "toyfaces-1-64px-seed1-0-9.npy", np.zeros(10**6))
    assert cached_mb(tmp_path, dataset) == pytest.approx(704 * 3 / 1024, rel=0.02)


def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *more: str) -> dict[str, float]:
    """Megabytes of disk that a run asks for, by place."""
    found = {}
    monkeypatch.setattr(
        hardware, "check_room", lambda folder, disk, memory: found.update({folder.name: disk})
    )
    grid = cells(["suite=quick", f"results_dir={tmp_path}/r", f"cache_dir={tmp_path}/c", *more])
    datasets = {"toyfaces": ToyFaces(private_records=20_000, cache_dir=f"{tmp_path}/c")}
    check_room(grid, grid, datasets, load_protocol("quick"), ["fd_toy"])
    return found


def test_samples_of_all_cells_are_asked_for_where_the_caches_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = asked(monkeypatch, tmp_path)
    many = asked(monkeypatch, tmp_path, "suite.samples=50000")
    assert few["r"] == many["r"] == room.RESULTS_MB
    assert many["c"] - few["c"] == pytest.approx(9 * 5 * 49_000 * 3 / 1024)


def test_finetuned_weights_are_asked_for_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of DP-Wavelet's two private rows and its non-private one; none of the other two rows."""
    chosen = ("method=dp_wavelet", "dataset=toyfaces")
    kept = asked(monkeypatch, tmp_path, *chosen)
    without = asked(monkeypatch, tmp_path, *chosen, "keep_weights=false")
    public = [OWN / f"toy32-{part}.safetensors" for part in ("tokenizer", "prior", "upsampler")]
    size = sum(file.stat().st_size for file in public) / 2**20
    assert kept["c"] - without["c"] == pytest.approx(3 * size)


def test_too_many_samples_for_this_machine_are_refused(tmp_path: Path) -> None:
    grid = cells(["suite=quick", f"cache_dir={tmp_path}", "suite.samples=1000000000000"])
    datasets = {"toyfaces": ToyFaces(cache_dir=str(tmp_path))}
    with pytest.raises(UserError, match=r"MB of memory are available.* fewer records and samples"):
        check_room(grid, grid, datasets, load_protocol("quick"), ["fd_toy"])


def test_a_number_that_is_none_is_left_to_the_data_set(tmp_path: Path) -> None:
    grid = cells(["suite=quick", f"cache_dir={tmp_path}", "dataset.evaluation_records=many"])
    datasets = {"toyfaces": ToyFaces(cache_dir=str(tmp_path))}
    check_room(grid, grid, datasets, load_protocol("quick"), ["fd_toy"])
