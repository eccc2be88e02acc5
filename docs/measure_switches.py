"""What a switch costs: `python docs/measure_switches.py` prints the table of docs/sensitivity.md.

Least time of 30 runs, one thread, optimizations off. Nanoseconds per element: a chain of 8 switches on 2^20 float32
values, over a chain without. Whole model: fashion-res8, each run over the float model's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxq.config.job import load_job
from onnxq.ir.save import runnable
from onnxq.jobs import job_pipeline, open_source
from onnxq.pipeline.calibration import over
from onnxq.progress import Silent
from onnxq.provider import PlanProvider
from onnxq.runtime.session import Level, Session
from onnxq.sensitivity.forward import Forward
from onnxq.sensitivity.instrument import instrument
from onnxq.stats.engine import Resources
from onnxq.workbench.planning import ready

CHAIN, SIZE, RUNS = 8, 1 << 20, 30


def least(run: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def chain(form: str) -> bytes:
    """`Neg`, then a switch (`if`, `where`, or "" for none), 8 times."""
    floats, flags = TensorProto.FLOAT, TensorProto.BOOL
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = []
    for i in range(CHAIN):
        nodes.append(node("Neg", [f"y{i}"], [f"x{i}" if form else f"y{i + 1}"]))
        rounded = [
            node("QuantizeLinear", [f"x{i}", "scale", "zero"], [f"q{i}"]),
            node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"]),
        ]
        if form == "where":
            nodes += [*rounded, node("Where", ["on", f"d{i}", f"x{i}"], [f"y{i + 1}"])]
        elif form == "if":
            same = [node("Identity", [f"x{i}"], [f"s{i}"])]
            yes = helper.make_graph(rounded, "yes", [], [info(f"d{i}", floats, None)])
            no = helper.make_graph(same, "no", [], [info(f"s{i}", floats, None)])
            nodes.append(node("If", ["on"], [f"y{i + 1}"], then_branch=yes, else_branch=no))
    graph = helper.make_graph(
        nodes,
        "chain",
        [info("y0", floats, ["n"]), info("on", flags, [])],
        [info(f"y{CHAIN}", floats, ["n"])],
        [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.uint8(3), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def switches() -> None:
    """Nanoseconds per element of one switch."""
    x = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    found = {}
    for form in ("", "if", "where"):
        session = Session(chain(form), level=Level.OFF, threads=1)
        for on in (False, True):
            fed = {"y0": x, "on": np.array(on)}
            found[form, on] = least(lambda session=session, fed=fed: session.run(fed))  # type: ignore[misc]
    print("| a switch, ns per element | off | on |\n|---|---|---|")
    for form in ("if", "where"):
        off, on = (1e9 * (found[form, on] - found["", on]) / CHAIN / SIZE for on in (False, True))
        print(f"| {form.title()} | {off:.2f} | {on:.2f} |")


def whole() -> None:
    """Runs of a model over its float form's."""
    folder = Path(__file__).resolve().parent.parent / "models" / "fashion-res8"
    job = load_job(folder / "job.yaml").with_overrides(threads=1, method="minmax", calib_limit=8)
    assert job.data.calib is not None
    data, pipeline = open_source(job, job.data.calib, 8), job_pipeline(job)
    begin = ready(job, data, pipeline, over(job.calibration, pipeline.calibration), Resources(), Silent(), PlanProvider)
    begin.provider(begin.graph, begin.context)
    assert begin.context.plan is not None
    with runnable(begin.model) as source:
        session = Session(source, level=Level.OFF, threads=1, prepacking=False)
    inputs = next(iter(data)).inputs
    plain = least(lambda: session.run(inputs))
    made = instrument(begin.model, begin.context.plan)
    count = len(made.switches)
    print(f"\n| fashion-res8, {count} switches | over float |\n|---|---|")
    for name, parts in (("one run per tensor, whole runs", 1), ("one run per tensor, 4 parts", 4)):
        forward = Forward(made, threads=1, parts=parts)
        forward.off(inputs)
        times = [least(lambda forward=forward, i=i: forward.on((i,))) for i in range(count)]  # type: ignore[misc]
        each = sum(times) / count
        print(f"| {name} | {each / plain:.2f} |")


if __name__ == "__main__":
    switches()
    whole()
