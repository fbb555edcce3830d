"""How rewards go with length: Pearson's correlation with a gradient, for losses that look over a batch."""

from __future__ import annotations

from torch import Tensor

from lightning_rm.precision import wide


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns; 0, with a gradient of 0, where one of them is constant.

    Args:
        x: (N,).
        y: (N,).

    Returns:
        A float32 scalar.
    """
    x, y = wide(x), wide(y)
    x, y = x - x.mean(), y - y.mean()
    product = x.square().sum() * y.square().sum()
    constant = product == 0
    return (x * y).sum() * ~constant / product.where(~constant, 1.0).sqrt()
