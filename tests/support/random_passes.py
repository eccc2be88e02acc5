"""What every pass promises on every graph, checked on one graph after the other, and how often each pass fires and
refuses on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import save, text
from onnxq.ir.hash import structural
from onnxq.ir.model import Model
from onnxq.ir.walk import constant_array, graphs
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq.pipeline.manager import Pipeline, Step, run_pipeline
from onnxq.pipeline.verify import violations
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target

Outputs = Mapping[str, Any]
Compare = Callable[[Outputs, Outputs], str]
"""(before, after) -> what is wrong, "" if nothing."""
TARGET = load_target("cpu")
"""Read once: parsing it takes longer than all passes on a small graph."""


def _context() -> Context:
    return Context(target=TARGET)


@dataclass
class Tally:
    """How many graphs there were, and in how many of them a pass rewrote something and refused something."""

    graphs: set[int] = field(default_factory=set)
    last: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def new(self, model: Model) -> bool:
        """Count a graph; False if it came before."""
        found = len(self.graphs)
        self.last = hash(structural(model.graph))
        self.graphs.add(self.last)
        return len(self.graphs) > found

    def forget(self) -> None:
        """Take the last graph for a new one when it comes again."""
        self.graphs.discard(self.last)

    def rows(self, names: Sequence[str]) -> dict[str, list[int]]:
        """What the terminal summary prints: pass -> [graphs, fired, refused]."""
        return {name: [len(self.graphs), self.fired[name], self.refused[name]] for name in names}


def run(model: Model, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
    """The outputs in ONNX Runtime, not optimized."""
    return Session(save.to_bytes(model), level=Level.OFF, threads=1).run(feeds)


def one_by_one(
    source: Model,
    order: Sequence[tuple[str, Pass]],
    feeds: Mapping[str, NDArray[Any]],
    compare: Callable[[str], Compare],
    tally: Tally,
) -> Model:
    """Run passes one behind the other on a graph; behind each: an honest count, nothing left for a second run, the same
    text from a twin, sound names, the same inputs and outputs, and the same numbers.

    Returns:
        the graph behind the last pass.
    """
    model = source.copy()
    boundary = _boundary(model)
    outputs = run(model, feeds)
    names = broken_names(model)
    for name, body in order:
        twin, before = model.copy(), structural(model.graph)
        report = body.run(model.graph, _context())
        after = structural(model.graph)
        assert (after != before) == (report.rewrites > 0), f"{name} claims {report.rewrites} rewrites"
        left = LEFT[name](model.graph, report) if name in LEFT else bool(report.refusals)
        tally.refused[name] += left
        if not report.rewrites:
            continue
        tally.fired[name] += 1
        again = body.run(model.graph, _context())
        assert again.rewrites == 0 and structural(model.graph) == after, f"{name} has more to do"
        body.run(twin.graph, _context())
        assert text.text(model.graph) == text.text(twin.graph), f"{name} differs between runs"
        broken = broken_names(model)
        assert not [v for v in broken if v not in names], f"behind {name}, {broken}"
        names = broken
        assert _boundary(model) == boundary, f"{name} changes inputs or outputs"
        fault = compare(name)(outputs, made := run(model, feeds))
        assert not fault, f"{name}: {fault}"
        outputs = made
    return model


def pipeline(
    source: Model,
    steps: Sequence[Step],
    feeds: Mapping[str, NDArray[Any]],
    compare: Compare,
    title: str,
) -> Model:
    """Run a part of a pipeline on a graph: the same text on two runs, sound names, and the same numbers."""
    model = source.copy()
    twin, outputs, boundary, names = model.copy(), run(model, feeds), _boundary(model), broken_names(model)
    part = Pipeline(title, tuple(steps))
    for one in (model, twin):
        run_pipeline(one.graph, part, _context())
    assert text.text(model.graph) == text.text(twin.graph), f"{title} differs between runs"
    broken = [v for v in broken_names(model) if v not in names]
    assert not broken, f"behind {title}, {broken}"
    assert _boundary(model) == boundary, f"{title} changes inputs or outputs"
    fault = compare(outputs, run(model, feeds))
    assert not fault, f"{title}: {fault}"
    return model


def _boundary(model: Model) -> list[tuple[str, str]]:
    return [(t.name, str(getattr(t, "dtype", ""))) for t in (*model.graph.inputs, *model.graph.outputs)]


def broken_names(model: Model) -> list[str]:
    """Tensors that nobody makes or that are made twice, names that stand for two things."""
    wanted = ("dangling", "made once", "names", "node names")
    return [v.sentence for v in violations(model.graph, Stage.FUSED) if v.rule in wanted]


def _unread(graph: gs.Graph, report: Report) -> bool:
    read = {id(t) for _, g in graphs(graph) for t in g.outputs}
    read |= {id(t) for _, g in graphs(graph) for n in g.nodes for t in n.inputs}
    return any(id(t) not in read for _, g in graphs(graph) for n in g.nodes for t in n.outputs if t.name)


def _equal_constants(graph: gs.Graph, report: Report) -> bool:
    found: dict[tuple[str, tuple[int, ...], bytes], int] = {}
    for _, body in graphs(graph):
        for tensor in (t for n in body.nodes for t in n.inputs):
            values = constant_array(tensor)
            if values is not None:
                key = (str(values.dtype), values.shape, values.tobytes())
                if found.setdefault(key, id(tensor)) != id(tensor):
                    return True
    return False


def _names_kept(graph: gs.Graph, report: Report) -> bool:
    made = set(report.renamed)
    return any(
        n.name and n.name not in made and not n.name.startswith(f"{n.op}_") for _, g in graphs(graph) for n in g.nodes
    )


def _shared_by_none(graph: gs.Graph, report: Report) -> bool:
    nodes = [n for _, g in graphs(graph) for n in g.nodes if n.op == "DequantizeLinear"]
    return len(nodes) > report.rewrites


LEFT: dict[str, Callable[[gs.Graph, Report], bool]] = {
    "eliminate-dead": _unread,
    "share-initializers": _equal_constants,
    "deduplicate-names": _names_kept,
    "split-dequantize": _shared_by_none,
}
"""Passes that by nature refuse nothing; what counts instead is that they had a candidate and left it, rightly:

* eliminate-dead needs no leave to remove what nobody reads; an output that its op must have (Split) stays, unread.
* share-initializers can always merge; equal constants below `least_bytes` stay two.
* deduplicate-names can always rename; names that were unique stay.
* split-dequantize copies what several read, and a copy computes the same; a DQ that one node reads stays.
"""
