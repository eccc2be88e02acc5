"""Limits on what the candidate's file is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx_graphsurgeon as gs

from onnxq.config.gate import StructureLimit
from onnxq.ir import load, walk
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.runtime.observe import write_optimized
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.validate.gate import Check, at_most, none_of
from onnxq.validate.kernels import is_integer_kernel
from onnxq.validate.network import Network, view

GROUP = "structure"
_STANDARD = ("", "ai.onnx")


def judge(baseline: Path, candidate: Path, limit: StructureLimit) -> Iterator[Check]:
    """One check per limit.

    Raises:
        ModelError: a file cannot be read.
        UnknownNameError: there is no such target.
    """
    model = load.load(candidate, keep_overridable=True)
    target = load_target(limit.target) if limit.target is not None else None
    opset = limit.max_opset if limit.max_opset is not None else target.max_opset if target is not None else None
    ir = limit.max_ir_version
    ir = ir if ir is not None else target.max_ir_version if target is not None else None
    if opset is not None:
        yield at_most("opset", model.opset, opset, "", group=GROUP)
    if ir is not None:
        yield at_most("IR version", model.ir_version, ir, "", group=GROUP)
    nodes = [n for _, graph in walk.graphs(model.graph) for n in graph.nodes]
    if limit.domains is not None:
        allowed = {"" if d in _STANDARD else d for d in limit.domains}
        yield none_of("domains", _foreign(nodes, allowed), "only the allowed ones", group=GROUP)
    if limit.ops is not None:
        wrong = [
            f"{_full(n)} {n.name} is not among the allowed operators" for n in nodes if _full(n) not in set(limit.ops)
        ]
        yield none_of("operators", wrong, "only the allowed ones", group=GROUP)
    if limit.same_interface:
        yield none_of("interface", list(_changes(baseline, candidate)), "inputs and outputs are as before", group=GROUP)
    if limit.no_face_to_face:
        faults = list(face_to_face(model))
        yield none_of("conversions", faults, "no DequantizeLinear feeds a QuantizeLinear", group=GROUP)


def _full(node: gs.Node) -> str:
    return node.op if (node.domain or "") in _STANDARD else f"{node.domain}.{node.op}"


def _foreign(nodes: list[gs.Node], allowed: set[str]) -> list[str]:
    return [
        f"{n.op} {n.name} is of the domain {n.domain}"
        for n in nodes
        if ("" if (n.domain or "") in _STANDARD else n.domain) not in allowed
    ]


def _changes(baseline: Path, candidate: Path) -> Iterator[str]:
    one, two = (Session(m, level=Level.OFF, threads=1, prepacking=False) for m in (baseline, candidate))
    for kind, before, after in (("input", one.inputs, two.inputs), ("output", one.output_specs, two.output_specs)):
        known = {s.name: s for s in after}
        for spec in before:
            other = known.pop(spec.name, None)
            if other is None:
                yield f"{kind} {spec.name} is gone"
            elif other.dtype != spec.dtype:
                yield f"{kind} {spec.name} is {other.dtype.name}, was {spec.dtype.name}"
            elif _shape(other.shape) != _shape(spec.shape):
                yield f"{kind} {spec.name} has shape {list(other.shape)}, was {list(spec.shape)}"
        yield from (f"{kind} {name} is new" for name in known)
        if [s.name for s in before] != [s.name for s in after] and {s.name for s in before} == {s.name for s in after}:
            yield f"the {kind}s stand in another order: {', '.join(s.name for s in after)}"


def _shape(shape: tuple[int | str | None, ...]) -> tuple[int | None, ...]:
    """Symbols may be renamed, sizes may not change."""
    return tuple(d if isinstance(d, int) and d >= 0 else None for d in shape)


def face_to_face(model: Model) -> Iterator[str]:
    """Each DequantizeLinear that feeds a QuantizeLinear in ONNX Runtime's optimized graph, directly or over moves:
    two conversions where integer operators (or an integer operator and an input) could meet.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    with runnable(model) as source, tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        out = Path(folder) / "optimized.onnx"
        write_optimized(source, out)
        yield from pairs(view(load.load(out)))


def pairs(network: Network) -> Iterator[str]:
    """As `face_to_face`, for a graph as ONNX Runtime left it."""
    for name, (_, node) in network.nodes.items():
        if node.op != "QuantizeLinear":
            continue
        before = network.producers.get(node.inputs[0].name)
        while before is not None and before.op in _MOVES:
            before = network.producers.get(before.inputs[0].name)
        if before is None or before.op != "DequantizeLinear":
            continue
        source = network.producers.get(before.inputs[0].name)
        behind = [c.node.name for c in network.consumers.get(node.outputs[0].name, []) if c.node is not None]
        first = f" behind {source.name}" if source is not None and is_integer_kernel(source.op) else ""
        second = f" in front of {behind[0]}" if behind else ""
        yield f"{before.name} feeds {name}{first}{second}"


_MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
