"""Random square crops of public photographs: more to learn from than the photographs themselves.

For networks that look at neighbourhoods (tokenizers, upsamplers) a thousand photographs hold
many more pictures than a thousand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wavedp.data.schema import PublicDataset, Records
from wavedp.dp.errors import UserError
from wavedp.dp.progress import Progress, silent


class Crops:
    """``per_photo`` crops of each photograph, in order; implements ``schema.PublicDataset``.

    Record i is of photograph ``i // per_photo``, so two ranges of records that meet at a multiple
    of ``per_photo`` share no photograph. A crop depends on the seed and its number alone.

    Args:
        photos: where the photographs come from, at a larger resolution.
        resolution: side of the crops in pixels, after resizing with Lanczos.
        per_photo: crops of each.
        smallest: side of the smallest crop as a share of the photograph's, in (0, 1]; sides are
            uniform between it and the whole. Half of the crops are mirrored.
        seed: of places, sizes and mirroring.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        photos: PublicDataset,
        resolution: int,
        per_photo: int = 20,
        smallest: float = 0.5,
        seed: int = 0,
    ) -> None:
        if per_photo < 1 or not 0 < smallest <= 1 or resolution < 1:
            raise UserError(
                f"Crops need per_photo={per_photo} and resolution={resolution} of at least 1 and "
                f"smallest={smallest} in (0, 1]."
            )
        self._photos, self.resolution, self._per_photo = photos, resolution, per_photo
        self._smallest, self._seed = smallest, seed
        self.name = f"{photos.name}-crops"
        sizes = f"{photos.resolution}to{resolution}px"
        self.version = f"{photos.version}-{sizes}-{per_photo}x{smallest:g}-seed{seed}"

    def records(self, start: int, stop: int, progress: Progress = silent) -> Records:
        """Crops ``start`` to ``stop`` (exclusive).

        Raises:
            UserError: there are not so many photographs; or as they are read.
        """
        first = start // self._per_photo
        photos = self._photos.records(first, -(-stop // self._per_photo), progress)
        shape = (stop - start, 3, self.resolution, self.resolution)
        images, captions = np.empty(shape, np.uint8), []
        for row, record in enumerate(progress(range(start, stop), "cropping")):
            photo = record // self._per_photo - first
            images[row] = self._crop(photos.images[photo], record)
            captions.append(photos.captions[photo])
        return Records(images, captions, f"{self.name} {self.version}")

    def _crop(self, photo: NDArray[np.uint8], record: int) -> NDArray[np.uint8]:
        dice = np.random.default_rng([self._seed, record])
        whole = photo.shape[-1]
        side = round(whole * dice.uniform(self._smallest, 1))
        top, left = dice.integers(whole - side + 1, size=2)
        cut = photo[:, top : top + side, left : left + side].transpose(1, 2, 0)
        if dice.random() < 0.5:
            cut = cut[:, ::-1]
        size = (self.resolution, self.resolution)
        small = Image.fromarray(np.ascontiguousarray(cut)).resize(size, Image.Resampling.LANCZOS)
        return np.asarray(small, np.uint8).transpose(2, 0, 1)
