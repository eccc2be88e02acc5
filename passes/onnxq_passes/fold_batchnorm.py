"""A BatchNormalization between an op and its Q keeps the op from integer kernels, and costs time in float."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._affine import Affine, affine, batch_norm
from onnxq_passes._edit import Editor, input_at, rank
from onnxq_passes._linear import LINEAR, channels, replace_constant, rounded, scale_inputs, scale_outputs

NOT_FINITE = "the folded weights would not be finite"
_AFFINE = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, kw_only=True)
class FoldBatchnorm(Pass):
    """Fold per-channel maps y = x * scale + shift into the weights of the linear op next to them.

    Exact up to float rounding: the maps of a chain are multiplied in float64, and the result is rounded once.

    1. BatchNormalization (inference), and Add, Sub, Mul, Div by one number per channel, after a Conv: W[o] *
       scale[o], b * scale + shift.
    2. After a ConvTranspose: the output channels are on axis 1 of the weights, group by group.
    3. After a Gemm: the columns of B (its rows with transB); C becomes beta * C * scale + shift with beta = 1.
    4. After a MatMul with a constant matrix: its columns; a following Add of a constant is its bias. Scaling alone
       needs no bias. A BatchNormalization needs rank 2, and becomes that Add. Lone Adds stay.
    5. BatchNormalization before a Conv without padding: W[:, i] * scale[i], b + sum of W * shift.
    6. Shared weights get a copy of their own. Results of the ops in between must not be read elsewhere.
    7. A BatchNormalization without such a neighbour stays, and so does everything that would make the weights
       infinite.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=LINEAR):
            _fold_behind(node, editor, report)
        for node in editor.live(ops=["BatchNormalization"]):
            reason = _fold_ahead(node, editor, report)
            if reason:
                report.refuse(node, reason)
        editor.commit()
        return report


def _fold_behind(node: gs.Node, editor: Editor, report: Report) -> None:
    weight = input_at(node, 1)
    if not isinstance(weight, gs.Constant) or weight.values.dtype.kind != "f":
        return
    size = channels(node, weight)
    if size is None:
        return
    dimensions = rank(node.outputs[0]) if node.op == "MatMul" else len(weight.shape)
    axis = 1 - len(weight.shape)  # -1 for matrices
    total = Affine(scale=np.ones(1), shift=np.zeros(1))
    chain: list[gs.Node] = []
    bias: gs.Node | None = None
    last = node
    while True:
        following = _next(last, editor)
        if following is None:
            break
        step = affine(following, editor, size, axis, dimensions)
        if step is None:
            break
        if isinstance(step, str):
            if following.op != "BatchNormalization":  # those that stay are refused by _fold_ahead
                report.refuse(following, step)
            break
        if following.op == "BatchNormalization" and node.op == "MatMul" and dimensions != 2:
            break  # case 4: its channels are on axis 1
        if editor.only_use(last.outputs[0]) is None:
            report.refuse(following, f"the result of the {last.op} before it is also read elsewhere")  # case 6
            break
        if node.op == "MatMul" and bias is None and following.op in ("Add", "Sub"):
            bias = following
        total = total.then(step)
        chain.append(following)
        last = following
    if not chain or (node.op == "MatMul" and len(chain) == 1 and chain[0] is bias):
        return  # case 4: it has its bias already
    reason = _apply(node, weight, size, _Chain(total=total, nodes=chain, bias=bias), editor, report)
    if reason:
        report.refuse(chain[0], reason)


def _next(node: gs.Node, editor: Editor) -> gs.Node | None:
    """An affine reader of the result, in the same graph."""
    for reader, _ in editor.uses(node.outputs[0]):
        if reader.op in _AFFINE:
            return reader if editor.body(reader) is editor.body(node) else None
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chain:
    """The maps behind a linear op: together, one by one, and the first Add of a MatMul."""

    total: Affine
    nodes: list[gs.Node]
    bias: gs.Node | None


def _apply(node: gs.Node, weight: gs.Constant, size: int, chain: _Chain, editor: Editor, report: Report) -> str | None:
    """Fold the chain behind a linear op with `size` channels into it, or say why not."""
    scale, shift = np.broadcast_to(chain.total.scale, size), np.broadcast_to(chain.total.shift, size)
    previous = input_at(node, 2)
    if previous is not None:
        if not isinstance(previous, gs.Constant):
            return f"the bias of {node.op} is not constant"
        beta = float(node.attrs.get("beta", 1.0))
        shift = beta * scale * np.asarray(previous.values) + shift  # case 3
    dtype = weight.values.dtype
    new = rounded(scale_outputs(node, np.asarray(weight.values), scale), dtype)
    added = rounded(shift, dtype)
    if new is None or added is None:
        return NOT_FINITE
    report.rewrites += len(chain.nodes)
    for gone in chain.nodes:
        editor.remove(gone)
    replace_constant(editor, node, 1, new, f"{weight.name}_folded")
    result = chain.nodes[-1].outputs[0]
    needless = previous is None and not added.any()
    if node.op != "MatMul" and not needless:
        replace_constant(editor, node, 2, added, f"{node.name}_bias")
        node.attrs.pop("beta", None)
    if node.op != "MatMul" or needless:
        editor.set_output(node, 0, result)
        return None
    middle = editor.variable(f"{node.name}_product", result)  # case 4
    editor.set_output(node, 0, middle)
    origin = chain.bias if chain.bias is not None else chain.nodes[-1]
    add = editor.node(
        "Add", [middle, editor.constant(f"{origin.name}_constant", added)], [result], name=f"{origin.name}_bias"
    )
    editor.insert(add, after=node)
    report.renamed[add.name] = origin.name
    return None


def _fold_ahead(node: gs.Node, editor: Editor, report: Report) -> str | None:
    """Case 5, or why a BatchNormalization stays (case 7)."""
    norm = batch_norm(node, editor)
    if isinstance(norm, str):
        return norm
    use = editor.only_use(node.outputs[0])
    if use is None or use[0].op != "Conv" or use[1] != 0:
        return "there is no linear op next to it whose weights could take it up"
    conv = use[0]
    weight, bias = input_at(conv, 1), input_at(conv, 2)
    if any(conv.attrs.get("pads", ())) or conv.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the Conv behind it pads with zeros, which are not shifted"
    if not isinstance(weight, gs.Constant) or (bias is not None and not isinstance(bias, gs.Constant)):
        return "the weights of the Conv behind it are not constant"
    w, dtype = np.asarray(weight.values), weight.values.dtype
    shift = scale_inputs(conv, w, norm.shift).sum(axis=tuple(range(1, w.ndim)))
    new = rounded(scale_inputs(conv, w, norm.scale), dtype)
    added = rounded(shift if bias is None else np.asarray(bias.values) + shift, dtype)
    if new is None or added is None:
        return NOT_FINITE
    replace_constant(editor, conv, 1, new, f"{weight.name}_folded")
    replace_constant(editor, conv, 2, added, f"{conv.name}_bias")
    editor.set_input(conv, 0, node.inputs[0])
    editor.remove(node)
    report.rewrites += 1
    return None
