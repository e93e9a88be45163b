"""Weights that metrics load cannot run code: each loader is fed files that would, if they could.

The registry knows these files by their digests, so that nothing but the loader stands in their
way. The Inception of clean-fid is a program, which is trusted by its digest alone.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_weights
import pytest
import torch
from metric_tools import metric_of
from torch import nn

from benchmarks import registry
from benchmarks.config import choices, load_choice, make
from benchmarks.weights import load_parts
from wavedp.dp.errors import UserError


def plain(trap: Any) -> bytes:
    return pickle.dumps(trap)


def saved_by_torch(trap: Any) -> bytes:
    stream = io.BytesIO()
    torch.save({"features.0.weight": trap}, stream)
    return stream.getvalue()


def archive(trap: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(trap))
    return stream.getvalue()


def behind_a_header(trap: Any) -> bytes:
    """As the header of a safetensors file, which is JSON."""
    content = pickle.dumps(trap)
    return struct.pack("<Q", len(content)) + content


FORMS: list[Callable[[Any], bytes]] = [plain, saved_by_torch, archive, behind_a_header]


def loaders() -> dict[str, str]:
    """Of every published file that some metric loads and that is no program, one such metric."""
    found: dict[str, str] = {}
    for name in choices("metric"):
        for weights in make(load_choice("metric", name)).weights:
            entry = registry.entries()[weights]
            if not (entry.made_here or entry.program):
                found.setdefault(weights, name)
    return found


def test_every_kind_of_file_is_fed() -> None:
    assert loaders().keys() == {"alexnet-owt", "clip-vit-b-32-openai", "inception-fid-768"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("weights", loaders())
def test_weights_of_a_metric(
    weights: str,
    form: Callable[[Any], bytes],
    random_weights_folder: Path,  # the small CLIP is known
    tmp_path: Path,
    trap: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    file = registry.entry(weights).file
    (folder / file).write_bytes(form(trap))
    fake_weights.use(folder, monkeypatch)
    with pytest.raises(UserError) as caught:
        metric_of(loaders()[weights])
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_part_of_a_method_or_the_yardstick(
    form: Callable[[Any], bytes], tmp_path: Path, trap: Any
) -> None:
    file = tmp_path / "part.safetensors"
    file.write_bytes(form(trap))
    module = nn.ModuleDict({"part": nn.Linear(2, 2)})
    with pytest.raises(UserError, match=r"part\.safetensors does not fit") as caught:
        load_parts(module, {"part": str(file)})
    assert "\n" not in str(caught.value)
