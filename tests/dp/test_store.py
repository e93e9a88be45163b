"""Mapped private records on disk: the same as computed, for their owner only, never stale."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wavedp.dp.errors import UserError
from wavedp.dp.private import PrivateRecords, open_columns
from wavedp.dp.store import PrivateStore


class Doubling:
    """A mapped function that counts its calls."""

    def __init__(self, factor: float = 2.0, key: str | None = None, name: str = "y") -> None:
        self.factor, self.key, self.name, self.calls = factor, key, name, 0

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        self.calls += 1
        return {self.name: columns["x"] * self.factor}


class Renaming:
    key = "rename"

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"x": columns["y"]}


def sealed(folder: Path, identity: str = "a", size: int = 6) -> PrivateRecords:
    columns = {"x": torch.arange(float(size)) + (100 if identity == "b" else 0)}
    store = PrivateStore(folder / "kept", identity)
    return PrivateRecords(columns, name="toy", records=size, store=store)


def values(records: PrivateRecords) -> list[float]:
    return [float(v) for v in open_columns(records)["y"]]


def test_a_kept_result_is_what_the_function_gave(tmp_path: Path) -> None:
    function = Doubling(key="double")
    first = sealed(tmp_path).map(function, chunk=4)
    second = sealed(tmp_path).map(function, chunk=4)
    assert function.calls == 2  # two chunks, once
    assert values(first) == values(second) == [0, 2, 4, 6, 8, 10]


def test_without_a_key_nothing_is_kept(tmp_path: Path) -> None:
    function = Doubling()
    for _ in range(2):
        sealed(tmp_path).map(function)
    assert function.calls == 2
    assert not (tmp_path / "kept").exists()


def test_other_records_other_functions_and_maps_of_maps_do_not_mix(tmp_path: Path) -> None:
    assert values(sealed(tmp_path).map(Doubling(key="2")))[1] == 2
    assert values(sealed(tmp_path).map(Doubling(3, key="3")))[1] == 3
    assert values(sealed(tmp_path, "b").map(Doubling(key="2")))[1] == 202
    again = sealed(tmp_path).map(Doubling(key="2"))
    renamed = again.map(Renaming())
    assert values(renamed.map(Doubling(key="2")))[1] == 4


def test_each_of_several_functions_is_kept_under_its_own_name(tmp_path: Path) -> None:
    first, second = Doubling(key="2"), Doubling(3, key="3", name="z")
    sealed(tmp_path).map(first)
    both = sealed(tmp_path).map(first, second)
    assert (first.calls, second.calls) == (1, 1)
    assert set(open_columns(both)) == {"y", "z"}
    with pytest.raises(UserError, match="'y'"):
        sealed(tmp_path).map(first, Doubling(3, key="4"))


def test_fewer_records_than_kept_are_mapped_anew(tmp_path: Path) -> None:
    sealed(tmp_path).map(Doubling(key="2"))
    assert values(sealed(tmp_path, size=5).map(Doubling(key="2"))) == [0, 2, 4, 6, 8]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    sealed(tmp_path).map(Doubling(key="2"))
    folder = tmp_path / "kept"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.glob("*.pt")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "PRIVATE" in (folder / "README.txt").read_text()


@pytest.mark.parametrize("damage", ["truncated", "nonsense", "empty"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    sealed(tmp_path).map(Doubling(key="2"))
    (file,) = (tmp_path / "kept").glob("*.pt")
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes({"truncated": whole[:200], "nonsense": b"x" * 500, "empty": b""}[damage])
    assert values(sealed(tmp_path).map(Doubling(key="2"))) == [0, 2, 4, 6, 8, 10]
    assert file.read_bytes() == whole
