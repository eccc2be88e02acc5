"""What stays float computes in float16 for TensorRT, and what would not survive that stays float32, with a reason."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from quantized import Result, quantize_text

from onnxq.config.job import Job
from onnxq.driver import quantize
from onnxq.errors import PassError, UsageError
from onnxq.ir.load import load
from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse, text
from onnxq.pipeline.base import Context, Report
from onnxq.plan.check import check
from onnxq.plan.plan import Plan
from onnxq.runtime.session import Level, Session
from onnxq.targets.target import load_target
from onnxq_passes.float_to_half import FloatToHalf

RNG = np.random.default_rng(11)
X = RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
MODELS = Path(__file__).parents[2] / "models"
HALF = load_target("tensorrt", float_type="float16")
Array = NDArray[Any]


def run(
    body: str, *, ins: str = "float[1,4,8,8] x", outs: str = "float[1,4,8,8] y", inits: str = "", opset: int = 21,
    inputs: Mapping[str, Array] | None = None, constants: Mapping[str, Array] | None = None,
) -> Result:  # fmt: skip
    """Quantized, with the rest in float16."""
    declared = f"<{inits}>" if inits else ""
    source = f'<ir_version: 10, opset_import: ["": {opset}]> g ({ins}) => ({outs}) {declared} {{ {body} }}'
    feeds = {"x": X} if inputs is None else inputs
    return quantize_text(source, inputs=feeds, constants=constants, target=HALF, then=(FloatToHalf(),))


def nodes(result: Result) -> list[onnx.NodeProto]:
    return list(onnx.load_from_string(result.file).graph.node)


def why(result: Result, op: str) -> str:
    """The reason why the first op of a type computes in float32; "" if it computes in float16."""
    assert any(n.op_type == op for n in nodes(result))
    return next((r for name, r in result.plan.singles.items() if name.startswith(f"{op}_")), "")


def in_half(file: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """As numpy computes float16: ONNX Runtime's CPU takes detours through float32."""
    evaluator: Any = ReferenceEvaluator(onnx.load_from_string(file))
    with np.errstate(over="ignore"):
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))


def near(result: Result, *, rtol: float = 0.01) -> None:
    """The outputs keep their types and the float model's values, in ONNX Runtime and where float16 is computed as such."""
    exact = result.run(original=True)
    forms = [result.run(Level.ALL)]
    if onnx.load_from_string(result.file).opset_import[0].version >= 19:
        forms.append(in_half(result.file, result.inputs))
    for got in forms:
        for name, value in exact.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_allclose(got[name], value, rtol=0, atol=rtol * float(np.abs(value).max()))


def kinds(result: Result) -> dict[str, int]:
    """Initializer -> its type."""
    return {i.name: i.data_type for i in onnx.load_from_string(result.file).graph.initializer}


RESIDUAL = (
    "a = Conv <pads = [1,1,1,1]> (x, W, b) r = Relu(a) c = Conv <pads = [1,1,1,1]> (r, W) s = Add(c, x) y = Erf(s)"
)
WEIGHTS = "float[4,4,3,3] W = {0}, float[4] b = {0.1, -0.2, 0.3, 0}"


def test_all_that_stays_float_is_half(tmp_path: Any) -> None:
    result = run(RESIDUAL, inits=WEIGHTS)
    assert not result.plan.singles
    near(result, rtol=0.03)  # int8 is in it, too
    types = kinds(result)
    assert TensorProto.FLOAT16 in types.values() and types["b_half"] == TensorProto.FLOAT16
    assert all(kind != TensorProto.FLOAT or name.endswith("_scale") for name, kind in types.items())
    casts = [n for n in nodes(result) if n.op_type == "Cast"]
    assert [(n.attribute[0].i, n.output[0]) for n in casts] == [(TensorProto.FLOAT, "y")]  # a Q reads x as it is
    (tmp_path / "o.onnx").write_bytes(result.file)
    assert check(load(tmp_path / "o.onnx"), HALF) == []


def test_scales_of_a_pair_agree() -> None:
    proto = onnx.load_from_string(run(RESIDUAL, inits=WEIGHTS).file)
    values = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    made = {n.output[0]: n for n in proto.graph.node}
    pairs = 0
    for node in proto.graph.node:
        before = made.get(node.input[0])
        if node.op_type == "DequantizeLinear" and before is not None and before.op_type == "QuantizeLinear":
            assert float(values[node.input[1]]) == float(values[before.input[1]])
            pairs += 1
    assert pairs == 2


