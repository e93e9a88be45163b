"""AdamW whose second moment does not count the privacy noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class DPAdamW(torch.optim.Optimizer):
    """Bias-corrected DP-AdamW (Tang, Shpilevskiy and Lecuyer 2023, arXiv 2312.14334, DP-AdamBC).

    The noise adds its variance to the running mean of squared gradients, whatever the gradient:
    in private training Adam then divides every coordinate by nearly the same number. The
    variance is public, so it is taken away again:

        step = m / sqrt(max(v - noise_std^2, floor^2))

    with m and v Adam's moments, corrected for their start. Post-processing, so free.

    Args:
        params: as in ``torch.optim.AdamW``.
        lr: learning rate.
        noise_std: standard deviation of the noise on each entry of the released mean gradient,
            :meth:`wavedp.dp.Trainer.gradient_noise`. 0 makes this AdamW with ``floor`` for eps.
        betas: decay of the two moments.
        floor: the least that is divided by, in the units of a gradient. Where the true second
            moment is far below the noise, this bounds the step.
        weight_decay: decoupled, times the learning rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        noise_std: float,
        betas: tuple[float, float] = (0.9, 0.999),
        floor: float = 1e-4,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or noise_std < 0 or floor <= 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                "lr and noise_std must not be negative, floor must be positive and betas in [0, 1)"
            )
        defaults = {
            "lr": lr,
            "noise_std": noise_std,
            "betas": betas,
            "floor": floor,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:  # type: ignore[override]
        """One update from the gradients in ``.grad``."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state.update(
                step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter)
            )
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"]) - group["noise_std"] ** 2
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, square.clamp_min(group["floor"] ** 2).sqrt(), value=-group["lr"])
