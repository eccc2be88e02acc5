"""What does not depend on the input is computed once, here, and not on every run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.ir import save, tensors
from onnxq.ir.model import Model
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq.runtime.session import Level, Session
from onnxq_passes._edit import Editor, input_at, ints, standard, static_shape

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
Array = NDArray[Any]
_EXACT_FROM, _EXACT_TO = "fiub", "fiu"
"""Kinds of types between which numpy's safe casts are exact."""


@dataclass(frozen=True, kw_only=True)
class FoldConstants(Pass):
    """Replace ops whose inputs are all constant by their results.

    1. Any deterministic op of the standard domain, computed by numpy where that is the same bit for bit, else by
       ONNX Runtime without optimizations. So fp16 weights behind a Cast become float weights.
    2. Shape and Size of a tensor whose dimensions (those that are asked for) are known; Gather and Slice of a Shape
       likewise, even if other dimensions are not known.
    3. Never Constant, random ops, Q/DQ, ops with bodies, ops of other domains, sequences, strings.
    4. Not if the result is more than `limit` bytes larger than the inputs and has more elements: Expand, Tile,
       ConstantOfShape and the like are cheaper than memory.
    5. Not if the result is an output of the graph.

    Attributes:
        limit: bytes by which the constants may grow.
    """

    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    limit: int = 1 << 20

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live():
            if not standard(node) or any(True for _ in node.subgraphs()):
                continue  # case 3
            if len([t for t in node.outputs if t.name]) != 1 or not node.inputs:
                continue  # Constant and random ops have no inputs
            dims = _dimensions(node, editor)
            constant = all(isinstance(t, gs.Constant) for t in node.inputs if t.name)
            if dims is None and not constant:
                continue
            report.tell(node, self._fold(node, dims, editor, graph.opset))
        editor.commit()
        return report

    def _fold(self, node: gs.Node, dims: Array | None, editor: Editor, opset: int) -> str:
        """Why not, or the empty string if done."""
        result = next(t for t in node.outputs if t.name)
        if node.op in QUANTIZERS:
            return "Q and DQ are never folded"  # case 3
        if node.op in RANDOM:
            return "its result is random"  # case 3
        if editor.is_output(result):
            return "its value is an output of the graph"  # case 5
        values = dims
        if values is None:
            sources = [t.values if t.name else None for t in node.inputs]
            if any(s is not None and s.dtype.kind in "OSU" for s in sources):
                return "string constants are not folded"  # case 3
            predicted = _predicted(node, sources)
            if predicted is not None and self._grows(*predicted, sources):
                return self._too_large  # case 4
            try:
                values = _evaluate(node, sources, opset)
            except ModelError as error:
                return f"it cannot be computed ({error})"
            if self._grows(values.size, values.itemsize, sources):
                return self._too_large  # case 4
        editor.remove(node)
        values = np.asarray(values)
        values.flags.writeable = False
        result.to_constant(values)
        return ""

    @property
    def _too_large(self) -> str:
        return f"the constants would grow by more than {self.limit} bytes"

    def _grows(self, elements: int, itemsize: int, sources: Sequence[Array | None]) -> bool:
        known = [s for s in sources if s is not None]
        more = elements > max(s.size for s in known)
        return more and elements * itemsize - sum(s.nbytes for s in known) > self.limit


def _dimensions(node: gs.Node, editor: Editor) -> Array | None:
    """Case 2: the value of Shape, Size, and Gather or Slice of a Shape, or None."""
    if node.op == "Size":
        shape = static_shape(node.inputs[0])
        return None if shape is None else np.array(math.prod(shape))
    if node.op == "Shape":
        return _known(_shape_of(node))
    source = editor.producer(node.inputs[0])
    dims = _shape_of(source) if source is not None and source.op == "Shape" and standard(source) else None
    if dims is None or node.op not in ("Gather", "Slice"):
        return None
    if node.op == "Gather":
        index = ints(node.inputs[1])
        if index is None or not all(-len(dims) <= i < len(dims) for i in index):
            return None
        picked = _known([dims[i] for i in index])
        return None if picked is None else picked.reshape(node.inputs[1].shape)
    if len(node.inputs) < 3:
        return None
    start, end = ints(node.inputs[1]), ints(node.inputs[2])
    steps_input = input_at(node, 4)
    step = [1] if steps_input is None else ints(steps_input)
    if start is None or end is None or step is None or len(start) != 1 or step[0] <= 0:
        return None
    return _known(dims[start[0] : end[0] : step[0]])


def _shape_of(node: gs.Node) -> list[Any] | None:
    """What a Shape node gives, with unknown dimensions as they are."""
    shape = node.inputs[0].shape
    return None if shape is None else list(shape)[node.attrs.get("start") : node.attrs.get("end")]


