"""Files written whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from benchmarks.written import replacing, write


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