def test_half_is_near_the_float_form_of_the_same_plan() -> None:
    source = f'<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) <{WEIGHTS}> {{ {RESIDUAL} }}'
    singles = quantize_text(source, inputs={"x": X}, target="tensorrt").run(Level.OFF)["y"]
    halves = run(RESIDUAL, inits=WEIGHTS).run(Level.OFF)["y"]
    # a rounding of what a Q reads may move it by a step
    assert float(np.abs(halves - singles).max()) < 0.03
    assert float(np.abs(halves - singles).mean()) < 0.002


# ranges


@pytest.mark.parametrize(("gain", "single"), [(5.0, True), (2.0, False)])
def test_results_beyond_half(gain: float, single: bool) -> None:
    body = "a = Mul(x, g) e = Exp(a) l = Log(e) y = Neg(l)"
    result = run(body, inits=f"float g = {{{gain}}}", inputs={"x": np.clip(np.abs(X), 0.1, 3)})
    assert ("float16 ends at 65504" in why(result, "Exp")) == single
    assert ("e comes to" in why(result, "Log")) == single
    assert not why(result, "Mul") and not why(result, "Neg")
    near(result)


def test_half_overflows_where_nothing_keeps_it_single() -> None:
    """What the rule is for: without reasons, the same net gives infinities."""
    body = "a = Mul(x, g) e = Exp(a) l = Log(e) y = Neg(l)"
    model = parse(
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) '
        f"<float g = {{5}}> {{ {body} }}"
    )
    result = run(body, inits="float g = {5}", inputs={"x": np.clip(np.abs(X), 0.1, 3)})
    plan = type(result.plan)(values={}, uses={}, decisions={})
    for index, node in enumerate(model.graph.nodes):
        node.name = f"n{index}"
    FloatToHalf().run(model.graph, Context(target=HALF, plan=plan))
    got = in_half(to_bytes(model), result.inputs)["y"]
    assert np.isinf(got).any()


@pytest.mark.parametrize(("size", "single"), [(64, True), (4, False)])
def test_sums_that_overflow_on_the_way(size: int, single: bool) -> None:
    x = np.abs(RNG.normal(0, 1, (1, 4, size, size))).astype(np.float32) * 30
    body = "m = ReduceMean <keepdims = 1> (x, axes) y = Sub(x, m)"
    shape = f"float[1,4,{size},{size}]"
    inits = "int64[2] axes = {2, 3}"
    result = run(body, ins=f"{shape} x", outs=f"{shape} y", inits=inits, inputs={"x": x})
    assert ("on the way" in why(result, "ReduceMean")) == single
    near(result)


@pytest.mark.parametrize(("epsilon", "single"), [("1e-12", True), ("1e-5", False)])
def test_an_epsilon_that_is_lost(epsilon: str, single: bool) -> None:
    body = f"y = LayerNormalization <epsilon = {epsilon}> (x, g)"
    result = run(body, inits="float[8] g = {1,1,1,1,1,1,1,1}")
    assert ("its epsilon" in why(result, "LayerNormalization")) == single
    near(result)


def test_numbers_that_are_nothing_in_half_and_divide() -> None:
    body = "q = Mul(x, x) t = Mul(q, tiny) a = Add(t, e) s = Sqrt(a) y = Div(t, s)"
    result = run(body, inits="float tiny = {0.000000001}, float e = {0.000000000001}")
    assert "float16 has all its bits" in why(result, "Div") and "its constant e" in why(result, "Add")
    assert "comes to" in why(result, "Sqrt")
    near(result)
    fine = run(body, inits="float tiny = {0.5}, float e = {0.01}")
    assert not fine.plan.singles
    near(fine)


def test_small_denominators_among_large_ones() -> None:
    x = X.copy()
    x[0, 0, 0, 0] = 1e-7
    result = run("a = Abs(x) y = Div(x, a)", inputs={"x": x})
    assert "leave nothing to divide by" in why(result, "Div")
    near(result)
    assert not run("a = Abs(x) y = Div(x, a)", inputs={"x": np.where(np.abs(X) < 0.01, 1, X)}).plan.singles


