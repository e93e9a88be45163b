"""Samples of every method for the same prompts: one labelled picture, and rows for the page.

The picture is as large as it is looked at. The page has the pixels of the samples and no others,
which the browser enlarges, so it stays small however many methods there are.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from benchmarks.record import Record
from benchmarks.report.facts import clean, label, line_label, slug
from benchmarks.report.frame import lines, select

TILE = 96
"""Wanted size of a tile on screen; the scale is the whole number that comes nearest."""
GAP, GROUP_GAP, LEFT, MARGIN = 4, 14, 190, 12
INK, MUTED, PAPER, EMPTY = "#1f2328", "#6b7280", "#ffffff", "#eef0f3"
CAPTION_SIZE, CAPTION_LINES = 12, 6
QUALITY = 95
"""Of JPEG without subsampled colours: a person sees no difference, and samples, which are noisy,
take less than half of what PNG takes. The files beside the page are lossless."""


@dataclass(frozen=True)
class _Strip:
    group: str
    title: str
    tiles: tuple[Image.Image, ...]
    """Empty if the cell failed."""


@dataclass(frozen=True)
class Row:
    """One row of a :class:`Grid`."""

    group: str
    title: str
    picture: bytes
    """JPEG: its tiles side by side in their own size; empty if the cell failed."""


@dataclass(frozen=True)
class Grid:
    """What :func:`sample_grid` draws, in parts that a page puts together."""

    prompts: tuple[str, ...]
    rows: tuple[Row, ...]
    columns: int
    tile: int
    """Pixels of a tile on screen."""
    gap: int
    """Pixels between two tiles on screen."""

    @property
    def width(self) -> int:
        """Pixels of a row on screen."""
        return self.columns * (self.tile + self.gap) - self.gap


def prompts_of(suite_folder: Path, dataset: str) -> list[str]:
    """The shared prompts of a dataset; an empty list if the suite kept none."""
    path = suite_folder / "samples" / f"prompts-{slug(dataset)}.json"
    if not path.is_file():
        return []
    return [str(prompt) for prompt in json.loads(path.read_text(encoding="utf-8"))]


def sample_grid(
    suite_folder: Path,
    dataset: str,
    records: Sequence[Record],
    seed: int | None = None,
    columns: int = 8,
    start: int = 0,
) -> Image.Image | None:
    """Labelled rows (real images, then every method by budget) over columns of prompts.

    Args:
        suite_folder: the folder that holds ``samples/``.
        dataset: the dataset of the rows.
        records: records of the suite; those of other datasets are left out.
        seed: the seed whose samples are shown; the lowest of each row by default.
        columns: how many prompts, in their given order.
        start: the first prompt.

    Returns:
        The picture, or None if there are no samples. A failed cell is an empty row.
    """
    strips = _strips(suite_folder, dataset, records, seed)
    shown = [_cut(strip, start, columns) for strip in strips]
    widest = _widest(shown)
    if widest == 0:
        return None
    prompts = prompts_of(suite_folder, dataset)[start : start + widest]
    return _draw(shown, prompts, widest)


def page_grid(
    suite_folder: Path, dataset: str, records: Sequence[Record], columns: int, start: int
) -> Grid | None:
    """As :func:`sample_grid`, for the page: rows of tiles that are not enlarged."""
    strips = _strips(suite_folder, dataset, records, None)
    shown = [_cut(strip, start, columns) for strip in strips]
    widest = _widest(shown)
    if widest == 0:
        return None
    scale = _scale(_side(shown))
    gap = max(1, GAP // scale)
    return Grid(
        prompts=tuple(prompts_of(suite_folder, dataset)[start : start + widest]),
        rows=tuple(Row(s.group, s.title, _joined(s.tiles, widest, gap)) for s in shown),
        columns=widest,
        tile=_side(shown) * scale,
        gap=gap * scale,
    )


def _joined(tiles: Sequence[Image.Image], columns: int, gap: int) -> bytes:
    """Tiles side by side as JPEG, on paper as wide as that of all rows."""
    if not tiles:
        return b""
    side = tiles[0].width
    strip = Image.new("RGB", (columns * (side + gap) - gap, side), PAPER)
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (side + gap), 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()


def _widest(strips: Sequence[_Strip]) -> int:
    return max((len(strip.tiles) for strip in strips), default=0)


def _side(strips: Sequence[_Strip]) -> int:
    return next(strip.tiles[0].width for strip in strips if strip.tiles)


def _scale(side: int) -> int:
    return max(1, int(TILE / side + 0.5))


def _cut(strip: _Strip, start: int, columns: int) -> _Strip:
    return _Strip(strip.group, strip.title, strip.tiles[start : start + columns])


def _strips(
    suite_folder: Path, dataset: str, records: Sequence[Record], seed: int | None
) -> list[_Strip]:
    real = _tiles(suite_folder, f"samples/real-{slug(dataset)}.png")
    strips = [_Strip("Real images", "", real)] if real else []
    groups = lines(select(records, lambda record: record.dataset == dataset))
    for key, group in groups.items():
        cells = [record for record in group if seed is None or record.seed == seed]
        tiles = next((t for t in (_samples(suite_folder, cell) for cell in cells) if t), ())
        if tiles or (cells and all(cell.status == "failed" for cell in cells)):
            strips.append(_Strip(label(key.method), line_label(key), tiles))
    return strips


def _samples(suite_folder: Path, record: Record) -> tuple[Image.Image, ...]:
    return _tiles(suite_folder, record.samples) if record.samples else ()


def _tiles(suite_folder: Path, name: str) -> tuple[Image.Image, ...]:
    """The square images of a strip; none if it is missing or lies outside the suite's folder."""
    path = (suite_folder / name).resolve()
    if not path.is_relative_to(suite_folder.resolve()) or not path.is_file():
        return ()
    with Image.open(path) as opened:
        strip = opened.convert("RGB")
    side = strip.height
    return tuple(
        strip.crop((place * side, 0, (place + 1) * side, side))
        for place in range(strip.width // side)
    )


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Matplotlib carries this font: the same picture on every machine, with ε and ∞ in it.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)


