"""Seconds for any key: measured, or else estimated from measured ones that are like it.

Work w of a kernel: its multiply-accumulates, or, if it has none, the elements of its largest tensor that is not
constant (of pools: of all windows together). Estimates come from the narrowest group of entries that is not empty:

    1. same op, domain and types, same threads      4. same op or one like it (`ALIKE`), any domain
    2. same op, domain and types, any threads       5. heavy ops (those with multiply-accumulates) of the same first
    3. same op and domain, any types                   type, or light ones; 6. of any type

Light ops of group 1 to 3 with three sizes or more: seconds = a + b * w, with a, b >= 0 of least squares of the relative
error. All others: the mean of the three nearest entries, each brought to this size,

    log(seconds) = mean of log(seconds_i * (c + w) / (c + w_i)),    weights 1 / (distance_i + 0.5)^2

with c = 2^15 multiply-accumulates or 2^13 elements: about a microsecond, what a kernel costs that has next to no work.
Distance is the Euclidean one of the binary logarithms of the multiply-accumulates, the elements of the output, the
area of the kernel, the multiply-accumulates per element of the output and of that area (the input channels), and the
groups (light ops: of w only), and 1 more if another activation is fused. Other numbers of threads are taken as they
are: that is right for comparing and wrong in absolute terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxq.costs.key import CostKey, Operand
from onnxq.costs.table import Cost, CostTable

Entries = Sequence[tuple[CostKey, Cost]]

MEASURED, LINE, NEAR, CLASS, NONE = "measured", "by size", "by its nearest", "by ops of its kind", "unknown"
"""How a time was found: for exactly this key; on a line of sizes; from nearest shapes; from other ops; not at all."""


_ALIKE_SETS = (
    "Reshape Squeeze Unsqueeze Flatten Identity",
    "Conv FusedConv NhwcFusedConv",
    "MatMul FusedMatMul Gemm FusedGemm TransposeMatMul",
    "QLinearMatMul MatMulIntegerToFloat QGemm MatMulInteger DynamicQuantizeMatMul",
    "Add Sub Mul Max Min Sum",
    "Relu Clip LeakyRelu Neg Abs",
    "Sigmoid Tanh HardSwish HardSigmoid Exp",
    "Gelu BiasGelu FastGelu QuickGelu Erf",
    "LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization RMSNormalization",
    "QLinearAdd QLinearMul",
    "QLinearSigmoid QLinearLeakyRelu",
    "Transpose ReorderInput ReorderOutput",
    "ReduceMean ReduceSum ReduceMax ReduceMin GlobalAveragePool GlobalMaxPool",
    "AveragePool MaxPool NhwcMaxPool",
    "Slice Split Concat Pad Gather Expand Tile",
)
ALIKE = {kind: tuple(k for k in kinds.split() if k != kind) for kinds in _ALIKE_SETS for kind in kinds.split()}
"""Op -> ops that do much the same per element, for those that were never measured."""

_SMALL_MACS, _SMALL_ELEMENTS = 1 << 15, 1 << 13


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of one execution, and how they were found."""

    seconds: float
    how: str

    @property
    def measured(self) -> bool:
        """For exactly this key; all else is an estimate."""
        return self.how == MEASURED


@dataclass(frozen=True, kw_only=True)
class Line:
    """seconds = a + b * elements."""

    a: float
    b: float

    def __call__(self, elements: int) -> float:
        """Seconds for so many elements."""
        return self.a + self.b * elements


def fit(points: Sequence[tuple[int, float]]) -> Line:
    """The line through (elements, seconds) with the least squared relative errors and no negative coefficient."""
    n, seconds = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    parts = np.stack([1.0 / seconds, n / seconds], axis=1)
    (a, b), *_ = np.linalg.lstsq(parts, np.ones(len(n)))
    if min(a, b) < 0:  # then the best one that may be has a = 0 or b = 0
        alone = parts.sum(axis=0) / np.maximum((parts**2).sum(axis=0), np.finfo(float).tiny)
        left, right = ((1.0 - parts * alone) ** 2).sum(axis=0)
        a, b = (alone[0], 0.0) if left < right else (0.0, alone[1])
    return Line(a=float(a), b=float(b))


