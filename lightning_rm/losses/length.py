"""How rewards go with length: Pearson's correlation with a gradient, for losses that look over a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rm.precision import wide


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns; 0, with a gradient of 0, where one of them is constant.

    A column whose values differ by rounding alone is constant: its correlation is noise, with a gradient that is huge.

    Args:
        x: (N, ...), a column, or one of each member.
        y: (N,).

    Returns:
        (...) in float32.
    """
    x = wide(x)
    x, y = _centred(x), _centred(y.to(x.dtype).view(-1, *[1] * (x.ndim - 1)))
    product = x.square().sum(0) * y.square().sum(0)
    constant = product == 0
    return (x * y).sum(0) * ~constant / product.where(~constant, 1.0).sqrt()


def _centred(column: Tensor) -> Tensor:
    """Return a column less its mean; zeros where they differ by rounding alone."""
    centred = column - column.mean(0)
    rounding = 4 * torch.finfo(column.dtype).eps * column.abs().amax(0)
    return centred * (centred.abs().amax(0) > rounding)
