"""How images are noised, and what a denoiser is asked for, in the two parametrisations in use.

Shapes: b rows; x, clean images or latents, ``[b, c, h, w]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
)
from torch import Tensor

from wavedp.dp.errors import UserError

LEAST = 0.05
"""Variance of noise below which a clean image as the target is given no greater weight."""


@dataclass(frozen=True)
class Noised:
    """Attributes:
    inputs: what the network sees, ``[b, c, h, w]``.
    times: which noise level that is, ``[b]``.
    target: what it should answer, ``[b, c, h, w]``.
    weight: of the squared error of each, ``[b]``.
    """

    inputs: Tensor
    times: Tensor
    target: Tensor
    weight: Tensor


class Process(Protocol):
    """A noise law for training, and the solver that goes back along it."""

    def noised(self, clean: Tensor) -> Noised:
        """Each row at a random noise level, with random noise."""

    def solver(self, steps: int) -> Any:
        """A new scheduler of diffusers that takes so many steps."""


@dataclass(frozen=True)
class DDPM:
    """Discrete noise levels (Ho et al. 2020, arXiv 2006.11239), as latent diffusion has them.

    Attributes:
        beta_start, beta_end, beta_schedule: of the noise levels, in the names of diffusers.
        levels: how many.
        prediction_type: "epsilon", the noise; "v_prediction" (Salimans and Ho 2022); or "sample",
            the clean image, with the weights that the error of v would have. A narrow network over
            large patches cannot hand on the noise of a patch, as the first two ask of it (Li and He
            2025, arXiv 2511.13720).
        solver_type: the class of diffusers that samples, such as DDIMScheduler.

    Raises:
        UserError: another prediction type.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    levels: int = 1000
    prediction_type: str = "epsilon"
    solver_type: type = DPMSolverMultistepScheduler

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise UserError(
                f"process.prediction_type={self.prediction_type!r} must be epsilon, v_prediction "
                "or sample."
            )

    def noised(self, clean: Tensor) -> Noised:
        """See :class:`Process`."""
        times = torch.randint(self.levels, (len(clean),), device=clean.device)
        share = self._shares.to(clean.device)[times].view(-1, *[1] * (clean.dim() - 1))
        alpha, sigma, noise = share.sqrt(), (1 - share).sqrt(), torch.randn_like(clean)
        inputs, weight = alpha * clean + sigma * noise, torch.ones_like(sigma)
        if self.prediction_type == "epsilon":
            target = noise
        elif self.prediction_type == "v_prediction":
            target = alpha * noise - sigma * clean
        else:
            target, weight = clean, 1 / sigma.square().clamp(min=LEAST)
        return Noised(inputs, times, target, weight.flatten())

    def solver(self, steps: int) -> Any:
        """See :class:`Process`.

        Raises:
            UserError: the levels cannot be taken in so many equal steps, which DDIM relies on.
        """
        if self.levels % steps:
            raise UserError(f"training.steps={steps} must divide the {self.levels} noise levels.")
        return self.solver_type.from_config(self._scheduler().config)  # type: ignore[attr-defined]

    @cached_property
    def _shares(self) -> Tensor:
        """Of the clean image's variance at each level."""
        return torch.as_tensor(self._scheduler().alphas_cumprod)

    def _scheduler(self) -> Any:
        return DDPMScheduler(
            num_train_timesteps=self.levels,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            beta_schedule=self.beta_schedule,
            prediction_type=self.prediction_type,
            clip_sample=False,
            timestep_spacing="trailing",
        )


def ddim() -> DDPM:
    """The noise levels of latent diffusion, sampled by DDIM (Song et al., arXiv 2010.02502)."""
    return DDPM(solver_type=DDIMScheduler)


@dataclass(frozen=True)
class EDM:
    """Continuous noise levels and preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1).

    DPDM (Dockhorn et al. 2023, arXiv 2210.09929) trains so.

    Attributes:
        deviation: sigma_data, of what a denoiser has brought to unit variance.
        log_mean, log_deviation: P_mean and P_std of the noise levels in training.
        least, most: noise levels of sampling.
    """

    deviation: float = 1.0
    log_mean: float = -1.2
    log_deviation: float = 1.2
    least: float = 0.002
    most: float = 80.0

    def noised(self, clean: Tensor) -> Noised:
        """See :class:`Process`. The target is F of equation 7, of unit variance."""
        law = torch.randn(len(clean), device=clean.device)
        levels = (self.log_mean + self.log_deviation * law).exp()
        sigma = levels.view(-1, *[1] * (clean.dim() - 1))
        noisy = clean + sigma * torch.randn_like(clean)
        total = sigma.square() + self.deviation**2
        skip, out = self.deviation**2 / total, sigma * self.deviation / total.sqrt()
        target = (clean - skip * noisy) / out
        return Noised(noisy / total.sqrt(), levels.log() / 4, target, torch.ones_like(levels))

    def solver(self, steps: int) -> Any:
        """See :class:`Process`."""
        del steps  # any
        return EDMDPMSolverMultistepScheduler(
            sigma_min=self.least, sigma_max=self.most, sigma_data=self.deviation
        )
