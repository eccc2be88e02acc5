"""Exporters spell hard-swish and hard-sigmoid out; as single ops they are faster, even in a float model."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, scalar
from onnxq_passes._match import close, leak, made_by, not_float, other, plus, reader, times

OPSET = 14


@dataclass(frozen=True, kw_only=True)
class RecomposeHardswish(Pass):
    """Recognise hard-swish and hard-sigmoid and make them one op each. Exact up to float rounding.

    1. x * HardSigmoid(x, alpha=1/6, beta=0.5) is HardSwish(x) (opset 14).
    2. x * Clip(x + 3, 0, 6) / 6 is HardSwish(x): the product in any association, the sixth by Mul or Div.
    3. Clip(x + 3, 0, 6) / 6 alone is HardSigmoid(x, alpha=1/6, beta=0.5).
    4. Clip(x * a + b, 0, 1) and Clip((x + c) * a, 0, 1) are HardSigmoid(x, alpha=a, beta=b or c * a), and 1. may
       follow.
    5. Refused: a factor that is no float rounding of 1/6, a part that is read elsewhere, a type other than float.
       Below opset 14, what would be HardSwish becomes HardSigmoid at most.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        report, editor = Report(), Editor(graph)
        for node in editor.live(ops=["Clip", "HardSigmoid"]):
            gate = _hard_sigmoid(node) if node.op == "HardSigmoid" else _clipped(node, editor)
            if gate is None:
                continue
            reason = _rewrite(gate, editor, report, graph.opset)
            if reason:
                report.refuse(node, reason)
        editor.commit()
        return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gate:
    """clip(alpha * x + beta, 0, 1), computed by `nodes`, the last of which is `root`; not `whole`: six times that."""

    x: gs.Tensor
    alpha: float
    beta: float
    whole: bool
    root: gs.Node
    nodes: list[gs.Node]

    @property
    def swish(self) -> bool:
        """True for the gate of hard-swish."""
        return close(self.alpha, 1 / 6) and close(self.beta, 0.5)


def _hard_sigmoid(node: gs.Node) -> _Gate | None:
    alpha, beta = node.attrs.get("alpha"), float(node.attrs.get("beta", 0.5))
    if alpha is None:
        return None  # 0.2
    return _Gate(x=node.inputs[0], alpha=float(alpha), beta=beta, whole=True, root=node, nodes=[node])


def _clipped(node: gs.Node, editor: Editor) -> _Gate | None:
    low, high = _bound(node, "min", 1), _bound(node, "max", 2)
    if low != 0.0 or high not in (1.0, 6.0):
        return None
    line = made_by(editor, node.inputs[0], ("Add", "Sub", "Mul", "Div"))
    sum_, product = plus(line), times(line)
    if line is None:
        return None
    if high == 6.0:
        if sum_ is None or sum_[1] != 3.0:
            return None  # an ordinary ReLU6
        return _Gate(x=sum_[0], alpha=1 / 6, beta=0.5, whole=False, root=node, nodes=[line, node])
    if sum_ is not None:
        inner = made_by(editor, sum_[0], ("Mul", "Div"))
        scaled = times(inner)
        if inner is None or scaled is None:
            return None
        return _Gate(x=scaled[0], alpha=scaled[1], beta=sum_[1], whole=True, root=node, nodes=[inner, line, node])
    if product is None:
        return None
    inner = made_by(editor, product[0], ("Add", "Sub"))
    shifted = plus(inner)
    if inner is None or shifted is None:
        return None
    return _Gate(
        x=shifted[0], alpha=product[1], beta=shifted[1] * product[1], whole=True, root=node, nodes=[inner, line, node]
    )


def _bound(node: gs.Node, name: str, slot: int) -> float | None:
    if name in node.attrs:
        return float(node.attrs[name])
    return scalar(node.inputs[slot]) if slot < len(node.inputs) else None


def _rewrite(gate: _Gate, editor: Editor, report: Report, opset: int) -> str | None:
    if not_float(gate.x):
        return "only float tensors have a HardSwish kernel"
    nodes, root, sixth = list(gate.nodes), gate.root, gate.whole
    first = reader(editor, root.outputs[0], ("Mul", "Div"))
    scaled = times(first)
    if not sixth and first is not None and scaled is not None:  # Clip(x + 3, 0, 6) / 6
        if not close(scaled[1], 1 / 6):
            return "the factor behind Clip(x + 3, 0, 6) is not 1/6"
        nodes, root, sixth = [*nodes, first], first, True
    swish = _multiplied(gate, root, nodes, editor, sixth=sixth) if gate.swish and opset >= OPSET else None
    if swish is not None:
        reason = leak(editor, swish, swish[-1])
        if reason is None:
            editor.fuse(swish[-1], swish, "HardSwish", [gate.x], report)
        return reason
    if not sixth:
        return (
            f"HardSwish needs opset {OPSET}"
            if opset < OPSET
            else "Clip(x + 3, 0, 6) is not divided by 6, or is read elsewhere"
        )
    if gate.root.op == "HardSigmoid":
        return None  # an op already, and no HardSwish
    reason = leak(editor, nodes, root)
    if reason is None:
        attrs = {"alpha": gate.alpha, "beta": gate.beta}
        editor.fuse(root, nodes, "HardSigmoid", [gate.x], report, attrs=attrs)
    return reason


def _multiplied(
    gate: _Gate, root: gs.Node, nodes: list[gs.Node], editor: Editor, *, sixth: bool
) -> list[gs.Node] | None:
    """The nodes of x * gate, root last, or None."""
    product = reader(editor, root.outputs[0], "Mul")
    if product is None:
        return None
    factor = other(product, root.outputs[0])
    if sixth:
        return [*nodes, product] if factor is gate.x else None
    if factor is gate.x:  # (x * clip) / 6
        divided = reader(editor, product.outputs[0], ("Mul", "Div"))
        scale = times(divided)
        return (
            [*nodes, product, divided] if divided is not None and scale is not None and close(scale[1], 1 / 6) else None
        )
    inner = made_by(editor, factor, ("Mul", "Div"))  # (x / 6) * clip
    scaled = times(inner)
    if inner is None or scaled is None or scaled[0] is not gate.x or not close(scaled[1], 1 / 6):
        return None
    return [*nodes, inner, product]
