"""Weights that a part reads itself are part of a cell's identity and of its record."""

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.cell import files_of, identity_of, make_generator
from benchmarks.config import Cell, cells
from benchmarks.weights import digests
from wavedp.dp import UserError
from wavedp.nn.imdn import IMDN


def cell_with(path: object) -> Cell:
    toy = ["weights.tokenizer=toy32-tokenizer", "weights.prior=toy32-prior"]
    sizes = ["tokenizer.resolution=32", "tokenizer.grid=4", "tokenizer.width=80", "prior.width=64"]
    return cells(
        [
            *("method=px64/dp_wavelet_published", f"method.published.upsampler={path}"),
            *(f"method.{setting}" for setting in toy),
            *(f"method.generator.{setting}" for setting in sizes),
            "method.generator.prior.tokens_per_scale=16",
        ]
    )[0]


def test_other_published_weights_make_another_cell(tmp_path):
    file, names = tmp_path / "sr.safetensors", set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(IMDN(4).state_dict(), file)
        cell = cell_with(file)
        names.add(identity_of(cell))
        assert len(digests(files_of(cell))["upsampler"]) == 64
    assert len(names) == 2
    images = make_generator(cell).oracle(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert images.shape == (2, 3, 32, 32)


def test_a_file_that_is_not_given_or_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"method\.published\.upsampler is not set"):
        identity_of(cell_with("null"))
    with pytest.raises(UserError, match=r"none\.safetensors"):
        identity_of(cell_with(tmp_path / "none.safetensors"))
