"""Random networks through the whole of quantization, for every target: what is promised holds for each of them.

A failing recipe is printed by hypothesis; `random_graphs.build(recipe)` gives the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bodies
import numpy as np
import onnx
import pytest
import random_graphs
import recipes
import whole
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_graphs import Recipe
from whole import Arrays, copy, quantized, sqnr

from onnxq.errors import ModelError
from onnxq.ir import load, save, text
from onnxq.ir.opset import convert
from onnxq.pipeline.base import Context
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.quantization import Quantized
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq.validate.coverage import coverage

TARGETS = ("cpu", "tensorrt")
SAMPLES = 4

FLOAT_ROUNDING = 2e-4
"""Normalising may change outputs by float32 rounding: this share of the greatest output, 2^12 roundings."""

FUSION_DB = 30.0
"""Least SQNR (dB) of ORT at any level against the literal Q/DQ. Integer kernels round a few elements to the next level,
which later ops see; a scale or an axis that is wrong gives less than 10 dB."""

TINY = 5e-3
"""An output whose greatest value is below that is noise beside inputs and weights of size 1: their 8-bit steps are
some hundredths, a mean of 16 of their products that cancel leaves a thousandth of rounding errors, and a product with
one more matrix makes some thousandths of it."""

ACCURACY_DB = 15.0
"""Least SQNR (dB) of an output against the float model, in energy over all samples."""


def normalized(model: onnx.ModelProto, samples: Sequence[Arrays], target: str) -> bytes:
    """The float graph that gets its Q/DQ."""
    chosen = load_target(target)
    converted = convert(load.from_proto(copy(model)), chosen.opset, chosen.ir_version, samples[0], _literal)
    steps = itertools.takewhile(lambda s: s.name != "insert-qdq", load_pipeline(target).steps)
    run_pipeline(converted.graph, Pipeline("normalise", tuple(steps)), Context(target=chosen))
    return save.to_bytes(converted)


def _literal(model: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
    return Session(save.to_bytes(model), level=Level.OFF, threads=1).run(inputs)


def check(recipe: Recipe, target: str, cuts: Sequence[tuple[bodies.Kind, int]] = ()) -> dict[str, float]:
    """All promises for one model; returns the least figures that it saw.

    Args:
        cuts: what stands from a position on (counted from the end) goes into a body; several nest.
    """
    if target != "cpu":  # ORT pulls a Q over graph outputs (onnxq/plan/protect.py): no matter where TensorRT runs it
        recipe = dataclasses.replace(recipe, middle=-1)
    model = random_graphs.build(recipe)
    samples: Sequence[Arrays] = random_graphs.inputs(recipe, model, SAMPLES)
    for number, (kind, back) in enumerate(cuts):
        model = bodies.wrapped(model, kind, max(len(model.graph.node) - back, 0), f"body{number}")
    samples = bodies.gated(samples, model)
    original = model.SerializeToString()
    assume(_loads(original))
    reference = Session(original, level=Level.OFF, threads=1)
    exact = [reference.run(s) for s in samples]

    plain = Session(normalized(model, samples, target), level=Level.OFF, threads=1)
    for sample, outputs in zip(samples, exact, strict=True):
        for name, value in plain.run(sample).items():
            limit = FLOAT_ROUNDING * max(1.0, float(np.abs(outputs[name]).max()))
            np.testing.assert_allclose(value, outputs[name], rtol=0, atol=limit, err_msg="normalising changed " + name)

    made = quantized(model, samples, target)
    file = whole.file(made)
    assert save.to_bytes(quantized(model, samples, target).model) == file, "two runs, two models"

    results: dict[Level, list[dict[str, NDArray[Any]]]] = {}
    floats: dict[Level, Sequence[Arrays]] = {}
    for level in Level:
        floats[level] = whole.run(original, samples, level)
        session = Session(file, level=level, threads=1)
        assert session.inputs == reference.inputs
        assert session.output_specs == reference.output_specs
        results[level] = [session.run(s) for s in samples]

    seen = {"fusion": float("inf"), "accuracy": float("inf")}
    for output in reference.outputs:
        near = sqnr(exact, results[Level.OFF], output)
        if _size(exact, output) < TINY:
            near = float("inf")
        seen["accuracy"] = min(seen["accuracy"], near)
        assert near >= ACCURACY_DB, f"{output}: {near:.1f} dB against float"
        for level in (Level.BASIC, Level.EXTENDED, Level.ALL):
            if sqnr(exact, floats[level], output) < FUSION_DB:
                continue  # ORT changes the float model, too (Pad and MaxPool become one with another border)
            same = sqnr(results[Level.OFF], results[level], output)
            seen["fusion"] = min(seen["fusion"], same)
            assert same >= FUSION_DB, f"{output}: ORT at {level.name} is {same:.1f} dB from the literal Q/DQ"
    if target == "cpu":
        _follows_the_plan(made, file, samples[0])
    return seen


REFUSES = ("pool_attributes", "ScalesValidation")
"""What ORT's optimizer makes and its kernels then refuse, a word of each message: who owns such a model cannot run it
at the default level, quantized or not."""


def _loads(model: bytes) -> bool:
    try:
        Session(model, level=Level.ALL, threads=1)
    except ModelError as error:
        if any(word in str(error) for word in REFUSES):
            return False
        raise
    return True


@pytest.mark.parametrize(
    "source",
    [
        # one pool of a Pad and a pool, also where the sum of the pads reaches the kernel's size
        """<ir_version: 8, opset_import: ["" : 17]>
        m (float[1,2,6,6] x) => (float[1,2,9,9] y) <int64[8] p = {0,0,2,2,0,0,2,2}> {
          a = Pad(x, p)
          y = MaxPool <kernel_shape = [2, 2]> (a)
        }""",
        # a Transpose pulled over a Resize, which then enlarges two axes that are not the last two
        """<ir_version: 8, opset_import: ["" : 17]>
        m (float[1,4,8,8] x) => (float[1,8,16,8] y) <float[0] none = {}, float[4] s = {1,1,2,2}> {
          a = Transpose <perm = [0, 2, 3, 1]> (x)
          b = Resize <mode = "linear"> (a, none, s)
          y = Transpose <perm = [0, 3, 2, 1]> (b)
        }""",
    ],
)
def test_what_ort_itself_cannot_load_at_its_default_level(source: str) -> None:
    """If this fails, ORT has mended it, and its word in `REFUSES` can go."""
    model = save.to_bytes(text.parse(source))
    Session(model, level=Level.OFF, threads=1)
    assert not _loads(model)


def _size(samples: Sequence[Arrays], output: str) -> float:
    return max(float(np.abs(s[output]).max(initial=0.0)) for s in samples)


def _follows_the_plan(made: Quantized, file: bytes, sample: Arrays) -> None:
    """Each heavy op that the plan calls integer is integer in ORT's own graph, and no other is, but for a product of
    two tensors that have 8 bits for their other readers: ORT may multiply these integers, which gives the same values
    (tests/plan/test_protect.py)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(file)
        found = coverage(path, sample=sample)
    assert not found.unmapped, found.unmapped
    assert not [n for n in found.notes if "wrong" in n], found.notes
    for op in found.ops:
        decision = made.plan.decisions.get(op.name)
        if decision is not None and decision.integer:
            assert op.integer, f"{op.op} {op.name} is {op.kernel}, planned was an integer kernel"
        if op.heavy:
            assert decision is not None, f"nothing was decided about {op.op} {op.name}"
            product = op.op == "MatMul" and "both operands are computed at run time" in decision.reason
            assert op.integer == decision.integer or product, (
                f"{op.op} {op.name} is {op.kernel}, planned was {decision}"
            )
            assert op.integer or op.reason


