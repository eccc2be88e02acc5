"""From a loaded model and samples to the Q/DQ graph: convert, normalise, calibrate, plan, insert. The stages know
nothing of each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.budget import Met
from onnxq.data.sample import Dataset
from onnxq.errors import ConfigError, ModelError
from onnxq.gathering import FIRST, first_samples, unmatched
from onnxq.ir.load import load_float
from onnxq.ir.model import Model
from onnxq.options import Options, Timing
from onnxq.pipeline.base import Context
from onnxq.pipeline.crash import Crash
from onnxq.pipeline.manager import Hook, Run, run_pipeline
from onnxq.pipeline.prepare import Literally, prepare
from onnxq.placement.result import Placed, slower_in_float
from onnxq.plan.plan import Plan
from onnxq.progress import Progress
from onnxq.provider import PlanProvider
from onnxq.runtime.session import DISABLED
from onnxq.stats.ranges import RangeTable
from onnxq.stats.statistics import Statistics
from onnxq.trial import NOTHING
from onnxq.validate.repaired import Repair

DECISIONS = "onnxq.decisions"
"""Metadata property of a written model: JSON, node name -> reason why it is float."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A Q/DQ model in memory and how it came about."""

    model: Model
    plan: Plan
    method: str
    statistics: Statistics | RangeTable
    run: Run
    timing: Timing
    notes: tuple[str, ...]
    placed: Placed | None = None
    met: Met | None = None
    repaired: tuple[Repair, ...] = ()


def quantize_model(
    model: Model,
    data: Dataset | None,
    options: Options,
    *,
    progress: Progress | None = None,
    hooks: Sequence[Hook] = (),
    crash: Path | None = None,
) -> Quantized:
    """Quantize a float model, in place.

    Args:
        model: from `load_float`.
        data: calibration samples; None only with statistics or ranges that were made before.
        crash: where a failing pass leaves the model before it and the rest of the pipeline; needs `model.source`.

    Raises:
        OnnxqError: whatever a stage finds wrong.
    """
    timing = Timing()
    source = model.source
    first = first_samples(data, FIRST) if data is not None else []
    inputs = first[0].inputs if first else None
    literally = Literally()
    unused = unmatched(model.graph, options.keep_float)
    with timing.stage("convert"):
        model = prepare(model, options.target, inputs, keep_overridable=options.keep_overridable, run=literally)
        exact = literally.take(model)
    if model.opset < 10:
        raise ModelError(
            f"the model stays at opset {model.opset}, because its converted form differs or cannot be "
            "made, but QuantizeLinear needs "
            f"opset 10: export it again at opset 13 or later"
        )
    provider = PlanProvider(
        model,
        data,
        options,
        unused=unused,
        first=first,
        exact=exact if first else None,  # without samples, the provider makes up inputs of its own
        timing=timing,
        progress=progress,
    )
    context = Context(
        target=options.target,
        keep_float=options.keep_float,
        keep_overridable=options.keep_overridable,
        providers={"plan": provider},
    )

    def reproduce() -> Model:
        assert source is not None
        again = load_float(source, keep_overridable=options.keep_overridable)
        return prepare(again, options.target, inputs, keep_overridable=options.keep_overridable)

    leave = Crash(crash, options.pipeline, context, reproduce) if crash is not None and source is not None else None
    with timing.stage("passes"):
        run = run_pipeline(model.graph, options.pipeline, context, hooks, failed=leave)
    inside = ("check passes", "calibrate", "plan", "choose method", "repair", "place", "meet the budget")
    timing.seconds["passes"] -= sum(timing.seconds.get(stage, 0.0) for stage in inside)
    if context.plan is None or provider.statistics is None:
        raise ConfigError(f"pipeline {options.pipeline.name} never asks for a plan: add the pass insert-qdq")
    model = _untouched(model, context.plan, provider, source, options)
    write_decisions(model, context.plan)
    if context.plan.kinds:  # integers after all, between float borders
        provider.notes = [said for said in provider.notes if said != NOTHING]
    unreached = provider.statistics.unreached
    notes = [*model.notes, *run.notes, *provider.notes, *context.plan.notes]
    if unreached:
        notes.append(
            f"{len(unreached)} tensors were never reached by a sample, their ops stay float: {', '.join(unreached[:5])}"
        )
    return Quantized(
        model=model,
        plan=context.plan,
        method=provider.method,
        statistics=provider.statistics,
        run=run,
        timing=timing,
        notes=tuple(notes),
        placed=provider.placed,
        met=provider.met,
        repaired=provider.repaired,
    )


def _untouched(model: Model, plan: Plan, provider: PlanProvider, source: Path | None, options: Options) -> Model:
    """The model as the user's file has it, where nothing became integer and the passes made it slower."""
    changed = plan.uses or plan.kinds or plan.channel_multiple or plan.singles
    if changed or source is None or provider.placed is None:
        return model
    slower = slower_in_float(provider.placed.forms)
    if slower is None:
        return model
    provider.notes.append(
        f"The model is written as the file has it: with the passes it would run {1 / slower.gain:.2f} times as long."
    )
    return load_float(source, keep_overridable=options.keep_overridable)


def write_decisions(model: Model, plan: Plan) -> None:
    """Let the file say why its float ops are float, and what ONNX Runtime must not do to its float16 scales."""
    reasons = {name: d.reason for name, d in sorted(plan.decisions.items()) if not d.integer}
    model.meta.metadata[DECISIONS] = json.dumps(reasons, ensure_ascii=False)
    scales = [n.inputs[1] for n in model.graph.nodes if n.op == "DequantizeLinear"]
    if any(isinstance(s, gs.Constant) and s.values.dtype == np.float16 for s in scales):
        # it computes bias / (sx * sw) in float16, which overflows, and makes integers of that
        model.meta.metadata[DISABLED] = "WeightBiasQuantization"