def test_positions_stay_exact() -> None:
    body = "p = Cast <to = 1> (i) h = Mul(p, half) f = Floor(h) y = Cast <to = 7> (f) z = Erf(x)"
    result = run(
        body, ins="float[4] x, int64[4] i", outs="int64[4] y, float[4] z", inits="float half = {0.5}",
        inputs={"x": X.reshape(-1)[:4], "i": np.array([4097, 5001, 9999, 3])},
    )  # fmt: skip
    assert {r for r in result.plan.singles.values() if "becomes integers" in r}
    np.testing.assert_array_equal(result.run(Level.ALL)["y"], [2048, 2500, 4999, 1])
    assert not why(result, "Erf")


def test_an_attention_mask_becomes_the_lowest_number() -> None:
    body = "c = Cast <to = 1> (keep) n = Sub(one, c) m = Mul(n, low) s = Add(x, m) y = Softmax(s)"
    keep = np.ones((1, 1, 1, 8), dtype=np.int64)
    keep[..., 6:] = 0
    result = run(
        body, ins="float[1,4,8,8] x, int64[1,1,1,8] keep", inits="float one = {1}, float low = {-3.4e38}",
        inputs={"x": X, "keep": keep},
    )  # fmt: skip
    got = result.run(Level.ALL)["y"]
    assert not got[..., 6:].any() and np.isfinite(got).all()
    near(result)


# forms


def test_inputs_that_are_float32_by_definition() -> None:
    body = "r = Resize(x, , scales) y = Erf(r)"
    result = run(body, outs="float[1,4,16,16] y", inits="float[4] scales = {1, 1, 2, 2}")
    assert kinds(result)["scales"] == TensorProto.FLOAT and not result.plan.singles
    near(result)


def test_ops_without_a_form_in_half() -> None:
    result = run(
        "b = Erf(x) i = NonMaxSuppression(b, s) y = Cast <to = 1> (i)",
        ins="float[1,8,4] x", outs="float[n,3] y", inits="float[1,1,8] s = {1,2,3,4,5,6,7,8}", inputs={"x": X[:, :, 0].reshape(1, 8, 4)},
    )  # fmt: skip
    assert why(result, "NonMaxSuppression") == "NonMaxSuppression has no form in float16"
    assert not why(result, "Erf")
    np.testing.assert_array_equal(result.run(Level.ALL)["y"], result.run(original=True)["y"])


def test_bodies_stay_single() -> None:
    body = (
        "a = Erf(x) y = If (c) <then_branch = t () => (float[1,4,8,8] p) { q = Exp(a) p = Neg(q) }, "
        "else_branch = f () => (float[1,4,8,8] r) { r = Abs(a) }> z = Neg(a)"
    )
    result = run(
        body,
        ins="float[1,4,8,8] x, bool c",
        outs="float[1,4,8,8] y, float[1,4,8,8] z",
        inputs={"x": X, "c": np.array(True)},
    )
    assert why(result, "If") == "If has no form in float16" and not why(result, "Erf")
    near(result)


def test_a_tensor_that_no_sample_reached() -> None:
    source = '<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[4] y) { a = Erf(x) y = Neg(a) }'
    result = quantize_text(source, target=HALF, unreached=["a"], then=(FloatToHalf(),))
    assert "no sample reached a" in why(result, "Neg")


def test_constants_of_shape() -> None:
    body = "s = Shape(x) o = ConstantOfShape(s) y = Add(x, o)"
    result = run(body)
    near(result)
    assert not result.plan.singles


def test_channels_of_zeros_may_have_any_scale() -> None:
    weights = RNG.normal(0, 0.1, (4, 4, 1, 1)).astype(np.float32)
    weights[2] = 0
    result = run("y = Conv(x, W)", inits="float[4,4,1,1] W = {0}", constants={"W": weights})
    assert TensorProto.FLOAT16 in kinds(result).values()
    near(result, rtol=0.03)
    conv = next(n for n in nodes(result) if n.op_type == "Conv")
    made = {n.output[0]: n.op_type for n in nodes(result)}
    assert [made[i] for i in conv.input] == ["DequantizeLinear"] * 2


def test_scales_that_half_does_not_hold() -> None:
    """Weights of 1e-5: their scale would keep few bits, so the op stays float32, right behind its DQ."""
    weights = RNG.normal(0, 1e-5, (4, 4, 1, 1)).astype(np.float32)
    result = run(
        "a = Conv(x, W) y = Mul(a, g)", inits="float[4,4,1,1] W = {0}, float g = {10000}", constants={"W": weights}
    )
    conv = next(n for n in nodes(result) if n.op_type == "Conv")
    made = {n.output[0]: n for n in nodes(result)}
    for name in conv.input:
        assert made[name].op_type == "DequantizeLinear"
    assert kinds(result)[made[conv.input[1]].input[1]] == TensorProto.FLOAT
    near(result, rtol=0.03)


