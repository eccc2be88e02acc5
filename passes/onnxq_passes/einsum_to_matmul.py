"""Only MatMul has integer kernels: attention that is written in Einsum would stay float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.pipeline.base import Context, Pass, Report
from onnxq_passes._edit import Editor, is_constant, rank
from onnxq_passes._einsum import Plan, Side, plans, sizes_of
from onnxq_passes._match import not_float, rewrite_each


@dataclass(frozen=True, kw_only=True)
class EinsumToMatmul(Pass):
    """Make a MatMul of an Einsum that is a (batched) matrix product, between at most three Transposes.

    1. Einsum(a, b) whose letters are batches (a, b, result), rows (a, result), columns (b, result) or summed over
       (a, b) -> a Transpose of a, of b -> MatMul -> Transpose. MatMul broadcasts b over further rows; several letters
       where it wants one axis become one by a Reshape to known sizes. A constant comes second; without one, the
       operands change places where that saves a Transpose.
    2. Refused: more or fewer operands, an ellipsis, a letter twice in one operand, no rows, no columns or no sum, a sum
       in one operand alone, a type other than float, sizes that a Reshape or that rows in front of batches need and
       nobody knows, and what Einsum broadcasts and MatMul may not: a summed letter that is not known to be as large in
       both operands, a batch that may be 1 in one operand and 0 in the other.

    The same bits as ONNX Runtime's Einsum where there is one letter of rows, of columns and of the sum, unless the
    operands change places; else sums are rounded in another order. On empty operands, some Einsums end the process of
    ONNX Runtime 1.31, MatMul does not.
    """

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        return rewrite_each(graph, ["Einsum"], _rewrite)


def _rewrite(node: gs.Node, editor: Editor, report: Report) -> str | None:
    left, arrow, out = str(node.attrs["equation"]).replace(" ", "").partition("->")
    if "." in left:
        return "its equation has an ellipsis"
    terms = left.split(",")
    if not arrow:
        out = "".join(sorted(c for c in left if c != "," and left.count(c) == 1))
    reason = _no_product(node, terms, out)
    if reason:
        return reason
    tensors = [*node.inputs, *node.outputs]
    one, two = (sizes_of(tensor, term) for tensor, term in zip(node.inputs, terms, strict=True))
    for letter in (c for c in terms[0] if c in terms[1]):
        reason = _unequal(letter, one[letter], two[letter], summed=letter not in out)
        if reason:
            return reason
    first, second = (is_constant(tensor) for tensor in node.inputs)
    orders = [(0, 1), (1, 0)] if first == second else [(1, 0) if first else (0, 1)]
    found = [p for i, j in orders for p in plans([tensors[i], tensors[j], tensors[2]], [terms[i], terms[j], out])]
    if not found:
        return "several letters would become one axis, and a size is not known, or 0"
    _carry_out(node, min(found, key=lambda plan: plan.cost), editor)
    report.rewrites += 1
    return None


def _no_product(node: gs.Node, terms: Sequence[str], out: str) -> str | None:
    """Why this is no product of matrices, or none of floats."""
    if len(terms) != len(node.inputs):
        return "its equation does not fit its operands"
    if len(terms) != 2:
        return f"it has {len(terms)} operand{'s'[: len(terms) != 1]}, a matrix product has two"
    if any(len(set(term)) < len(term) for term in (*terms, out)):
        return "its equation has a letter twice in one operand"
    if any(not_float(tensor) for tensor in node.inputs):
        return "only products of float tensors have integer kernels"
    ranks = zip([*node.inputs, *node.outputs], [*terms, out], strict=True)
    a, b, y = map(set, (*terms, out))
    if not y <= a | b or any(rank(tensor) not in (None, len(term)) for tensor, term in ranks):
        return "its equation does not fit its operands"
    if (a ^ b) - y:
        return f"{min((a ^ b) - y)} is summed over in one operand alone"
    if not a & b - y:
        return "no letter is summed over"
    if not y - b:
        return "it has no rows: no letter is of the first operand and the result alone"
    return None if y - a else "it has no columns: no letter is of the second operand and the result alone"


def _unequal(letter: str, one: int | str | None, two: int | str | None, *, summed: bool) -> str | None:
    """Why MatMul may fail on sizes that Einsum takes."""
    if one == two and one is not None:
        return None
    if summed:
        return f"{letter}, which is summed over, may be 1 in one operand and more in the other"
    more = any(isinstance(size, int) and size > 1 for size in (one, two))
    return None if more else f"the batches {letter} may be 1 in one operand and 0 in the other"


def _carry_out(node: gs.Node, plan: Plan, editor: Editor) -> None:
    def put(op: str, source: gs.Tensor, target: gs.Tensor, detail: Sequence[int], *, behind: bool = False) -> None:
        name = f"{node.name}_{op}"
        further = [editor.constant(f"{name}_shape", np.array(detail, np.int64))] if op == "Reshape" else []
        attrs = {"perm": list(detail)} if op == "Transpose" else None
        new = editor.node(op, [source, *further], [target], name=name, attrs=attrs)
        editor.insert(new, before=None if behind else node, after=node)

    inputs = []
    for side in plan.operands:
        tensor, order = side.tensor, [side.term.index(c) for c in side.letters]
        if isinstance(tensor, gs.Constant):
            inputs.append(_rearranged(tensor, side, order, editor))
            continue
        if side.letters != side.term:
            source, tensor = tensor, side.variable(editor.fresh_tensor(f"{side.tensor.name}_turned"), side.letters)
            put("Transpose", source, tensor, order)
        if side.shape:
            source, tensor = tensor, side.variable(editor.fresh_tensor(f"{side.tensor.name}_flat"), side.groups)
            put("Reshape", source, tensor, side.shape)
        inputs.append(tensor)
    editor.set_inputs(node, inputs)
    node.op = "MatMul"
    node.attrs.clear()
    side, y = plan.result, node.outputs[0]
    turned = y
    if side.letters != side.term:
        turned = side.variable(editor.fresh_tensor(f"{y.name}_turned"), side.letters)
    made = side.variable(editor.fresh_tensor(f"{y.name}_flat"), side.groups) if side.shape else turned
    editor.set_output(node, 0, made)
    if side.shape:
        put("Reshape", made, turned, side.shape, behind=True)
    if turned is not y:
        put("Transpose", turned, y, [side.letters.index(c) for c in side.term], behind=True)


def _rearranged(tensor: gs.Constant, side: Side, order: Sequence[int], editor: Editor) -> gs.Constant:
    """A constant, transposed and reshaped."""
    if side.letters == side.term and not side.shape:
        return tensor
    values = np.asarray(tensor.values).transpose(order)
    shape = [d or values.shape[at] for at, d in enumerate(side.shape)]
    return editor.constant(f"{tensor.name}_matrix", values.reshape(shape or values.shape))
