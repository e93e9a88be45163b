"""One figure of how DP-Wavelet works: images, their bands, and both stages of generation.

    python -m benchmarks.anatomy                       faces, epsilon 10
    python -m benchmarks.anatomy dataset=toyscenes privacy.epsilon=1

Finetunes DP-Wavelet once (its ledger lies beside the figure) and writes
``results/anatomy/<data set>.png``: for some captions the evaluation image, its wavelet bands, its
LL band, which is all that stage 1 may learn from a private image, the low band that the private
prior draws for the caption, and what the public upsampler makes of it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import hardware
from benchmarks.cell import (
    checkpoints_of,
    finetune,
    identity_of,
    make_generator,
    seed_everything,
)
from benchmarks.config import cells, make
from benchmarks.console import console, run_command, track
from benchmarks.evaluation import make_evaluation
from benchmarks.report.facts import epsilon_text
from benchmarks.report.plots.plot import png
from benchmarks.report.plots.style import INK, MUTED, STYLE
from benchmarks.run import with_private_side
from benchmarks.written import write
from wavedp.dp.errors import UserError
from wavedp.nn.images import to_float, to_uint8
from wavedp.wavelet.generator import DPWavelet
from wavedp.wavelet.transform import decompose, pack

FOLDER = Path("results/anatomy")
ROWS = 4
DETAIL_GAIN = 4.0
"""Details are small beside LL; for the eye they are enlarged and shown around grey."""


def bands(images: Tensor, levels: int) -> Tensor:
    """Images in [-1, 1] to their packed wavelet bands, scaled for the eye into the same range."""
    low, *details = decompose(images, levels)
    return pack([low / 2**levels, *(DETAIL_GAIN / 2 * detail for detail in details)])


def draw(columns: dict[str, Tensor], prompts: tuple[str, ...]) -> bytes:
    """Titled columns of images ``[n, 3, r, r]`` in [-1, 1], a row per prompt, as PNG."""
    with rc_context(STYLE):
        figure = Figure(figsize=(2.3 * len(columns), 2.65 * ROWS + 0.6))
        figure.subplots_adjust(0.01, 0.04, 0.99, 0.94, wspace=0.06, hspace=0.2)
        FigureCanvasAgg(figure)
        axes: Any = figure.subplots(ROWS, len(columns), squeeze=False)
        for place, (title, images) in enumerate(columns.items()):
            pixels = np.asarray(to_uint8(images).permute(0, 2, 3, 1))
            for row in range(ROWS):
                ax = axes[row, place]
                ax.imshow(pixels[row], interpolation="nearest")
                ax.set_axis_off()
            axes[0, place].set_title(title, fontsize=12, loc="left", pad=8, color=INK)
        for row, prompt in enumerate(prompts):
            text = textwrap.shorten(prompt, 130, placeholder="…")
            place = axes[row, 0].transAxes
            axes[row, 0].text(0, -0.05, text, fontsize=11, color=MUTED, va="top", transform=place)
        return png(figure)


def main(overrides: list[str]) -> int:
    """Finetune, draw and write the figure."""
    usual = ["method=dp_wavelet", "dataset=toyfaces", "privacy.epsilon=10", "seed=0"]
    given = {override.partition("=")[0] for override in overrides}
    usual = [override for override in usual if override.partition("=")[0] not in given]
    chosen = [c for c in cells([*usual, *overrides]) if c.row == "private"]
    cell = chosen[0]
    dataset = with_private_side(make(cell.config.dataset))
    if not dataset.redistributable:
        raise UserError(f"Pictures of {dataset.name} must not be passed on; choose a toy set.")
    dataset.check(track)
    seed_everything(cell.seed)
    generator = make_generator(cell)
    if not isinstance(generator, DPWavelet):
        raise UserError(f"{cell.config.method.name} has no low band to show; choose dp_wavelet.")
    evaluation = make_evaluation(dataset, ROWS)
    device = hardware.pick_device(cell.config.hardware.device)
    name = identity_of(cell)
    ledger = FOLDER / f"{name}.jsonl"
    finetune(cell, generator.to(device), dataset, ledger, device)
    real = to_float(evaluation.real(slice(0, ROWS)))
    low = torch.cat(list(generator.generate_low(evaluation.prompts, cell.seed))).cpu()
    made = torch.cat(list(generator.generate(evaluation.prompts, cell.seed))).cpu()
    side, epsilon = low.shape[-1], epsilon_text(cell.epsilon or 0)
    columns = {
        "image": real,
        "its wavelet bands": bands(real, generator.tokenizer.levels),
        f"its LL band, {side} px:\nall that DP sees": F.avg_pool2d(real, real.shape[-1] // side),
        f"stage 1, ε = {epsilon}:\ndrawn for the caption": low,
        "stage 2, public:\nupsampled": to_float(made),
    }
    path = write(FOLDER / f"{dataset.name}.png", draw(columns, evaluation.prompts))
    checkpoints_of(cell, ledger).remove()
    console.print(f"{path}, and {ledger} for what was spent")
    return 0


if __name__ == "__main__":
    run_command(main)
