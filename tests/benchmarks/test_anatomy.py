"""The figure of both stages."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import anatomy
from wavedp.dp import DPPlan, Ledger, UserError


def test_bands_are_scaled_for_the_eye():
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    found = anatomy.bands(images, 2)
    torch.testing.assert_close(found[..., :8, :8], F.avg_pool2d(images, 4))
    flat = anatomy.bands(torch.full((1, 3, 16, 16), 0.3), 1)
    torch.testing.assert_close(flat[..., :8, :8], torch.full((1, 3, 8, 8), 0.3))
    assert flat[..., 8:, :].abs().max() < 1e-6  # grey where there is no detail


def test_the_figure_and_its_ledger_are_written(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(anatomy, "FOLDER", tmp_path)
    small = ["method.finetuning.steps=2", "dataset.evaluation_records=20", f"cache_dir={cache}"]
    for _ in range(2):
        assert anatomy.main(["dataset.private_records=400", *small]) == 0
    with Image.open(tmp_path / "toyfaces.png") as picture:
        assert picture.width > 1000
    # A second figure is another release, with a ledger of its own; the first one's stays.
    ledgers = sorted(tmp_path.glob("*.jsonl"))
    assert len(ledgers) == 2
    for path in ledgers:
        budget = DPPlan.calibrate(
            epsilon=10, delta=1e-5, records=400, expected_batch=160, steps=2, clip=1.0
        ).budget
        assert sum(Ledger(path, budget, writes=False).counts.values()) == 2


def test_a_method_without_a_low_band_is_refused(cache):
    with pytest.raises(UserError, match="no low band to show; choose dp_wavelet"):
        anatomy.main(
            ["method=dp_full_finetune", "dataset.evaluation_records=20", f"cache_dir={cache}"]
        )
