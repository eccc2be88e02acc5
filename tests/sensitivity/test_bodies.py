"""Units in the bodies of If, Loop and Scan are measured like any other."""

from __future__ import annotations

import numpy as np
from switched import planned
from whole import Samples, normal

from onnxq.sensitivity.engine import Options, sensitivity
from onnxq.sensitivity.result import noise

GATED = """<ir_version: 8, opset_import: ["": 17]>
g (bool c, float[1,4] x) => (float[1,4] y)
<float[4,4] w = {1,-0.5,0.25,0.1,0.3,1,-0.7,0.2,0.6,0.1,1,0.4,-0.2,0.5,0.8,1}> {
    [outer] p = MatMul(x, w)
    [relu] r = Relu(p)
    [if] y = If(c) <then_branch = t () => (float[1,4] a) { [inner] m = MatMul(r, w) [tanh] a = Tanh(m) },
                    else_branch = e () => (float[1,4] b) { [neg] b = Neg(r) }>
}"""


def test_an_op_in_a_body_has_its_noise() -> None:
    samples = [{**s, "c": np.array(True)} for s in normal(6, x=(1, 4))]
    model, plan = planned(GATED, samples)
    assert plan.decisions["inner"].integer
    for units in (False, True):
        found = sensitivity(model, plan, Samples(samples), Options(samples=None, units=units), threads=1)
        ops = {unit.node: unit.op for unit in found.units}
        assert ops["inner"] == ops["outer"] == "MatMul"
        assert noise(found, owned=True)["inner"] > 0
