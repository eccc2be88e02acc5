"""Why: GPUs compute what is not int8 twice as fast in half precision, and runtimes with strong types take it from the
file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import PassError
from onnxq.ir.schema import Signature, signature, types
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.plan.singles import HALF, LARGEST, LEAST, half_signature
from onnxq_passes._edit import FLOAT, FLOAT16, Editor, float_type

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, kw_only=True)
class FloatToHalf(Pass):
    """Compute in float16 what stays float, where the target wants it so (`float_type: float16`).

    1. An op computes in float16 unless the plan says why it does not, or it has no form in float16 at the opset.
    2. Casts stand where the two types meet, one for each tensor and type; inputs and outputs of the graph keep name
       and type.
    3. Q has the type of what it reads, DQ that of its readers, two of them if those differ. Scales are rounded to
       float16 in both types, so that Q and DQ of a tensor agree. Where they do not fit, or the opset has no float16
       there (before 19), readers stay float32.
    4. Constants that a float16 op reads are rounded. What is below the range becomes the lowest number: such constants
       are attention masks, of which nothing but exp(x) = 0 counts; the plan keeps other readers float32.
    5. Bodies of If, Loop and Scan, and what they read, stay float32.

    Attributes:
        when: `always`, or only where the `target` computes floats in float16; for other targets the plan knows nothing
            of ranges in float16.
    """

    takes: ClassVar[Stage] = Stage.QDQ
    gives: ClassVar[Stage] = Stage.QDQ
    needs: ClassVar[frozenset[str]] = frozenset({"plan"})
    exact: ClassVar[bool] = False

    when: Literal["always", "target"] = "always"

    def run(self, graph: gs.Graph, context: Context) -> Report:
        if context.plan is None:
            raise PassError("float-to-half needs a plan: calibrate first")
        if self.when == "target" and context.target.float_type != HALF:
            return Report()
        return _Halver(Editor(graph), dict(context.plan.singles)).run()


@dataclass
class _Halver:
    editor: Editor
    singles: dict[str, str]
    report: Report = field(default_factory=Report)
    half: dict[int, Signature] = field(default_factory=dict)
    casts: dict[tuple[int, int], gs.Variable] = field(default_factory=dict)
    rounded: dict[int, gs.Constant] = field(default_factory=dict)
    before: dict[int, list[gs.Tensor]] = field(default_factory=dict)

    def run(self) -> Report:
        nodes = list(self.editor.live(self.editor.main))
        conversions = [n for n in nodes if n.op in _CONVERSIONS]
        kinds = types(self.editor.main)
        for tensor in (t for n in nodes for t in n.outputs):
            tensor.dtype = kinds[tensor.name]
        scales = sum(self._round_scale(node) for node in conversions)
        for node in nodes:
            if node.op not in _CONVERSIONS and self._floats(node):
                self._choose(node)
        for node in conversions:
            self._follow(node)
            self.before[id(node)] = list(node.inputs)
        made = {id(t): t for n in nodes for t in n.outputs if self._writes_half(n, t)}
        self._outputs(made)
        for node in nodes:
            self._read(node, made)
        self._bodies(made)
        for tensor in made.values():
            tensor.dtype = np.dtype(np.float16)
        self.editor.commit()
        self.report.rewrites = self.report.rewrites or scales
        if self.half:
            self.report.notes.append(
                "What is not int8 computes in float16; inputs and outputs keep their types. Load it in ONNX Runtime "
                'with disabled_optimizers=["WeightBiasQuantization"], which overflows on float16 biases.'
            )
        return self.report

    # case 1

    def _choose(self, node: gs.Node) -> None:
        found = half_signature(node, self.editor.main.opset)
        why = self.singles.get(node.name) or self._obstacle(node)
        if found is None or why:
            self.report.refuse(node, why or f"{node.op} has no form in float16")
            return
        self.half[id(node)] = found
        self.report.rewrites += 1
        if node.op == "ConstantOfShape":
            value = node.attrs.get("value")
            values = np.zeros(1, np.float32) if value is None else value.values
            node.attrs["value"] = gs.Constant(f"{node.name}_value", _to_half(values))
        elif node.op == "Cast" and node.attrs["to"] == FLOAT:
            node.attrs["to"] = FLOAT16

    def _obstacle(self, node: gs.Node) -> str:
        tensors = [t for t in (*node.inputs, *node.outputs) if t.name]
        unknown = next((t for t in tensors if t.dtype is None), None)
        if unknown is not None:
            return f"the type of {unknown.name} is not known"
        results = {id(t) for body in self.editor.bodies[1:] for t in body.outputs}
        if any(id(t) in results for t in node.outputs):
            return "a body of If, Loop or Scan hands its result out"
        for tensor in node.inputs:
            maker = self.editor.producer(tensor)
            if maker is not None and maker.op == "DequantizeLinear" and not self._able(maker):
                return f"the scale of {maker.name} does not fit float16"
        return ""

    # case 3

    def _follow(self, node: gs.Node) -> None:
        """A Q has the type of what it reads, a DQ that of its readers; if those differ, there are two."""
        if node.op == "QuantizeLinear":
            maker = self.editor.producer(node.inputs[0])
            half = maker is not None and self._writes_half(maker, node.inputs[0])
        else:
            half = any(id(n) in self.half for n, _ in self.editor.uses(node.outputs[0]))
        found = signature(node.op, self.editor.main.opset)
        if half and found is not None and self._able(node):
            self.half[id(node)] = found
            self.report.rewrites += 1

    def _able(self, node: gs.Node) -> bool:
        found = signature(node.op, self.editor.main.opset)
        return found is not None and found.input(1).half and self._keeps_bits(node.inputs[1])

    def _round_scale(self, node: gs.Node) -> bool:
        """Is the scale another one now?"""
        scale, data = node.inputs[1], node.inputs[0]
        if not isinstance(scale, gs.Constant) or scale.values.dtype != np.float32:
            return False
        values = np.asarray(scale.values)
        if values.ndim == 1 and isinstance(data, gs.Constant):  # channels of nothing but zeros may have any scale
            axis = int(node.attrs.get("axis", 1))
            others = tuple(a for a in range(data.values.ndim) if a != axis % data.values.ndim)
            values = np.where(np.any(data.values != 0, axis=others), values, np.maximum(values, np.float32(LEAST)))
        if not _keeps_bits(values):
            return False
        old, scale.values = scale.values, np.asarray(values.astype(np.float16).astype(np.float32))
        return not np.array_equal(old, scale.values)

    def _keeps_bits(self, scale: gs.Tensor) -> bool:
        return isinstance(scale, gs.Constant) and scale.values.dtype == np.float32 and _keeps_bits(scale.values)

    def _floats(self, node: gs.Node) -> bool:
        return any(float_type(t) == FLOAT for t in (*node.inputs, *node.outputs) if t.name)

    def _writes_half(self, node: gs.Node, tensor: gs.Tensor) -> bool:
        found = self.half.get(id(node))
        if found is None or float_type(tensor) != FLOAT:
            return False
        return found.output(next(i for i, t in enumerate(node.outputs) if t is tensor)).half

    # cases 2 and 4

    def _read(self, node: gs.Node, made: dict[int, gs.Tensor]) -> None:
        found = self.half.get(id(node))
        for slot, tensor in enumerate(node.inputs):
            if not tensor.name:
                continue
            wants_half = found is not None and found.input(slot).half
            if isinstance(tensor, gs.Constant):
                if wants_half and float_type(tensor) == FLOAT:
                    self.editor.set_input(node, slot, self._rounded(tensor))
            elif id(tensor) in made and not wants_half:
                self.editor.set_input(node, slot, self._cast(tensor, FLOAT))
            elif id(tensor) not in made and wants_half and float_type(tensor) == FLOAT:
                self.editor.set_input(node, slot, self._cast(tensor, FLOAT16))

    def _rounded(self, tensor: gs.Constant) -> gs.Constant:
        if id(tensor) not in self.rounded:
            self.rounded[id(tensor)] = self.editor.constant(f"{tensor.name}_half", _to_half(tensor.values))
        return self.rounded[id(tensor)]

    def _cast(self, tensor: gs.Tensor, to: int, result: gs.Variable | None = None) -> gs.Variable:
        """The tensor in the other type; `result` where it is made first, if that has a name already."""
        if (id(tensor), to) not in self.casts:
            name = tensor.name if result is None else result.name
            if result is None:
                dtype, kind = (np.float16, "half") if to == FLOAT16 else (np.float32, "float")
                result = gs.Variable(self.editor.fresh_tensor(f"{name}_{kind}"), np.dtype(dtype), tensor.shape)
            maker = self.editor.producer(tensor)
            if maker is not None and maker.op == "DequantizeLinear":  # the reader wants to stand behind one
                cast = self.editor.node(maker.op, self.before[id(maker)], [result], name=maker.name, attrs=maker.attrs)
            else:
                cast = self.editor.node("Cast", [tensor], [result], name=f"{name}_Cast", attrs={"to": to})
            if maker is None:
                self.editor.insert(cast, top=self.editor.main)
            else:
                self.editor.insert(cast, after=maker)
            self.casts[id(tensor), to] = result
        return self.casts[id(tensor), to]

    def _bodies(self, made: dict[int, gs.Tensor]) -> None:
        for body in self.editor.bodies[1:]:
            for node in self.editor.live(body):
                for slot, tensor in enumerate(node.inputs):
                    if id(tensor) in made:
                        self.editor.set_input(node, slot, self._cast(tensor, FLOAT))

    def _outputs(self, made: dict[int, gs.Tensor]) -> None:
        """What the caller reads keeps its name and type, and readers in float32 read the same tensor."""
        for tensor in self.editor.main.outputs:
            maker = self.editor.producer(tensor)
            if id(tensor) not in made or maker is None:
                continue
            inner = gs.Variable(self.editor.fresh_tensor(f"{tensor.name}_half"), np.dtype(np.float16), tensor.shape)
            self.editor.set_output(maker, next(i for i, t in enumerate(maker.outputs) if t is tensor), inner)
            self.editor.replace_uses(tensor, inner)
            self._cast(inner, FLOAT, tensor)
            del made[id(tensor)]
            made[id(inner)] = inner


def _keeps_bits(scales: NDArray[Any]) -> bool:
    """In float16 they are off by less than 8 bits say."""
    half = np.clip(scales, 0, LARGEST).astype(np.float16).astype(np.float64)
    return bool(np.all(np.abs(half - scales) <= scales / 256))


def _to_half(values: NDArray[Any]) -> NDArray[Any]:
    lowest, most = float(np.finfo(np.float16).min), LARGEST
    half: NDArray[Any] = np.asarray(np.clip(values, lowest, most).astype(np.float16))
    return half
