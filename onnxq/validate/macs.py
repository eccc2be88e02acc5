"""Multiply-accumulates of one node, from its attributes, its weights and the shapes that were seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxq.runtime.observe import NodeRun
from onnxq.validate.network import array

Shape = tuple[int, ...]


def macs(node: gs.Node, runs: Sequence[NodeRun]) -> int | None:
    """Over all executions (a node in a Loop has several). None if shapes are unknown or the operator is.

    Convolution: elements of the output times weights per output channel; transposed: elements of the input times
    weights per input channel; matrix product: elements of the output times the inner dimension; recurrent: steps times
    weights.
    """
    if not runs:
        return None
    total = 0
    for run in runs:
        one = _once(node, _slots(node, run.inputs), run.outputs)
        if one is None:
            return None
        total += one
    return total


def _slots(node: gs.Node, shapes: Sequence[Shape]) -> dict[int, Shape]:
    """Input slot -> shape: the profiler leaves absent optional inputs out."""
    present = [i for i, t in enumerate(node.inputs) if t.name or array(t) is not None]
    found = dict(zip(present, shapes, strict=False))
    for i in present:
        values = array(node.inputs[i])
        if values is not None:
            found[i] = tuple(int(d) for d in values.shape)
    return found


def _once(node: gs.Node, inputs: dict[int, Shape], outputs: Sequence[Shape]) -> int | None:
    if not outputs or 0 not in inputs:
        return None
    op, out = node.op, math.prod(outputs[0])
    weights = inputs.get({"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}.get(op, 1))
    if op in ("Conv", "FusedConv", "NhwcFusedConv", "ConvInteger", "QLinearConv", "DeformConv"):
        return out * math.prod(weights[1:]) if weights else None
    if op == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(weights[1:]) if weights else None
    if op in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        return _recurrent(inputs)
    if op == "Einsum":
        return _einsum(str(node.attrs.get("equation", "")), [inputs[i] for i in sorted(inputs)])
    if op in ("Gemm", "FusedGemm", "QGemm"):
        first = inputs[0]
        return out * (first[0] if node.attrs.get("transA") else first[-1]) if len(first) == 2 else None
    if op == "FusedMatMul" and len(inputs[0]) > 1:
        return out * inputs[0][-2 if node.attrs.get("transA") else -1]
    if op == "MatMulNBits":
        return out * int(node.attrs.get("K", 0))
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
        return out * inputs[0][-1] if inputs[0] else None
    return None


def _recurrent(inputs: dict[int, Shape]) -> int | None:
    """X [steps, batch, in], W [directions, gates * hidden, in], R [directions, gates * hidden, hidden]."""
    x, w, r = inputs[0], inputs.get(1), inputs.get(2)
    if w is None or r is None or len(x) != 3:
        return None
    return x[0] * x[1] * (math.prod(w) + math.prod(r))


def _einsum(equation: str, shapes: Sequence[Shape]) -> int | None:
    """The product of all index ranges; one operand or an ellipsis: not counted."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) < 2 or len(terms) != len(shapes) or "." in equation:
        return None
    sizes = {label: d for term, shape in zip(terms, shapes, strict=True) for label, d in zip(term, shape, strict=False)}
    return math.prod(sizes.values())
