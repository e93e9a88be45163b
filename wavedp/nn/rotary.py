"""Rotary positions on a grid: how far apart two tokens are, in rows and in columns.

Su et al. 2021 (arXiv 2104.09864, equation 34) in two dimensions, as LlamaGen (Sun et al. 2024,
arXiv 2406.06525, section 2.2): the first half of a head's pairs turns with the row, the second
with the column.

Shapes: h heads, t positions, p = head width / 2 pairs of neighbouring channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavedp.dp.errors import UserError


def grid_rotation(
    grid: int, head_width: int, prefix: int, keyed: bool = False, base: float = 10000.0
) -> Tensor:
    """Cosine and sine of the angle of every pair at every position, ``[prefix + grid**2, p, 2]``.

    Args:
        prefix: positions before the grid, which have no place on it.
        keyed: leave the prefix as it is, so that the grid can choose among its slots. LlamaGen
            gives it zeros in place of cosines and sines, hence queries and keys of zero, and its
            weights are trained so: what the text says is in its values, and all its slots weigh
            the same.

    Raises:
        UserError: the head is too narrow to be split into rows and columns of pairs.
    """
    if head_width % 4:
        raise UserError(
            f"A head of {head_width} channels does not split into pairs for rows and for columns; "
            "choose width and heads so that width / heads divides by 4."
        )
    rates = base ** -(torch.arange(0, head_width // 2, 2) / (head_width // 2))
    angles = torch.outer(torch.arange(grid), rates)
    rows, columns = angles.repeat_interleave(grid, 0), angles.repeat(grid, 1)
    angle = torch.cat([rows, columns], dim=1)
    turned = torch.stack([angle.cos(), angle.sin()], dim=2)
    place = torch.tensor([float(keyed), 0.0]).expand(prefix, turned.shape[1], 2)
    return torch.cat([place, turned])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Queries or keys ``[..., h, t, 2 p]``, each pair of channels turned by its angle.

    Args:
        rotation: ``[t, p, 2]``, rows of :func:`grid_rotation`.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)
