"""DP-LDM (Liu et al., TMLR 2024, arXiv 2305.15759): latent diffusion finetuned with DP-SGD.

The autoencoder is public and frozen; of the U-Net the attention blocks (SpatialTransformer) and the
conditioning are trained. With ``training.lora_rank`` it is DP-LoRA (Tsai et al., ICCV 2025, arXiv
2406.01355): adapters at q, k, v and the output of every attention, and noise multiplicity
(``finetuning.views``).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wavedp.diffusion.generator import DiffusionGenerator


class DPLDM(DiffusionGenerator):
    """A latent diffusion model whose attention is trained with privacy."""

    def choose(self) -> Sequence[nn.Module]:
        """The attention blocks and the conditioning (``train_condition_only`` of the authors)."""
        return list(self.denoiser.conditioned())
