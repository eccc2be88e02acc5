"""Quantize a small model given as text, with ranges measured on seeded random samples by ONNX Runtime: no mocks, no
data wing.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.data.sample import Sample
from onnxq.encoding import Scheme
from onnxq.ir import save, walk
from onnxq.ir.text import parse
from onnxq.pipeline.base import Context, Pass
from onnxq.plan.plan import Placement, Plan
from onnxq.plan.planner import make_plan, wanted
from onnxq.plan.spread import Spread
from onnxq.runtime.session import Level, Session, optimized
from onnxq.stats.collect import collect
from onnxq.stats.taps import with_outputs
from onnxq.stats.weights import weight_range
from onnxq.targets.target import Target, load_target
from onnxq_passes.insert_qdq import InsertQdq


@dataclass
class Result:
    plan: Plan
    file: bytes
    original: bytes
    inputs: dict[str, NDArray[Any]]

    def kernels(self) -> collections.Counter[str]:
        """Op types in ORT's own optimized graph and the bodies in it."""
        return collections.Counter(_ops(onnx.load_from_string(optimized(self.file)).graph))

    def run(self, level: Level = Level.OFF, *, original: bool = False) -> dict[str, NDArray[Any]]:
        return Session(self.original if original else self.file, level=level, threads=1).run(self.inputs)


def _ops(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _ops(attribute.g)


@dataclass
class One:
    """A data set of one sample."""

    inputs: Mapping[str, NDArray[Any]]
    description = "one sample"
    labelled = False
    preprocess_summary = ""

    @property
    def skipped(self) -> list[str]:
        return []

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sample]:
        yield self.sample(0)

    def sample(self, index: int) -> Sample:
        return Sample(index=index, name="random", inputs=dict(self.inputs))


def _filled(source: str) -> str:
    """`float[4,4] W = {0}` becomes 16 seeded random weights."""

    def values(found: re.Match[str]) -> str:
        shape = [int(d) for d in found[2].split(",")]
        numbers = np.random.default_rng(1).normal(0, 0.1, int(np.prod(shape)))
        return found[1] + "{" + ", ".join(f"{v:.6f}" for v in numbers) + "}"

    return re.sub(r"(float\[([\d,]+)\] \w+ = )\{0\}", values, source)


def fill(model: Any, constants: Mapping[str, NDArray[Any]]) -> None:
    for node in model.graph.nodes:
        for tensor in node.inputs:
            if tensor.name in constants:
                tensor.values = constants[tensor.name]


def quantize_text(
    source: str,
    *,
    target: str | Target = "cpu",
    keep_float: Sequence[str] = (),
    seed: int = 0,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    unreached: Sequence[str] = (),
    reduce_range: bool | None = False,
    constants: Mapping[str, NDArray[Any]] | None = None,
    placement: Placement | None = None,
    then: Sequence[Pass] = (),
) -> Result:
    """Parse, measure ranges and distributions on one random sample (normal, seed), plan, insert, `then`."""
    model = parse(_filled(source))
    taken: set[str] = set()
    for _, inner in walk.graphs(model.graph):
        for index, node in enumerate(inner.nodes):
            node.name = walk.unique_name(taken, node.name or f"{node.op}_{index}")
    fill(model, constants or {})
    original = save.to_bytes(model)
    rng = np.random.default_rng(seed)
    chosen = load_target(target, reduce_range=reduce_range) if isinstance(target, str) else target
    feeds = dict(inputs or {})
    for spec in Session(original, threads=1).inputs:
        if spec.name not in feeds:
            shape = [d if isinstance(d, int) else 2 for d in spec.shape]
            feeds[spec.name] = rng.normal(size=shape).astype(spec.dtype)
    names = [t.name for n in model.graph.nodes for t in n.outputs if t.name]
    tapped = Session(save.to_bytes(with_outputs(model, names)), level=Level.OFF, threads=1)
    seen = {**tapped.run(feeds), **feeds}
    inner = wanted(model.graph, chosen, {}, keep_float)
    bodies = collect(model, [n for n in inner if n not in seen], One(feeds), ("minmax",), threads=1).tensors

    class Measured:
        def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:
            if tensor in bodies and tensor not in unreached:
                return bodies[tensor].min, bodies[tensor].max
            if tensor in unreached or tensor not in seen or seen[tensor].dtype != np.float32:
                return None
            return float(seen[tensor].min()), float(seen[tensor].max())

        def spread(self, tensor: str) -> Spread | None:
            known = tensor in seen and tensor not in unreached and seen[tensor].dtype == np.float32
            return Spread.of(seen[tensor]) if known else None

        def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[Any], NDArray[Any]]:
            return weight_range(weight, scheme)

    shapes = {k: tuple(v.shape) for k, v in seen.items() if isinstance(v, np.ndarray)}
    plan = make_plan(model.graph, chosen, Measured(), shapes, keep_float, placement)
    context = Context(target=chosen, plan=plan)
    report = InsertQdq().run(model.graph, context)
    for other in then:
        other.run(model.graph, context)
    file = save.to_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(file), full_check=True)
    assert (report.rewrites > 0) == bool(plan.uses)
    return Result(plan=plan, file=file, original=original, inputs=feeds)
