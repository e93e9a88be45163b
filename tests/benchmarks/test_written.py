"""Files written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from benchmarks.written import write
from wavedp.dp.written import replacing


def test_texts_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "folders" / "are made" / "a.txt"
    assert write(path, "ε\n") == path
    assert path.read_bytes() == "ε\n".encode()
    write(path, b"\x00\n")
    assert path.read_bytes() == b"\x00\n"
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "old")

    def half() -> None:
        with replacing(path) as file:
            file.write(b"half of")
            # No reader of *.json finds what is not finished.
            assert list(tmp_path.glob("*.json")) == [path]
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_for_its_owner_only_even_if_the_old_file_was_open(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "old")
    path.chmod(0o644)
    write(path, "new", for_owner=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "new"


def test_what_a_killed_writer_left_is_deleted_and_what_another_writes_is_not(
    tmp_path: Path,
) -> None:
    dead = tmp_path / "a.json.01234567.tmp"
    dead.write_text("half of")
    others = [tmp_path / "b.json.01234567.tmp", tmp_path / "a.json.notes.tmp"]
    for other in others:
        other.write_text("not ours")
    with replacing(tmp_path / "a.json") as slow:
        slow.write(b"slow")
        assert not dead.exists()
        write(tmp_path / "a.json", "quick")
        assert (tmp_path / "a.json").read_text() == "quick"
    assert (tmp_path / "a.json").read_text() == "slow"
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.json", *others])


def test_a_writer_whose_file_was_swept_before_it_was_locked_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not swept:
            [partial] = tmp_path.iterdir()
            partial.unlink()
            swept.append(partial)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write(tmp_path / "a.json", "whole")
    assert swept
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "whole")]


def test_contents_are_on_the_disk_before_they_have_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a loss of power could take a record whose checkpoints are removed already."""
    synced, real = [], os.fsync

    def noting(handle: int) -> None:
        synced.append((os.fstat(handle).st_size, (tmp_path / "a").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    write(tmp_path / "a", "whole")
    assert synced == [(5, False)]
