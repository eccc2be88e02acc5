"""Float convolutions work on blocks of 16 (or 8) channels; where there are 88, the layout is undone around many ops."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir.walk import constant_array
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, is_constant, scalar

_ALIKE = frozenset(
    {"Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Gelu", "QuickGelu", "MaxPool"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Add", "Sub", "Mul"}
)
"""Ops that keep channels apart, and finite values finite."""


@dataclass(frozen=True, kw_only=True)
class PadChannels(Pass):
    """Give Convs output channels of zeros, up to a multiple; exact up to the order of float sums.

    1. Tensors that hang together by activations, pools, depthwise Convs and by Add, Sub and Mul with each other have
       one number of channels. The Convs that make them get more output channels, with weights and biases of 0, the
       Convs that read them more input channels, with weights of 0: what activations make of a 0 counts for nothing.
    2. Refused: what reaches a graph output, a body, an op of another type, a constant with several elements, a Conv in
       groups, or a Conv whose weights are no constants.
    3. With a plan, only if it asks for it; then its multiple counts.

    ONNX Runtime's blocked layout (NCHWc) has 16 channels to a block with AVX-512, else 8. Placement by cost tries this.

    Attributes:
        multiple: of the number of channels.
    """

    multiple: int = 16

    takes: ClassVar[Stage] = Stage.FLOAT
    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    gives: ClassVar[Stage] = Stage.FLOAT

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report = Report()
        multiple = self.multiple if context.plan is None else context.plan.channel_multiple
        if multiple > 1:
            editor = Editor(graph)
            _pad(graph, editor, multiple, report)
            editor.commit()
        return report


@dataclass
class _Group:
    """Tensors with one number of channels; `channels` and dimensions are those that Convs tell."""

    channels: set[tuple[int, int]] = field(default_factory=set)
    makers: list[gs.Node] = field(default_factory=list)
    tensors: list[gs.Tensor] = field(default_factory=list)
    reason: str = ""


class _Groups:
    def __init__(self) -> None:
        self.parent: dict[int, int] = {}
        self.tensors: dict[int, gs.Tensor] = {}

    def root(self, tensor: gs.Tensor) -> int:
        at = id(tensor)
        self.tensors.setdefault(at, tensor)
        self.parent.setdefault(at, at)
        while self.parent[at] != at:
            self.parent[at] = at = self.parent[self.parent[at]]
        return at

    def join(self, one: gs.Tensor, other: gs.Tensor) -> None:
        self.parent[self.root(one)] = self.root(other)


def _pad(graph: gs.Graph, editor: Editor, multiple: int, report: Report) -> None:
    groups = _Groups()
    for node in graph.nodes:
        for tensor in [t for t in node.inputs if not is_constant(t) and t.name]:
            if node.op in _ALIKE or (node.op == "Conv" and _depthwise(node)):
                groups.join(tensor, node.outputs[0])
            else:
                groups.root(tensor)
        for tensor in node.outputs:
            groups.root(tensor)
    found: dict[int, _Group] = defaultdict(_Group)
    for tensor in groups.tensors.values():
        group = found[groups.root(tensor)]
        group.tensors.append(tensor)
        group.reason = group.reason or _reason(editor, tensor)
    for node in graph.nodes:
        weights = constant_array(node.inputs[1]) if node.op == "Conv" else None
        if weights is not None:
            maker = found[groups.root(node.outputs[0])]
            maker.channels.add((weights.shape[0], weights.ndim))
            maker.makers.append(node)
            channels = weights.shape[1] * int(node.attrs.get("group", 1))
            found[groups.root(node.inputs[0])].channels.add((channels, weights.ndim))
    sizes: dict[int, int] = {}
    for key, group in found.items():
        if not group.makers or all(c % multiple == 0 for c, _ in group.channels):
            continue
        if len(group.channels) > 1:
            group.reason = (
                group.reason or "tensors with other numbers of channels or dimensions are combined with its output"
            )
        if group.reason:
            report.refuse(group.makers[0], group.reason)
            continue
        ((count, _),) = group.channels
        sizes[key] = -count % multiple
        for tensor in group.tensors:
            if tensor.shape is not None and tensor.shape[1] == count:
                tensor.shape = [*tensor.shape[:1], count + sizes[key], *tensor.shape[2:]]
    for node in graph.nodes:
        if node.op == "Conv" and constant_array(node.inputs[1]) is not None:
            extra = sizes.get(groups.root(node.outputs[0]), 0)
            wider = 0 if _depthwise(node) else sizes.get(groups.root(node.inputs[0]), 0)
            if extra or wider:
                _widen(editor, node, extra, wider)
                report.rewrites += 1


def _widen(editor: Editor, node: gs.Node, extra: int, wider: int) -> None:
    """Add `extra` output channels and `wider` input channels of zeros."""
    weights = np.asarray(constant_array(node.inputs[1]))
    if extra and _depthwise(node):
        node.attrs["group"] = int(node.attrs["group"]) + extra
    more = [(0, extra), (0, wider), *[(0, 0)] * (weights.ndim - 2)]
    editor.set_input(node, 1, editor.constant(f"{node.inputs[1].name}_padded", np.pad(weights, more)))
    bias = input_at(node, 2)
    if extra and bias is not None:
        padded = np.pad(np.asarray(constant_array(bias)), (0, extra))
        editor.set_input(node, 2, editor.constant(f"{bias.name}_padded", padded))


def _depthwise(node: gs.Node) -> bool:
    weights = constant_array(node.inputs[1])
    groups = int(node.attrs.get("group", 1))
    return weights is not None and groups > 1 and weights.shape[:2] == (groups, 1)


def _reason(editor: Editor, tensor: gs.Tensor) -> str:
    """Why the channels of a tensor cannot be padded, or nothing."""
    if editor.is_output(tensor):
        return f"its channels reach the graph output {tensor.name}"
    maker = editor.producer(tensor)
    if maker is None:
        return f"its channels come from {tensor.name}, which no op of this graph makes"
    for node in [maker, *(user for user, _ in editor.uses(tensor))]:
        reason = _foreign(node)
        if reason:
            return reason
        if editor.body(node) is not editor.body(maker):
            return f"its channels reach a body, in {node.op} {node.name}"
    return ""


def _foreign(node: gs.Node) -> str:
    if node.op == "Conv":
        bias = input_at(node, 2)
        if constant_array(node.inputs[1]) is None or (bias is not None and constant_array(bias) is None):
            return f"the weights of Conv {node.name} are no constants"
        if int(node.attrs.get("group", 1)) > 1 and not _depthwise(node):
            return f"Conv {node.name} works in groups of channels"
        return ""
    if node.op not in _ALIKE or len(node.outputs) != 1:
        return f"its channels reach {node.op} {node.name}, where every channel counts"
    if any(is_constant(t) and scalar(t) is None for t in node.inputs):
        return f"a constant with several elements goes into {node.op} {node.name}"
    return ""
