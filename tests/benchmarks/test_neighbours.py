"""Samples beside their nearest private records: right, and for the owner of the data alone."""

from __future__ import annotations

import base64
import io
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import neighbours, run
from wavedp.data.toyfaces import ToyFaces
from wavedp.dp.errors import UserError

SUITE = [
    *(
        "suite=smoke",
        "method=dp_vae",
        "suite.grid.row=[pretrained,private]",
        "privacy.epsilon=[10]",
    ),
    *("suite.metrics=[memorisation]", "suite.samples=20", "hardware.threads=1"),
    *("dataset.private_records=50", "dataset.evaluation_records=40"),
]


def test_distances_and_rows_are_those_of_a_plain_search():
    features, records = np.random.default_rng(0).normal(size=(2, 30, 7)).astype(np.float32)
    features[3] = records[11]  # a copy
    distances, rows = neighbours.nearest_of(features, torch.from_numpy(records))
    plain = np.linalg.norm(features[:, None].astype(float) - records[None], axis=2)
    np.testing.assert_allclose(distances, plain.min(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(rows, plain.argsort(1)[:, : neighbours.BESIDE])
    assert distances[3] == 0
    assert rows[3, 0] == 11


@pytest.fixture(scope="module")
def ran(tmp_path_factory, cache):
    places = [f"results_dir={tmp_path_factory.mktemp('results')}", f"cache_dir={cache}"]
    assert run.main([*SUITE, *places]) == 0
    return places


def test_the_page_shows_records_beside_samples_and_opens_for_its_owner_only(ran, cache, capfd):
    assert neighbours.main([*SUITE, *ran]) == 0
    path = Path(cache) / "neighbours" / "smoke.html"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "shows private images" in " ".join(capfd.readouterr().err.split())
    page = path.read_text(encoding="utf-8")
    titles = re.findall("<h2>(.*)</h2>", page)
    assert titles == ["DP-VAE, pretrained, seed 0", "DP-VAE, ε = 10, seed 0"]
    strips = re.findall(r"base64,([^\"]+)", page)
    assert len(strips) == 2 * neighbours.SHOWN
    private = ToyFaces(private_records=50, resolution=32, cache_dir=cache).draw(range(50))
    for strip in strips:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))
        tiles = np.split(picture.transpose(2, 0, 1), 1 + neighbours.BESIDE, axis=2)
        known = [any(np.array_equal(tile, image) for image in private) for tile in tiles]
        assert known == [False, *[True] * neighbours.BESIDE]
    distances = [float(d) for d in re.findall("<figcaption>(.*)</figcaption>", page)]
    half = len(distances) // 2
    assert distances == [*sorted(distances[:half]), *sorted(distances[half:])]


def test_nothing_to_show_and_no_space_to_compare_in_are_one_sentence(ran, tmp_path):
    with pytest.raises(UserError, match="run the suite first"):
        neighbours.main([*SUITE, *ran, f"cache_dir={tmp_path}"])
    with pytest.raises(UserError, match="has no metric of memorisation"):
        neighbours.main([*SUITE, *ran, "suite.metrics=[fd_toy]"])
    with pytest.raises(UserError, match="add dataset=toyfaces"):
        neighbours.main([*SUITE, *ran, "suite.grid.dataset=[toyfaces,toyscenes]"])
