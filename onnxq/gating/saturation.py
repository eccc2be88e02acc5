"""What a CPU without VNNI makes of u8 x s8 products: a bound per layer, and a model of the arithmetic.

AVX2 and AVX512 without VNNI multiply with `vpmaddubsw`: two adjacent products u8 x s8 are added in an int16, which
saturates (Intel 64 and IA-32 Architectures Software Developer's Manual, VPMADDUBSW); 255 * 127 * 2 = 64,770 does not
fit in 32,767. The pairs here are adjacent along the inner dimension: rows 2j and 2j + 1 of a weight [K, N], and for
convolutions the order kernel row, kernel column, input channel, which is that of an image with channels last. Kernels
that pack otherwise pair otherwise; the bound tells what could be at worst in this pairing.

Depthwise convolutions are left out: they have one input channel, and their kernels widen each product.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.ir.model import Model

LEAST, MOST = -32768, 32767
_TOP = 255  # of a u8 activation


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One weighted operator on u8 (or s8) data and s8 weights.

    Attributes:
        node, op: in the file.
        worst: greatest magnitude that a pair of products can reach with activations of 0 to 255.
        pairs: of weights; `risky` of them can leave int16.
        simulated: the model of the arithmetic covers it.
    """

    node: str
    op: str
    worst: int
    pairs: int
    risky: int
    simulated: bool

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.risky:
            return f"{self.op} {self.node} cannot saturate: its worst pair is {self.worst:,} of {MOST:,}"
        return (
            f"{self.op} {self.node} can saturate: its worst pair is {self.worst:,} of {MOST:,}, "
            f"{self.risky:,} of {self.pairs:,} pairs can"
        )


@dataclass
class _Found:
    """A layer, its parameters, and its weights as pairs [groups, outputs per group, pairs, 2]."""

    layer: Layer
    node: gs.Node
    data: gs.Tensor
    data_scale: float
    data_zero: int
    signed: bool
    weights: NDArray[np.int64]
    scale: NDArray[np.float64]
    extra: dict[str, Any] = field(default_factory=dict)


