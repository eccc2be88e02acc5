"""What stands around a tensor and says something about its range: the bounds of the op that makes it, and what the ops
that read it feel of an error in it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.ir.walk import clip_bounds
from onnxq.stats.taps import COPIES, aliases

if TYPE_CHECKING:
    from onnxq.stats.calibrator import Reader
    from onnxq.stats.statistics import TensorStatistics

Array = NDArray[np.float64]

REACHED = 0.9
"""Share of a known bound that the measured extreme must come to before the bound is taken for the range's end: a
Sigmoid that never exceeds 0.3 would otherwise lose two of its eight bits."""

BOUNDS = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Softsign": (-1.0, 1.0),
    "Erf": (-1.0, 1.0),
    "Sin": (-1.0, 1.0),
    "Cos": (-1.0, 1.0),
}
"""Ops whose results lie within bounds whatever they read."""


@dataclass(frozen=True)
class Feel:
    """How an op feels an error in what it reads.

    Attributes:
        op: one of FUNCTIONS; "" is an op that feels every error alike.
        parameters: of the op, those that shape it.
    """

    op: str = ""
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def reader(self) -> Reader:
        """What the op makes of values."""
        return FUNCTIONS[self.op](dict(self.parameters)) if self.op else linear


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Of one tensor.

    Attributes:
        bounds: least and greatest value that its op can give, infinite if unbounded on a side; None if unknown.
        feels: each kind of reader, without duplicates, in the order of the file; empty if nobody reads it but the
            caller.
    """

    bounds: tuple[float, float] | None = None
    feels: tuple[Feel, ...] = ()

    @property
    def readers(self) -> tuple[Reader, ...]:
        """What each kind of reader makes of the values."""
        return tuple(feel.reader for feel in self.feels)

    def within(self, low: float, high: float, seen: TensorStatistics) -> tuple[float, float]:
        """The range with each end that is the measured extreme moved to the bound, if that extreme is near to it.

        An end at which the calibrator cut stays where it is.
        """
        if self.bounds is None:
            return low, high
        least, most = self.bounds
        if low <= seen.min and -math.inf < least < 0 and low <= REACHED * least:
            low = least
        if high >= seen.max and math.inf > most > 0 and high >= REACHED * most:
            high = most
        return low, high

    def plain(self) -> dict[str, Any]:
        """For JSON; an infinite bound is null."""
        bounds = None if self.bounds is None else [None if math.isinf(b) else b for b in self.bounds]
        readers = [[f.op, {k: str(v) if math.isinf(v) else v for k, v in f.parameters}] for f in self.feels]
        return {"bounds": bounds, "readers": readers}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Surroundings:
        """The inverse of `plain`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        bounds = plain["bounds"]
        if bounds is not None:
            low, high = bounds
            bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
        feels = [Feel(str(op), tuple((k, float(v)) for k, v in values.items())) for op, values in plain["readers"]]
        for feel in feels:
            if feel.op and feel.op not in FUNCTIONS:
                raise ValueError(f"nobody knows the reader {feel.op}")
        return cls(bounds=bounds, feels=tuple(feels))


def surroundings(graph: gs.Graph, names: Collection[str]) -> dict[str, Surroundings]:
    """Of the tensors `names`, of any graph; ops that only reorder elements are looked through."""
    root: dict[str, str] = {}
    bounds: dict[str, tuple[float, float]] = {}
    feels: dict[str, dict[Feel, None]] = defaultdict(dict)
    for _, inner in walk.graphs(graph):  # outermost first: what a body takes from around has its root already
        root.update((name, root.get(end, end)) for name, end in aliases(inner).items())
        for node in inner.nodes:
            known = clip_bounds(node) if node.op == "Clip" else BOUNDS.get(str(node.op)) if _standard(node) else None
            if known is not None:
                bounds.update((t.name, known) for t in node.outputs[:1])
            if node.op in COPIES and _standard(node):
                continue
            feel = _feel(node)
            for tensor in node.inputs[:1] if feel.op else node.inputs:
                feels[root.get(str(tensor.name), str(tensor.name))].setdefault(feel)
    return {
        name: Surroundings(bounds=bounds.get(root.get(name, name)), feels=tuple(feels[root.get(name, name)]))
        for name in names
    }


def _standard(node: gs.Node) -> bool:
    return node.domain in (None, "", "ai.onnx")


def _feel(node: gs.Node) -> Feel:
    op = str(node.op)
    if op not in FUNCTIONS or not (_standard(node) or op == "Gelu"):
        return Feel()
    parameters = tuple((k, float(node.attrs[k])) for k in ("alpha", "beta", "gamma", "min", "max") if k in node.attrs)
    if op == "Clip":
        bounds = clip_bounds(node)
        if bounds is None:
            return Feel()
        parameters = (("min", bounds[0]), ("max", bounds[1]))
    return Feel(op, parameters)


def linear(x: Array, peak: float) -> Array:  # noqa: ARG001 (the form of a Reader)
    """An op that feels every error alike: Conv, MatMul, Add, and whatever is unknown."""
    return x


def _softmax(x: Array, peak: float) -> Array:
    # the share of a logit beside the greatest one: what lies far below it is not felt
    return np.asarray(np.exp(np.minimum(x - peak, 0.0)))


def _plain(function: Callable[[Array], Any]) -> Callable[[dict[str, Any]], Reader]:
    def reader(x: Array, peak: float) -> Array:  # noqa: ARG001
        return np.asarray(function(x), dtype=np.float64)

    return lambda _: reader


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _gelu(x: Array) -> Array:
    erf = np.frompyfunc(math.erf, 1, 1)
    return np.asarray(0.5 * x * (1.0 + np.asarray(erf(x / math.sqrt(2.0)), dtype=np.float64)))


def _leaky(parameters: dict[str, Any]) -> Reader:
    alpha = float(parameters.get("alpha", 0.01))
    return lambda x, _: np.where(x < 0, alpha * x, x)


def _elu(parameters: dict[str, Any]) -> Reader:
    alpha = float(parameters.get("alpha", 1.0))
    return lambda x, _: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def _hard_sigmoid(parameters: dict[str, Any]) -> Reader:
    alpha, beta = float(parameters.get("alpha", 0.2)), float(parameters.get("beta", 0.5))
    return lambda x, _: np.clip(alpha * x + beta, 0.0, 1.0)


def _clipped(parameters: dict[str, Any]) -> Reader:
    return lambda x, _: np.clip(x, parameters["min"], parameters["max"])


FUNCTIONS: dict[str, Callable[[dict[str, Any]], Reader]] = {
    "Relu": _plain(lambda x: np.maximum(x, 0.0)),
    "Clip": _clipped,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Sigmoid": _plain(_sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)),
    "Tanh": _plain(np.tanh),
    "Erf": _plain(lambda x: np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=np.float64)),
    "Gelu": _plain(_gelu),
    "Exp": lambda _: _softmax,
    "Softmax": lambda _: _softmax,
}
"""Readers that squash: attributes -> function. Exp counts as Softmax, of which it is part in decomposed form."""