def test_before_opset_19_what_reads_a_dq_stays_single() -> None:
    result = run(RESIDUAL, inits=WEIGHTS, opset=17)
    scales = [n.input[1] for n in nodes(result) if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(kinds(result)[s] == TensorProto.FLOAT for s in scales)
    near(result, rtol=0.03)
    assert any(n.op_type == "Cast" for n in nodes(result))


# whole models


@pytest.mark.parametrize("name", ["fashion-vit", "fashion-mobilenet"])
def test_a_real_model_computed_in_half(name: str, tmp_path: Path) -> None:
    model, calib = MODELS / name / "model.onnx", MODELS / "fashion-mnist" / "calib.npz"
    job = Job(model=model, target="tensorrt", float_type="float16").with_overrides(
        calib=str(calib), calib_limit=4, method="minmax", validate=False, threads=1, output=tmp_path / "o.onnx"
    )
    result = quantize(job)
    assert any("computes in float16" in note for note in result.notes)
    assert check(load(tmp_path / "o.onnx"), HALF) == []
    inputs = {"image": np.load(calib)["image"][:1]}
    (exact,) = Session(model, level=Level.OFF, threads=1).run(inputs).values()
    (got,) = in_half((tmp_path / "o.onnx").read_bytes(), inputs).values()
    noise = float(((exact - got) ** 2).sum() / (exact**2).sum())
    assert -10 * np.log10(noise) > 20
    types = [i.data_type for i in onnx.load(tmp_path / "o.onnx").graph.initializer]
    assert types.count(TensorProto.FLOAT16) > 4 * types.count(TensorProto.FLOAT)


def test_what_onnx_runtime_would_make_of_biases(tmp_path: Path) -> None:
    """It computes bias / (sx * sw) in float16: beyond 65,504 that is infinite. The file says so, and Session minds it."""
    weights = ", ".join(f"{v:.6f}" for v in RNG.normal(0, 0.02, 16))
    source = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) '
        f"<float[4,4,1,1] W = {{{weights}}}, float[4] b = {{3, -2, 5, 1}}> "
        "{ a = Conv(x, W, b) r = Relu(a) y = Conv(r, W) }"
    )
    (tmp_path / "m.onnx").write_bytes(to_bytes(parse(source)))
    np.savez(tmp_path / "calib.npz", x=X)
    job = Job(model=tmp_path / "m.onnx", target="tensorrt", float_type="float16").with_overrides(
        calib=str(tmp_path / "calib.npz"), method="minmax", validate=False, output=tmp_path / "o.onnx"
    )
    quantize(job)
    exact = Session(tmp_path / "m.onnx", threads=1).run({"x": X})["y"]
    peak = float(np.abs(exact).max())
    got = Session(tmp_path / "o.onnx", threads=1).run({"x": X})["y"]
    assert float(np.abs(got - exact).max()) < 0.03 * peak
    plain = onnxruntime.InferenceSession(str(tmp_path / "o.onnx"), providers=["CPUExecutionProvider"]).run(
        None, {"x": X}
    )
    assert not float(np.abs(plain[0] - exact).max()) < 0.3 * peak


# options


def test_nothing_happens_unless_the_target_asks() -> None:
    source = '<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[4] y) { y = Erf(x) }'
    plain = quantize_text(source, target="tensorrt", then=(FloatToHalf(when="target"),))
    assert collections.Counter(n.op_type for n in nodes(plain)) == {"Erf": 1}
    half = quantize_text(source, target=HALF, then=(FloatToHalf(when="target"),))
    assert collections.Counter(n.op_type for n in nodes(half)) == {"Erf": 1, "Cast": 2}


def test_rounded_scales_count_where_nothing_is_half() -> None:
    graph, report = _exactly(
        "(float[4] x) => (float[4] y) <float s = {0.1}, int8 z = {0}> "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [neg] y = Neg(d) }",
        {"neg": "it is asked for"},
    )
    assert report.rewrites == 1
    (scale,) = {float(n.inputs[1].values) for n in graph.nodes if n.op.endswith("izeLinear")}
    assert scale == np.float16(0.1)


