"""The common ops in typical shapes: what the shipped table is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxq.costs.measure import Case

_CONVS = (  # channels in, out, kernel, stride, side of the input
    (3, 32, 3, 2, 224), (3, 64, 7, 2, 224), (16, 32, 3, 1, 112), (32, 16, 1, 1, 112), (32, 64, 3, 2, 56),
    (64, 64, 1, 1, 56), (64, 64, 3, 1, 56), (64, 256, 1, 1, 56), (128, 128, 3, 1, 28), (256, 64, 1, 1, 56),
    (128, 512, 1, 1, 28), (256, 256, 3, 1, 14), (512, 128, 1, 1, 28), (256, 1024, 1, 1, 14), (512, 512, 3, 1, 7),
    (32, 32, 3, 1, 28), (16, 16, 3, 1, 14), (320, 1280, 1, 1, 7), (32, 64, 1, 1, 14), (64, 128, 1, 1, 7),
    (96, 24, 1, 1, 28), (1, 16, 3, 1, 32), (1, 32, 3, 2, 64),
)  # fmt: skip
_DEPTHWISE = (  # channels, kernel, stride, side
    (32, 3, 1, 112), (96, 3, 2, 56), (144, 3, 1, 28), (240, 5, 1, 14), (480, 3, 1, 14), (1152, 5, 1, 7), (16, 3, 1, 14),
    (32, 3, 1, 28), (64, 3, 2, 28), (64, 3, 1, 14), (128, 3, 1, 7),
)  # fmt: skip
_PRODUCTS = (  # rows, inner, columns
    (1, 512, 1000), (1, 2048, 1000), (128, 384, 384), (128, 384, 1536), (128, 1536, 384), (128, 768, 768),
    (196, 192, 576), (49, 96, 96),
)  # fmt: skip
_ATTENTION = ((12, 128, 32, 128), (12, 128, 128, 32), (4, 49, 24, 49))  # heads, rows, inner, columns
_MAPS = ((1, 32, 112, 112), (1, 64, 56, 56), (1, 128, 28, 28), (1, 256, 14, 14), (1, 96, 7, 7))
_ROWS = ((1, 16, 96), (1, 128, 384), (1, 197, 768), (1, 49, 96))


def cases() -> Iterator[Case]:
    """All of them, cheap ones last."""
    yield from _convolutions()
    yield from _products()
    for shape in _MAPS:
        yield from _on_maps(shape)
    for rows in _ROWS:
        yield from _on_rows(rows)


def _convolutions() -> Iterator[Case]:
    for c, m, k, s, side in _CONVS:
        for activation in ("", "Relu", "Clip"):
            yield _conv((1, c, side, side), (m, c, k, k), s, activation=activation)
    for wide, k, s, side in _DEPTHWISE:
        for activation in ("", "Relu", "Clip"):
            yield _conv((1, wide, side, side), (wide, 1, k, k), s, groups=wide, activation=activation)
    yield _conv((1, 64, 28, 28), (64, 4, 3, 3), 1, groups=16)


def _conv(
    shape: tuple[int, ...], weights: tuple[int, ...], stride: int, *, groups: int = 1, activation: str = ""
) -> Case:
    pad = weights[2] // 2
    out = (shape[0], weights[0], *((d + 2 * pad - weights[2]) // stride + 1 for d in shape[2:]))
    attributes = (
        ("group", groups),
        ("kernel_shape", list(weights[2:])),
        ("pads", [pad] * 4),
        ("strides", [stride] * 2),
    )
    return Case(
        op="Conv",
        shapes=(shape,),
        weights=(weights, weights[:1]),
        out=out,
        attributes=attributes,
        channel=0,
        activation=activation,
        integer=not activation,
    )


def _products() -> Iterator[Case]:
    for m, k, n in _PRODUCTS:
        for closed in (True, False):
            yield Case(op="MatMul", shapes=((1, m, k),), weights=((k, n),), out=(1, m, n), channel=1, closed=closed)
        yield Case(op="Gemm", shapes=((m, k),), weights=((k, n), (n,)), out=(m, n), channel=1)
    for heads, m, k, n in _ATTENTION:
        for closed in (True, False):
            shapes = ((1, heads, m, k), (1, heads, k, n))
            yield Case(op="MatMul", shapes=shapes, out=(1, heads, m, n), closed=closed)


def _on_maps(shape: tuple[int, ...]) -> Iterator[Case]:
    half = (*shape[:2], shape[2] // 2, shape[3] // 2)
    pool: tuple[tuple[str, Any], ...] = (("kernel_shape", [2, 2]), ("strides", [2, 2]))
    for op in ("Add", "Mul"):
        yield Case(op=op, shapes=(shape, shape), out=shape)
    yield Case(op="Mul", shapes=(shape, (*shape[:2], 1, 1)), out=shape)
    yield Case(op="Concat", shapes=(shape, shape), out=(1, 2 * shape[1], *shape[2:]), attributes=(("axis", 1),))
    for op in ("MaxPool", "AveragePool"):
        yield Case(op=op, shapes=(shape,), out=half, attributes=pool)
    yield Case(op="GlobalAveragePool", shapes=(shape,), out=(*shape[:2], 1, 1))
    for op in ("Sigmoid", "LeakyRelu"):
        yield Case(op=op, shapes=(shape,), out=shape)
    silu: tuple[tuple[str, Any], ...] = (("alpha", 1.0),)
    yield Case(op="com.microsoft.QuickGelu", shapes=(shape,), out=shape, attributes=silu, integer=False)
    for op in ("Relu", "HardSwish", "HardSigmoid", "Gelu", "Tanh", "Div", "Sub"):
        shapes = (shape, shape) if op in ("Div", "Sub") else (shape,)
        yield Case(op=op, shapes=shapes, out=shape, integer=False)
    yield Case(
        op="Transpose",
        shapes=(shape,),
        out=(1, *shape[2:], shape[1]),
        attributes=(("perm", [0, 2, 3, 1]),),
        integer=False,
    )


def _on_rows(shape: tuple[int, ...]) -> Iterator[Case]:
    scores = (1, 12, shape[1], shape[1])
    yield Case(op="Softmax", shapes=(scores,), out=scores)
    yield Case(op="Add", shapes=(shape, shape), out=shape)
    yield Case(op="Add", shapes=(shape,), weights=(shape[-1:],), out=shape, integer=False)
    yield Case(op="LayerNormalization", shapes=(shape,), weights=(shape[-1:], shape[-1:]), out=shape, integer=False)
    yield Case(op="Gelu", shapes=(shape,), out=shape, integer=False)
    yield Case(op="Erf", shapes=(shape,), out=shape, integer=False)
    yield Case(
        op="Transpose", shapes=(shape,), out=(1, shape[2], shape[1]), attributes=(("perm", [0, 2, 1]),), integer=False
    )
