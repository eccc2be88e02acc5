"""The pipeline qoperator on whole models: the integer ops that ONNX Runtime would make, and what they compute."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import random_graphs
import whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import OPS, Recipe, Step

from onnxq.config.job import load_job
from onnxq.driver import quantize
from onnxq.ir import save, text
from onnxq.pipeline.base import Stage
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import default_context

MODELS = Path(__file__).parents[2] / "models"
JOBS = sorted(MODELS.glob("fashion-*/job*.yaml"))
FETCHED = [j for j in sorted(MODELS.glob("*/job*.yaml")) if j not in JOBS and load_job(j).model.is_file()]

HEAVY_FLOAT = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
PRODUCTS = ("QLinearMatMul", "MatMulIntegerToFloat", "QGemm")
"""Forms of one product: ONNX Runtime makes a Gemm of MatMul and Add, we keep the MatMul and give it the bias."""
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")

FUSING = (Level.EXTENDED, Level.ALL)
"""ONNX Runtime fuses at the first one; the second one changes layouts, too, and is what everybody runs."""

RIPPLE_DB = 40.0
"""Least SQNR (dB) of the integer file at the default level against Q/DQ without optimizations. QLinearAdd, QLinearMul
and QLinearGlobalAveragePool are one step off now and then, a float bias is rounded to int32, and later ops see it; a
wrong scale or axis gives less than 10 dB."""


def ops(model: bytes) -> Counter[str]:
    """Op types of a graph and of its bodies."""

    def count(graph: onnx.GraphProto) -> Counter[str]:
        found = Counter(n.op_type for n in graph.node)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    found += count(attribute.g)
        return found

    return count(onnx.load_from_string(model).graph)


def fuses_no_fewer(ours: Counter[str], theirs: Counter[str], *, conversions: bool) -> None:
    """Op by op: no more heavy float ops than ONNX Runtime leaves, no fewer integer ops, no more conversions (these
    only if asked for: a Q that moves in front of a Concat becomes one per input, of the same size together).
    """

    def total(counts: Counter[str], names: tuple[str, ...]) -> int:
        return sum(counts[n] for n in names)

    assert total(ours, HEAVY_FLOAT) <= total(theirs, HEAVY_FLOAT)
    assert total(ours, PRODUCTS) >= total(theirs, PRODUCTS)
    for op in theirs:
        if op.startswith("QLinear") and op not in PRODUCTS:
            # between equal encodings Concat and Where move integers as they are
            plain = op.removeprefix("QLinear")
            moved = ours[plain] if plain in ("Concat", "Where") else 0
            assert ours[op] + moved >= theirs[op], op
    if conversions:
        assert total(ours, CONVERSIONS) <= total(theirs, CONVERSIONS)


def test_the_order_of_the_pipeline() -> None:
    steps = load_pipeline("qoperator").steps
    first = [s.name for s in load_pipeline("cpu").steps]
    assert [s.name for s in steps[: len(first)]] == first
    assert steps[-1].body.gives is Stage.FUSED


@pytest.mark.parametrize(
    "path",
    [*JOBS, *(pytest.param(j, marks=pytest.mark.slow) for j in FETCHED)],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_models(path: Path, tmp_path: Path) -> None:
    job = load_job(path).with_overrides(
        output=tmp_path / "qdq.onnx", eval_limit=8, calib_limit=8, threads=1, speed=False
    )
    quantize(job)
    result = quantize(job.with_overrides(output=tmp_path / "fused.onnx", pipeline="qoperator"))
    assert result.coverage is not None
    assert not result.coverage.unmapped
    qdq, fused = (tmp_path / "qdq.onnx").read_bytes(), (tmp_path / "fused.onnx").read_bytes()
    for level in FUSING:
        fuses_no_fewer(ops(fused), ops(optimized(qdq, level=level)), conversions=path in JOBS)
    before, after = Session(qdq, level=Level.OFF, threads=1), Session(fused, threads=1)
    assert (before.inputs, before.output_specs) == (after.inputs, after.output_specs)
    if path in JOBS:
        images = np.load(MODELS / "fashion-mnist" / "eval.npz")["image"]
        samples = [{before.inputs[0].name: image[None]} for image in images[:32]]
        a, b = ([session.run(s) for s in samples] for session in (before, after))
        for name in before.outputs:
            assert whole.sqnr(a, b, name) >= RIPPLE_DB, whole.sqnr(a, b, name)


RECIPES = st.builds(
    Recipe,
    steps=st.lists(
        st.builds(
            Step, st.integers(0, len(OPS) - 1), st.sampled_from((0, 0, 0, 1, 2)), st.integers(0, 5), st.integers(0, 31)
        ),
        min_size=1,
        max_size=10,
    ).map(tuple),
    opset=st.sampled_from((13, 17, 21)),
    vectors=st.booleans(),
    dynamic=st.booleans(),
    middle=st.integers(-1, 6),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(RECIPES)
def test_random_networks(recipe: Recipe) -> None:
    model = random_graphs.build(recipe)
    samples = random_graphs.inputs(recipe, model, 2)
    made = whole.quantized(model, samples)
    qdq = whole.file(made)
    steps = tuple(s for s in load_pipeline("qoperator").steps if s.body.takes is not Stage.FLOAT)
    twin = made.model.copy()
    for graph in (made.model.graph, twin.graph):
        run_pipeline(graph, Pipeline("fuse", steps), default_context())
    assert text.text(made.model.graph) == text.text(twin.graph)
    again = run_pipeline(twin.graph, Pipeline("fuse", steps[3:]), default_context())
    assert [s.report.rewrites for s in again.steps] == [0] * len(again.steps)
    fused = save.to_bytes(made.model)
    onnx.checker.check_model(onnx.load_from_string(fused))
    for level in FUSING:
        fuses_no_fewer(ops(fused), ops(optimized(qdq, level=level)), conversions=False)
    a, b = whole.run(qdq, samples), whole.run(fused, samples, Level.ALL)
    for name in a[0]:
        assert whole.sqnr(a, b, name) >= RIPPLE_DB, (name, whole.sqnr(a, b, name))
