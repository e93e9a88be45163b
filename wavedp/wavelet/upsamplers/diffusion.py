"""Text-guided diffusion upsampling with the published pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.dp.errors import UserError
from wavedp.nn.untrained import drawn, wordless

MOST_NOISE = 350
"""Levels that the published low-resolution scheduler has."""

STEPS = 50
"""Of denoising, where nothing is said."""

UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 7,
    "out_channels": 4,
    "block_out_channels": (256, 512, 512, 1024),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
    "only_cross_attention": (True, True, True, False),
    "cross_attention_dim": 1024,
    "attention_head_dim": 8,
    "use_linear_projection": True,
    "num_class_embeds": 1000,
}
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
    "scaling_factor": 0.08333,
}
TEXT: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
"""Of stabilityai/stable-diffusion-x4-upscaler (x4-upscaling.yaml of its authors)."""


class DiffusionUpsampler(nn.Module):
    """``StableDiffusionUpscalePipeline``: four times larger, guided by the prompt.

    Args:
        model: a name on the Hugging Face Hub or a folder.
        steps: of denoising.
        guidance: classifier-free guidance scale.
        noise_level: noise added to the low image first, 0..350; more hides what quantisation
            did to it.
        batch: images at once.
        revision: of the weights; a commit, for results that can be repeated.

    Raises:
        UserError: a setting is out of range, or diffusers or the weights are missing.
    """

    factor = 4
    takes = None

    def __init__(
        self,
        model: str = "stabilityai/stable-diffusion-x4-upscaler",
        steps: int = STEPS,
        guidance: float = 7.5,
        noise_level: int = 20,
        batch: int = 8,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if not (0 <= noise_level <= MOST_NOISE and steps >= 1 and batch >= 1):
            raise UserError(
                f"upsampler.noise_level={noise_level} must lie in 0..{MOST_NOISE}, and "
                f"steps={steps} and batch={batch} must be at least 1."
            )
        try:
            from diffusers import StableDiffusionUpscalePipeline
        except ModuleNotFoundError as error:
            raise UserError(
                "The diffusion upsampler needs diffusers and transformers; install them with "
                '`pip install "wavedp[paper]"`.'
            ) from error
        try:
            parts = _drawn()
            self._pipeline = (
                StableDiffusionUpscalePipeline(**parts)
                if parts is not None
                else StableDiffusionUpscalePipeline.from_pretrained(
                    model, revision=revision, local_files_only=True
                )
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"The weights of {model} are not on this machine; fetch them with "
                f"`hf download {model}` or set upsampler.model to a folder."
            ) from error
        self._pipeline.set_progress_bar_config(disable=True)
        self._settings = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "noise_level": noise_level,
        }
        self._batch = batch

    @torch.no_grad()
    def upsample(self, low: Tensor, captions: Sequence[str], seed: int) -> Tensor:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`."""
        pipeline = self._pipeline.to(low.device)
        generator = torch.Generator("cpu").manual_seed(seed)
        made = []
        for start in range(0, len(low), self._batch):
            part = slice(start, start + self._batch)
            output = pipeline(
                prompt=list(captions[part]),
                image=(low[part] + 1) / 2,
                generator=generator,
                output_type="pt",
                **self._settings,
            )
            made.append(output.images * 2 - 1)
        return torch.cat(made).to(low.device)

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`~wavedp.wavelet.upsamplers.Upsampler`: its CLIP cuts long prompts."""
        tokenizer = self._pipeline.tokenizer
        most = int(tokenizer.model_max_length)
        for number, prompt in enumerate(prompts, 1):
            if len(tokenizer(prompt).input_ids) > most:
                raise UserError(
                    f"Prompt {number} is longer than the {most} tokens that the upsampler takes: "
                    f"{prompt[:60]!r}...; use a protocol with shorter captions."
                )


def _drawn() -> dict[str, Any] | None:
    """The parts of the published pipeline with random weights; None where files are to be read."""
    settings = drawn("upscaler_unet", UNET)
    if settings is None:
        return None
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    levels = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    text = CLIPTextConfig(**drawn("upscaler_text", TEXT) or {})
    return {
        "vae": AutoencoderKL(**drawn("upscaler_autoencoder", AUTOENCODER) or {}),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": wordless(text.max_position_embeddings),
        "unet": UNet2DConditionModel(**settings),
        "low_res_scheduler": DDPMScheduler(**levels),
        "scheduler": DDIMScheduler(**levels, prediction_type="v_prediction", clip_sample=False),
        "max_noise_level": MOST_NOISE,
    }
