"""A float model and its plan, as the instrumented model takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import parser
from whole import Arrays, Samples, copy

from onnxq import registry
from onnxq.config.job import load_job
from onnxq.data.sample import Dataset
from onnxq.ir import load, walk
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.jobs import open_source
from onnxq.options import Options
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import run_pipeline
from onnxq.pipeline.prepare import prepare
from onnxq.pipeline.spec import load_pipeline
from onnxq.plan.plan import Plan, Use
from onnxq.progress import Silent
from onnxq.provider import PlanProvider
from onnxq.runtime.session import Level, Session
from onnxq.stats.calibrator import make_calibrators
from onnxq.stats.engine import Resources
from onnxq.targets.target import load_target
from onnxq.workbench.planning import ready

ROOT = Path(__file__).parent.parent.parent
RES8 = ROOT / "models/fashion-res8/job.yaml"

RESIDUAL = """<ir_version: 8, opset_import: ["": 17]>
g (float["N",4,6,6] x) => (float["N",4,6,6] y, float["N",4,6,6] s, int64["N",6,6] best)
<float[4,4,1,1] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}, float[4] b = {0.1,-0.2,0.3,0.4}> {
    [first] c = Conv(x, w, b)
    [relu] r = Relu(c)
    [second] d = Conv(r, w, b)
    [add] s = Add(d, r)
    [third] e = Conv(s, w)
    [out] y = Relu(e)
    [argmax] best = ArgMax<axis = 1, keepdims = 0>(y)
}"""
"""Two residual halves, three outputs: one that is quantized, one that is not, one of integers."""


def planned(model: onnx.ModelProto | str, samples: Sequence[Arrays], target: str = "cpu") -> tuple[Model, Plan]:
    """The normalised model and its plan (method minmax), of a proto or of onnx.parser's syntax."""
    proto = parser.parse_model(model) if isinstance(model, str) else copy(model)
    pipeline = load_pipeline(target)
    needing = next(i for i, step in enumerate(pipeline.steps) if "plan" in step.body.needs)
    before = dataclasses.replace(pipeline, steps=pipeline.steps[:needing])
    options = Options(
        target=load_target(target), pipeline=before, calibrators=make_calibrators("minmax", {}), threads=1
    )
    loaded = prepare(load.from_proto(proto), options.target, samples[0], keep_overridable=False)
    provider = PlanProvider(loaded, Samples(samples), options)
    context = Context(target=options.target)
    run_pipeline(loaded.graph, before, context)
    provider(loaded.graph, context)
    assert context.plan is not None
    return loaded, context.plan


def res8(*, calib: int = 8) -> tuple[Model, Plan, Dataset, Dataset]:
    """fashion-res8, its plan, calibration and evaluation data."""
    job = load_job(RES8).with_overrides(threads=1, method="minmax", calib_limit=calib)
    assert job.data.calib is not None and job.data.eval is not None
    data = open_source(job, job.data.calib, calib)
    begin = ready(job, data, load_pipeline("cpu"), job_calibration(job), Resources(), Silent(), PlanProvider)
    begin.provider(begin.graph, begin.context)
    assert begin.context.plan is not None
    whole, judged = open_source(job, job.data.calib, None), open_source(job, job.data.eval, None)
    return begin.model, begin.context.plan, whole, judged


def job_calibration(job: Any) -> Any:
    """The job's calibration over that of the cpu pipeline."""
    from onnxq.pipeline.calibration import over

    return over(job.calibration, load_pipeline("cpu").calibration)


def inserted(model: Model, plan: Plan) -> Model:
    """The Q/DQ model that insert-qdq writes."""
    made = model.copy()
    inserter = registry.load(registry.PASSES, "insert-qdq")
    inserter().run(made.graph, Context(target=load_target("cpu"), plan=plan))
    return made


def only(plan: Plan, tensors: Mapping[Use, str], name: str) -> Plan:
    """The plan with the uses of one tensor alone."""
    values = {v: e for v, e in plan.values.items() if v.tensor == name}
    return dataclasses.replace(plan, uses={u: e for u, e in plan.uses.items() if tensors.get(u) == name}, values=values)


def used_tensors(model: Model) -> dict[Use, str]:
    """Use -> the tensor that it reads, in all graphs."""
    found: dict[Use, str] = {}
    for path, graph in walk.graphs(model.graph):
        found.update({Use(path, n.name, slot): t.name for n in graph.nodes for slot, t in enumerate(n.inputs)})
        found.update({Use(path, "", slot): t.name for slot, t in enumerate(graph.outputs)})
    return found


def open_off(model: Model) -> Session:
    """The model with optimizations and prepacking off."""
    with runnable(model) as source:
        return Session(source, level=Level.OFF, threads=1, prepacking=False)


def bits(array: NDArray[Any]) -> bytes:
    """What two arrays must share to be equal to the bit."""
    return np.ascontiguousarray(array).tobytes() + repr((array.shape, array.dtype)).encode()
