"""Where NaN must be looked for, so that none in any tapped tensor is missed.

ONNX Runtime's ReduceMin, ReduceMax and GlobalMaxPool lose NaN, its sums keep it (`tests/stats/test_guards.py` measures
both). A sum costs as much as a maximum, but most ops hand NaN on: a NaN in the input of an Add is one in its output. So
a tensor needs no sum of its own if one of its readers hands NaN on to a tensor that is looked at. Convolutions and
averages skip elements where the stride does, pooling by maximum swallows NaN, Where and Gather may not read it: these
end the way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.stats.taps import COPIES, names_of

Shape = tuple[int | str | None, ...]

ANY_INPUT = frozenset({"Add", "Sub", "Mul", "Div", "MatMul", "Concat", "Sum"})
"""Ops that hand on NaN from each of their inputs."""

FIRST_INPUT = COPIES | {
    *(
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Elu",
        "Selu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Erf",
        "Gelu",
    ),
    *("Softplus", "Exp", "Neg", "Abs", "Softmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization"),
    *("GlobalAveragePool", "ReduceMean", "ReduceSum", "Gemm", "Cast"),
}
"""Ops that hand on NaN from their first input (Cast to a floating type only)."""

MICROSOFT = frozenset({"QuickGelu", "Gelu", "FastGelu", "BiasGelu"})
"""The same, of ONNX Runtime's own ops."""

_FLOATS = frozenset({1, 10, 11, 16})
"""TensorProto's numbers of float32, float16, float64 and bfloat16."""


def hands_on(node: gs.Node, slot: int, shape: Shape | None) -> bool:
    """Is a NaN in this input always one in the first output?

    Args:
        shape: of that input, as far as it is known.
    """
    if node.domain == "com.microsoft":
        return slot == 0 and node.op in MICROSOFT
    if node.domain not in (None, "", "ai.onnx"):
        return False
    if node.op in ANY_INPUT:
        return True
    if slot != 0:
        return False
    if node.op == "Cast":
        return node.attrs.get("to") in _FLOATS
    if node.op == "Conv":
        return _reads_all(node, shape)
    return node.op in FIRST_INPUT


def guards(graph: gs.Graph, taps: Collection[str], shapes: Mapping[str, Shape | None]) -> list[str]:
    """The least set of taps, in reversed graph order, that holds NaN whenever any tap does; nodes must be sorted."""
    readers: dict[str, list[tuple[gs.Node, int]]] = {}
    for node in graph.nodes:
        for slot, name in enumerate(names_of(node.inputs)):
            readers.setdefault(name, []).append((node, slot))
    tapped, seen, found = set(taps), set[str](), list[str]()
    names = [n for node in graph.nodes for n in names_of(node.outputs) if n]
    for name in reversed([*names_of(graph.inputs), *names]):
        if any(
            node.outputs and node.outputs[0].name in seen and hands_on(node, slot, shapes.get(name))
            for node, slot in readers.get(name, ())
        ):
            seen.add(name)
        elif name in tapped:
            seen.add(name)
            found.append(name)
    return found


def _reads_all(node: gs.Node, shape: Shape | None) -> bool:
    """Does a convolution read every element of its input?"""
    attrs: Mapping[str, Any] = node.attrs
    strides = attrs.get("strides") or [1]
    if any(d != 1 for d in attrs.get("dilations") or [1]):
        return False
    kernel = attrs.get("kernel_shape")
    if all(s == 1 for s in strides):
        return not any(p < 0 for p in attrs.get("pads") or [0])
    pads = attrs.get("pads")
    if kernel is None or shape is None or len(shape) != len(kernel) + 2 or attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    pads = pads or [0] * (2 * len(kernel))
    for axis, (size, stride) in enumerate(zip(kernel, strides, strict=True)):
        length = shape[axis + 2]
        begin, end = pads[axis], pads[axis + len(kernel)]
        if not isinstance(length, int) or min(begin, end) < 0 or size < stride:
            return False
        last = (length + begin + end - size) // stride * stride - begin + size - 1
        if last < length - 1:
            return False
    return True
