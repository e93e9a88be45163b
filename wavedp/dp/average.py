"""The exponential moving average of weights: post-processing, so free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wavedp.dp.clipping.gradients import full


class Average:
    """Averages weights over steps, corrected for its start as in Adam.

    After T steps with decay d: ``sum_t (1 - d) d^(T - t) w_t / (1 - d^T)``.

    Args:
        decay: d; 0 takes the weights of the last step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._weight = parameters, decay, 0.0
        averaged = parameters if decay else {}
        self._sums = {name: full(torch.zeros_like(p)) for name, p in averaged.items()}

    def update(self) -> None:
        """Take in the weights of a step."""
        self._weight = self._decay * self._weight + (1 - self._decay)
        for name, total in self._sums.items():
            total.lerp_(full(self._parameters[name].detach()), 1 - self._decay)

    def write_back(self) -> None:
        """Make the average the weights."""
        for name, total in self._sums.items():
            self._parameters[name].data.copy_(total / self._weight)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"weight": self._weight, "sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from an earlier average."""
        self._weight = state["weight"]
        for name, total in self._sums.items():
            total.copy_(state["sums"][name])
