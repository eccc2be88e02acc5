"""MSE: the range with the least expected squared error of quantization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import PerChannel, Scheme
from onnxq.errors import UsageError
from onnxq.numerics import affine, dequantize, quantize
from onnxq.stats.statistics import TensorStatistics
from onnxq_calibration._distribution import Array, Distribution, distribution, is_mirrored, levels

SLACK = 0.01
"""Share of the least error within which two ranges are as good as each other."""

AROUND = 0.1
"""Share of an end by which one looks around it for ranges that are as good."""

STEPS = 8
"""To each side of an end."""


@dataclass(frozen=True, kw_only=True)
class Mse:
    """The (low, high) with the least mean squared error, rounding and clipping together.

    A narrower range rounds finer and clips more; this balances the two for the tensor itself (Nagel et al. 2021,
    arXiv 2106.08295, section 3.1). It does not know what the next op feels: rare large values cost it little even
    where the network lives on them, but far more than they cost a percentile, because their error counts squared.

    Both ends are searched together, in two steps. First every pair of candidates by a closed form on prefix sums of
    the histogram, with s the step:

        E = sum of x^2 where |x| < s/2  +  s^2/12 * elements in [low, high] elsewhere  +  clipping error of both tails

    then the `finalists` best pairs and the whole range exactly, bin by bin, with the encoding that would be written.
    The least of a flat function is chance; what is taken is the middle of the pairs around the best one by whose
    estimates no more than 1 % is lost, weighted by how much less is, unless the exact error says otherwise.

    Attributes:
        candidates: candidates per side.
        finalists: pairs that are computed exactly.
    """

    candidates: int = 128
    finalists: int = 24

    observers: ClassVar[tuple[str, ...]] = ("minmax", "histogram")

    def __post_init__(self) -> None:
        if self.candidates < 2 or self.finalists < 1:
            raise UsageError(
                f"mse has {self.candidates} candidates and {self.finalists} finalists: it needs at least 2 and 1"
            )

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        low, high = statistics.min, statistics.max
        if low == high or levels(scheme) > 1 << 12:
            return low, high  # 16 bits round finer than the histogram can tell
        return self.search(distribution(statistics), low, high, scheme)

    def search(self, seen: Distribution, low: float, high: float, scheme: Scheme) -> tuple[float, float]:
        """The best range within [low, high], low < high, for a distribution whose counts may be any weights."""
        if is_mirrored(scheme):
            highs = _ends(max(-low, high), self.candidates)
            pairs = np.stack([-highs, highs], axis=1)
        else:
            lows = -_ends(-low, self.candidates) if low < 0 else np.zeros(1)
            highs = _ends(high, self.candidates) if high > 0 else np.zeros(1)
            pairs = np.stack(np.meshgrid(lows, highs, indexing="ij"), axis=-1).reshape(-1, 2)
        estimate = _estimate(seen, pairs, levels(scheme))
        best = pairs[np.argsort(estimate, kind="stable")[: self.finalists]]
        finalists = np.concatenate([pairs[:1], best])  # the first pair is the whole range
        chosen = finalists[int(np.argmin(_exact(seen, finalists, scheme)))]
        middle = _middle(seen, chosen, (min(low, 0.0), max(high, 0.0)), scheme)
        errors = _exact(seen, np.stack([chosen, middle]), scheme)
        if errors[1] <= errors[0] * (1 + 2 * SLACK):
            chosen = middle
        return max(float(chosen[0]), min(low, 0.0)), min(float(chosen[1]), max(high, 0.0))


def _ends(end: float, number: int) -> Array:
    """Candidates for the far end of one side, descending from `end`: half in equal steps, half in equal ratios down
    to end / 1000.

    Outliers of a thousand times the bulk occur (transformers): equal steps alone would not reach it.
    """
    equal = np.linspace(1.0, 0.02, number - number // 2)
    ratios = np.geomspace(1.0, 1e-3, number // 2 + 1)[1:]
    return end * np.unique(np.concatenate([equal, ratios]))[::-1]


def _middle(seen: Distribution, chosen: Array, limits: tuple[float, float], scheme: Scheme) -> Array:
    """The middle of the ranges around `chosen`, within `limits`, whose estimated error is hardly above the least."""
    around = np.linspace(1 - AROUND, 1 + AROUND, 2 * STEPS + 1)
    lows, highs = np.maximum(chosen[0] * around, limits[0]), np.minimum(chosen[1] * around, limits[1])
    if is_mirrored(scheme):
        highs = np.minimum(chosen[1] * around, max(-limits[0], limits[1]))
        pairs = np.stack([-highs, highs], axis=1)
    else:
        pairs = np.stack(np.meshgrid(lows, highs, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = np.unique(pairs, axis=0)
    estimate = _estimate(seen, pairs, levels(scheme))
    weight = np.maximum(0.0, estimate.min() * (1 + SLACK) - estimate)
    if not weight.sum() > 0:
        return chosen
    middle: Array = (weight[:, None] * pairs).sum(axis=0) / weight.sum()
    return middle


def _estimate(seen: Distribution, pairs: Array, steps: int) -> Array:
    """The closed form of the class docstring for each pair: total squared error, [pairs]."""
    x, weight = seen.centers, seen.counts
    zeroth, first, second = (np.concatenate([[0.0], np.cumsum(weight * x**k)]) for k in range(3))
    low, high = pairs[:, 0], pairs[:, 1]
    step = (high - low) / steps
    # index of the first bin right of each bound
    below, above = np.searchsorted(x, low), np.searchsorted(x, high, side="right")
    near = np.clip(np.searchsorted(x, -step / 2), below, above), np.clip(np.searchsorted(x, step / 2), below, above)
    under = second[below] - 2 * low * first[below] + low**2 * zeroth[below]
    n, f, s = zeroth[-1] - zeroth[above], first[-1] - first[above], second[-1] - second[above]
    over = s - 2 * high * f + high**2 * n
    inside = zeroth[above] - zeroth[below] - (zeroth[near[1]] - zeroth[near[0]])
    error: Array = under + over + second[near[1]] - second[near[0]] + inside * step**2 / 12
    return error


def _exact(seen: Distribution, pairs: Array, scheme: Scheme) -> NDArray[np.float64]:
    """Squared error of the centre of every bin under the encoding of each pair, weighted, [pairs]."""
    encoding = affine(pairs[:, 0], pairs[:, 1], replace(scheme, granularity=PerChannel(0)))
    x = np.broadcast_to(seen.centers.astype(np.float32), (len(pairs), len(seen.counts)))
    with np.errstate(over="ignore"):  # beside the largest float32 the last level may lie beyond it
        real = np.nan_to_num(dequantize(quantize(x, encoding), encoding)).astype(np.float64)
    return (real - x) ** 2 @ seen.counts
