"""`--verify-each`: behind every pass, onnx.checker, the invariants of its stage, and the numbers in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ModelError, OutputError, PassError
from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.save import save
from onnxq.optable import OP_TABLE
from onnxq.pipeline.base import Stage
from onnxq.pipeline.manager import Step, StepResult
from onnxq.pipeline.normalised import coarseness
from onnxq.plan.integers import DQ, Q, Violation, integer_violations
from onnxq.runtime.session import Level, Session

TOLERANCE = 1e-3
"""Greatest difference that a pass on float graphs may make, relative to the output's largest magnitude: folding
reorders sums. Graphs in half precision are computed in float32 from some pass on: see `coarseness`."""

Outputs = Mapping[str, Any]


class Verify:
    """The hook. What is wrong before the first pass already is no fault of a pass.

    Args:
        model: whose graph the passes edit, before the first.
        samples: inputs to compare on.
    """

    def __init__(self, model: Model, samples: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        self.model, self.samples = model, samples
        self.known = self._violations()
        self.outputs = self._run()
        self.coarse = coarseness(model.graph)

    def __call__(self, step: Step, _graph: gs.Graph, result: StepResult) -> None:
        """The hook.

        Raises:
            PassError: the pass broke something.
        """
        if not result.report.rewrites:
            return
        found = self._violations()
        known = Counter(v.rule for v in self.known[step.body.gives])
        now = Counter(v.rule for v in found[step.body.gives])
        for violation in found[step.body.gives]:
            # nodes may be renamed: what counts is how often a rule is broken
            if violation not in self.known[step.body.gives] and now[violation.rule] > known[violation.rule]:
                raise PassError(f"behind it, {violation.sentence}")
        outputs = self._run()
        if step.body.exact:
            bitwise = step.body.takes is not Stage.FLOAT
            for number, (old, new) in enumerate(zip(self.outputs, outputs, strict=True)):
                fault = difference(old, new, bitwise=bitwise, coarse=self.coarse)
                if fault:
                    raise PassError(f"it changes the numbers: {fault}, on sample {number}")
        self.known, self.outputs = found, outputs

    def _violations(self) -> dict[Stage, list[Violation]]:
        return {stage: list(violations(self.model.graph, stage)) for stage in Stage}

    def _run(self) -> list[Outputs]:
        with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
            file = Path(folder) / "model.onnx"
            try:
                save(self.model, file)
                session = Session(file, level=Level.OFF, threads=1, prepacking=False)
                return [session.run(sample) for sample in self.samples]
            except (OutputError, ModelError) as error:
                raise PassError(str(error).replace(f"{file} was not written: ", "").split("; --verify")[0]) from error


def difference(old: Outputs, new: Outputs, *, bitwise: bool, coarse: float = 1.0) -> str:
    """How outputs differ, as a piece of a sentence; "" if they agree bit for bit, or within the tolerance."""
    for name, a in old.items():
        b = new.get(name)
        if not isinstance(a, np.ndarray):
            if repr(a) != repr(b):
                return f"output {name} is another"
            continue
        if not isinstance(b, np.ndarray) or b.shape != a.shape or b.dtype != a.dtype:
            return f"output {name} is of another type or shape"
        if bitwise or a.dtype.kind != "f":
            count = _unequal(a, b)
            if count:
                return f"{count} of {a.size} elements of output {name} are not the same bit for bit"
            continue
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return f"output {name} has NaN or infinities at other places"
        if not finite.any():
            continue
        peak = max(float(np.abs(a[finite]).max()), 1e-6)
        gap = float(np.abs(a[finite].astype(np.float64) - b[finite]).max())
        if gap > TOLERANCE * coarse * peak:
            return f"output {name} moves by {gap:.3g} (largest value {peak:.3g})"
    return ""


def _unequal(a: NDArray[Any], b: NDArray[Any]) -> int:
    if a.dtype.kind != "f":
        return int(np.sum(a != b))
    same = ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return int(np.sum(~same))


def violations(graph: gs.Graph, stage: Stage) -> Iterator[Violation]:
    """What a graph in a stage must not be.

    * Always: no tensor without a producer, no tensor with two, no name that stands for two tensors, no node name twice.
    * FLOAT: no Q, no DQ.
    * QDQ, PLACED: what a Q makes goes to DQ, through data movement at most; Q and DQ have a constant scale and a zero
      point of the integers' type.
    * FUSED: Q and DQ as above; what `integer_violations` asks of integer operators.
    """
    yield from _names(graph)
    if stage is Stage.FLOAT:
        for node in _of_type(graph, Q, DQ):
            yield Violation("float", f"{node.op} {node.name} stands in a float graph")
    else:
        yield from _parameters(graph)
    if stage in (Stage.QDQ, Stage.PLACED):
        yield from _readers(graph)
    if stage is Stage.FUSED:
        yield from integer_violations(graph)


def _of_type(graph: gs.Graph, *ops: str) -> Iterator[gs.Node]:
    for _, inner in walk.graphs(graph):
        yield from (node for node in inner.nodes if node.op in ops)


def _names(graph: gs.Graph) -> Iterator[Violation]:
    nodes: set[str] = set()
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            if node.name and node.name in nodes:
                yield Violation("node names", f"the node name {node.name} stands twice")
            nodes.add(node.name)
    yield from _scope(graph, frozenset())


def _scope(graph: gs.Graph, outer: frozenset[str]) -> Iterator[Violation]:
    made = {t.name for t in graph.inputs}
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.name and (tensor.name in made or tensor.name in outer):
                yield Violation("made once", f"the tensor {tensor.name} is made twice")
            made.add(tensor.name)
    visible = outer | made
    holders: dict[str, Any] = {}
    ends = [(t, f"output {t.name} of the graph") for t in graph.outputs]
    uses = [(t, f"an input of {node.op} {node.name}") for node in graph.nodes for t in node.inputs]
    for tensor, where in [*uses, *ends]:
        if not tensor.name:
            continue
        known = holders.setdefault(tensor.name, tensor)
        if isinstance(tensor, gs.Constant):
            if tensor.name in made:
                yield Violation("names", f"the name {tensor.name} stands for a constant and for a computed tensor")
            elif known is not tensor and known.values is not tensor.values:
                yield Violation("names", f"the name {tensor.name} stands for two tensors")
        elif tensor.name not in visible and not isinstance(known, gs.Constant):
            yield Violation("dangling", f"nothing makes the tensor {tensor.name}, {where}")
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from _scope(value, frozenset(visible))


def _parameters(graph: gs.Graph) -> Iterator[Violation]:
    for node in _of_type(graph, Q, DQ):
        parameters = node.inputs[1:3]
        if len(parameters) < 2 or not parameters[1].name:
            yield Violation("zero point", f"{node.op} {node.name} has no zero point")
        elif not all(isinstance(p, gs.Constant) for p in parameters):
            yield Violation("constant", f"{node.op} {node.name} has a scale or zero point that is computed at run time")
        elif isinstance(node.inputs[0], gs.Constant) and node.op == DQ and node.inputs[0].dtype != parameters[1].dtype:
            yield Violation("type", f"{node.op} {node.name} has a zero point of another type than its input")


def _readers(graph: gs.Graph) -> Iterator[Violation]:
    uses = walk.consumers(graph)
    for start in _of_type(graph, Q):
        todo = [start]
        while todo:
            node = todo.pop()
            for user in (u for tensor in node.outputs for u in uses.get(tensor.name, [])):
                row = OP_TABLE.get(user.node.op)
                if row is not None and row.moves is not None:
                    todo.append(user.node)
                elif user.node.op != DQ:
                    reader = f"{user.node.op} {user.node.name}"
                    yield Violation("readers", f"{reader} reads the integers that {Q} {start.name} makes")
