"""Layers: which tensors are compared, what the figures mean, and where the histograms come from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from convolutions import Net
from onnx import parser

from onnxq.ir import load
from onnxq.ir.save import to_bytes
from onnxq.stats.observers import Histogram, MinMax
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.testing import default_context
from onnxq.validate.layers import BINS, Layers, layers
from onnxq_passes.stack_rows import StackRows

FLOAT = """<ir_version: 10, opset_import: ["": 21]> g (float[1, 8] x) => (float[1, 8] y) {
    a = Relu(x) b = Neg(a) y = Relu(b) }"""
QUANTIZED = """<ir_version: 10, opset_import: ["": 21]> g (float[1, 8] x) => (float[1, 8] y)
    <float s = {SCALE}, uint8 z = {0}, float t = {0.01}, int8 n = {0}> {
    xq = QuantizeLinear(x, t, n) xd = DequantizeLinear(xq, t, n)
    a = Relu(xd)
    aq = QuantizeLinear(a, s, z) ad = DequantizeLinear(aq, s, z)
    b = Neg(ad) y = Relu(b) }"""


def save(folder: Path, scale: str = "0.01", quantized: str = QUANTIZED) -> tuple[Path, Path]:
    paths = folder / "float.onnx", folder / "int8.onnx"
    for path, text in zip(paths, (FLOAT, quantized.replace("SCALE", scale)), strict=True):
        onnx.save(parser.parse_model(text), path)
    return paths


def samples(peak: float = 1.0) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [{"x": (random.uniform(-1, peak, (1, 8))).astype(np.float32)} for _ in range(4)]


def test_figures_of_a_quantized_tensor_are_those_of_the_definition(tmp_path: Path) -> None:
    found = layers(*save(tmp_path), samples())
    assert [(t.tensor, t.op, t.type) for t in found.tensors] == [("x", "input", "int8"), ("a", "Relu", "uint8")]
    x = np.concatenate([s["x"].ravel() for s in samples()]).astype(np.float64)
    behind = np.maximum(np.clip(np.round(x / 0.01), -128, 127) * 0.01, 0)
    exact = np.maximum(x, 0)
    a = found.tensors[1]
    assert a.sqnr_db == pytest.approx(10 * math.log10((exact**2).sum() / ((exact - behind) ** 2).sum()), abs=0.01)
    assert a.own_sqnr_db > a.sqnr_db + 40  # x brought the error in: a has the same steps
    assert (a.low, a.high) == pytest.approx((0.0, 2.55))
    assert a.elements == 32 and a.clipped == 0.0 and (a.least, a.greatest) == (0.0, pytest.approx(exact.max()))
    assert found.samples == 4 and found.notes == ()


def test_a_wrong_scale_is_seen_where_it_is(tmp_path: Path) -> None:
    x, a = layers(*save(tmp_path, "0.001"), samples()).tensors
    assert x.own_sqnr_db > 30 > 15 > a.own_sqnr_db
    assert a.clipped > 0.2 and x.clipped == 0.0
    right = layers(*save(tmp_path), samples()).tensors[1]
    assert right.own_sqnr_db > 30 and right.clipped == 0.0


def test_values_within_half_a_step_of_the_bound_are_not_clipped(tmp_path: Path) -> None:
    paths = save(tmp_path)  # steps of 0.01, from -1.28 to 1.27
    for value, clipped in ((1.27, 0.0), (1.274, 0.0), (1.276, 1.0), (-1.284, 0.0), (-1.286, 1.0)):
        found = layers(*paths, [{"x": np.full((1, 8), value, np.float32)}])
        assert (found.tensors[0].tensor, found.tensors[0].clipped) == ("x", clipped), value


def test_the_worst_come_first_with_the_range_inside(tmp_path: Path) -> None:
    found = layers(*save(tmp_path, "0.001"), samples())
    assert [h.tensor for h in found.histograms] == ["a", "x"]
    worst = found.histograms[0]
    assert (worst.low, worst.high) == pytest.approx((0.0, 0.255))
    assert len(worst.edges) == BINS + 1 and len(worst.counts) == BINS and sum(worst.counts) == 32
    assert worst.edges[0] <= worst.low < worst.high < worst.edges[-1]  # clipped: values go on behind the range
    assert worst.source == "samples"
    assert len(layers(*save(tmp_path), samples(), worst=1).histograms) == 1


def test_histograms_of_the_calibration_are_taken_where_there_are_any(tmp_path: Path) -> None:
    many = Histogram()
    for _ in range(9):
        many.update(np.linspace(0, 1, 100, dtype=np.float32))
    seen = {
        "a": TensorStatistics("a", {"minmax": MinMax(), "histogram": many}),
        "x": TensorStatistics("x", {"minmax": MinMax()}),
    }
    found = layers(*save(tmp_path), samples(), statistics=Statistics(model_hash="", samples=9, tensors=seen))
    assert {h.tensor: (h.source, sum(h.counts)) for h in found.histograms} == {
        "a": ("calibration", 900),
        "x": ("samples", 32),
    }


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (("xd = DequantizeLinear(xq, t, n)", "xd = Identity(x)"), ["a"]),  # Q that leads nowhere
        (("a = Relu(xd)\n", "other = Relu(xd)\n"), None),  # the float model has no such tensor
        (("float t = {0.01}", "float u = {0.01}"), None),  # the scale is made at run time
    ],
)
def test_what_is_no_quantized_tensor_of_both_is_left_out(
    tmp_path: Path, change: tuple[str, str], kept: list[str] | None
) -> None:
    text = QUANTIZED.replace(*change)
    if "other" in change[1]:
        text, kept = text.replace("QuantizeLinear(a, s, z)", "QuantizeLinear(other, s, z)"), ["x"]
    if "float u" in change[1]:
        text, kept = text.replace("    xq =", "    t = Identity(u) xq ="), ["a"]
    assert [t.tensor for t in layers(*save(tmp_path, quantized=text), samples()).tensors] == kept


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    reference, candidate = save(tmp_path)
    nothing = layers(reference, reference, samples())
    assert nothing.tensors == () and nothing.notes == (
        "Layers were not compared: no tensor of the float model stands before a Q/DQ pair in the file.",
    )
    assert layers(reference, candidate, []) == Layers(
        samples=0, notes=("Layers were not compared: no sample was given.",)
    )
    wrong = layers(reference, candidate, [{"x": np.zeros((2, 3, 4), np.float32)}])
    assert wrong.tensors == () and wrong.notes[0].startswith("Layers were not compared: ONNX Runtime ")


def test_a_picture_whose_rows_are_stacked_is_compared_as_it_was(tmp_path: Path) -> None:
    """Behind `stack-rows` no DequantizeLinear has its shape: its integers say the same."""
    g = Net()
    g.out(g.conv(g.data(2, 1, 9, 10), 1, 16))
    candidate = load.from_proto(onnx.shape_inference.infer_shapes(g.model(), strict_mode=True))
    plain, stacked, reference = (tmp_path / f"{name}.onnx" for name in ("plain", "stacked", "float"))
    plain.write_bytes(to_bytes(candidate.copy()))
    assert StackRows().run(candidate.graph, default_context()).rewrites == 1
    stacked.write_bytes(to_bytes(candidate))
    source = '<ir_version: 8, opset_import: ["" : 21]> g (float[2,1,9,10] x0) => (float[2,1,9,10] y) { y = Neg(x0) }'
    onnx.save(parser.parse_model(source), reference)
    one, other = (layers(reference, file, [g.feeds]).tensors for file in (plain, stacked))
    assert [t.tensor for t in one] == [t.tensor for t in other] == ["x0"]
    assert (other[0].elements, other[0].clipped) == (180, one[0].clipped)
    assert other[0].own_sqnr_db == pytest.approx(one[0].own_sqnr_db, abs=1e-4)
    assert 10 < one[0].own_sqnr_db < 60
