"""Images per second of the embedded sets at 32 px, attributes included, on one thread."""

import pytest

from wavedp.data.toyatlas import ToyAtlas
from wavedp.data.toyfaces import ToyFaces
from wavedp.data.toyscenes import ToyScenes
from wavedp.data.toyworld import ToyWorld

COUNT = 4096


@pytest.mark.parametrize("toy", [ToyFaces, ToyScenes, ToyWorld, ToyAtlas], ids=lambda t: t.domain)
def test_drawing(benchmark, toy):
    drawn = toy(resolution=32)

    def draw():
        for start in range(0, COUNT, drawn.chunk):
            drawn.draw(range(start, min(start + drawn.chunk, COUNT)))

    benchmark.extra_info["images"] = COUNT
    benchmark.pedantic(draw, rounds=3, warmup_rounds=1)
