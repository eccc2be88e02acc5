"""Public complaints about graphs that other tools break or refuse, each with the test that makes it impossible here.

| complaint | test |
|---|---|
| models over 2 GB (onnxruntime #7017, onnx #6150) | tests/ir/test_save.py::test_over_two_gigabytes |
| failing shape inference stops the job (onnxruntime #10484, #19997, #20060) | test_shapes_that_cannot_be_inferred, test_contradicting_shapes, tests/ir/test_shapes.py |
| bodies of If and Loop stay float without a word (onnxruntime #8488) | test_bodies_are_left_float_with_a_reason |
| local functions stay float (onnxruntime #8488) | test_local_functions_are_quantized |
| shared weights break (onnxruntime #21277, #24705) | test_one_weight_of_two_convs, test_an_embedding_that_is_the_output_matrix, too |
| name clashes, duplicate names (onnxruntime #17760, #14142, #24705, #7977, #9573) | test_names_that_are_taken_already, test_duplicate_and_empty_node_names |
| unnamed nodes cannot be excluded, "" excludes all of them (onnxruntime #19503, #12556) | test_unnamed_nodes_can_be_kept_float, test_an_empty_pattern_excludes_nothing |
| fp16 models give type errors (onnxconverter-common #252, #207; onnxruntime #14827) | test_fp16_weights, test_fp16_graph |
| old opsets become invalid by per-channel weights | test_old_opsets, test_an_opset_that_cannot_be_left |
| weights that are graph inputs are not constant | test_weights_that_are_listed_as_inputs, tests/test_quantization.py |
| int8 is slower, and nobody says why (onnxruntime #20052, #17389, #16009) | test_slower_than_float_is_said |
| version pins keep tools apart | test_no_upper_bounds |
"""  # noqa: E501

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import whole
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxq.driver
from onnxq.config.job import Job
from onnxq.errors import UnknownNameError
from onnxq.quantization import Quantized
from onnxq.runtime.session import Level
from onnxq.validate.latency import Latency

X = {"x": (1, 4, 6, 6)}


def _w(*shape: int, seed: int = 1, scale: float = 0.3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def _good(model: onnx.ModelProto, samples: Any, made: Quantized, least: float = 25.0) -> bytes:
    """Valid, loads at every level, near the float model, same inputs and outputs."""
    out = whole.file(made)
    exact = whole.run(model, samples)
    for level in Level:
        near = whole.run(out, samples, level)
        for name in exact[0]:
            assert near[0][name].dtype == exact[0][name].dtype
            assert whole.sqnr(exact, near, name) > least, (level, name)
    after = onnx.load_from_string(out)
    assert [i.name for i in after.graph.output] == [o.name for o in model.graph.output]
    return out


def _decided(made: Quantized, op: str) -> list[bool]:
    return [d.integer for d in made.plan.decisions.values() if d.op == op]


def test_shapes_that_cannot_be_inferred() -> None:
    """onnxruntime #10484, #20060: an op that shape inference does not know ends the job."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float y) { g = com.microsoft.QuickGelu(x) c = Conv(g, w) y = Relu(c) }",
        {"w": _w(4, 4, 3, 3)},
    )
    model.graph.output[0].CopyFrom(whole.info("y", [None] * 4))
    samples = whole.normal(3, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True]
    _good(model, samples, made)


def test_contradicting_shapes() -> None:
    """onnxruntime #19997: shapes in the file that are not true."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,a,b] y) { c = Conv(x, w) r = Relu(c) y = Conv(r, w) }", {"w": _w(4, 4, 3, 3)}
    )
    model.graph.value_info.extend([whole.info("c", [1, 4, 5, 5]), whole.info("r", ["batch", 4, 4, 9])])
    samples = whole.normal(3, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True]
    out = whole.file(made)
    assert whole.sqnr(whole.run(out, samples), whole.run(out, samples, Level.ALL), "y") > 40


def test_bodies_are_quantized() -> None:
    """onnxruntime #8488: left float without a word."""
    model = whole.model(
        "(float[1,4,6,6] x, bool c) => (float[1,4,6,6] y) { p = Conv(x, w) "
        "y = If (c) <then_branch = t () => (float[1,4,6,6] a) { a = Conv(p, w) }, "
        "else_branch = e () => (float[1,4,6,6] b) { b = Neg(p) }> }",
        {"w": _w(4, 4, 1, 1)},
    )
    samples = [{**s, "c": np.array(i % 2 == 0)} for i, s in enumerate(whole.normal(4, **X))]
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True]
    _good(model, samples, made)


