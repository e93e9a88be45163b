"""Images per second of preparing photographs, beside a bare loop of Pillow's decode and resize.

Both sides take turns in every round, on one thread each, and are measured in seconds of the
processor, so that neither other programs nor the number of cores count: the figure is per core.
The bare loop opens, converts, crops and resizes, and keeps nothing; preparing also stamps, checks,
stores and records checksums. Run it with ``make throughput``: its settings of the memory
allocator are part of the figure, without them threads give memory back after every image.
"""

import time

import numpy as np
import pytest
from PIL import Image

from wavedp.data.cache import ImageCache, Picture
from wavedp.data.stored import File

ROUNDS = 15
SETS = [(640, 480, 256, 128), (512, 512, 256, 128), (64, 64, 64, 4096)]
"""Width, height, side to make, and how many: all take about half a second."""


@pytest.fixture(scope="module", params=SETS, ids=str)
def photographs(request, tmp_path_factory):
    """JPEG files of a photograph's size and roughly its spectrum, and the side to make of them."""
    width, height, resolution, count = request.param
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        fine = rng.normal(0, 8, (height, width, 1))
        pixels = np.clip(np.asarray(smooth) + fine, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    return sorted(folder.iterdir()), resolution


def bare(files, resolution):
    """The least that Pillow can be asked to do."""
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        square.resize((resolution, resolution), Image.Resampling.LANCZOS)


def prepare(files, resolution, folder):
    """The whole cache, from the first stamp to the last checksum."""
    pictures = [Picture(file.name, File(file)) for file in files]
    cache = ImageCache(
        folder / "x.npy",
        pictures,
        root=files[0].parent,
        resolution=resolution,
        private=False,
        workers=1,
    )
    cache.discard()
    cache.images()


def processor_seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def test_preparing(benchmark, photographs, tmp_path):
    files, resolution = photographs
    seconds = []

    def one_round():
        plain = processor_seconds(lambda: bare(files, resolution))
        seconds.append((plain, processor_seconds(lambda: prepare(files, resolution, tmp_path))))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    # The best round of each side: what other programs take from the caches only ever adds.
    plain, whole = (len(files) / float(best) for best in np.min(seconds, axis=0))
    ratio = whole / plain
    benchmark.extra_info.update(
        bare_images_per_core_second=round(plain),
        prepare_images_per_core_second=round(whole),
        ratio=round(ratio, 3),
    )
    print(f"\nbare {plain:,.0f}, prepare {whole:,.0f} images/s per core, ratio {ratio:.2f}")
    # A thumbnail takes Pillow a tenth of a millisecond, and opening and storing it as much.
    if resolution == 256:
        assert ratio >= 0.9