def pair_sums(x: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Dot products of u8 vectors [n, K] with s8 weights [K, m] as saturating pairs, in integers: [n, m].

    >>> pair_sums(np.array([[255, 255]]), np.array([[127], [127]])).tolist()
    [[32767]]
    """
    if x.shape[1] % 2:
        x, weights = np.pad(x, ((0, 0), (0, 1))), np.pad(weights, ((0, 1), (0, 0)))
    products = x[:, :, None] * weights[None]
    return np.asarray(np.clip(products[:, 0::2] + products[:, 1::2], LEAST, MOST).sum(axis=1))


def bound(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """The greatest magnitude of each pair [..., 2], over all activations from 0 to 255: all of one sign at 255."""
    up = np.maximum(weights, 0).sum(axis=-1) * _TOP
    down = -np.minimum(weights, 0).sum(axis=-1) * _TOP
    # int16 reaches one further below zero
    return np.asarray(np.maximum(up, down - 1), dtype=np.int64)


def layers(model: Model) -> list[Layer]:
    """Every layer that could saturate somewhere, in the order of the file; the main graph only."""
    return [f.layer for f in _find(model)]


def saturating(model: Model) -> Model | None:
    """A copy in which those layers that can saturate compute with saturating pairs; None if none can be simulated.

    Each such layer stays, and what saturation cuts off of its pairs is taken off its result: only pairs that can leave
    int16 cost anything, and float operators compute these integers exactly. Run it with optimizations off, and compare
    it with the model itself run so.
    """
    copied = model.copy()
    found = {id(f.node): f for f in _find(copied) if f.layer.simulated and f.layer.risky}
    if not found:
        return None
    nodes: list[gs.Node] = []
    count = itertools.count()
    for node in copied.graph.nodes:
        one = found.get(id(node))
        if one is None:
            nodes.append(node)
            continue
        result = node.outputs[0]
        build = _Builder(f"{one.layer.node}@saturating{next(count)}")
        exact = gs.Variable(f"{build.prefix}/exact")
        node.outputs[0] = exact
        less = _convolution(build, one, exact) if node.op == "Conv" else _product(build, one, exact)
        build.op("Identity", less, out=result)
        nodes.extend((node, *build.nodes))
    copied.graph.nodes = nodes
    return copied


def _find(model: Model) -> Iterator[_Found]:
    producers = {t.name: n for n in model.graph.nodes for t in n.outputs}
    for node in model.graph.nodes:
        if node.op in ("Conv", "MatMul", "Gemm") and len(node.inputs) > 1:
            found = _between_dq(node, producers)
            if found is not None:
                yield found
        elif node.op in ("QLinearConv", "QLinearMatMul", "QGemm"):
            weights = walk.constant_array(node.inputs[3])
            if weights is not None and weights.dtype == np.int8:
                laid = _pairs_of(node, weights.astype(np.int64))
                if laid is not None:
                    layer = _layer(node, laid, simulated=False)
                    yield _Found(layer, node, node.inputs[0], 1.0, 0, False, laid, np.ones(1))


def _between_dq(node: gs.Node, producers: dict[str, gs.Node]) -> _Found | None:
    data, weight = (producers.get(t.name) for t in node.inputs[:2])
    if data is None or weight is None or data.op != "DequantizeLinear" or weight.op != "DequantizeLinear":
        return None
    values = walk.constant_array(weight.inputs[0])
    scale = walk.constant_array(weight.inputs[1])
    if values is None or scale is None or values.dtype != np.int8 or weight.attrs.get("block_size"):
        return None
    zeros = walk.constant_array(weight.inputs[2]) if len(weight.inputs) > 2 else None
    if zeros is not None and zeros.any():
        return None
    laid = _pairs_of(node, values.astype(np.int64))
    if laid is None:
        return None
    data_scale = walk.constant_array(data.inputs[1])
    data_zero = walk.constant_array(data.inputs[2]) if len(data.inputs) > 2 else None
    simple = data_scale is not None and data_scale.size == 1 and data_zero is not None and data_zero.size == 1
    simulated = simple and _plain(node, values)
    zero = int(data_zero.reshape(())) if simple and data_zero is not None else 0
    signed = data_zero is not None and data_zero.dtype == np.int8
    if data_zero is not None and data_zero.dtype not in (np.uint8, np.int8):
        return None
    return _Found(
        _layer(node, laid, simulated=simulated),
        node,
        data.inputs[0],
        float(data_scale.reshape(())) if simple and data_scale is not None else 1.0,
        zero,
        signed,
        laid,
        np.asarray(scale, dtype=np.float64).reshape(-1),
        {"shape": values.shape},
    )


def _layer(node: gs.Node, laid: NDArray[np.int64], *, simulated: bool) -> Layer:
    worst = bound(laid)
    return Layer(
        node=node.name,
        op=node.op,
        worst=int(worst.max(initial=0)),
        pairs=int(worst.size),
        risky=int((worst > MOST).sum()),
        simulated=simulated,
    )


def _pairs_of(node: gs.Node, values: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Weights as [groups, outputs per group, pairs, 2]; None for depthwise ones and other ranks."""
    if node.op in ("Conv", "QLinearConv"):
        groups = int(node.attrs.get("group", 1))
        if values.ndim < 3 or values.shape[1] < 2:
            return None
        last = np.moveaxis(values, 1, -1)  # outputs, kernel ..., channels
        flat = last.reshape(groups, values.shape[0] // groups, -1)
    elif values.ndim == 2:
        turned = bool(node.attrs.get("transB", 0))
        flat = (values if turned else values.T)[None]
    else:
        return None
    if flat.shape[2] % 2:
        flat = np.pad(flat, ((0, 0), (0, 0), (0, 1)))
    return np.asarray(flat.reshape(*flat.shape[:2], -1, 2))


def _plain(node: gs.Node, values: NDArray[Any]) -> bool:
    """The forms that the simulation knows."""
    if node.op == "Conv":
        return values.ndim == 4 and node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if node.op == "Gemm":
        ones = node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0
        return ones and not node.attrs.get("transA")
    return True


class _Builder:
    """Nodes with names of their own."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[gs.Node] = []
        self._count = itertools.count()

    def op(self, op: str, *inputs: gs.Tensor, out: gs.Tensor | None = None, **attrs: Any) -> gs.Tensor:
        number = next(self._count)
        result = out if out is not None else gs.Variable(f"{self.prefix}/{op}{number}_out")
        name = f"{self.prefix}/{op}{number}"
        self.nodes.append(gs.Node(op=op, name=name, inputs=list(inputs), outputs=[result], attrs=attrs))
        return result

    def const(self, value: Any, dtype: Any = np.float32) -> gs.Tensor:
        return gs.Constant(f"{self.prefix}/c{next(self._count)}", np.array(value, dtype=dtype, order="C"))


def _raw(build: _Builder, found: _Found) -> gs.Tensor:
    """The u8 data as floats; s8 is moved up by 128, as ONNX Runtime does."""
    raw = build.op("Cast", found.data, to=1)
    return build.op("Add", raw, build.const(128.0)) if found.signed else raw


def _convolution(build: _Builder, found: _Found, exact: gs.Tensor) -> gs.Tensor:
    """The convolution less what saturation cuts off: the rows of the patches that risky pairs need are picked by a
    convolution with ones, which is exact.
    """
    node, (outputs, inner, height, width) = found.node, found.extra["shape"]
    groups = int(node.attrs.get("group", 1))
    raw = _raw(build, found)
    pads = [int(p) for p in node.attrs.get("pads", [0, 0, 0, 0])]
    if any(pads):
        zero = float(found.data_zero + 128 * found.signed)
        edges = build.const([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64)
        raw = build.op("Pad", raw, edges, build.const(zero))
    group, output, pair = np.nonzero(bound(found.weights) > MOST)
    rows = group[:, None] * height * width * inner + pair[:, None] * 2 + np.arange(2)  # [risky, 2]
    needed, place = np.unique(rows, return_inverse=True)
    place = place.reshape(rows.shape)
    pick = np.zeros((len(needed), groups * inner, height, width), np.float32)
    of_group, row, column, channel = np.unravel_index(needed, (groups, height, width, inner))
    pick[np.arange(len(needed)), of_group * inner + channel, row, column] = 1.0
    how: dict[str, Any] = {k: list(node.attrs[k]) for k in ("strides", "dilations") if k in node.attrs}
    patches = build.op("Conv", raw, build.const(pick), **how)
    weights = found.weights[group, output, pair].astype(np.float32)  # [risky, 2]
    parts = [
        build.op(
            "Mul",
            build.op("Gather", patches, build.const(place[:, i], np.int64), axis=1),
            build.const(weights[:, i].reshape(1, -1, 1, 1)),
        )
        for i in (0, 1)
    ]
    number = group * (outputs // groups) + output
    gather = np.zeros((outputs, len(number), 1, 1), np.float32)
    gather[number, np.arange(len(number))] = 1.0
    cut = build.op("Conv", _excess(build, build.op("Add", *parts)), build.const(gather))
    scale = np.broadcast_to(found.scale, (outputs,)).reshape(1, outputs, 1, 1) * found.data_scale
    return build.op("Sub", exact, build.op("Mul", cut, build.const(scale)))


def _product(build: _Builder, found: _Found, exact: gs.Tensor) -> gs.Tensor:
    """The product less what saturation cuts off."""
    raw = _raw(build, found)
    _, output, pair = np.nonzero(bound(found.weights) > MOST)
    weights = found.weights[0, output, pair].astype(np.float32)
    parts = [
        build.op(
            "Mul", build.op("Gather", raw, build.const(pair * 2 + i, np.int64), axis=-1), build.const(weights[:, i])
        )
        for i in (0, 1)
    ]
    gather = np.zeros((len(output), found.weights.shape[1]), np.float32)
    gather[np.arange(len(output)), output] = 1.0
    cut = build.op("MatMul", _excess(build, build.op("Add", *parts)), build.const(gather))
    return build.op("Sub", exact, build.op("Mul", cut, build.const(found.scale * found.data_scale)))


def _excess(build: _Builder, sums: gs.Tensor) -> gs.Tensor:
    """What does not fit in int16."""
    return build.op("Sub", sums, build.op("Clip", sums, build.const(float(LEAST)), build.const(float(MOST))))
