"""Random networks through the pipelines: what comes out keeps the rules of its target and of its stage."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
import random_graphs
import whole

from onnxq.ir.load import from_proto
from onnxq.pipeline.base import Stage
from onnxq.pipeline.manager import Pipeline, run_pipeline
from onnxq.pipeline.spec import load_pipeline
from onnxq.pipeline.verify import violations
from onnxq.plan.check import check
from onnxq.plan.integers import INTEGER_OPS
from onnxq.targets.target import load_target
from onnxq.testing import default_context

FUSION = Pipeline("fusion", load_pipeline("qoperator").steps[len(load_pipeline("cpu").steps) :])


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 1000), marks=pytest.mark.slow)])
def test_rules_on_random_networks(seeds: range) -> None:
    fused: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        recipe = random_graphs.drawn(seed)
        network = random_graphs.build(recipe)
        samples = random_graphs.inputs(recipe, network, 2)
        for target in ("tensorrt", "cpu"):
            made = whole.quantized(network, samples, target)
            model = from_proto(onnx.load_from_string(whole.file(made)))
            assert check(model, load_target(target)) == [], f"seed {seed}, {target}"
        run_pipeline(model.graph, FUSION, default_context())
        assert list(violations(model.graph, Stage.FUSED)) == [], f"seed {seed}, fused"
        assert check(model, load_target("cpu")) == [], f"seed {seed}, fused"
        fused.update(n.op for n in model.graph.nodes if n.op in INTEGER_OPS)
    assert len(fused) >= 4, fused  # else the rules had little to look at


@pytest.mark.parametrize(("low", "quantizations"), [(-100.0, 1), (-0.25, 2)], ids=["redundant", "cuts"])
def test_a_clip_that_vanishes_leaves_no_round_trip(low: float, quantizations: int) -> None:
    """Its Q then has the parameters of the DQ in front of it, which another op reads, too: found by seed 734."""
    weight = np.random.default_rng(1).normal(0, 0.3, (4, 4, 1, 1)).astype(np.float32)
    network = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) "
        f"<float l = {{{low}}}> {{ a = Conv(x, w) b = Clip(a, l) y = Conv(b, w) z = Neg(a) }}",
        {"w": weight},
    )
    model = from_proto(onnx.load_from_string(whole.file(whole.quantized(network, whole.normal(2, x=(1, 4, 6, 6))))))
    run_pipeline(model.graph, FUSION, default_context())
    assert list(violations(model.graph, Stage.FUSED)) == []
    assert sum(n.op == "QuantizeLinear" for n in model.graph.nodes) == quantizations
