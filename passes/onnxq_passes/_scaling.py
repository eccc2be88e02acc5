"""What equalize-layers and smooth-activations share: who can divide its channels, who can multiply them.

A positive factor per channel passes Relu and whatever else has f(c x) = c f(x) for c > 0, channel by channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.walk import clip_bounds
from onnxq_passes._edit import Editor, input_at, standard
from onnxq_passes._linear import LINEAR, Vector, channels, replace_constant, rounded, scale_outputs

LAST, SECOND = -1, 1
"""Axes on which channels lie: of matrices, of images."""

NORMS = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}
"""Op -> the slots of its scale and of its shift."""

_SAME = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
NOT_FINITE = "the scaled weights would not be finite"


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Who divides a tensor by s.

    Attributes:
        root: a norm, a Mul by constants, or a linear op, whose weights (slot 1) are divided by output channel.
        constants: (node, slot) of all other constants that are divided: shifts, biases.
    """

    root: gs.Node
    constants: tuple[tuple[gs.Node, int], ...]

    @property
    def linear(self) -> bool:
        return self.root.op in LINEAR


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """A tensor, who divides it and the linear ops that multiply it.

    Attributes:
        source: who divides it, or why nobody can.
        size: number of channels.
        elsewhere: who else reads it, in words; "" if nobody does.
    """

    tensor: gs.Tensor
    source: Source | str
    products: tuple[gs.Node, ...]
    size: int
    elsewhere: str = ""

    @property
    def obstacle(self) -> str:
        """Why dividing the tensor at its source is not possible, or would change what others read; "" if it is."""
        if isinstance(self.source, str):
            return self.source
        return f"its input is also read by {self.elsewhere}" if self.elsewhere else ""


def links(editor: Editor, ops: Sequence[str]) -> Iterator[Link | tuple[gs.Node, str]]:
    """Each tensor that one of `ops` multiplies with a constant weight; or that op and why its weight cannot be scaled.

    Tensors that come straight from outside, and weights that are computed, are no sites.
    """
    seen: set[int] = set()
    for node in editor.live(ops=ops):
        tensor = node.inputs[0]
        weight = matrix(node)
        if weight is None or id(tensor) in seen or editor.producer(tensor) is None:
            continue
        seen.add(id(tensor))
        yield _link(editor, tensor, node, ops)


def _link(editor: Editor, tensor: gs.Tensor, first: gs.Node, ops: Sequence[str]) -> Link | tuple[gs.Node, str]:
    axis, size = layout(first)
    products, others = [], []
    for reader, slot in editor.uses(tensor):
        fits = reader.op in ops and standard(reader) and slot == 0 and matrix(reader) is not None
        if fits and layout(reader) == (axis, size):
            products.append(reader)
        else:
            others.append(f'{reader.op} "{reader.name}"')
    if editor.is_output(tensor):
        others.insert(0, "an output of the graph")
    for product in products:
        if product.attrs.get("transA"):
            return product, "it transposes its data"
        if editor.only_use(product.inputs[1]) is None:
            return product, "its weight is shared with another op"
    found = source(editor, tensor, axis, size, rank=len(first.inputs[1].shape))
    return Link(tensor=tensor, source=found, products=tuple(products), size=size, elsewhere=", ".join(others))


def matrix(node: gs.Node) -> gs.Constant | None:
    """The constant float weight of a linear op by which its data (slot 0) is multiplied; else None."""
    weight = input_at(node, 1)
    if not isinstance(weight, gs.Constant) or weight.values.dtype.kind != "f" or channels(node, weight) is None:
        return None
    return weight


def layout(node: gs.Node) -> tuple[int, int]:
    """Axis and number of the input channels of a linear op with constant weight."""
    shape = node.inputs[1].shape
    if node.op == "Conv":
        return SECOND, int(shape[1]) * int(node.attrs.get("group", 1))
    if node.op == "ConvTranspose":
        return SECOND, int(shape[0])
    return LAST, int(shape[1 if node.attrs.get("transB") else 0])


