"""A picture has few channels, and integer convolutions take them four at a time: rows of a kernel can be channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.optable import HEAVY, ROWS
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._channels import drop, integer_conv, store, stored
from onnxq_passes._edit import Editor
from onnxq_passes._qdq import Parameters, dequantizer

_FOUR = 4
_PAD = 13


@dataclass(frozen=True, kw_only=True)
class StackRows(Pass):
    """Let an integer Conv read the rows under its kernel as channels, where pictures have few of them.

    1. A Conv in one group between DQ and Q, of 8 bits, with kernel [O, C, kh, kw], reads C channels of a picture of
       known height, and no product stands before it. A Pad of the integers adds the rows above and below, a Gather
       takes for each output row and each of the C * kh rows under the kernel the one that is meant; the kernel is
       [O, M, 1, kw] then, where M is C * kh, filled up to a multiple of 4. The sums are the same. The names of the new
       ops are that of the Conv with `_rows`.
    2. Only where M is less than kh times what `align-channels` would make of C.
    3. Refused: what is no picture; a picture of unknown height; rows by auto_pad SAME where the width is unknown;
       opsets whose Pad takes no 8 bits.

    The 7x7 kernel of a ResNet reads 24 x 7 bytes for each pixel then, not 4 x 49, and seven runs of bytes, not 49.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED,)
    gives: ClassVar[Stage] = Stage.QDQ
    exact: ClassVar[bool] = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        made: dict[object, gs.Tensor] = {}
        for conv in editor.live(ops=["Conv"]):
            kernel, found = _kernel(conv, editor), dequantizer(editor, conv.inputs[0])
            if kernel is None or found is None or not integer_conv(conv, editor):
                continue
            if not _picture(conv.inputs[0], editor):
                report.refuse(conv, "what it reads is computed by products, which have channels last")
                continue
            if graph.opset < _PAD:
                report.refuse(conv, f"Pad takes 8 bits and computed amounts from opset {_PAD} on")
                continue
            shapes = [tensor.shape for tensor in (conv.inputs[0], found[0].inputs[0])]
            window = _window(conv, kernel, next((shape for shape in shapes if shape is not None), None))
            if isinstance(window, str):
                report.refuse(conv, window)
                continue
            _stack(conv, window, *found, made, editor)
            report.rewrites += 1
        editor.commit()
        return report


@dataclass(frozen=True)
class _Window:
    """Where the kernel stands: the rows of the picture, and what is left of the Conv's attributes."""

    kernel: tuple[int, int, int, int]
    shape: list[Any]  # of the picture
    above: int
    below: int
    rows: Any  # [kh, rows of the output], of the padded picture
    columns: dict[str, list[int]]


