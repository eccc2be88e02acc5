"""Each known trap: a net that comes out wrong without the rule and right with it, and a near-miss that stays int8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quantized import Result, quantize_text

from onnxq.plan.plan import Placement
from onnxq.plan.spread import BODY, Spread, decibels
from onnxq.runtime.session import Level
from onnxq.stats.observers import make_observer
from onnxq.stats.statistics import TensorStatistics
from onnxq.targets.target import Limits, Target, load_target

Array = NDArray[Any]
RNG = np.random.default_rng(7)
EYE = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
SWAP = EYE[::-1]
X = RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)


def without() -> Target:
    """The CPU with none of these limits."""
    target = load_target("cpu", reduce_range=False)
    kernels = {op: replace(kernel, min_operand_sqnr=None) for op, kernel in target.kernels.items()}
    return replace(target, limits=Limits(), kernels=kernels)


def run(body: str, outs: str, constants: Mapping[str, Array], x: Array = X, target: str | Target = "cpu") -> Result:
    inits = ", ".join(
        f"float[{','.join(map(str, a.shape))}] {n} = {{0}}" if a.ndim else f"float {n} = {{{a}}}"
        for n, a in constants.items()
    )
    shape = ",".join(map(str, x.shape))
    source = f'<ir_version: 10, opset_import: ["": 21]> g (float[{shape}] x) => ({outs}) <{inits}> {{ {body} }}'
    values = {n: a.astype(np.float32) for n, a in constants.items()}
    return quantize_text(source, constants=values, inputs={"x": x}, target=target)


def sqnr(result: Result, name: str) -> float:
    """Of an output, at the default level of ONNX Runtime."""
    exact, got = result.run(original=True)[name].astype(np.float64), result.run(Level.ALL)[name]
    noise = float(((exact - got) ** 2).sum())
    return math.inf if not noise else 10 * math.log10(float((exact**2).sum()) / noise)


def reason(result: Result, op: str) -> str:
    """Why the first op of a type is float; "" if it is int8."""
    return next(str(d.reason) for d in result.plan.decisions.values() if d.op == op)


def bites(
    body: str,
    outs: str,
    constants: Mapping[str, Array],
    worst: str,
    x: Array = X,
    *,
    wrong: float = 5,
    right: float = 15,
) -> Result:
    """Without the rules the output `worst` has less than `wrong` dB, with them more than `right`."""
    assert sqnr(run(body, outs, constants, x, without()), worst) < wrong
    fixed = run(body, outs, constants, x)
    assert sqnr(fixed, worst) > right
    return fixed


# 1. joins

ADD = "a = Conv(x, A) b = Conv(x, B) s = Add(a, b) z = Conv(s, A) d = Sub(s, a)"
OUT = "float[1,4,8,8] {}"


def outs(*names: str) -> str:
    return ", ".join(OUT.format(n) for n in names)


def test_case_1_an_operand_that_the_sum_swallows() -> None:
    result = bites(ADD, outs("z", "d"), {"A": EYE * 50, "B": SWAP * 0.05}, "d")
    assert "would keep" in reason(result, "Add") and "of which b" in reason(result, "Add")


def test_case_1_operands_that_the_sum_holds() -> None:
    result = run(ADD, outs("z", "d"), {"A": EYE * 5, "B": SWAP * 0.5})
    assert reason(result, "Add") == ""


def test_case_1_a_sum_that_only_weights_read_stays_int8() -> None:
    body = "a = Conv(x, A) b = Conv(x, B) s = Add(a, b) z = Conv(s, A)"
    assert reason(run(body, outs("z"), {"A": EYE * 50, "B": SWAP * 0.05}), "Add") == ""


JOIN = "a = Conv(x, A) b = Conv(x, B, low) p = Sigmoid(b) s = Concat <axis = 0> (a, p) z = Conv(s, A) e = Neg(s) "
JOIN += "d = Slice(e, one, two, zero)"
WHERE = "float[4] low = {-4, -4, -4, -4}, int64[1] one = {1}, int64[1] two = {2}, int64[1] zero = {0}"


def joined(size: float, peak: float, target: str | Target = "cpu") -> Result:
    """Coordinates of up to `size` * `peak` beside scores of 0.02 that come to Sigmoid(`peak` / 2 - 4) once."""
    x = RNG.normal(0, 1, (1, 4, 32, 32)).astype(np.float32)
    x[0, 0, 0, 0] = peak
    source = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,32,32] x) => (float[2,4,32,32] z, float[1,4,32,32] d) '
        f"<float[4,4,1,1] A = {{0}}, float[4,4,1,1] B = {{0}}, {WHERE}> {{ {JOIN} }}"
    )
    constants = {"A": EYE * np.float32(size), "B": EYE / 2}
    return quantize_text(source, constants=constants, inputs={"x": x}, target=target)


def test_case_1_coordinates_beside_scores() -> None:
    """No wider than the ratio of ranges allows, and yet too wide for most of the scores."""
    assert sqnr(joined(0.55, 12, without()), "d") < 8
    result = joined(0.55, 12)
    assert sqnr(result, "d") > 20 and "of which p" in reason(result, "Concat")
    assert reason(joined(0.2, 4), "Concat") == ""


# 2. parts

PARTS = "a = Conv(x, A) b, s = Split <axis = 1, num_outputs = 2> (a) p = Sigmoid(s) c = Erf(b)"
HALF = "float[1,2,8,8] c, float[1,2,8,8] s"


def rows(*gains: float) -> Array:
    return EYE * np.array(gains, dtype=np.float32).reshape(4, 1, 1, 1)


def test_case_2_boxes_and_scores_out_of_one_convolution() -> None:
    result = bites(PARTS, HALF, {"A": rows(200, 200, 0.2, 0.2)}, "s", right=30)
    assert "Split" in reason(result, "Conv") and "takes out of a" in reason(result, "Conv")


@pytest.mark.parametrize(
    "part",
    [
        "b = Slice(a, zero, two, one) s = Slice(a, two, four, one)",
        "b = Gather <axis = 1> (a, front) s = Gather <axis = 1> (a, back)",
    ],
    ids=["Slice", "Gather"],
)
@pytest.mark.parametrize("small", [0.2, 60.0])
def test_case_2_by_other_ops(part: str, small: float) -> None:
    numbers = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}"
    inits = f"float[4,4,1,1] A = {{0}}, {numbers}, int64[2] front = {{0, 1}}, int64[2] back = {{2, 3}}"
    source = (
        f'<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => ({HALF}) '
        f"<{inits}> {{ a = Conv(x, A) {part} c = Erf(b) p = Sigmoid(s) }}"
    )
    result = quantize_text(source, constants={"A": rows(200, 200, small, small)}, inputs={"x": X})
    assert ("takes out of a" in reason(result, "Conv")) == (small < 1)


def test_case_2_a_table_of_constants_stays_float() -> None:
    """Rows of very different size: nothing is quantized that a Gather looks up."""
    table = RNG.normal(0, 1, (6, 8)) * np.array([1e-3, 1, 1e3, 1, 1, 1]).reshape(6, 1)
    source = (
        '<ir_version: 10, opset_import: ["": 21]> g (int64[3] i) => (float[3,8] y) '
        "<float[6,8] T = {0}, float[8,8] W = {0}> { e = Gather(T, i) y = MatMul(e, W) }"
    )
    result = quantize_text(source, constants={"T": table.astype(np.float32)}, inputs={"i": np.array([0, 2, 4])})
    assert "constant table" in reason(result, "Gather")


def test_case_2_parts_of_one_kind() -> None:
    assert reason(run(PARTS, HALF, {"A": rows(20, 20, 4, 4)}), "Conv") == ""


def test_case_2_a_float_tensor_that_is_split_for_weights() -> None:
    """Nothing makes it in 8 bits: the Split stays float, and each part gets a scale of its own."""
    body = "a = Neg(x) z = Conv(a, A) b, s = Split <axis = 1, num_outputs = 2> (a) c = Conv(b, B) d = Conv(s, B)"
    x = X * np.array([200, 200, 0.2, 0.2], dtype=np.float32).reshape(1, 4, 1, 1)
    small = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
    out = f"{outs('z')}, float[1,2,8,8] c, float[1,2,8,8] d"
    result = bites(body, out, {"A": EYE, "B": small}, "d", x, right=30)
    assert "takes out of a" in reason(result, "Split")


# 3. exponents


@pytest.mark.parametrize("tail", ["y = Softmax <axis = 1> (a)", "r = Mul(a, half) y = LogSoftmax <axis = 1> (r)"])
def test_case_3_steps_that_become_factors(tail: str) -> None:
    body = f"a = Conv(x, A) {tail}"
    constants: dict[str, Array] = {"A": EYE * 40, "half": np.array(0.5)}
    assert "makes factors of" in reason(run(body, outs("y"), constants), "Conv")
    constants["A"] = EYE * 2
    assert reason(run(body, outs("y"), constants), "Conv") == ""


def test_case_3_a_division_makes_steps_small_again() -> None:
    body = "a = Conv(x, A) r = Div(a, many) y = Softmax <axis = 1> (r)"
    assert reason(run(body, outs("y"), {"A": EYE * 40, "many": np.array(20.0)}), "Conv") == ""


def test_case_3_sizes_of_boxes() -> None:
    """exp of what a head computes: an error of half a step is a factor."""
    x = X.copy()
    x[0, 0, 0, 0] = -300
    result = bites("a = Conv(x, A) y = Exp(a)", outs("y"), {"A": EYE}, "y", x, wrong=10, right=60)
    assert "makes factors of" in reason(result, "Conv")


def test_case_3_a_product_in_front_of_softmax_keeps_its_float_sum() -> None:
    """MatMul needs no Q behind it: the float accumulation goes into the Softmax, however wide."""
    body = "m = MatMul(x, A) b = Add(m, B) y = Softmax(b)"
    result = run(body, "float[1,4,8,8] y", {"A": np.eye(8) * 40, "B": np.arange(8.0)})
    assert reason(result, "MatMul") == ""
    assert {v.tensor for v in result.plan.values} == {"x"}


# 4. bodies


def normed(peak: float, target: str | Target = "cpu") -> Result:
    x = X.copy()
    x[0, 0, 0, 0] = peak
    body = "a = Conv(x, A) t = Transpose <perm = [0, 2, 3, 1]> (a) y = LayerNormalization (t, G)"
    gamma = np.ones(4)
    return run(body, "float[1,8,8,4] y", {"A": EYE, "G": gamma}, x, target)


def test_case_4_a_normalization_behind_outliers() -> None:
    assert sqnr(normed(3000, without()), "y") < 5
    result = normed(3000)
    assert "LayerNormalization_2 reads its result" in reason(result, "Conv")
    assert reason(normed(20), "Conv") == ""


def test_case_4_a_caller_behind_outliers() -> None:
    x = X.copy()
    x[0, 0, 0, 0] = 3000
    assert "the caller reads" in reason(run("y = Conv(x, A)", outs("y"), {"A": EYE}, x), "Conv")
    assert reason(run("a = Conv(x, A) y = Sigmoid(a)", outs("y"), {"A": EYE}, x), "Conv") == ""


# 5. gain


def depthwise(big: float, target: str | Target = "cpu") -> Result:
    """Channel 0 is `big` times the others, and the depthwise weights make up for it."""
    up = rows(big, 1, 1, 1)
    down = np.zeros((4, 1, 3, 3))
    down[:, 0] = np.array([1 / big, 1, 1, 1]).reshape(4, 1, 1)
    source = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) '
        "<float[4,4,1,1] A = {0}, float[4,1,3,3] D = {0}> "
        "{ a = Conv(x, A) y = Conv <pads = [1,1,1,1], group = 4> (a, D) }"
    )
    constants = {"A": up.astype(np.float32), "D": down.astype(np.float32)}
    return quantize_text(source, constants=constants, inputs={"x": X}, target=target)


def test_case_5_depthwise_weights_that_make_up_for_the_size_of_channels() -> None:
    assert sqnr(depthwise(1000, without()), "y") < 5
    result = depthwise(1000)
    assert sqnr(result, "y") > 60
    pointwise, second = [d.reason for d in result.plan.decisions.values()]
    assert "cannot read its result in 8 bits" in pointwise and "its weights make so much" in second


def test_case_5_channels_of_like_size() -> None:
    result = depthwise(5)
    assert not any(d.reason for d in result.plan.decisions.values())
    assert sqnr(result, "y") > 30


def test_case_5_dead_channels() -> None:
    """Weights of next to nothing: their scale is tiny, their bias would overflow, and all stays int8 and right."""
    weights = np.zeros((4, 1, 3, 3), dtype=np.float32)
    weights[0], weights[1] = 1e-30, 0.2
    source = (
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) '
        "<float[4,1,3,3] D = {0}, float[4] b = {1, 0.5, -1, 0}> "
        "{ y = Conv <pads = [1,1,1,1], group = 4> (x, D, b) }"
    )
    result = quantize_text(source, constants={"D": weights}, inputs={"x": X})
    assert reason(result, "Conv") == "" and sqnr(result, "y") > 35


# 6. nothing seen


def test_case_6_only_zeros_were_seen() -> None:
    body = "n = Abs(x) m = Neg(n) r = Relu(m) y = Conv(r, A)"
    assert "was 0 in all samples" in reason(run(body, outs("y"), {"A": EYE}), "Conv")
    assert reason(run(body.replace("Relu", "Exp"), outs("y"), {"A": EYE}), "Conv") == ""


# figures


def test_spread_of_a_distribution() -> None:
    values = np.concatenate([np.zeros(1000), RNG.normal(0, 1, 99_000), np.full(10, 500.0)]).astype(np.float32)
    observers = {name: make_observer(name, subset=None) for name in ("minmax", "histogram")}
    for observer in observers.values():
        observer.update(values)
    seen = Spread.seen(TensorStatistics(name="t", observers=observers))
    exact = Spread.of(values)
    assert seen.rms == pytest.approx(exact.rms, rel=0.01) == pytest.approx(math.sqrt(float((values**2).mean())), 0.01)
    assert seen.body.rms == pytest.approx(exact.body.rms, rel=0.01)
    ordered = np.sort(np.abs(values[values != 0]))[: int(BODY * 99_010)]
    assert exact.body.rms == pytest.approx(math.sqrt(float((ordered.astype(np.float64) ** 2).mean())), rel=1e-6)
    plain = Spread.seen(TensorStatistics(name="t", observers={"minmax": observers["minmax"]}))
    low, high = float(values.min()), float(values.max())
    assert plain.energy == pytest.approx((low**2 + low * high + high**2) / 3, rel=0.01)


def test_nothing_but_zeros_loses_nothing() -> None:
    for spread in (Spread.of(np.zeros(3)), Spread.even(0, 0), Spread.of(np.zeros(0))):
        assert spread.decibels(1.0) == spread.body.decibels(1.0) == math.inf


@pytest.mark.parametrize("step", [0.01, 0.3, 2.0, 9.0])
def test_the_formula_against_rounding(step: float) -> None:
    """However few steps there are: a tensor that is lost whole keeps 0 dB."""
    values = RNG.normal(0, 1, 100_000)
    error = np.rint(values / step) * step - values
    exact = 10 * math.log10(float((values**2).mean() / (error**2).mean()))
    assert Spread.of(values).decibels(step) == pytest.approx(exact, abs=1.0)
    assert decibels(1.0, 0.0) == math.inf


def test_an_eager_placement_keeps_to_the_rules() -> None:
    result = quantize_text(
        '<ir_version: 10, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[1,4,8,8] y) '
        "<float[4,4,1,1] A = {0}> { a = Conv(x, A) y = Softmax <axis = 1> (a) }",
        constants={"A": EYE * 40},
        inputs={"x": X},
        placement=Placement(integer=frozenset({"Conv_0"}), eager=True),
    )
    assert "makes factors of" in reason(result, "Conv")