def source(editor: Editor, tensor: gs.Tensor, axis: int, size: int, *, rank: int) -> Source | str:
    """Who can divide a tensor with `size` channels on `axis`, or why nobody can.

    Args:
        rank: of the tensor, where channels lie on axis 1.
    """
    divided: list[tuple[gs.Node, int]] = []
    while True:
        node = editor.producer(tensor)
        if node is None:
            return "nothing that could be scaled makes its input"
        if node.op in NORMS and axis == LAST:
            slots = [s for s in NORMS[node.op] if input_at(node, s) is not None]
            if not all(isinstance(node.inputs[s], gs.Constant) and node.inputs[s].shape == (size,) for s in slots):
                return f"scale and shift of {node.op} in front are no constants of one number per channel"
            return Source(root=node, constants=(*divided, *((node, s) for s in slots)))
        if not standard(node):
            return f"{node.op} in front is not positively homogeneous"
        if node.op in LINEAR:
            return _linear_source(editor, node, divided, axis, size)
        place = _constant_of(node, axis, rank)
        if node.op == "Mul" and place is not None:
            return Source(root=node, constants=(*divided, (node, place)))
        if node.op in ("Add", "Sub") and place is not None:
            divided.append((node, place))
            tensor = node.inputs[1 - place]
        elif node.op in _SAME or (node.op in _POOLS and axis == SECOND and len(node.outputs) == 1):
            tensor = node.inputs[0]
        elif node.op == "Clip":
            bounds = clip_bounds(node)
            if bounds is None or bounds[0] not in (0, -np.inf) or bounds[1] != np.inf:
                return "Clip in front is not positively homogeneous: its bound would be another one per channel"
            tensor = node.inputs[0]
        else:
            return f"{node.op} in front is not positively homogeneous channel by channel"
        if editor.only_use(tensor) is None:
            return f"what {node.op} in front reads is also read elsewhere"


def _linear_source(
    editor: Editor, node: gs.Node, divided: list[tuple[gs.Node, int]], axis: int, size: int
) -> Source | str:
    weight = matrix(node)
    if weight is None:
        return f"the weight of {node.op} in front is no constant matrix"
    if (axis == SECOND) != (node.op in ("Conv", "ConvTranspose")) or channels(node, weight) != size:
        return f"{node.op} in front has its channels elsewhere"
    if editor.only_use(weight) is None:
        return f"the weight of {node.op} in front is shared with another op"
    bias = input_at(node, 2)
    if bias is not None and not isinstance(bias, gs.Constant):
        return f"the bias of {node.op} in front is not constant"
    return Source(root=node, constants=(*divided, *([] if bias is None else [(node, 2)])))


def _constant_of(node: gs.Node, axis: int, rank: int) -> int | None:
    """The slot of a float constant that is broadcast to the channels, of an op with two inputs; else None."""
    for slot, tensor in enumerate(node.inputs):
        if len(node.inputs) != 2 or not isinstance(tensor, gs.Constant) or tensor.values.dtype.kind != "f":
            continue
        if axis == LAST or len(tensor.shape) <= rank:
            return slot
    return None


def multiplied(node: gs.Node, w: NDArray[Any], s: Vector) -> Vector:
    """The weight of a linear op with input channel i multiplied by s[i]."""
    if node.op == "Conv":
        groups = int(node.attrs.get("group", 1))
        split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        return np.asarray((split * s.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape))
    if node.op == "ConvTranspose":
        return np.asarray(w * s.reshape(-1, *[1] * (w.ndim - 1)))
    return np.asarray(w * (s if node.attrs.get("transB") else s[:, None]))


class Scaled:
    """The constants of a link, scaled in float64 (as the factors are) and rounded once."""

    def __init__(self) -> None:
        self._values: list[tuple[gs.Node, int, NDArray[Any]]] = []

    def divide(self, link: Link, s: Vector) -> None:
        """The source's side of x / s."""
        source = link.source
        assert isinstance(source, Source)
        if source.linear:
            self._put(source.root, 1, scale_outputs(source.root, source.root.inputs[1].values, 1 / s))
        for node, slot in source.constants:
            # the bias of a Conv has rank 1, matrices have their channels last
            ranks = 0 if node.op in LINEAR else len(link.products[0].inputs[1].shape) - 2
            self._put(node, slot, node.inputs[slot].values / s.reshape(-1, *[1] * ranks))

    def multiply(self, link: Link, s: Vector) -> None:
        """The products' side of s W."""
        for node in link.products:
            self._put(node, 1, multiplied(node, node.inputs[1].values, s))

    def _put(self, node: gs.Node, slot: int, values: NDArray[Any]) -> None:
        self._values.append((node, slot, values))

    def write(self, editor: Editor) -> bool:
        """Replace the constants; False, and nothing is done, if one of them would not be finite."""
        made = [(n, s, rounded(v, n.inputs[s].values.dtype)) for n, s, v in self._values]
        if any(values is None for _, _, values in made):
            return False
        for node, slot, values in made:
            assert values is not None
            replace_constant(editor, node, slot, values, f"{node.inputs[slot].name}_scaled")
        return True
