"""The end of a model put into the body of an If, a Loop or a Scan, which gives what it gave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Kind = Literal["If", "Loop", "Scan"]
Arrays = dict[str, NDArray[Any]]
GATE = "gate"


def wrapped(model: onnx.ModelProto, kind: Kind, keep: int, tag: str) -> onnx.ModelProto:
    """A copy whose nodes from position `keep` on stand in a body, which takes everything else from around.

    If: both branches hold them, the input GATE chooses. Loop and Scan: they run once. `tag` makes the new names unique.
    """
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph = new.graph
    inner = list(graph.node[keep:])
    made = set(_made(inner))
    results = [o for o in graph.output if o.name in made]
    if not inner or not results:
        return new
    del graph.node[keep:]
    names = [o.name for o in results]
    if kind == "If":
        branches = [_branch(inner, results, made, suffix) for suffix in (f"_{tag}_then", f"_{tag}_else")]
        graph.node.append(helper.make_node("If", [GATE], names, tag, then_branch=branches[0], else_branch=branches[1]))
        if not any(i.name == GATE for i in graph.input):
            graph.input.append(helper.make_tensor_value_info(GATE, TensorProto.BOOL, []))
    else:
        _once(graph, kind, tag, inner, results, made)
    return new


def _made(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """What nodes give, and what there is in their bodies."""
    for node in nodes:
        yield from (name for name in node.output if name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from (info.name for info in attribute.g.input)
                yield from _made(attribute.g.node)


def _branch(
    nodes: Sequence[onnx.NodeProto], results: Sequence[onnx.ValueInfoProto], made: set[str], suffix: str
) -> onnx.GraphProto:
    outputs = [helper.make_value_info(f"{r.name}{suffix}", r.type) for r in results]
    return helper.make_graph(_renamed(nodes, made, suffix), f"branch{suffix}", [], outputs)


def _renamed(nodes: Sequence[onnx.NodeProto], made: set[str], suffix: str) -> list[onnx.NodeProto]:
    out = []
    for node in nodes:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        new.name = f"{node.name}{suffix}" if node.name else ""
        for field in (new.input, new.output):
            field[:] = [f"{n}{suffix}" if n in made else n for n in field]
        for attribute in new.attribute:
            if attribute.HasField("g"):
                inner = _renamed(attribute.g.node, made, suffix)
                del attribute.g.node[:]
                attribute.g.node.extend(inner)
                for info in (*attribute.g.input, *attribute.g.output):
                    info.name = f"{info.name}{suffix}" if info.name in made else info.name
        out.append(new)
    return out


def _once(
    graph: onnx.GraphProto,
    kind: Kind,
    tag: str,
    nodes: Sequence[onnx.NodeProto],
    results: Sequence[onnx.ValueInfoProto],
    made: set[str],
) -> None:
    inner = _renamed(nodes, made, f"_{tag}")
    outputs = [helper.make_value_info(f"{r.name}_{tag}", r.type) for r in results]
    stacked = [f"{r.name}_{tag}_stacked" for r in results]
    graph.initializer.append(numpy_helper.from_array(np.array([0]), f"{tag}_axis"))
    if kind == "Loop":
        graph.initializer.append(numpy_helper.from_array(np.array(1), f"{tag}_trips"))
        graph.initializer.append(numpy_helper.from_array(np.array(True), f"{tag}_go"))
        ends = [
            helper.make_tensor_value_info(f"{tag}_i", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{tag}_on", TensorProto.BOOL, []),
        ]
        goes = helper.make_tensor_value_info(f"{tag}_goes", TensorProto.BOOL, [])
        again = helper.make_node("Identity", [f"{tag}_on"], [goes.name])
        body = helper.make_graph([again, *inner], tag, ends, [goes, *outputs])
        graph.node.append(helper.make_node("Loop", [f"{tag}_trips", f"{tag}_go"], stacked, tag, body=body))
    else:
        graph.initializer.append(numpy_helper.from_array(np.zeros((1, 2), np.float32), f"{tag}_ticks"))
        tick = helper.make_tensor_value_info(f"{tag}_tick", TensorProto.FLOAT, [2])
        body = helper.make_graph(inner, tag, [tick], outputs)
        graph.node.append(helper.make_node("Scan", [f"{tag}_ticks"], stacked, tag, body=body, num_scan_inputs=1))
    for name, result in zip(stacked, results, strict=True):
        graph.node.append(helper.make_node("Squeeze", [name, f"{tag}_axis"], [result.name]))


def gated(samples: Sequence[Any], model: onnx.ModelProto) -> list[Arrays]:
    """The samples with GATE, open in every other one, if the model has it."""
    if not any(i.name == GATE for i in model.graph.input):
        return [dict(s) for s in samples]
    return [{**s, GATE: np.array(i % 2 == 0)} for i, s in enumerate(samples)]
