"""Which tensors are likely to be loud, before their noise at the outputs is measured: what rounding does to the tensor
itself.

Of a tensor with values x, rounded r(x):

    loudness = sum (x - r(x))^2 / sum x^2

A constant's is computed from its values; an activation's in the float model, with one run of one sample, in which
Quantize, Dequantize and sums of squares hang on every tensor that has a switch. Of an activation in a body, which no
output reaches, and of one with values that are not finite, it is that of values spread evenly over the range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Affine
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.numerics import dequantize, quantize
from onnxq.runtime.session import Level, Session
from onnxq.sensitivity.switches import Switch
from onnxq.stats.taps import with_outputs

_DOUBLE = 11
"""TensorProto.DOUBLE."""


def loudness(
    model: Model, switches: tuple[Switch, ...], inputs: Mapping[str, NDArray[Any]], threads: int | None = None
) -> tuple[float, ...]:
    """The loudness of each switch's tensor.

    Args:
        model: float; does not change.
        inputs: of one sample.

    Raises:
        ModelError: ORT cannot run the sample.
    """
    constants = {
        t.name: t.values
        for _, graph in walk.graphs(model.graph)
        for node in graph.nodes
        for t in node.inputs
        if isinstance(t, gs.Constant)
    }
    heard = _activations(model, [s for s in switches if s.kind == "activation"], inputs, threads)
    found = []
    for switch in switches:
        if switch.kind == "activation":
            own = heard.get(switch.tensor, math.nan)
        else:
            own = _ratio(*_constant(constants[switch.tensor], switch.encoding))
        found.append(own if math.isfinite(own) else evenly(switch.encoding))
    return tuple(found)


def evenly(encoding: Affine) -> float:
    """The loudness of values spread evenly over the range [a, b] of an encoding with step s: (s^2 / 12) over the mean
    square (a^2 + a b + b^2) / 3.

    >>> from onnxq.encoding import PerTensor
    >>> unsigned = Affine(type="uint8", granularity=PerTensor(), scale=np.float32(2), zero_point=np.uint8(0))
    >>> evenly(unsigned) == 1 / (4 * 255**2)
    True
    """
    low, high = encoding.real_range
    step = float(encoding.scale.max())
    return step * step / (4.0 * (low * low + low * high + high * high))


def _constant(values: NDArray[Any], encoding: Affine) -> tuple[float, float]:
    x = np.asarray(values, dtype=np.float64)
    rounded = dequantize(quantize(values, encoding), encoding)
    return float(np.sum(np.square(x - rounded))), float(np.sum(np.square(x)))


def _ratio(noise: float, signal: float) -> float:
    if noise == 0.0:
        return 0.0
    return noise / signal if signal else math.inf


def _activations(
    model: Model, switches: list[Switch], inputs: Mapping[str, NDArray[Any]], threads: int | None
) -> dict[str, float]:
    """Of the tensors of the main graph, by name."""
    graph = model.graph
    there = {t.name for t in graph.inputs} | {t.name for node in graph.nodes for t in node.outputs}
    taken = walk.tensor_names(graph) | {n.name for _, g in walk.graphs(graph) for n in g.nodes}
    nodes: list[gs.Node] = []
    sums: dict[str, tuple[str, str]] = {}
    for switch in switches:
        if switch.tensor in there:
            some = list(_hung(switch, taken))
            nodes += some
            sums[switch.tensor] = some[-1].outputs[0].name, some[-2].outputs[0].name
    names = [name for pair in sums.values() for name in pair]
    if not names:
        return {}
    with runnable(with_outputs(model, names, nodes)) as source:
        found = Session(source, level=Level.OFF, threads=threads).run(inputs, names)
    return {tensor: _ratio(float(found[noise]), float(found[signal])) for tensor, (noise, signal) in sums.items()}


def _hung(switch: Switch, taken: set[str]) -> Iterator[gs.Node]:
    """Nodes that make, last, the signal's sum of squares and the noise's. Doubles, so that no mask overflows."""

    def node(op: str, given: list[Any], dtype: Any = np.float32, **attributes: Any) -> gs.Node:
        out = gs.Variable(walk.unique_name(taken, f"{switch.tensor}_{op}"), dtype=dtype)
        return gs.Node(op, walk.unique_name(taken, f"{switch.tensor}_loud_{op}"), attributes, given, [out])

    value, encoding = gs.Variable(switch.tensor), switch.encoding
    parameters = [
        gs.Constant(walk.unique_name(taken, f"{switch.tensor}_loud_{what}"), values.reshape(-1)[:1].reshape(()))
        for what, values in (("scale", encoding.scale), ("zero", encoding.zero_point))
    ]
    yield (integers := node("QuantizeLinear", [value, *parameters], np.dtype(encoding.type)))
    yield (rounded := node("DequantizeLinear", [integers.outputs[0], *parameters]))
    yield (error := node("Sub", [value, rounded.outputs[0]]))
    yield (wide := node("Cast", [value], np.float64, to=_DOUBLE))
    yield (far := node("Cast", [error.outputs[0]], np.float64, to=_DOUBLE))
    yield node("ReduceSumSquare", [wide.outputs[0]], np.float64, keepdims=0)
    yield node("ReduceSumSquare", [far.outputs[0]], np.float64, keepdims=0)