def _known(dims: Sequence[Any] | None) -> Array | None:
    if dims is None or not all(isinstance(d, (int, np.integer)) and d >= 0 for d in dims):
        return None
    return np.array([int(d) for d in dims], np.int64)


def _predicted(node: gs.Node, sources: Sequence[Array | None]) -> tuple[int, int] | None:
    """Elements of the result and bytes of each, where that can be told before computing it."""
    first, second, third = (*sources, None, None, None)[:3]
    if first is None:
        return None
    if node.op == "ConstantOfShape":
        value = node.attrs.get("value")
        return _product(first), 4 if value is None else value.values.itemsize
    if node.op == "Expand" and second is not None:
        return _product(second), first.itemsize
    if node.op == "Tile" and second is not None:
        return first.size * _product(second), first.itemsize
    if node.op == "Range" and second is not None and third is not None and third.item() != 0:
        steps = (float(second.item()) - float(first.item())) / float(third.item())
        return math.ceil(steps), first.itemsize
    shape = static_shape(next(t for t in node.outputs if t.name))
    return None if shape is None else (math.prod(shape), first.itemsize)


def _product(dims: Array) -> int:
    return math.prod(int(d) for d in dims.ravel())


def _evaluate(node: gs.Node, sources: Sequence[Array | None], opset: int) -> Array:
    simple = _NUMPY.get(node.op)
    if simple is not None and all(s is not None for s in sources):
        values = simple(node, sources, opset)
        if values is not None:
            return values
    inputs = [gs.Variable.empty() if s is None else gs.Constant(f"in{i}", s) for i, s in enumerate(sources)]
    output = gs.Variable("out")
    lone = gs.Node(node.op, name=node.name, attrs=dict(node.attrs), inputs=inputs)
    lone.outputs = [output if t.name else gs.Variable.empty() for t in node.outputs]
    small = Model(graph=gs.Graph(nodes=[lone], outputs=[output]), opset=opset, ir_version=10)
    return np.asarray(Session(save.to_bytes(small), level=Level.OFF, threads=1).run({})["out"])


def _cast(node: gs.Node, sources: Sequence[Any], opset: int) -> Array | None:
    """Widening casts, which are exact; the others are ORT's business."""
    target = tensors.numpy_dtype(node.attrs["to"])
    source = sources[0].dtype
    exact = source == target or (
        source.kind in _EXACT_FROM and target.kind in _EXACT_TO and np.can_cast(source, target)
    )
    bfloat = source.name == "bfloat16" and target == np.float32
    return np.asarray(sources[0].astype(target)) if exact or bfloat else None


def _concat(node: gs.Node, sources: Sequence[Any], opset: int) -> Array:
    return np.concatenate(sources, axis=node.attrs["axis"])


def _gather(node: gs.Node, sources: Sequence[Any], opset: int) -> Array:
    return np.asarray(np.take(sources[0], sources[1].astype(np.int64), axis=node.attrs.get("axis", 0)))


def _transpose(node: gs.Node, sources: Sequence[Any], opset: int) -> Array:
    return np.ascontiguousarray(np.transpose(sources[0], node.attrs.get("perm")))


def _unsqueeze(node: gs.Node, sources: Sequence[Any], opset: int) -> Array:
    axes = node.attrs["axes"] if opset < 13 else sources[1].tolist()
    return np.expand_dims(sources[0], tuple(axes))


def _reshape(node: gs.Node, sources: Sequence[Any], opset: int) -> Array | None:
    wanted = sources[1].tolist()
    if 0 in wanted:
        return None  # a copied or an empty dimension
    return np.asarray(sources[0].reshape(wanted))


def _squeeze(node: gs.Node, sources: Sequence[Any], opset: int) -> Array | None:
    axes = node.attrs.get("axes") if opset < 13 else sources[1].tolist() if len(sources) > 1 else None
    return np.asarray(np.squeeze(sources[0], None if axes is None else tuple(axes)))


def _exact(node: gs.Node, sources: Sequence[Any], opset: int) -> Array | None:
    """An operation that IEEE 754 (or arithmetic modulo 2^n) defines to the bit."""
    operation, kinds = _EXACT[node.op]
    if any(s.dtype.kind not in kinds for s in sources):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(operation(*sources))


_EXACT: dict[str, tuple[Callable[..., Any], str]] = {
    "Neg": (np.negative, "fiu"),
    "Abs": (np.abs, "fiu"),
    "Sqrt": (np.sqrt, "f"),
    "Div": (np.divide, "f"),
    "Add": (np.add, "fiu"),
    "Sub": (np.subtract, "fiu"),
    "Mul": (np.multiply, "fiu"),
}
"""The operation, and the kinds of types for which it is that."""
_NUMPY: dict[str, Callable[[gs.Node, Sequence[Any], int], Array | None]] = {
    "Identity": lambda node, sources, opset: np.asarray(sources[0]),
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    **dict.fromkeys(_EXACT, _exact),
}