def test_local_functions_are_quantized() -> None:
    """onnxruntime #8488, for functions: what PyTorch exports module by module."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "local": 1]> '
        "g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { h = local.block(x, w) y = local.block(h, w) }"
        '<opset_import: ["": 17], domain: "local"> block (a, b) => (c) { d = Conv(a, b) c = Relu(d) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(_w(4, 4, 1, 1), "w"))
    samples = whole.normal(4, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True]
    _good(model, samples, made)


def test_one_weight_of_two_convs() -> None:
    """onnxruntime #21277: one initializer, two users, one of them broken."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Conv(x, w, b) t = Tanh(a) y = Conv(t, w, b) }",
        {"w": _w(4, 4, 1, 1), "b": _w(4)},
    )
    samples = whole.normal(4, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True]
    out = onnx.load_from_string(_good(model, samples, made))
    assert [i.name for i in out.graph.initializer if i.data_type == TensorProto.INT8 and i.dims[:2] == [4, 4]] == [
        "w_quantized"
    ]


def test_an_embedding_that_is_the_output_matrix_too() -> None:
    """onnxruntime #24705: the table of Gather, transposed, is the weight of the last MatMul."""
    model = whole.model(
        "(int64[1,5] ids) => (float[1,5,20] y) { e = Gather(table, ids) h = MatMul(e, w) "
        "t = Transpose<perm = [1, 0]>(table) y = MatMul(h, t) }",
        {"table": _w(20, 16), "w": _w(16, 16)},
    )
    random = np.random.default_rng(0)
    samples = [{"ids": random.integers(0, 20, (1, 5))} for _ in range(6)]
    made = whole.quantized(model, samples)
    assert _decided(made, "MatMul") == [True, True]
    assert _decided(made, "Gather") == [False]  # the table keeps its float values
    _good(model, samples, made)


def test_names_that_are_taken_already() -> None:
    """onnxruntime #17760, #24705: the names that a quantizer makes up exist in the model."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,6,6] x_quantized) { "
        "[x_QuantizeLinear] x_dequantized = Conv(x, w) [w_DequantizeLinear] x_scale = Relu(x_dequantized) "
        "[x] x_zero_point = Conv(x_scale, w_quantized) [w] x_quantized = Add(x_zero_point, w_scale) }",
        {"w": _w(4, 4, 1, 1), "w_quantized": _w(4, 4, 1, 1, seed=2), "w_scale": _w(4, 1, 1)},
    )
    samples = whole.normal(4, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True]
    _good(model, samples, made)


def test_duplicate_and_empty_node_names() -> None:
    """onnxruntime #14142, #7977, #9573. ONNX Runtime takes a name twice in two graphs only."""
    model = whole.model(
        "(float[1,4,6,6] x, bool f) => (float[1,4,6,6] y) { [n] a = Conv(x, w) b = Relu(a) c = Conv(b, w) "
        "y = If (f) <then_branch = t () => (float[1,4,6,6] d) { [n] d = Conv(c, w) }, "
        "else_branch = e () => (float[1,4,6,6] d) { [n] d = Neg(c) }> }",
        {"w": _w(4, 4, 1, 1)},
    )
    samples = [{**s, "f": np.array(True)} for s in whole.normal(4, **X)]
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True, True, True]
    out = onnx.load_from_string(_good(model, samples, made))
    inner = [n for node in out.graph.node for a in node.attribute if a.HasField("g") for n in a.g.node]
    names = [n.name for n in [*out.graph.node, *inner]]
    assert len(set(names)) == len(names) and all(names)


TWO = "(float[1,4,6,6] x) => (float[1,4,6,6] y) { a = Conv(x, w) t = Tanh(a) y = Conv(t, w) }"


@pytest.mark.parametrize("pattern", ["Conv_2", "y", "*_2"])
def test_unnamed_nodes_can_be_kept_float(pattern: str) -> None:
    """onnxruntime #12556: by the name that reports call it, or by the name of what it makes."""
    made = whole.quantized(whole.model(TWO, {"w": _w(4, 4, 1, 1)}), whole.normal(3, **X), keep_float=[pattern])
    assert _decided(made, "Conv") == [True, False]


@pytest.mark.parametrize("pattern", ["", "conv_2", "Conv_", "nothing"])
def test_an_empty_pattern_excludes_nothing(pattern: str) -> None:
    """onnxruntime #19503: "" excludes every unnamed node. A pattern that fits nothing is a mistake, and said."""
    with pytest.raises(UnknownNameError, match=f'--keep-float "{pattern}" is no node'):
        whole.quantized(whole.model(TWO, {"w": _w(4, 4, 1, 1)}), whole.normal(3, **X), keep_float=[pattern])


