"""Which tensors have one number of channels, and Convs with more of them than they had."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.walk import constant_array
from onnxq_passes._edit import Editor, input_at, ints, is_constant, scalar
from onnxq_passes._qdq import dequantizer, parameters

_ALIKE = frozenset(
    {"Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Gelu", "QuickGelu", "MaxPool"}
    | {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Add", "Sub", "Mul"}
)
"""Ops that keep channels apart, and finite values finite."""

_VANISHING = ("Relu", "Clip")
"""Into the range of the Q behind a Conv."""

_REDUCING = frozenset({"ReduceMean", "ReduceMax"})
"""The same, where the axes lie behind the channels."""


class Filter(NamedTuple):
    """The constant weights of a Conv, as they are stored.

    Attributes:
        values: float32, or integers that a DequantizeLinear reads; shape [output channels, channels of a group, ...].
        groups: of channels.
    """

    values: NDArray[np.generic]
    groups: int

    @property
    def depthwise(self) -> bool:
        """Every channel for itself."""
        return self.groups > 1 and self.values.shape[:2] == (self.groups, 1)


@dataclass
class Group:
    """Tensors with one number of channels.

    Attributes:
        channels: numbers of channels and of dimensions that Convs tell; one pair, unless there is a reason.
        makers, readers: Convs, in the order of the graph; a depthwise one is both.
        reason: why there cannot be more channels, or nothing.
    """

    channels: set[tuple[int, int]] = field(default_factory=set)
    makers: list[gs.Node] = field(default_factory=list)
    readers: list[gs.Node] = field(default_factory=list)
    tensors: list[gs.Tensor] = field(default_factory=list)
    reason: str = ""

    @property
    def count(self) -> int:
        """Of channels; of the first Conv, where there are several."""
        return min(self.channels)[0]


class Channels:
    """The groups of a graph; bodies of If, Loop and Scan are foreign to them.

    Args:
        graph: main graph.
        editor: of the pass.
        quantized: groups go on behind Q and DQ with one scale, and weights may come out of a DQ.
    """

    def __init__(self, graph: gs.Graph, editor: Editor, *, quantized: bool = False) -> None:
        self.graph, self.editor, self.quantized = graph, editor, quantized
        self._parent: dict[int, int] = {}
        self._tensors: dict[int, gs.Tensor] = {}
        self.filters = {id(n): f for n in graph.nodes if n.op == "Conv" and (f := self._filter(n)) is not None}
        for node in graph.nodes:
            for tensor in self._data(node):
                if self._alike(node) or self._depthwise(node):
                    self._join(tensor, node.outputs[0])
                else:
                    self._root(tensor)
            for tensor in node.outputs:
                self._root(tensor)
        self._groups = self._found()

    @property
    def groups(self) -> list[Group]:
        """Those that a Conv with constant weights makes or reads."""
        return [group for group in self._groups.values() if group.channels]

    def fill(self, sizes: Mapping[int, int], wider: Mapping[int, int] | None = None) -> int:
        """Give groups more channels, of zeros; returns how many Convs changed.

        Args:
            sizes: id of a group -> number of channels more.
            wider: id of a Conv -> number of input channels more, whatever its group.
        """
        changed = 0
        for group in (group for group in self._groups.values() if id(group) in sizes):
            for tensor in group.tensors:
                if tensor.shape is not None and tensor.shape[1] == group.count:
                    tensor.shape = [*tensor.shape[:1], group.count + sizes[id(group)], *tensor.shape[2:]]
        for node in self.graph.nodes:
            if id(node) in self.filters:
                extra = sizes.get(id(self._group(node.outputs[0])), 0)
                inputs = sizes.get(id(self._group(node.inputs[0])), 0)
                if wider and id(node) in wider:
                    inputs = wider[id(node)]
                if self._depthwise(node):
                    inputs = 0
                if extra or inputs:
                    self._widen(node, extra, inputs)
                    changed += 1
        return changed

    def _group(self, tensor: gs.Tensor) -> Group | None:
        return self._groups.get(self._root(tensor))

    def _found(self) -> dict[int, Group]:
        found: dict[int, Group] = defaultdict(Group)
        for tensor in self._tensors.values():
            group = found[self._root(tensor)]
            group.tensors.append(tensor)
            group.reason = group.reason or self._reason(tensor)
        for node in self.graph.nodes:
            weights = self.filters.get(id(node))
            if weights is not None:
                shape = weights.values.shape
                maker, reader = found[self._root(node.outputs[0])], found[self._root(node.inputs[0])]
                maker.channels.add((shape[0], len(shape)))
                maker.makers.append(node)
                reader.channels.add((shape[1] * weights.groups, len(shape)))
                reader.readers.append(node)
        for group in found.values():
            if len(group.channels) > 1:
                said = "tensors with other numbers of channels or dimensions are combined with its output"
                group.reason = group.reason or said
        return found

    def _root(self, tensor: gs.Tensor) -> int:
        at = id(tensor)
        self._tensors.setdefault(at, tensor)
        self._parent.setdefault(at, at)
        while self._parent[at] != at:
            self._parent[at] = at = self._parent[self._parent[at]]
        return at

    def _join(self, one: gs.Tensor, other: gs.Tensor) -> None:
        self._parent[self._root(one)] = self._root(other)

    def _data(self, node: gs.Node) -> list[gs.Tensor]:
        """What a node reads of computed tensors."""
        weights = node.inputs[1:] if id(node) in self.filters else []
        return [t for t in node.inputs if not is_constant(t) and t.name and not any(t is w for w in weights)]

    def _alike(self, node: gs.Node) -> bool:
        if node.op in _REDUCING:
            return _spatial(node)
        if node.op in _ALIKE:
            return True
        said = parameters(node) if self.quantized and not is_constant(node.inputs[0]) else None
        return said is not None and said.axis is None

    def _depthwise(self, node: gs.Node) -> bool:
        weights = self.filters.get(id(node))
        return weights is not None and weights.depthwise

    def _filter(self, node: gs.Node) -> Filter | None:
        values = self._stored(node.inputs[1])
        return None if values is None else Filter(values, int(node.attrs.get("group", 1)))

    def _widen(self, node: gs.Node, extra: int, wider: int) -> None:
        """Add `extra` output channels and `wider` input channels of zeros."""
        weights = self.filters[id(node)]
        if extra and weights.depthwise:
            node.attrs["group"] = weights.groups + extra
        more = [(0, extra), (0, wider), *[(0, 0)] * (weights.values.ndim - 2)]
        self._pad(node, 1, more)
        if extra and input_at(node, 2) is not None:
            self._pad(node, 2, [(0, extra)])

    def _stored(self, tensor: gs.Tensor) -> NDArray[np.generic] | None:
        """Constants to which zeros can be added."""
        made = dequantizer(self.editor, tensor)
        if made is None or not self.quantized:
            return constant_array(tensor)
        return None if made[1].zero_point.any() else stored(self.editor, tensor)

    def _pad(self, node: gs.Node, slot: int, more: list[tuple[int, int]]) -> None:
        values = stored(self.editor, node.inputs[slot])
        assert values is not None
        store(self.editor, node, slot, np.pad(values, more), "padded", channels=more[0][1])

    def _reason(self, tensor: gs.Tensor) -> str:
        """Why the channels of a tensor cannot be padded, or nothing."""
        editor = self.editor
        if editor.is_output(tensor):
            return f"its channels reach the graph output {tensor.name}"
        maker = editor.producer(tensor)
        if maker is None:
            return f"its channels come from {tensor.name}, which no op of this graph makes"
        for node in [maker, *(user for user, _ in editor.uses(tensor))]:
            reason = self._foreign(node)
            if reason:
                return reason
            if editor.body(node) is not editor.body(maker):
                return f"its channels reach a body, in {node.op} {node.name}"
        return ""

    def _foreign(self, node: gs.Node) -> str:
        if node.op == "Conv":
            weights, bias = self.filters.get(id(node)), input_at(node, 2)
            if weights is None or (bias is not None and self._stored(bias) is None):
                return f"the weights of Conv {node.name} are no constants"
            if weights.groups > 1 and not weights.depthwise:
                return f"Conv {node.name} works in groups of channels"
            return ""
        if not self._alike(node) or len(node.outputs) != 1:
            return f"its channels reach {node.op} {node.name}, where every channel counts"
        if node.op in _REDUCING:  # its constant are the axes
            return ""
        if any(is_constant(t) and scalar(t) is None for t in node.inputs):
            return f"a constant with several elements goes into {node.op} {node.name}"
        return ""


def stored(editor: Editor, tensor: gs.Tensor) -> NDArray[np.generic] | None:
    """A constant, or what a DQ with one scale, or with one for each channel of axis 0, reads of one; else None."""
    values = constant_array(tensor)
    if values is not None:
        return values
    made = dequantizer(editor, tensor)
    if made is None or made[1].block_size or made[1].axis not in (None, 0):
        return None
    return constant_array(made[0].inputs[0])


def store(
    editor: Editor, node: gs.Node, slot: int, values: NDArray[np.generic], how: str, *, channels: int = 0
) -> None:
    """Give a node another constant in place of one that is `stored`, behind a DQ of its own if it was behind one.

    Args:
        editor: of the pass.
        node: whose constant it is.
        slot: of the input.
        values: as they are stored.
        how: end of the new names.
        channels: how many more there are on axis 0 than before; each has the scale of the last one.
    """
    tensor = node.inputs[slot]
    made = dequantizer(editor, tensor)
    source = tensor if made is None else made[0].inputs[0]
    new: gs.Tensor = editor.constant(f"{source.name}_{how}", values)
    if made is not None:
        maker, said = made
        numbers = list(maker.inputs[1:])
        if said.axis is not None and channels:
            numbers = [
                editor.constant(f"{t.name}_{how}", np.pad(np.asarray(constant_array(t)), (0, channels), mode="edge"))
                if is_constant(t)
                else t
                for t in numbers
            ]
        result = editor.variable(f"{tensor.name}_{how}", tensor)
        result.shape = list(values.shape)
        twin = editor.node(maker.op, [new, *numbers], [result], name=f"{maker.name}_{how}", attrs=dict(maker.attrs))
        editor.insert(twin, before=node)
        new = result
    editor.set_input(node, slot, new)
    drop(editor, tensor)


def drop(editor: Editor, tensor: gs.Tensor) -> None:
    """Remove the node that makes a tensor, if nobody reads it any more."""
    maker = editor.producer(tensor)
    if maker is not None and editor.private(tensor, ()):
        editor.remove(maker)


def integer_conv(node: gs.Node, editor: Editor) -> bool:
    """Does a Conv become an integer kernel: 8 bits in, symmetric 8 bits of weights, 8 bits out?"""
    data, weights = dequantizer(editor, node.inputs[0]), dequantizer(editor, node.inputs[1])
    if data is None or not data[1].one_byte_scale:
        return False
    if weights is None or weights[1].dtype != "int8" or weights[1].zero_point.any():
        return False
    result = node.outputs[0]
    use = editor.only_use(result)
    if use is not None and use[0].op in _VANISHING:
        result = use[0].outputs[0]
    readers = [user for user, _ in editor.uses(result)]
    return bool(readers) and not editor.is_output(result) and all(_bytes(user) for user in readers)


def _bytes(node: gs.Node) -> bool:
    """Is it a Q of 8 bits with one scale?"""
    said = parameters(node)
    return said is not None and said.one_byte_scale


def _spatial(node: gs.Node) -> bool:
    """Does it reduce axes behind the channels alone, and keep all dimensions?"""
    axes = node.attrs.get("axes") if len(node.inputs) < 2 else ints(node.inputs[1])
    rank = len(node.inputs[0].shape or ())
    if not axes or not node.attrs.get("keepdims", True):
        return False
    return all((axis if axis >= 0 else axis + rank) >= 2 for axis in axes)
