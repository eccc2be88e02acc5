"""Random networks through the pipelines: what comes out keeps the rules of its target and of its stage."""

from __future__ import annotations

import collections

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
