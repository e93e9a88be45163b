"""Samples on disk: written as they come, whole or not at all, and never those of another run."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.batches import Batches, read
from benchmarks.samples import STRIP, Samples, save_strip
from wavedp.dp.errors import UserError

COUNT, SIDE = 20, 4


def drawn(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (COUNT, 3, SIDE, SIDE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def kept(tmp_path: Path, seed: int = 0) -> tuple[Samples, Path]:
    """The samples of one finished run, and the picture in its results."""
    samples, strip = Samples(tmp_path / "cache", "cell"), tmp_path / f"strip-{seed}.png"
    save_strip(samples.write(drawn(seed).split(7), COUNT, SIDE), strip)
    samples.keep()
    return samples, strip


def test_what_was_drawn_is_found_again_in_order(tmp_path: Path) -> None:
    samples, strip = kept(tmp_path)
    found = samples.open(COUNT, strip)
    assert isinstance(found, np.memmap)
    assert torch.equal(torch.from_numpy(np.array(found)), drawn())
    assert np.array_equal(np.load(tmp_path / "cache" / "samples" / "cell.npy"), drawn().numpy())
    assert [path.name for path in samples.file.parent.iterdir()] == ["cell.npy"]
    assert stat.S_IMODE(samples.file.parent.stat().st_mode) == 0o700


def test_batches_are_on_disk_before_the_next_one_is_drawn(tmp_path: Path) -> None:
    samples = Samples(tmp_path, "cell")
    partial = tmp_path / "samples" / "cell.partial"
    batch = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)  # larger than any buffer of a file

    def batches() -> Iterator[Tensor]:
        for number in range(4):
            assert partial.stat().st_size >= number * batch.numel()
            yield batch

    assert len(samples.write(batches(), 2000, 32)) == 2000


def test_nothing_is_found_before_it_is_kept(tmp_path: Path) -> None:
    """A run that was killed before its record was saved leaves no samples to that record."""
    samples, strip = Samples(tmp_path, "cell"), tmp_path / "strip.png"
    save_strip(samples.write([drawn()], COUNT, SIDE), strip)
    assert samples.open(COUNT, strip) is None
    samples.discard()
    assert not list((tmp_path / "samples").iterdir())
    samples.discard()  # also where there is nothing


def test_the_picture_is_of_what_was_written_last(tmp_path: Path) -> None:
    """Picture and samples change together: a run that fails in between changes neither."""
    samples, strip = kept(tmp_path, seed=0)
    before = strip.read_bytes()
    samples.write(drawn(1).split(7), COUNT, SIDE)
    assert samples.open(COUNT, strip) is not None
    assert strip.read_bytes() == before
    samples.show(strip)
    assert samples.open(COUNT, strip) is None  # of the earlier run, which they are not
    samples.keep()
    assert samples.open(COUNT, strip) is not None
    assert [path.name for path in strip.parent.iterdir() if path.is_file()] == [strip.name]


@pytest.mark.parametrize(
    ("count", "seed", "taken"), [(COUNT, 0, 0), (COUNT - 1, 0, 1), (COUNT, 2, 1)]
)
def test_what_a_killed_run_drew_is_kept_if_it_is_the_records(
    count: int, seed: int, taken: int, tmp_path: Path
) -> None:
    """Else what was kept before stays: the picture tells whose they are."""
    kept(tmp_path, seed=1)
    samples, strip = Samples(tmp_path / "cache", "cell"), tmp_path / "strip.png"
    save_strip(drawn(seed).numpy(), strip)
    samples.write(drawn(0).split(7), COUNT, SIDE)
    samples.finish(count, strip)
    assert not samples.unsettled
    [file] = (tmp_path / "cache" / "samples").iterdir()
    assert np.array_equal(np.load(file), drawn(taken).numpy())
    samples.finish(count, strip)  # also where nothing was left


def test_samples_of_another_run_are_not_taken(tmp_path: Path) -> None:
    """Two suites may have a cell of one identity, each with its own noise."""
    samples, first = kept(tmp_path, seed=0)
    _, second = kept(tmp_path, seed=1)
    assert samples.open(COUNT, first) is None
    assert samples.open(COUNT, second) is not None
    assert samples.open(COUNT - 1, second) is None
    assert samples.open(COUNT, tmp_path / "no.png") is None
    assert samples.open(COUNT, tmp_path) is None


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"not an array"])
def test_a_torn_file_is_not_taken(damage: bytes, tmp_path: Path) -> None:
    samples, strip = kept(tmp_path)
    samples.file.write_bytes(damage)
    assert samples.open(COUNT, strip) is None


def test_a_cut_file_is_not_taken(tmp_path: Path) -> None:
    samples, strip = kept(tmp_path)
    samples.file.write_bytes(samples.file.read_bytes()[:-1])
    assert samples.open(COUNT, strip) is None


@pytest.mark.parametrize(
    ("batches", "named"),
    [
        ([drawn()[:3]], "drew 3 images for 20 prompts"),
        ([drawn(), drawn()], "drew 40 images for 20 prompts"),
        ([drawn().float()], "must be uint8"),
        ([drawn()[:, :, :2]], "must be uint8"),
    ],
)
def test_what_a_method_draws_wrongly_is_one_sentence(
    batches: list[Tensor], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=named):
        Samples(tmp_path, "cell").write(batches, COUNT, SIDE)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="set cache_dir to another disk"):
        Samples(tmp_path, "cell").write([drawn()], COUNT, SIDE)


def test_the_strip_is_the_first_images_side_by_side(tmp_path: Path) -> None:
    from PIL import Image

    save_strip(drawn().numpy(), tmp_path / "strip.png")
    picture = np.asarray(Image.open(tmp_path / "strip.png"))
    assert picture.shape == (SIDE, STRIP * SIDE, 3)
    assert np.array_equal(picture[:, SIDE : 2 * SIDE], drawn()[1].permute(1, 2, 0).numpy())


def test_batches_are_rows_in_their_order_read_when_their_turn_comes() -> None:
    images = drawn().numpy()
    rows = [3, 3, 19, 0, 7]
    found = list(Batches(images, rows, size=2))
    assert [len(batch) for batch in found] == [2, 2, 1]
    assert len(Batches(images, rows, size=2)) == 3
    assert torch.equal(torch.cat(found), drawn()[rows])
    assert torch.equal(torch.cat(list(Batches(images, size=6))), drawn())
    copy = read(images, [0])
    images[0] = 0
    assert torch.equal(copy, drawn()[:1])
