"""The table of what public parts keep of real images."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.oracles import Oracle, Shown, measure
from wavedp.data.toyfaces import ToyFaces
from wavedp.nn.images import to_float


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    faces = ToyFaces(
        private_records=8, evaluation_records=300, cache_dir=str(tmp_path_factory.mktemp("c"))
    )
    return Shown(faces.evaluation(), "fd_toy")


def blurred(images):
    return F.interpolate(F.avg_pool2d(images, 4), scale_factor=4)


def test_what_is_kept_is_told_from_what_is_lost(shown):
    rows = list(
        measure(
            shown,
            [
                Oracle("everything", "all", lambda images: images),
                Oracle("a quarter", "LL 8 px", blurred),
                Oracle("LL itself", "LL 16 px", lambda images: F.avg_pool2d(images, 2), 2),
            ],
        )
    )
    whole, quarter, low = rows
    assert float(whole["psnr_db"]) > 100
    assert float(whole["reconstruction"]) < 0.01 < float(quarter["reconstruction"])
    # Of real images the oracle is the floor: other images of the same law.
    assert float(whole["oracle"]) == pytest.approx(float(whole["floor"]), rel=1e-3)
    assert float(quarter["oracle"]) > 2 * float(whole["oracle"])
    expected = (blurred(to_float(torch.tensor(shown.records.images))) + 1) * 127.5
    error = (expected.round() - torch.tensor(shown.records.images)).square().mean()
    by_hand = 10 * torch.log10(255**2 / error)
    assert float(quarter["psnr_db"]) == pytest.approx(float(by_hand), abs=0.01)
    # The low band is compared as an image of its own size, and fd_toy's network reads no such.
    assert low["px"] == 16
    assert float(low["psnr_db"]) > 50
    assert "oracle" not in low