@dataclass(frozen=True)
class Costs:
    """Tables, the more trusted ones first: what is measured in any of them goes before every estimate.

    >>> Costs(()).seconds(CostKey(op="Add", inputs=(), outputs=())).how
    'unknown'
    """

    tables: tuple[CostTable, ...]
    _known: dict[CostKey, Estimate] = field(default_factory=dict, compare=False, repr=False)

    def seconds(self, key: CostKey) -> Estimate:
        """Of one execution; 0 and "unknown" only without any entry of use."""
        if key not in self._known:
            self._known[key] = self._find(key)
        return self._known[key]

    def knows(self, key: CostKey) -> bool:
        """Is anything of this op measured, in whatever shapes?"""
        return any(key.kind in table.by_kind for table in self.tables)

    def conversion(self, op: str, elements: int, *, dtype: str = "uint8", threads: int = 1) -> Estimate:
        """Of a QuantizeLinear or DequantizeLinear of a whole tensor with one scale, between float and `dtype`."""
        data, scale, zero = (Operand(dtype=t, shape=s) for t, s in (("float", (elements,)), ("float", ()), (dtype, ())))
        quantized = Operand(dtype=dtype, shape=(elements,))
        given, made = (data, quantized) if op == "QuantizeLinear" else (quantized, data)
        inputs = (given, *(Operand(dtype=o.dtype, constant=True) for o in (scale, zero)))
        return self._estimate(CostKey(op=op, inputs=inputs, outputs=(made,), threads=threads))

    def _find(self, key: CostKey) -> Estimate:
        for table in self.tables:
            cost = table.lookup(key)
            if cost is not None:
                return Estimate(seconds=cost.seconds, how=MEASURED)
        return self._estimate(key)

    def _estimate(self, key: CostKey) -> Estimate:
        for like in _same(key):
            for table in self.tables:
                found = [e for e in table.by_kind.get(key.kind, ()) if _usable(key, e[0]) and like(e[0])]
                if found:
                    return _from_same(key, found)
        for table in self.tables:
            kinds = (key.kind, *ALIKE.get(key.kind, ()))
            found = [e for kind in kinds for e in table.by_kind.get(kind, ()) if _usable(key, e[0])]
            if found:
                return Estimate(seconds=_nearest(key, found), how=NEAR)
        for typed in (True, False):
            for table in self.tables:
                found = [
                    (k, c)
                    for entries in table.by_kind.values()
                    for k, c in entries
                    if bool(k.macs) == bool(key.macs)
                    and _usable(key, k)
                    and (not typed or k.types[:1] == key.types[:1])
                ]
                if found:
                    return Estimate(seconds=_nearest(key, found), how=CLASS)
        return Estimate(seconds=0.0, how=NONE)


def _same(key: CostKey) -> Iterator[Callable[[CostKey], bool]]:
    yield lambda k: k.op == key.op and k.types == key.types and k.threads == key.threads
    yield lambda k: k.op == key.op and k.types == key.types
    yield lambda k: k.op == key.op


def _usable(key: CostKey, other: CostKey) -> bool:
    """An op whose multiply-accumulates are known for one of the two keys only says nothing."""
    return other.work > 0 and bool(other.macs) == bool(key.macs)


def _from_same(key: CostKey, found: Entries) -> Estimate:
    points = [(k.work, s) for k, c in found for s in c.observations]
    if not key.macs and len({n for n, _ in points}) >= 3:
        return Estimate(seconds=fit(points)(key.work), how=LINE)
    return Estimate(seconds=_nearest(key, found), how=NEAR)


def _nearest(key: CostKey, found: Entries) -> float:
    here = _features(key)
    fused = dict(key.attributes).get("activation")

    def distance(other: CostKey) -> float:
        return math.dist(here, _features(other)) + (dict(other.attributes).get("activation") != fused)

    near = sorted((distance(k), str(k), k, c.seconds) for k, c in found)[:3]
    weights = [1.0 / (far + 0.5) ** 2 for far, *_ in near]
    small = _SMALL_MACS if key.macs else _SMALL_ELEMENTS
    each = [math.log(seconds * (small + key.work) / (small + k.work)) for _, _, k, seconds in near]
    return math.exp(sum(w * e for w, e in zip(weights, each, strict=True)) / sum(weights))


def _features(key: CostKey) -> tuple[float, ...]:
    if not key.macs:
        return (math.log2(max(key.work, 1)),)
    attributes = dict(key.attributes)
    window, group = attributes.get("kernel_shape"), attributes.get("group")
    area = math.prod(int(side) for side in window) if isinstance(window, tuple) else 1
    made = max(key.outputs[0].size if key.outputs else 1, 1)
    channels = key.macs / made / area
    return tuple(math.log2(v) for v in (key.macs, made, channels, area, group if isinstance(group, int) else 1))
