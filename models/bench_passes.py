"""How the `cpu` pipeline grows with the graph: `make bench-passes` prints the ratio and the slowest pass.

A synthetic network of residual blocks (unfolded BatchNormalization, decomposed HardSwish, Reshape and Transpose
pairs) of the asked number
of nodes goes through load, all passes, the plan (with the same made-up range for every tensor: nothing is calibrated)
and save.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.encoding import Scheme
from onnxq.ir.load import load
from onnxq.ir.save import save
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import run_pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.plan.planner import make_plan
from onnxq.stats.weights import weight_range
from onnxq.targets.target import load_target

CHANNELS = 4


class Same:
    """One range for every activation."""

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:  # noqa: ARG002
        return -1.0, 3.0

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return weight_range(weight, scheme)


def network(nodes: int) -> onnx.ModelProto:
    """Residual blocks of 14 nodes each, about `nodes` in all."""
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, array: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(op: str, inputs: list[str], out: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [out], name=f"{op}/{out}", **attributes))
        return out

    three = constant("three", np.array(3.0, np.float32))
    zero, six = constant("zero", np.array(0.0, np.float32)), constant("six", np.array(6.0, np.float32))
    flat = constant("flat", np.array([1, CHANNELS, 64], np.int64))
    square = constant("square", np.array([1, CHANNELS, 8, 8], np.int64))
    x = "x"
    for i in range(max(1, nodes // 14)):
        w = constant(f"w{i}", rng.normal(0, 0.5, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32))
        parameters = [constant(f"{n}{i}", np.ones(CHANNELS, np.float32)) for n in ("g", "b", "m", "v")]
        c = node("Conv", [x, w], f"c{i}")
        n = node("BatchNormalization", [c, *parameters], f"n{i}")
        a = node("Clip", [node("Add", [n, three], f"a{i}"), zero, six], f"k{i}")
        h = node("Div", [node("Mul", [n, a], f"u{i}"), six], f"h{i}")
        t = node("Transpose", [node("Reshape", [h, flat], f"r{i}")], f"t{i}", perm=[0, 2, 1])
        t = node("Reshape", [node("Transpose", [t], f"s{i}", perm=[0, 2, 1]), square], f"q{i}")
        d = node("Conv", [node("Identity", [t], f"i{i}"), w], f"d{i}")
        x = node("Relu", [node("Add", [d, x], f"e{i}")], f"x{i}")
    graph = helper.make_graph(
        made,
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 8, 8])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, CHANNELS, 8, 8])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def measure(nodes: int, folder: Path) -> dict[str, float]:
    """Seconds by stage and pass."""
    path = folder / f"{nodes}.onnx"
    onnx.save(network(nodes), path)
    target = load_target("cpu")
    start = time.perf_counter()
    model = load(path)
    seconds = {"load": time.perf_counter() - start}

    def plan(graph: Any, context: Context) -> None:
        begin = time.perf_counter()
        context.plan = make_plan(graph, target, Same(), {})
        seconds["plan"] = time.perf_counter() - begin

    start = time.perf_counter()
    run = run_pipeline(model.graph, load_pipeline("cpu"), Context(target=target, providers={"plan": plan}))
    seconds["pipeline"] = time.perf_counter() - start
    for number, step in enumerate(run.steps):
        seconds[f"{number:02} {step.name}"] = step.seconds
    start = time.perf_counter()
    save(model, folder / "out.onnx")
    seconds["save"] = time.perf_counter() - start
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxq-bench-") as name:
        small, large = (measure(n, Path(name)) for n in (args.small, args.large))
    print(f"| seconds | {args.small:,} nodes | {args.large:,} nodes | ratio |\n|---|---|---|---|")
    for stage in large:
        print(f"| {stage} | {small[stage]:.3f} | {large[stage]:.3f} | {large[stage] / max(small[stage], 1e-9):.1f} |")
    slowest = max((s for s in large if s[0].isdigit()), key=lambda s: large[s])
    print(f"\npipeline: {large['pipeline'] / small['pipeline']:.1f} times, slowest pass: {slowest[3:]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
