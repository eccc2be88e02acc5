"""Ops that look as if they could be integer, until ranges and neighbours are known: what speaks against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Affine, Scheme
from onnxq.numerics import TINY, affine, dequantize, quantize
from onnxq.optable import data_slots
from onnxq.plan import protect
from onnxq.plan.facts import Facts
from onnxq.plan.select import Selection
from onnxq.plan.traps import trapped
from onnxq.targets.target import Target


class Ranges(Protocol):
    """What the planner asks of calibration."""

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:
        """The range of an activation; None if no sample reached it."""
        ...

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ranges of a constant by its scheme's granularity: shape () or [C]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a body finds in the graphs around it.

    Attributes:
        encodings: of the tensors that have 8 bits there.
        held: those that have nothing else: whoever reads them reads 8 bits.
    """

    encodings: Mapping[str, Affine] = field(default_factory=dict)
    held: frozenset[str] = frozenset()


def vetoes(
    facts: Facts, target: Target, ranges: Ranges, chosen: Selection, given: Given | None = None
) -> dict[str, str]:
    """Ops that the ranges speak against.

    Args:
        given: if the graph is a body.
    """
    given = given or Given()
    out: dict[str, str] = {}
    for name, slot in chosen.residual:
        shortcut = facts.graph_node(name).inputs[slot].name
        if ranges.range(shortcut, target.activation) is None:
            out[name] = f"no sample reached {shortcut}, so its range is unknown"
    behind = {producer: activation for activation, producer in chosen.absorbed.items()}
    for node in facts.graph.nodes:
        if node.name not in chosen.integer:
            continue
        if reason := _unsafe_reader(facts, target, node, chosen, given):
            out[chosen.absorbed.get(node.name, node.name)] = reason
            continue
        if node.name in chosen.absorbed:
            continue
        kernel = target.kernels[node.op]
        operands = [node.inputs[s] for s in data_slots(node) if node.inputs[s].name]
        pulled = [p for t in operands if (p := protect.pulled_output(facts, target, t, chosen.integer))]
        if pulled:
            out[node.name] = f"ONNX Runtime would quantize the model's output {pulled[0]}, too, which is moved into it"
            continue
        spans: list[tuple[float, str]] = []
        absorbed = facts.graph_node(behind[node.name]).outputs if node.name in behind else ()
        for tensor in [*operands, *node.outputs, *absorbed]:
            constant = facts.constant(tensor)
            if constant is None and tensor.name in chosen.values:
                bounds = ranges.range(tensor.name, target.activation)
                if bounds is None:
                    out[node.name] = f"no sample reached {tensor.name}, so its range is unknown"
                    break
                if tensor in operands:
                    spans.append((max(abs(bounds[0]), abs(bounds[1])), tensor.name))
            elif constant is not None and kernel.kind == "compute":
                if constant.size == 0 or not np.isfinite(constant).all():
                    out[node.name] = f"its constant {tensor.name} is empty or not finite"
                    break
                if node.op == "Mul" and (kept := _relative_sqnr(constant, target)) < target.min_factor_sqnr:
                    out[node.name] = (
                        f"the factors in its constant {tensor.name} keep only {kept:.0f} dB in one 8-bit scale"
                    )
                    break
        if node.name in out or kernel.max_range_ratio is None or not spans:
            continue
        (least, small), (most, wide) = min(spans), max(spans)
        if most > kernel.max_range_ratio * least:
            out[node.name] = (
                f"{wide} has a range of {most:.3g} and {small} one of {least:.3g}: in one 8-bit scale the narrow one "
                f"would lose {np.log2(most / max(least, TINY)):.0f} of its 8 bits"
            )
    for name, reason in trapped(facts, target, ranges, chosen).items() if not out else ():
        out.setdefault(name, reason)
    return out


def _unsafe_reader(facts: Facts, target: Target, node: gs.Node, chosen: Selection, given: Given) -> str:
    """Why a float op must not read this integer op's result in 8 bits, or what it shares with this op in 8 bits; "" if
    all may."""
    if not target.outputs:
        return ""
    any_encoding = affine(0.0, 1.0, target.activation)
    shared = [t for t in node.inputs if t.name in given.held and facts.captured(t.name)]
    for tensor in [*node.outputs, *shared]:
        for use in facts.consumers.get(tensor.name, []) if tensor.name in chosen.values else []:
            reader = use.node
            if reader is None or use.path or reader.name in chosen.integer:
                continue
            form = protect.form(
                facts, target, reader, use.slot, values=chosen.values, integer=chosen.integer, encoding=any_encoding
            )
            if isinstance(form, str):
                return form
    return ""


def constant_encoding(values: NDArray[Any], target: Target) -> Affine:
    """Of a constant operand of an op without weights, from its least to its greatest value."""
    return affine(values.min(), values.max(), target.activation)


def _relative_sqnr(factors: NDArray[Any], target: Target) -> float:
    """SQNR in dB with every factor counted alike: a channel multiplied by a small number is as important as one by a
    large number.
    """
    encoding = constant_encoding(factors, target)
    exact = factors.astype(np.float64)
    error = exact - dequantize(quantize(factors, encoding), encoding)
    some = exact != 0
    noise = float(np.mean((error[some] / exact[some]) ** 2)) if some.any() else 0.0
    return float("inf") if noise == 0 else -10 * float(np.log10(noise))
