"""Scale migration (SmoothQuant: Xiao et al. 2022, arXiv 2211.10438, equation 4): where it is possible, and by how much.

X W = (X / s) (s W): what makes X is divided by s, channel by channel, and the rows of the weights are multiplied by
it. That is exact up to float rounding, and the outlier channels of X, which share one scale with all others, shrink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]

ENOUGH = 0.01
"""Relative change of a scale below which it is left alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """A tensor whose channels (its last axis) can be scaled, and the products that read it.

    Attributes:
        tensor: its name.
        source: node that takes up 1/s: a norm, a Mul by constants or a linear op; with `branch` what makes the tensor.
        products: names of the MatMul and Gemm that take up s.
        weights: of the products, float [K, N], K being the channels of the tensor.
        branch: the tensor is read elsewhere, too, or its source cannot take up 1/s: a Mul is needed in front of the
            products.
    """

    tensor: str
    source: str
    products: tuple[str, ...]
    weights: tuple[NDArray[Any], ...]
    branch: bool = False


def migration(activations: ArrayLike, weights: ArrayLike, alpha: float) -> Vector:
    """s = a^alpha / w^(1 - alpha) for each channel, divided by its geometric mean (one factor for all channels changes
    no rounding).

    A channel that is always 0 keeps s = 1. One that no weight reads is only brought down to the greatest of the others.

    Args:
        activations: greatest absolute value of each channel, [K].
        weights: greatest absolute value of each row, [K].
        alpha: 0: all equal in the weights, 1: all equal in the activations.

    >>> migration([16.0, 1.0], [1.0, 1.0], 0.5).tolist()
    [2.0, 0.5]
    """
    a, w = np.asarray(activations, np.float64), np.asarray(weights, np.float64)
    alive = (a > 0) & (w > 0)
    s = np.ones(a.shape)
    if not alive.any():
        return s
    s[alive] = a[alive] ** alpha / w[alive] ** (1 - alpha)
    s[alive] /= np.exp(np.log(s[alive]).mean())
    unread = (a > 0) & (w == 0)
    s[unread] = np.maximum(a[unread] / (a[alive] / s[alive]).max(), 1.0)
    return s


def rows(weights: Sequence[NDArray[Any]]) -> Vector:
    """The greatest absolute value of each row over several matrices [K, N], float64 [K]."""
    return np.asarray(np.max([np.abs(w).max(axis=1, initial=0) for w in weights], axis=0), np.float64)


def moves(s: Vector) -> bool:
    """Does any channel change by more than `ENOUGH`?"""
    return bool((np.abs(s - 1) > ENOUGH).any())
