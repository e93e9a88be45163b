"""Pixel diffusion with DP-SGD: DPDM and PDP-Diffusion.

DPDM (Dockhorn et al., TMLR 2023, arXiv 2210.09929) trains a small diffusion model of pixels with
noise multiplicity (``finetuning.views``); Ghalebikesabi et al. (arXiv 2302.13861; PDP-Diffusion in
DPImageBench) begin with a publicly pretrained one, as here. All weights are trained.
"""

from __future__ import annotations

from wavedp.diffusion.autoencoder import PixelEncoder, Pixels
from wavedp.diffusion.denoiser import Denoiser
from wavedp.diffusion.generator import DiffusionGenerator
from wavedp.diffusion.training import DiffusionTraining


class DPPixelDiffusion(DiffusionGenerator):
    """A diffusion model of pixels, every weight of it under DP.

    Args:
        denoiser: takes the images.
        training: how it is trained and sampled.
    """

    def __init__(self, denoiser: Denoiser, training: DiffusionTraining) -> None:
        super().__init__(Pixels(denoiser.side), denoiser, training)
        self._encode = PixelEncoder()