def test_fp16_weights() -> None:
    """Halved files: fp16 initializers behind Cast."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,6,6] y) { f = Cast<to = 1>(w) a = Conv(x, f) y = Relu(a) }",
        {"w": _w(4, 4, 1, 1).astype(np.float16)},
    )
    samples = whole.normal(3, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True]
    _good(model, samples, made)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_fp16_graph(target: str) -> None:
    """onnxconverter-common #252, #207, #208; onnxruntime #14827: type errors, worst in If."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float16[1,4,6,6] x, bool c) => (float16[1,4,6,6] y) '
        "{ a = Conv(x, w) r = Relu(a) "
        "z = If (c) <then_branch = t () => (float16[1,4,6,6] p) { p = Tanh(r) }, "
        "else_branch = e () => (float16[1,4,6,6] q) { q = Identity(r) }> y = Conv(z, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(_w(4, 4, 1, 1).astype(np.float16), "w"))
    samples = [{"x": s["x"].astype(np.float16), "c": np.array(i % 2 == 0)} for i, s in enumerate(whole.normal(4, **X))]
    made = whole.quantized(model, samples, target)
    assert _decided(made, "Conv") == [True, True]
    out = onnx.load_from_string(_good(model, samples, made))
    assert out.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert out.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def _old(opset: int) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, Conv as exporters of the day wrote them."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w"], ["y"], "conv2", pads=[1, 1, 1, 1]),
    ]
    weights = {"w": _w(4, 4, 3, 3), "s": _w(4) + 1, "b": _w(4), "m": _w(4), "v": np.abs(_w(4)) + 1}
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [whole.info("x", [1, 4, 6, 6]), *(whole.info(k, v.shape) for k, v in weights.items())],
        [whole.info("y", [1, 4, None, None])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


@pytest.mark.parametrize("opset", [7, 8, 9])
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_old_opsets(opset: int, target: str) -> None:
    """ORT writes DequantizeLinear with `axis` into opset 9: invalid. IR 3 lists weights as inputs besides."""
    model = _old(opset)
    samples = whole.normal(4, **X)
    made = whole.quantized(model, samples, target)
    assert _decided(made, "Conv") == [True, True]
    out = onnx.load_from_string(_good(model, samples, made))
    assert out.opset_import[0].version == 21
    assert [i.name for i in out.graph.input] == ["x"]


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_an_opset_that_cannot_be_left(target: str) -> None:
    """This Resize cannot be said after opset 10, and DequantizeLinear has no axis there: one scale per weight."""
    model = whole.model(
        "(float[1,4,6,6] x) => (float[1,4,a,b] y) <float[4] s = {1, 1, 2.0, 0.7}> "
        "{ c = Conv(x, w, k) r = Relu(c) p = MaxPool <kernel_shape = [2, 2]> (r) d = Conv(p, w, k) y = Resize(d, s) }",
        {"w": _w(4, 4, 1, 1), "k": _w(4)},
        opset=10,
    )
    samples = whole.normal(4, **X)
    made = whole.quantized(model, samples, target)
    assert _decided(made, "Conv") == [True, True]
    out = onnx.load_from_string(_good(model, samples, made))
    assert out.opset_import[0].version == 10
    assert not [n for n in out.graph.node if n.op_type == "DequantizeLinear" and n.attribute]


def test_weights_that_are_listed_as_inputs() -> None:
    """Old exporters; other tools take such weights for activations."""
    model = whole.model(
        "(float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { y = Conv(x, w) }", {"w": _w(4, 4, 1, 1)}
    )
    samples = whole.normal(3, **X)
    made = whole.quantized(model, samples)
    assert _decided(made, "Conv") == [True]
    assert any('could be fed as an input became constant ("w")' in note for note in made.notes)
    assert [i.name for i in onnx.load_from_string(_good(model, samples, made)).graph.input] == ["x"]


@pytest.mark.parametrize("speedup", [0.5, 2.0])
def test_slower_than_float_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speedup: float) -> None:
    """onnxruntime #20052, #17389, #16009, #12854, #6732, #5865, #2969: users find out by themselves."""

    def measure(*_: object, threads: int, **__: object) -> Latency:
        return Latency(
            threads=threads, pairs=9, inner=1, reference_ms=1.0, candidate_ms=1 / speedup, speedup=speedup,
            speedup_low=speedup, speedup_high=speedup, noisy=False, seconds=0.1,
        )  # fmt: skip

    monkeypatch.setattr(onnxq.driver, "measure", measure)
    job = Job(model=tiny.save_classifier(tmp_path / "m.onnx")).with_overrides(
        output=tmp_path / "o.onnx",
        calib=str(tiny.save_samples(tmp_path / "d.npz")),
        threads=1,
        placement="rules",
    )
    said = [n for n in onnxq.driver.quantize(job).notes if "slower" in n]
    assert bool(said) == (speedup < 1)
    if said:
        assert "0.50x at 1 thread" in said[0] and "conversion" in said[0]


def test_no_upper_bounds() -> None:
    """Pins are what keeps two tools out of one environment. (The extras `dev`, `oracles` and `mutation` may have some:
    only the Makefile of a checkout installs them, and what they rely on changes with releases.)"""
    tools = {"dev", "oracles", "mutation"}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert tools < set(extras)
    wanted = [*project["dependencies"], *(d for name, group in extras.items() if name not in tools for d in group)]
    assert not [d for d in wanted if "<" in d or "==" in d or "~=" in d]
    assert "<" not in project["requires-python"]
