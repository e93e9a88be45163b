"""Statistics on disk: found again by content, and never trusted when torn."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kept as module
from benchmarks.digest import sha256, sha256_of_array, sha256_of_lines
from benchmarks.kept import kept


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAVEDP_CACHE", str(tmp_path / "cache"))
    return module.folder()


def test_made_once_and_for_its_owner_only(folder: Path) -> None:
    calls: list[int] = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.arange(6.0).reshape(2, 3)

    for _ in range(2):
        np.testing.assert_array_equal(kept("a", make), np.arange(6.0).reshape(2, 3))
    assert len(calls) == 1
    kept("b", make)
    assert len(calls) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"not an array"])
def test_a_torn_file_is_made_again(damage: bytes, folder: Path) -> None:
    kept("a", lambda: np.ones(3))
    next(folder.iterdir()).write_bytes(damage)
    np.testing.assert_array_equal(kept("a", lambda: np.zeros(3)), np.zeros(3))


def test_objects_are_not_loaded(folder: Path) -> None:
    """An array of objects is a pickle, and a pickle can run code."""
    kept("a", lambda: np.ones(3))
    np.save(next(folder.iterdir()), np.array([{}], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(kept("a", lambda: np.zeros(3)), np.zeros(3))


def test_where_nothing_can_be_written_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WAVEDP_CACHE", str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(kept("a", lambda: np.ones(3)), np.ones(3))


def test_digests_see_contents_types_and_borders(tmp_path: Path) -> None:
    array = np.arange(600, dtype=np.uint8).reshape(300, 2)
    assert sha256_of_array(array) == sha256_of_array(array, rows=7)
    assert sha256_of_array(array) != sha256_of_array(array.reshape(2, 300))
    assert sha256_of_array(array) != sha256_of_array(array.astype(np.int8))
    assert sha256_of_lines(["a b", "c"]) != sha256_of_lines(["a", "b c"])
    (tmp_path / "x").write_bytes(b"a b\nc\n")
    assert sha256(tmp_path / "x") == sha256_of_lines(["a b", "c"])