def _draw(strips: Sequence[_Strip], prompts: Sequence[str], columns: int) -> Image.Image:
    tile = _side(strips) * _scale(_side(strips))
    top = MARGIN + _caption_height(prompts, tile)
    tops = _tops(strips, top, tile)
    size = (LEFT + columns * (tile + GAP) - GAP + MARGIN, tops[-1] + tile + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, prompt in enumerate(prompts):
        _draw_caption(draw, prompt, LEFT + place * (tile + GAP), top - 8, tile)
    previous = ""
    for strip, y in zip(strips, tops, strict=True):
        _draw_label(draw, strip, y, tile, first=strip.group != previous)
        _draw_tiles(canvas, draw, strip, y, tile, columns)
        previous = strip.group
    return canvas


def _tops(strips: Sequence[_Strip], top: int, tile: int) -> list[int]:
    tops, previous = [top], strips[0].group
    for strip in strips[1:]:
        gap = GAP if strip.group == previous else GROUP_GAP
        tops.append(tops[-1] + tile + gap)
        previous = strip.group
    return tops


def _caption_lines(prompt: str, tile: int) -> list[str]:
    characters = max(8, int(tile / (CAPTION_SIZE * 0.58)))
    return textwrap.wrap(clean(prompt), characters, max_lines=CAPTION_LINES, placeholder="…")


def _caption_height(prompts: Sequence[str], tile: int) -> int:
    lines = max((len(_caption_lines(prompt, tile)) for prompt in prompts), default=0)
    return lines * (CAPTION_SIZE + 3) + (10 if lines else 0)


def _draw_caption(draw: ImageDraw.ImageDraw, prompt: str, x: int, bottom: int, tile: int) -> None:
    lines = _caption_lines(prompt, tile)
    for place, line in enumerate(reversed(lines)):
        y = bottom - place * (CAPTION_SIZE + 3)
        draw.text((x, y), line, fill=MUTED, font=_font(CAPTION_SIZE), anchor="ls")


def _draw_label(draw: ImageDraw.ImageDraw, strip: _Strip, y: int, tile: int, first: bool) -> None:
    middle = y + tile // 2
    if first:
        at = (MARGIN, middle - 12 if strip.title else middle)
        draw.text(at, strip.group, fill=INK, font=_font(16, bold=True), anchor="lm")
    at = (MARGIN, middle + 11 if first else middle)
    draw.text(at, strip.title, fill=INK, font=_font(15), anchor="lm")


def _draw_tiles(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    strip: _Strip,
    y: int,
    tile: int,
    columns: int,
) -> None:
    if not strip.tiles:
        right = LEFT + columns * (tile + GAP) - GAP - 1
        draw.rectangle((LEFT, y, right, y + tile - 1), fill=EMPTY)
        at = ((LEFT + right) // 2, y + tile // 2)
        draw.text(at, "failed", fill=MUTED, font=_font(15), anchor="mm")
    for place, image in enumerate(strip.tiles):
        large = image.resize((tile, tile), Image.Resampling.NEAREST)
        canvas.paste(large, (LEFT + place * (tile + GAP), y))