def _channels(kernel: tuple[int, int, int, int]) -> int:
    """M of case 1."""
    return -(-kernel[1] * kernel[2] // _FOUR) * _FOUR


def _kernel(conv: gs.Node, editor: Editor) -> tuple[int, int, int, int] | None:
    """The shape of the weights of a Conv that gains."""
    values = stored(editor, conv.inputs[1])
    if values is None or values.ndim != 4 or int(conv.attrs.get("group", 1)) != 1:
        return None
    kernel = (values.shape[0], values.shape[1], values.shape[2], values.shape[3])
    aligned = -(-kernel[1] // _FOUR) * _FOUR
    return kernel if _channels(kernel) < aligned * kernel[2] else None


def _picture(tensor: gs.Tensor, editor: Editor) -> bool:
    """Is it made without products, so that it has no layout of its own?"""
    queue, seen = [tensor], set[int]()
    while queue:
        maker = editor.producer(queue.pop())
        if maker is None or id(maker) in seen:
            continue
        if maker.op in HEAVY:
            return False
        seen.add(id(maker))
        queue += maker.inputs
    return True


def _window(conv: gs.Node, kernel: tuple[int, int, int, int], shape: Any) -> _Window | str:
    """Or why there is none."""
    if shape is None or len(shape) != 4 or not isinstance(shape[2], int) or not shape[2]:
        return "the height of its picture is not known"
    once = [1, 1]
    strides, dilations = ([int(n) for n in conv.attrs.get(name) or once] for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel[2:], strict=True)]
    pads = [int(p) for p in conv.attrs.get("pads") or (0, 0, 0, 0)]
    auto = conv.attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0, 0, 0, 0]
    elif auto.startswith("SAME"):
        if not isinstance(shape[3], int):
            return "auto_pad says how many rows it adds, and its picture's width is not known"
        missing = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(shape[2:], strides, reach, strict=True)]
        first = [(m + (auto == "SAME_LOWER")) // 2 for m in missing]
        pads = [*first, *(m - f for m, f in zip(missing, first, strict=True))]
    count = (shape[2] + pads[0] + pads[2] - reach[0]) // strides[0] + 1
    rows = np.arange(kernel[2])[:, None] * dilations[0] + np.arange(count) * strides[0]
    columns = {
        "kernel_shape": [1, kernel[3]],
        "pads": [0, pads[1], 0, pads[3]],
        "strides": [1, strides[1]],
        "dilations": [1, dilations[1]],
    }
    return _Window(kernel, list(shape), pads[0], pads[2], rows, columns)


def _stack(
    conv: gs.Node, window: _Window, maker: gs.Node, said: Parameters, made: dict[object, gs.Tensor], editor: Editor
) -> None:
    source, data, name = maker.inputs[0], conv.inputs[0], f"{conv.name}{ROWS}"
    outputs, channels, high, wide = window.kernel
    batch, _, height, width = window.shape
    total, count = height + window.above + window.below, _channels(window.kernel)
    key = id(source), said.key, window.above, window.below, window.rows.tobytes(), window.rows.shape
    if key not in made:

        def put(op: str, inputs: list[gs.Tensor], shape: list[Any], **attrs: object) -> gs.Tensor:
            output = editor.variable(f"{source.name}{ROWS}", source)
            output.shape = shape
            editor.insert(editor.node(op, inputs, [output], name=name, attrs=attrs), before=conv)
            return output

        pixels = source
        if window.above or window.below:
            amounts = editor.constant(f"{name}_pads", np.array([0, 0, window.above, 0, 0, 0, window.below, 0]))
            fill = editor.constant(f"{name}_fill", said.zero_point)
            pixels = put("Pad", [pixels, amounts, fill], [batch, channels, total, width])
        line = width if isinstance(width, int) else -1  # which a batch of nothing does not allow
        lines = editor.constant(f"{name}_lines", np.array([0, channels * total, line]))
        pixels = put("Reshape", [pixels, lines], [batch, channels * total, width])
        rows = (np.arange(channels)[:, None, None] * total + window.rows).reshape(channels * high, window.rows.shape[1])
        filled = np.pad(rows, ((0, count - len(rows)), (0, 0)), mode="edge")  # their weights are 0
        indices = editor.constant(f"{name}_indices", filled)
        pixels = put("Gather", [pixels, indices], [batch, count, filled.shape[1], width], axis=1)
        twin = editor.variable(f"{data.name}{ROWS}", data)
        twin.shape = list(pixels.shape)
        inputs, attrs = [pixels, *maker.inputs[1:]], dict(maker.attrs)
        editor.insert(editor.node(maker.op, inputs, [twin], name=f"{name}_dequantized", attrs=attrs), before=conv)
        made[key] = twin
    values = stored(editor, conv.inputs[1])
    assert values is not None
    lined = values.reshape(outputs, channels * high, 1, wide)
    store(editor, conv, 1, np.pad(lined, ((0, 0), (0, count - channels * high), (0, 0), (0, 0))), "rows")
    conv.attrs.pop("auto_pad", None)
    conv.attrs.update(window.columns)
    editor.set_input(conv, 0, made[key])
    drop(editor, data)