@pytest.mark.parametrize(
    ("inputs", "constants"),
    [
        ("float[4] x", "float s = {0.5}, int8 z = {0}"),  # float16 holds it
        ("float[4] x", "float s = {0.000000001}, int8 z = {0}"),  # float16 does not
        ("float[4] x, float s", "int8 z = {0}"),
    ],
)
def test_scales_that_stay_count_for_nothing(inputs: str, constants: str) -> None:
    graph = f"({inputs}) => (float[4] y) <{constants}>"
    body = "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [neg] y = Neg(d) }"
    assert _exactly(f"{graph} {body}", {"neg": "it is asked for"})[1].rewrites == 0


def test_sentences() -> None:
    with pytest.raises(UsageError, match="float_type float16: what stays float on the target cpu computes in float32"):
        load_target("cpu", float_type="float16")
    model = parse('<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[4] y) { y = Erf(x) }')
    with pytest.raises(PassError, match="float-to-half needs a plan"):
        FloatToHalf().run(model.graph, Context(target=HALF))
    result = run("e = Exp(x) y = Neg(e)", inputs={"x": X * 4})
    assert "2 ops compute in float32 in a model of float16: Exp_0: e comes to" in result.plan.notes[-1]
    assert '"singles"' in result.plan.to_json()


# exact forms


def _exactly(source: str, singles: Mapping[str, str]) -> tuple[gs.Graph, Report]:
    model = parse(f'<ir_version: 10, opset_import: ["": 21]> g {source}')
    plan = Plan(values={}, uses={}, decisions={}, singles=dict(singles))
    return model.graph, FloatToHalf().run(model.graph, Context(target=HALF, plan=plan))