CUTS = st.lists(st.tuples(st.sampled_from(("If", "Loop", "Scan")), st.integers(1, 8)), min_size=1, max_size=2).map(
    lambda cuts: sorted(cuts, key=lambda cut: cut[1])
)
QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=3000, derandomize="ONNXQ_EXPLORE" not in os.environ)
"""The same examples each time; with ONNXQ_EXPLORE=1, others each time: to look for what nobody has seen."""
LONG_BODIES = settings(LONG, max_examples=1000)
"""The same networks, cut: what may go wrong is in the cuts, so that fewer do."""


@pytest.mark.parametrize("target", TARGETS)
@QUICK
@given(recipe=recipes.NETWORKS)
def test_any_network(target: str, recipe: Recipe) -> None:
    check(recipe, target)


@QUICK
@given(recipe=recipes.NETWORKS, cuts=CUTS)
def test_any_network_with_bodies(recipe: Recipe, cuts: Sequence[tuple[bodies.Kind, int]]) -> None:
    check(recipe, "cpu", cuts)


@pytest.mark.slow
@LONG_BODIES
@given(recipe=recipes.NETWORKS, cuts=CUTS)
def test_any_network_with_bodies_at_length(recipe: Recipe, cuts: Sequence[tuple[bodies.Kind, int]]) -> None:
    check(recipe, "cpu", cuts)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@LONG
@given(recipe=recipes.NETWORKS)
def test_any_network_at_length(target: str, recipe: Recipe) -> None:
    check(recipe, target)
