"""Measured costs put a convolution over three axes into int8 that rules keep float for its few channels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq.config.job import Job
from onnxq.costs.files import save
from onnxq.costs.observe import observe
from onnxq.costs.table import Cost
from onnxq.driver import quantize
from onnxq.ir import text
from onnxq.ir.save import to_bytes
from onnxq.plan.plan import MEASURED
from onnxq.runtime.profile import profile

WEIGHT = np.random.default_rng(0).normal(0, 0.1, 4 * 4 * 27)
MODEL = (
    '<ir_version: 8, opset_import: ["" : 21]> m (float[1,4,6,6,6] x) => (float[1,4,4,4,4] y) '
    f"<float[4,4,3,3,3] w = {{{', '.join(f'{v:.5f}' for v in WEIGHT)}}}> {{ [conv] y = Conv(x, w) }}"
)


@pytest.mark.parametrize("pays", [True, False])
def test_costs_decide(pays: bool, tmp_path: Path) -> None:
    samples = np.random.default_rng(1).normal(0, 1, (4, 1, 4, 6, 6, 6)).astype(np.float32)
    (tmp_path / "m.onnx").write_bytes(to_bytes(text.parse(MODEL)))
    np.savez(tmp_path / "x.npz", x=samples)

    def made(name: str, **options: Any) -> Any:
        job = Job(model=tmp_path / "m.onnx").with_overrides(
            output=tmp_path / name, calib=str(tmp_path / "x.npz"), method="minmax", threads=1, speed=False, **options
        )
        found = quantize(job).coverage
        assert found is not None
        (op,) = found.ops
        return op

    assert "slower than the float one" in made("rules.onnx", placement="rules").reason
    assert made("small.onnx", optimize="size").integer
    float_, integer = (observe(profile(tmp_path / n, [{"x": samples[0]}], runs=2)) for n in ("m.onnx", "small.onnx"))
    table = float_.merge(integer)
    (kernel,) = {key.op for key in table.costs if key.op.endswith("QLinearConv")}
    dear = "Conv" if pays else kernel
    assert "Conv" in {key.op for key in table.costs}
    costs = {key: Cost(context=(1e-3 if key.op == dear else 1e-6,)) for key in table.costs}
    save(dataclasses.replace(table, costs=costs), tmp_path / "costs.json")
    op = made("cost.onnx", effort="fast", costs=tmp_path / "costs.json")
    assert op.integer == pays
    assert pays or op.reason.startswith(MEASURED)