EXACT: list[tuple[str, dict[str, str], list[str], int, list[tuple[str, str]]]] = [
    (  # casts
        """(float[2,3] x, int64[2] n, int32[2,3] i) => (float[2,3] y, float[2,3] z, float[2,3] w) <float[3] k = {1,
1000000, -1000000}, float one = {1}, float[2,3] c, float[2,3] q, int32[2,3] r, float[2,3] p, float[2,3] o,
float[2,3] h> { [a] a = Add(x, k) [b] b = Clip(a, , one) [c] c = Mul(b, k) [s] s = Exp(c) [s2] s2 = Sin(c) [t] t
= Sub(s2, s) [u] y = Neg(t) [v] v = Abs(y) [q] q = Cast<to = 1>(i) [r] r = Cast<to = 6>(v) [p] p = Cast<to =
1>(r) [d] d = Mul(p, q) [e] e = Mul(x, d) [o] o = ConstantOfShape<value = float[1] {0.5}>(n) [f] f = Add(e, o)
[l] l = Neg(o) [g] z = Add(l, f) [h] h = ConstantOfShape(n) [j] w = Mul(s, h) }""",
        {"s": "why not", "s2": "nor this", "v": "v is single"},
        [
            'x_half = Cast(x) {to=10} "x_Cast"',
            "const k_half = float16[3] {1.0, 6.55e+04, -6.55e+04}",
            'a = Add(x_half, k_half) "a"',
            "const one_half = float16[] 1.0",
            'b = Clip(a, _, one_half) "b"',
            'c = Mul(b, k_half) "c"',
            'c_float = Cast(c) {to=1} "c_Cast"',
            's = Exp(c_float) "s"',
            's_half = Cast(s) {to=10} "s_Cast"',
            's2 = Sin(c_float) "s2"',
            's2_half = Cast(s2) {to=10} "s2_Cast"',
            't = Sub(s2_half, s_half) "t"',
            'y_half = Neg(t) "u"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            'v = Abs(y) "v"',
            'v_half = Cast(v) {to=10} "v_Cast"',
            'q = Cast(i) {to=10} "q"',
            'r = Cast(v_half) {to=6} "r"',
            'p = Cast(r) {to=10} "p"',
            'd = Mul(p, q) "d"',
            'e = Mul(x_half, d) "e"',
            'o = ConstantOfShape(n) {value=float16[1] {0.5}} "o"',
            'f = Add(e, o) "f"',
            'l = Neg(o) "l"',
            'z_half = Add(l, f) "g"',
            'z = Cast(z_half) {to=1} "z_Cast"',
            'h = ConstantOfShape(n) {value=float16[1] {0.0}} "h"',
            'w_half = Mul(s_half, h) "j"',
            'w = Cast(w_half) {to=1} "w_Cast"',
        ],
        16,
        [("s", "why not"), ("s2", "nor this"), ("v", "v is single")],
    ),
    (  # a reader of a DQ
        """(float[1,4] x, float scale) => (float[1,4] y, float[1,4] z) <float S = {0.1}, int8 Z = {0}, float L = {1000000},
int8[1,4] K = {1, 2, 3, 4}, float[4] B = {1,2,3,4}, float[4] W = {0.1, 0.2, 0.3, 0.000000001}, int8[4] WZ =
{0,0,0,0}, int8[1,4] Q = {1, 2, 3, 0}> { [e] e = Exp(x) [q] q = QuantizeLinear(e, S, Z) [d] d =
DequantizeLinear(q, S, Z) [n] n = Neg(d) [a] a = Abs(d) [w] w = DequantizeLinear(Q, W, WZ) [m] y = Mul(n, w)
[kd] kd = DequantizeLinear(K, S, Z) [ld] ld = DequantizeLinear(K, L, Z) [cd] cd = DequantizeLinear(K, scale, Z)
[ab] ab = Max(kd, B) [ac] ac = Abs(ld) [ad] ad = Abs(cd) [p] z = Sum(a, ab, ac, ad) }""",
        {"a": "no"},
        [
            'x_half = Cast(x) {to=10} "x_Cast"',
            'e = Exp(x_half) "e"',
            "const S_half = float16[] 0.1",
            "const Z = int8[] 0",
            'q = QuantizeLinear(e, S_half, Z) "q"',
            'd = DequantizeLinear(q, S_half, Z) "d"',
            "const S = float32[] 0.099975586",
            'd_float = DequantizeLinear(q, S, Z) "d_1"',
            'n = Neg(d) "n"',
            'a = Abs(d_float) "a"',
            'a_half = Cast(a) {to=10} "a_Cast"',
            "const Q = int8[1,4] {1, 2, 3, 0}",
            "const W_half = float16[4] {0.1, 0.2, 0.3, 6.104e-05}",
            "const WZ = int8[4] {0, 0, 0, 0}",
            'w = DequantizeLinear(Q, W_half, WZ) "w"',
            'y_half = Mul(n, w) "m"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            "const K = int8[1,4] {1, 2, 3, 4}",
            'kd = DequantizeLinear(K, S_half, Z) "kd"',
            "const L = float32[] 1e+06",
            'ld = DequantizeLinear(K, L, Z) "ld"',
            'cd = DequantizeLinear(K, scale, Z) "cd"',
            "const B_half = float16[4] {1.0, 2.0, 3.0, 4.0}",
            'ab = Max(kd, B_half) "ab"',
            'ac = Abs(ld) "ac"',
            'ac_half = Cast(ac) {to=10} "ac_Cast"',
            'ad = Abs(cd) "ad"',
            'ad_half = Cast(ad) {to=10} "ad_Cast"',
            'z_half = Sum(a_half, ab, ac_half, ad_half) "p"',
            'z = Cast(z_half) {to=1} "z_Cast"',
        ],
        9,
        [("a", "no"), ("ac", "the scale of ld does not fit float16"), ("ad", "the scale of cd does not fit float16")],
    ),
    (  # a maker of a Q
        """(float[1,4] x, float scale) => (float[1,4] y, float[1,4] z) <float S = {0.1}, int8 Z = {0}, float L = {1000000},
int8[1,4] K = {1, 2, 3, 4}, float[4] B = {1,2,3,4}, float[4] W = {0.1, 0.2, 0.3, 0.000000001}, int8[4] WZ =
{0,0,0,0}, int8[1,4] Q = {1, 2, 3, 0}> { [e] e = Exp(x) [q] q = QuantizeLinear(e, S, Z) [d] d =
DequantizeLinear(q, S, Z) [n] n = Neg(d) [a] a = Abs(d) [w] w = DequantizeLinear(Q, W, WZ) [m] y = Mul(n, w)
[kd] kd = DequantizeLinear(K, S, Z) [ld] ld = DequantizeLinear(K, L, Z) [cd] cd = DequantizeLinear(K, scale, Z)
[ab] ab = Max(kd, B) [ac] ac = Abs(ld) [ad] ad = Abs(cd) [p] z = Sum(a, ab, ac, ad) }""",
        {"e": "no"},
        [
            'e = Exp(x) "e"',
            "const S = float32[] 0.099975586",
            "const Z = int8[] 0",
            'q = QuantizeLinear(e, S, Z) "q"',
            "const S_half = float16[] 0.1",
            'd = DequantizeLinear(q, S_half, Z) "d"',
            'n = Neg(d) "n"',
            'a = Abs(d) "a"',
            "const Q = int8[1,4] {1, 2, 3, 0}",
            "const W_half = float16[4] {0.1, 0.2, 0.3, 6.104e-05}",
            "const WZ = int8[4] {0, 0, 0, 0}",
            'w = DequantizeLinear(Q, W_half, WZ) "w"',
            'y_half = Mul(n, w) "m"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            "const K = int8[1,4] {1, 2, 3, 4}",
            'kd = DequantizeLinear(K, S_half, Z) "kd"',
            "const L = float32[] 1e+06",
            'ld = DequantizeLinear(K, L, Z) "ld"',
            'cd = DequantizeLinear(K, scale, Z) "cd"',
            "const B_half = float16[4] {1.0, 2.0, 3.0, 4.0}",
            'ab = Max(kd, B_half) "ab"',
            'ac = Abs(ld) "ac"',
            'ac_half = Cast(ac) {to=10} "ac_Cast"',
            'ad = Abs(cd) "ad"',
            'ad_half = Cast(ad) {to=10} "ad_Cast"',
            'z_half = Sum(a, ab, ac_half, ad_half) "p"',
            'z = Cast(z_half) {to=1} "z_Cast"',
        ],
        8,
        [("e", "no"), ("ac", "the scale of ld does not fit float16"), ("ad", "the scale of cd does not fit float16")],
    ),
    (  # a body
        """(bool c, float[2] x) => (float[2] y, float[2] z) { [a] a = Exp(x) [b] b = Sin(x) [y] y = Add(a, b) [i] z = If(c)
<then_branch = t () => (float[2] a) { }, else_branch = e () => (float[2] q) { [q] q = Abs(b) }> }""",
        {},
        [
            'x_half = Cast(x) {to=10} "x_Cast"',
            'a = Exp(x) "a"',
            'a_half = Cast(a) {to=10} "a_Cast"',
            'b = Sin(x_half) "b"',
            'b_float = Cast(b) {to=1} "b_Cast"',
            'y_half = Add(a_half, b) "y"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            'z = If(c) "i"',
            "else_branch() -> (q: float32[2])",
            'q = Abs(b_float) "q"',
            "then_branch() -> (a: float32[2])",
        ],
        2,
        [("a", "a body of If, Loop or Scan hands its result out"), ("i", "If has no form in float16")],
    ),
    (  # the other body
        """(bool c, float[2] x) => (float[2] y, float[2] z) { [a] a = Exp(x) [b] b = Sin(x) [y] y = Add(a, b) [i] z = If(c)
<else_branch = t () => (float[2] a) { }, then_branch = e () => (float[2] q) { [q] q = Abs(b) }> }""",
        {},
        [
            'x_half = Cast(x) {to=10} "x_Cast"',
            'a = Exp(x) "a"',
            'a_half = Cast(a) {to=10} "a_Cast"',
            'b = Sin(x_half) "b"',
            'b_float = Cast(b) {to=1} "b_Cast"',
            'y_half = Add(a_half, b) "y"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            'z = If(c) "i"',
            "else_branch() -> (a: float32[2])",
            "then_branch() -> (q: float32[2])",
            'q = Abs(b_float) "q"',
        ],
        2,
        [("a", "a body of If, Loop or Scan hands its result out"), ("i", "If has no form in float16")],
    ),
    (  # nothing
        """(float[2] x) => (float[2] y) <float[2] k> { [k] k = Neg(x) [y] y = Abs(k) }""",
        {"k": "a", "y": "b"},
        [
            'k = Neg(x) "k"',
            'y = Abs(k) "y"',
        ],
        0,
        [("k", "a"), ("y", "b")],
    ),
    (  # an output that is read
        """(float[2] x) => (float[2] y, float[2] z) { [e] y = Exp(x) [n] z = Neg(y) }""",
        {},
        [
            'x_half = Cast(x) {to=10} "x_Cast"',
            'y_half = Exp(x_half) "e"',
            'y = Cast(y_half) {to=1} "y_Cast"',
            'z_half = Neg(y_half) "n"',
            'z = Cast(z_half) {to=1} "z_Cast"',
        ],
        2,
        [],
    ),
]


