"""ONNX Runtime's own propagation of Q and DQ (level BASIC) against ours, on the committed models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from rewriting import model

from onnxq.config.job import load_job
from onnxq.driver import quantize
from onnxq.ir import load, save, text
from onnxq.optable import OP_TABLE
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import default_context, random_inputs
from onnxq_passes.cancel_dq_q import CancelDqQ
from onnxq_passes.hoist_quantize import HoistQuantize
from onnxq_passes.merge_quantize import MergeQuantize
from onnxq_passes.sink_dequantize import SinkDequantize

MODELS = Path(__file__).parents[2] / "models"
JOBS = sorted(MODELS.glob("fashion-*/job*.yaml"))
PUSHED_BY_ORT = {"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"}


def between(proto: onnx.ModelProto) -> Counter[str]:
    """Ops that move data and stand between DQ and Q only, by type: those that become integer ops."""
    makers = {o: n.op_type for n in proto.graph.node for o in n.output}
    readers: dict[str, set[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    outputs = {o.name for o in proto.graph.output}
    found: Counter[str] = Counter()
    for node in proto.graph.node:
        row = OP_TABLE.get(node.op_type)
        if row is None or row.moves is None:
            continue
        slots = range(len(node.input)) if row.data is None else row.data
        front = all(makers.get(node.input[s]) == "DequantizeLinear" for s in slots)
        behind = all(o not in outputs and readers.get(o) == {"QuantizeLinear"} for o in node.output)
        found[node.op_type] += front and behind
    return found


@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_move_that_ort_makes_is_left_out(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "quantized.onnx"
    quantize(load_job(path).with_overrides(output=file, calib_limit=8, eval_limit=4, threads=1, speed=False))
    loaded = load.load(file)
    for pass_ in (HoistQuantize(), SinkDequantize(), CancelDqQ(), MergeQuantize()):
        pass_.run(loaded.graph, default_context())
    ours = save.to_bytes(loaded)
    theirs = between(onnx.load_from_string(optimized(file, level=Level.BASIC)))
    mine = between(onnx.load_from_string(ours))
    assert all(mine[op] >= theirs[op] for op in PUSHED_BY_ORT), (mine, theirs)
    one, other = Session(file, level=Level.OFF, threads=1), Session(ours, level=Level.OFF, threads=1)
    inputs = random_inputs(one.inputs)
    expected, got = one.run(inputs), other.run(inputs)
    assert all(np.array_equal(expected[k], got[k]) for k in expected)
    assert sum(theirs.values()) > 0 or path.parent.name != "fashion-vit"


@pytest.mark.parametrize(
    ("move", "pushed"),
    [
        ("Transpose(a)", True),
        ("Slice(a, zero, one, zero)", True),
        ("Gather(a, zero)", False),
        ("Tile(a, pair)", False),
        ("Flatten(a)", False),
        ("ReduceMax(a, zero)", False),
        ("Expand(a, pair)", False),
    ],
)
def test_ours_moves_more_than_six_ops(move: str, pushed: bool) -> None:
    source = (
        "(uint8[2,2] p) => (float[n,m] y) <float s = {0.1}, uint8 z = {9}, int64[1] zero = {0}, int64[1] one = {1}, int64[2] pair = {2, 2}> "
        f"{{ a = DequantizeLinear(p, s, z) b = {move} y = Softmax(b) }}"
    )
    parsed = text.parse(model(source))
    theirs = between(onnx.load_from_string(optimized(save.to_bytes(parsed), level=Level.BASIC)))
    SinkDequantize().run(parsed.graph, default_context())
    mine = between(onnx.load_from_string(save.to_bytes(parsed)))
    assert sum(mine.values()) == 1
    assert sum(theirs.values()) == pushed
