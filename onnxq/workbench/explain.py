"""`onnxq explain`: per operator int8 or float and why; per Q and DQ its parameters and where it could not move or
fuse.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq import registry
from onnxq.errors import OnnxqError, UsageError
from onnxq.ir import walk
from onnxq.ir.load import is_quantized, load
from onnxq.ir.model import Model
from onnxq.ir.save import save
from onnxq.pipeline.base import Context, Pass, Refusal, Stage
from onnxq.pipeline.hooks import counted
from onnxq.pipeline.manager import run_pipeline
from onnxq.plan.planner import selections
from onnxq.progress import Progress
from onnxq.quantization import write_decisions
from onnxq.targets.target import load_target
from onnxq.validate.coverage import coverage_or_note
from onnxq.validate.network import read
from onnxq.workbench.setup import Request, read_pipeline, set_up

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_PARAMETERS = 4
"""Scales of a per-channel node that are shown; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class OpLine:
    """One operator: `integer`, or the `reason` why not."""

    name: str
    op: str
    integer: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class ConversionLine:
    """One Q or DQ.

    Attributes:
        name, op: of the node.
        tensor: the float tensor that it stands for: what Q reads, what DQ makes.
        type: of the integers; "" if the file does not say.
        axis: of per-channel parameters, else None.
        scale, zero_point: flat; None if computed at run time.
        serves: the operators on its float side and whether they are int8: of a Q what makes the tensor, of a DQ what
            reads it.
        refusals: `pass: reason` of rewrites around it that were not made.
    """

    name: str
    op: str
    tensor: str
    type: str
    axis: int | None
    scale: tuple[float, ...] | None
    zero_point: tuple[int, ...] | None
    serves: tuple[str, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The whole model.

    Attributes:
        ops: in file order.
        conversions: in file order; of a float model only with calibration samples.
        refusals: (node, `pass: reason`) of rewrites on other nodes than Q and DQ.
        notes: sentences.
    """

    ops: tuple[OpLine, ...]
    conversions: tuple[ConversionLine, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def explain(request: Request, *, progress: Progress | None = None) -> Explanation:
    """Explain a model: a quantized one as it is, a float one as the pipeline would quantize it.

    Without calibration samples the structure of a float model decides alone.

    Raises:
        OnnxqError: one sentence for whatever the user can mend.
    """
    if is_quantized(load(request.model).graph):
        if request.calib is not None:
            raise UsageError(f"{request.model} is quantized already: leave --calib out to explain it")
        return _quantized(request.model, load_target(request.target or "cpu").name)
    try:
        read_pipeline(request)
    except UsageError:
        return _structure(request)
    work = set_up(request, progress=progress)
    run_pipeline(work.model.graph, work.pipeline, work.context)
    if work.context.plan is not None:
        write_decisions(work.model, work.context.plan)
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        file = Path(folder) / request.model.name
        save(work.model, file)
        return _quantized(file, work.context.target.name)


def _structure(request: Request) -> Explanation:
    """What can be said without ranges: the passes before the plan, and the planner's rules on structure."""
    pipeline, target = read_pipeline(request, plan=False)
    before = pipeline.steps
    for position, step in enumerate(pipeline.steps):
        if step.body.needs:
            before = pipeline.steps[:position]
            break
    work = set_up(request, steps=before)
    run_pipeline(work.model.graph, work.pipeline, work.context)
    ops = [
        OpLine(
            name=node.name,
            op=node.op,
            integer=node.name in chosen.integer,
            reason="" if node.name in chosen.integer else chosen.reasons.get(node.name, ""),
        )
        for facts, chosen in selections(work.model.graph, target, {}, pipeline.keep_float)
        for node in facts.graph.nodes
    ]
    note = "The structure alone was looked at: with --calib DATA the ranges have a say, too, and Q and DQ are listed."
    return Explanation(ops=tuple(ops), notes=(note,))


def _quantized(path: Path, target: str) -> Explanation:
    covered, unknown = coverage_or_note(path)
    ops = [OpLine(name=o.name, op=o.op, integer=o.integer, reason=o.reason) for o in (covered.ops if covered else ())]
    model = read(path).model
    refused, notes = _refusals(model, target)
    nodes = [n for _, inner in walk.graphs(model.graph) for n in inner.nodes if n.op in CONVERSIONS]
    here = {n.name for n in nodes}
    integer = {o.name: o.integer for o in ops}
    uses = walk.consumers(model.graph)
    return Explanation(
        ops=tuple(ops),
        conversions=tuple(
            _conversion(n, _serves(n, uses, integer), [text for name, text in refused if name == n.name]) for n in nodes
        ),
        refusals=tuple((name, text) for name, text in refused if name not in here),
        notes=(*(covered.notes if covered else unknown), *notes),
    )


def _refusals(model: Model, target: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What the installed passes for quantized graphs would do here and what they refuse, each on a copy."""
    found: list[tuple[str, str]] = []
    notes: list[str] = []
    for name, body in _passes():
        copy = model.copy()
        try:
            report = body.run(copy.graph, Context(target=load_target(target)))
        except OnnxqError as error:
            notes.append(f"The pass {name} does not run on this model: {error}.")
            continue
        except Exception as error:  # the pass may be anybody's code
            notes.append(f"The pass {name} fails on this model ({type(error).__name__}: {error}).")
            continue
        if report.rewrites:
            notes.append(f"The pass {name} would make {counted(report.rewrites, 'rewrite')} here.")
        found += [(r.node, f"{name}: {r.reason}") for r in _once(report.refusals)]
    return found, notes


def _passes() -> Iterator[tuple[str, Pass]]:
    """Every registered pass that takes and gives a quantized graph, needs nothing and has no required setting."""
    for name in registry.names(registry.PASSES):
        try:
            cls: type[Pass] = registry.load(registry.PASSES, name)
            stages = {cls.takes, *cls.also_takes}
            if stages != {Stage.FLOAT} and cls.gives is not Stage.FLOAT and not cls.needs:
                yield name, cls()
        except (OnnxqError, TypeError):  # not importable, or a setting without default: it can be run by hand
            continue


def _once(refusals: Sequence[Refusal]) -> list[Refusal]:
    return list(dict.fromkeys(refusals))


def _serves(node: gs.Node, uses: Mapping[str, list[walk.Consumer]], integer: Mapping[str, bool]) -> list[str]:
    if node.op == "QuantizeLinear":
        near = list(node.inputs[0].inputs)
    else:
        near = [use.node for use in uses.get(node.outputs[0].name, [])]
    kinds = {True: " (int8)", False: " (float)", None: ""}
    return [f"{other.op} {other.name}{kinds[integer.get(other.name)]}" for other in near]


def _conversion(node: gs.Node, serves: Sequence[str], refusals: Sequence[str]) -> ConversionLine:
    parameters = [_flat(t) for t in node.inputs[1:3]]
    scale, zero = [*parameters, None, None][:2]
    integers = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
    kind = node.inputs[2].dtype if len(node.inputs) > 2 else integers.dtype
    several = scale is not None and len(scale) > 1
    tensor = node.inputs[0] if node.op == "QuantizeLinear" else node.outputs[0]
    return ConversionLine(
        name=node.name,
        op=node.op,
        tensor=tensor.name,
        type="" if kind is None else np.dtype(kind).name,
        axis=int(node.attrs.get("axis", 1)) if several else None,
        scale=None if scale is None else tuple(float(v) for v in scale),
        zero_point=None if zero is None else tuple(int(v) for v in zero),
        serves=tuple(serves),
        refusals=tuple(refusals),
    )


def _flat(tensor: Any) -> list[Any] | None:
    return np.asarray(tensor.values).reshape(-1).tolist() if isinstance(tensor, gs.Constant) else None


def lines(found: Explanation) -> Iterator[str]:
    """The explanation for people."""
    width = max((len(f"{o.op} {o.name}") for o in found.ops), default=0)
    for op in found.ops:
        why = f"  {op.reason}" if op.reason else ""
        yield f"{'int8 ' if op.integer else 'float'}  {f'{op.op} {op.name}':{width if why else 0}}{why}"
    for one in found.conversions:
        side = "from" if one.op == "QuantizeLinear" else "for"
        near = f"; {side} {', '.join(one.serves)}" if one.serves else ""
        yield f"{'Q ' if one.op == 'QuantizeLinear' else 'DQ'}     {one.tensor}  {_parameters(one)}{near}"
        for text in one.refusals:
            yield f"       {text}"
    for name, text in found.refusals:
        yield f"{name}: {text}"
    yield from found.notes


def _parameters(one: ConversionLine) -> str:
    parts = [one.type or "integers"]
    if one.axis is not None:
        parts.append(f"axis {one.axis}")
    for title, values in (("scale", one.scale), ("zero point", one.zero_point)):
        if values is None:
            parts.append(f"{title} computed at run time" if title == "scale" else "no constant zero point")
        elif len(set(values)) == 1:
            parts.append(f"{title} {values[0]:.6g}")
        else:
            shown = ", ".join(f"{v:.6g}" for v in values[:_PARAMETERS])
            parts.append(f"{title} {shown}" + (f", ... ({len(values)})" if len(values) > _PARAMETERS else ""))
    return ", ".join(parts)