@pytest.mark.parametrize(("source", "singles", "lines", "rewrites", "refusals"), EXACT)
def test_exact_forms(
    source: str, singles: dict[str, str], lines: list[str], rewrites: int, refusals: list[tuple[str, str]]
) -> None:
    graph, report = _exactly(source, singles)
    assert [line.strip() for line in text(graph).splitlines()[1:] if line.strip()] == lines
    assert report.rewrites == rewrites
    assert [(r.node, r.reason) for r in report.refusals] == refusals
    notes = ["What is not int8 computes in float16; inputs and outputs keep their types."] if rewrites else []
    assert [n[: len(notes[0])] for n in report.notes] == notes


def test_types_and_shapes_of_what_is_new() -> None:
    graph, _ = _exactly(*EXACT[0][:2])
    found = {t.name: (np.dtype(t.dtype).name, t.shape and list(t.shape)) for n in graph.nodes for t in n.outputs}
    wanted: dict[str, tuple[str, list[int] | None]] = {
        "x_half": ("float16", [2, 3]),
        "a": ("float16", None),
        "c": ("float16", [2, 3]),
        "c_float": ("float32", [2, 3]),
        "s": ("float32", None),
        "s_half": ("float16", None),
        "y_half": ("float16", [2, 3]),
        "y": ("float32", [2, 3]),
        "r": ("int32", [2, 3]),
        "p": ("float16", [2, 3]),
    }
    assert {k: found[k] for k in wanted} == wanted


