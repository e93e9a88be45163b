"""Crops of public photographs."""

import numpy as np
import pytest

from wavedp.data.crops import Crops
from wavedp.data.schema import PublicDataset, Records
from wavedp.dp import UserError


class Ramps:
    """Photographs whose red tells the row, green the column and blue which one it is."""

    name, version, resolution = "ramps", "1", 64

    def records(self, start, stop, progress=None):
        place = 4 * np.arange(64, dtype=np.uint8)
        images = np.zeros((stop - start, 3, 64, 64), np.uint8)
        images[:, 0], images[:, 1] = place[:, None], place
        images[:, 2] = 50 * np.arange(start, stop)[:, None, None]
        return Records(images, [(f"photo {i}",) for i in range(start, stop)], "ramps 1")


def test_crops_are_of_their_photograph_and_stay_inside_it():
    crops = Crops(photos=Ramps(), resolution=16, per_photo=10)
    assert isinstance(crops, PublicDataset)
    found = crops.records(0, 40)
    for record in range(40):
        image = found.images[record].astype(int)
        assert abs(image[2] - 50 * (record // 10)).max() <= 1
        assert found.captions[record] == (f"photo {record // 10}",)
        # Half to all of the photograph: the ramp of 252 covers at least 120 in 16 pixels.
        assert 100 < image[0, -1, 0] - image[0, 0, 0] < 253
        assert 100 < abs(image[1, 0, -1] - image[1, 0, 0]) < 253
    mirrored = (found.images[:, 1, 0, -1].astype(int) < found.images[:, 1, 0, 0]).sum()
    assert 10 < mirrored < 30
    assert len(np.unique(found.images[:10, 0, 0, 0])) > 5


def test_a_crop_depends_on_its_number_alone():
    crops = Crops(photos=Ramps(), resolution=16, per_photo=10)
    whole, part = crops.records(0, 40), crops.records(13, 31)
    assert np.array_equal(whole.images[13:31], part.images)
    assert list(whole.captions[13:31]) == list(part.captions)
    other = Crops(photos=Ramps(), resolution=16, per_photo=10, seed=1)
    assert not np.array_equal(other.records(0, 40).images, whole.images)
    assert other.version != crops.version


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"smallest=1.5 in \(0, 1\]"):
        Crops(photos=Ramps(), resolution=16, smallest=1.5)
