"""Facts of docs/ort.md: what ONNX Runtime fuses inside the bodies of If, Loop and Scan."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure_table import Fact, Rows
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq.runtime.session import Level, Session

SHAPE = "float[1,4,8,8]"
BODIES = {
    "If": (
        "y = If (c) <then_branch = t () => ({shape} p) {{ {body} }}, "
        "else_branch = e () => ({shape} o) {{ o = Neg(x) }}>"
    ),
    "Loop": (
        "y = Loop (two, go, x) <body = b (int64 i, bool m, {shape} v) => (bool n, {shape} p) "
        "{{ n = Identity(m) {body} }}>"
    ),
    "Scan": ("y = Scan <num_scan_inputs = 1, body = b ({shape} v, float[1] k) => ({shape} p) {{ {body} }}> (x, ticks)"),
}
Q, DQ, WEIGHT = (
    "q = QuantizeLinear(x, s, z)",
    "d = DequantizeLinear(q, s, z)",
    "w = DequantizeLinear <axis = 0> (W, ws, wz)",
)
CONV = "r = Conv <pads = [1,1,1,1]> (d, w)"
RESULT = "u = QuantizeLinear(r, s, z) p = DequantizeLinear(u, s, z)"
FORMS = {
    "nothing: all in the body": ("", f"{Q} {DQ} {WEIGHT} {CONV} {RESULT}"),
    "the Q of the data": (Q, f"{DQ} {WEIGHT} {CONV} {RESULT}"),
    "the Q and the DQ of the data": (f"{Q} {DQ}", f"{WEIGHT} {CONV} {RESULT}"),
    "the DQ of the weight": (WEIGHT, f"{Q} {DQ} {CONV} {RESULT}"),
}
CONSTANTS: dict[str, NDArray[Any]] = {
    "W": np.random.default_rng(0).integers(-63, 64, (4, 4, 3, 3)).astype(np.int8),
    "ws": np.linspace(0.005, 0.03, 4, dtype=np.float32),
    "wz": np.zeros(4, dtype=np.int8),
    "s": np.array(0.03, dtype=np.float32),
    "z": np.array(128, dtype=np.uint8),
    "two": np.array(2),
    "go": np.array(True),
    "ticks": np.zeros((2, 1), dtype=np.float32),
}
"""All of them initializers of the main graph."""


def _model(kind: str, before: str, body: str) -> bytes:
    text = BODIES[kind].format(shape=SHAPE, body=body)
    flag, runs = (", bool c", "") if kind == "If" else ("", "2,")
    ends = f"({SHAPE} x{flag}) => (float[{runs}1,4,8,8] y)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {ends} {{ {before} {text} }}')
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in CONSTANTS.items())
    return bytes(model.SerializeToString())


def _inside(graph: Any) -> Iterator[str]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from (n.op_type for n in attribute.g.node if "Conv" in n.op_type)


def _bodies() -> Rows:
    rows = [["body of", "stands in the main graph", "in the body, at ALL", "largest difference to OFF"]]
    feeds = {"x": np.random.default_rng(1).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)}
    for kind in BODIES:
        given = {**feeds, "c": np.array(True)} if kind == "If" else feeds
        for form, (before, body) in FORMS.items():
            model = _model(kind, before, body)
            with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
                path = Path(folder) / "o.onnx"
                fused = Session(model, level=Level.ALL, threads=1, save_optimized=path)
                found = collections.Counter(_inside(onnx.load(path).graph))
            exact = Session(model, level=Level.OFF, threads=1).run(given)["y"]
            apart = float(np.abs(fused.run(given)["y"] - exact).max())
            rows.append([kind, form, ", ".join(sorted(found)), f"{apart:.2g}"])
    return rows


FACTS = (
    Fact(
        name="bodies",
        says=(
            "Inside bodies, ORT fuses as in the main graph, with scales that are initializers of the main graph, too. "
            "It does not look through the wall: a DQ must stand in the body; its integers may come from outside."
        ),
        rows=_bodies,
        used=("onnxq/plan/plan.py", "passes/onnxq_passes/insert_qdq.py"),
    ),
)