def test_a_pair_for_both_types_keeps_its_axis() -> None:
    source = (
        "(float[2,2] x) => (float[2,2] y, float[2,2] z) <int8[2,2] Q = {1, 2, 3, 4}, float[2] W = {0.5, 2}, int8[2] Z = {0, 0}> "
        "{ [w] w = DequantizeLinear <axis = 0> (Q, W, Z) [y] y = Mul(x, w) [z] z = Sub(x, w) }"
    )
    graph, _ = _exactly(source, {"z": "no"})
    pairs = [n for n in graph.nodes if n.op == "DequantizeLinear"]
    assert [n.attrs for n in pairs] == [{"axis": 0}] * 2
    assert {np.asarray(n.inputs[1].values).dtype.name for n in pairs} == {"float16", "float32"}


@pytest.mark.parametrize(("steps", "fits"), [(127.497, True), (127.5, False)])
def test_the_least_scale_that_keeps_its_bits(steps: float, fits: bool) -> None:
    """In steps of float16 near 0: off by 1 / 256.5 and 1 / 255 of it."""
    scale = f"{steps * 2.0**-24:.9e}"
    source = f"(float[4] x) => (float[4] y) <float S = {{{scale}}}, int8 Z = {{0}}> {{ q = QuantizeLinear(x, S, Z) d = DequantizeLinear(q, S, Z) [y] y = Neg(d) }}"
    _, report = _exactly(source, {})
    assert [r.reason.partition(" does not fit")[1:2] for r in report.refusals] == ([] if fits else [(" does not fit",)])


@pytest.mark.parametrize("single", [{"v": "v is single"}, {}])
def test_an_output_that_is_read_inside_is_cast_once(single: dict[str, str]) -> None:
    source = "(float[2] x) => (float[2] y, float[2] z) { [u] y = Neg(x) [v] v = Abs(y) [w] z = Exp(v) }"
    graph, _ = _exactly(source, single)
    casts = [(n.inputs[0].name, n.outputs[0].name) for n in graph.nodes if n.op == "Cast"]
    inner = [("v", "v_half")] if single else []
    assert casts == [("x", "x_half"), ("y_half", "y"), *inner, ("z_half", "z")]
    assert [n.inputs[0].name for n in graph.nodes if n.op == "Abs"] == ["y" if single else "y_half"]


def test_an_output_of_a_dequantize_that_half_reads_comes_from_a_second_one() -> None:
    graph, _ = _exactly(
        """(float[4] x) => (float[4] d, float[4] z) <float S = {0.1}, int8 Z = {0}> { [q] q = QuantizeLinear(x, S, Z)
        [d] d = DequantizeLinear(q, S, Z) [n] n = Neg(d) [m] m = Abs(d) [z] z = Add(n, m) }""",
        {"m": "m is single"},
    )
    assert sorted(n.op for n in graph.nodes) == sorted(
        ("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Neg", "Abs", "Cast", "Add", "Cast")
    )
    made = {n.outputs[0].name: n for n in graph.nodes}
    assert made["d"].op == "DequantizeLinear" and made["d"].outputs[0].dtype == np.float32
    assert made["d_half"].op == "DequantizeLinear" and made["d_half"].outputs[0].dtype == np.float16
    assert made["n"].inputs[0].name == "d_half" and made["m"].inputs[0].name == "d"
