"""Sizes of tensors that are known before a run although inference leaves them open.

Behind a convolution of stride 2, inference knows nothing of a dimension that is W at the input, and what is not known
before the run cannot decide how far apart its elements are picked. But most such dimensions grow evenly with one of the
input: the floors of convolutions and poolings, one in another, are floor((W + b) / c). So inference is asked at
a few sizes; what lies on a line (to one element) is taken for a line, and anything else stays unknown.

A forecast only says how densely elements are picked and how many rows are fetched: how many came, the shape says that
left the graph beside them. It depends on the model and the shapes of the inputs, not on other samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxq.ir.model import Model
from onnxq.ir.shapes import Known, infer_at
from onnxq.stats.guards import Shape

BASE = 5039
"""Size of each symbol where inference is asked first: large, so that what is cut off at a small size shows as that, and
one less than a multiple of all strides that occur, so that floor(W / c) and ceil(W / c) differ."""

FAR = 20160
"""How much further it is asked next: a multiple of all strides that occur, so that slopes are exact."""

CHECKED = 1373
"""Step between the sizes at which the forecasts are compared with what inference says: a prime."""

SYMBOLS = 4
"""Of models with more, nothing is forecast: each symbol takes another inference."""


@dataclass(frozen=True)
class Forecast:
    """The shape of one tensor.

    Attributes:
        dims: per axis its size where all symbols are BASE, and how much it grows with each symbol.
        check: the shape at one more point: two tensors that agree there, too, most often have the same shape anywhere.
    """

    dims: tuple[tuple[int, tuple[tuple[str, float], ...]], ...]
    check: tuple[int, ...]

    def shape(self, symbols: Mapping[str, int]) -> tuple[int, ...]:
        """At these sizes of the symbols, each dimension to about one."""
        return tuple(
            max(0, round(base + sum(slope * (symbols[s] - BASE) for s, slope in slopes))) for base, slopes in self.dims
        )


def elements(found: Mapping[Forecast, int], symbols: Mapping[str, int]) -> int:
    """Of all tensors together, each counted as one at least; `found` says how many tensors have a forecast."""
    return sum(count * max(1, math.prod(forecast.shape(symbols))) for forecast, count in found.items())


def forecasts(model: Model, tensors: Sequence[str], inputs: Mapping[str, Shape | None]) -> dict[str, Forecast]:
    """Of those `tensors` of which inference can say something.

    Args:
        tensors: whose shape inference leaves open.
        inputs: shapes of the inputs of the model.
    """
    symbols = sorted({d for shape in inputs.values() for d in shape or () if isinstance(d, str)})
    if not tensors or not 0 < len(symbols) <= SYMBOLS:
        return {}
    base = dict.fromkeys(symbols, BASE)
    check = {symbol: BASE + (i + 2) * CHECKED for i, symbol in enumerate(symbols)}
    start, *moved, there = infer_at(model, [base, *({**base, s: BASE + FAR} for s in symbols), check])
    out: dict[str, Forecast] = {}
    for name in tensors:
        first, seen = _ints(start, name), [_ints(found, name) for found in moved]
        expected = _ints(there, name)
        if first is None or expected is None or any(one is None or len(one) != len(first) for one in seen):
            continue
        others = dict(zip(symbols, (one for one in seen if one is not None), strict=True))
        found = Forecast(
            tuple(
                (size, tuple((s, (one[i] - size) / FAR) for s, one in others.items() if one[i] != size))
                for i, size in enumerate(first)
            ),
            expected,
        )
        line = found.shape(check)
        if len(line) == len(expected) and all(abs(a - b) <= 1 for a, b in zip(line, expected, strict=True)):
            out[name] = found
    return out


def _ints(known: Mapping[str, Known], name: str) -> tuple[int, ...] | None:
    """The shape, if all of it is known."""
    shape = known.get(name, (None, None))[1]
    if shape is None:
        return None
    sizes = tuple(d for d in shape if isinstance(d, int))
    return sizes if len(sizes) == len(shape) else None
