"""SiLU, HardSwish and GELU between integers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from rewriting import keep, model, rewrite, together
from scipy.special import ndtr

from onnxq.ir import save, text
from onnxq.plan.plan import Decision, Plan
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.expand_gates import ExpandGates

PASS = ExpandGates()
NUMBERS = "float s = {{0.05}}, uint8 z = {{120}}, float t = {{0.02}}, uint8 u = {{20}}"
SILU = "com.microsoft.QuickGelu <alpha = 1.0>"
HEAD = (
    "(uint8[4] x) => (uint8[4] y) <"
    + NUMBERS
    + "> {{ [d] d = DequantizeLinear(x, s, z) {0} [q] y = QuantizeLinear(m, t, u) }}"
)
AFTER = (
    "(uint8[4] x) => (uint8[4] y) <float s = {0.05}, uint8 z = {120}, float t = {0.02}, uint8 u = {20}, "
    "float silu_gate_scale = {0.0039215689}, uint8 silu_gate_zero_point = {0}> { [d] d = DequantizeLinear(x, s, z) "
    "[silu_gate] silu_gate = Sigmoid(d) "
    "[silu_gate_quantized] silu_gate_quantized = QuantizeLinear(silu_gate, silu_gate_scale, silu_gate_zero_point) "
    "[silu_gate_dequantized] silu_gate_dequantized = DequantizeLinear(silu_gate_quantized, silu_gate_scale, "
    "silu_gate_zero_point) [silu] m = Mul(d, silu_gate_dequantized) [q] y = QuantizeLinear(m, t, u) }"
)
LEAST = {"uint8": 0, "int8": -128}


def test_contract() -> None:
    check_pass(ExpandGates)


def test_silu() -> None:
    rewrite(
        PASS,
        HEAD.format(f"[silu] m = {SILU} (d)"),
        AFTER,
        rewrites=1,
        atol=1,
    )


def silu(x: NDArray[np.float64], alpha: float = 1.0) -> NDArray[np.float64]:
    return x / (1 + np.exp(np.minimum(-alpha * x, 700)))


def hard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def levels(source: str, x: NDArray[np.integer], level: Level) -> NDArray[np.int64]:
    one = text.parse(source)
    assert PASS.run(one.graph, default_context()).rewrites == 1
    (y,) = Session(save.to_bytes(one), level=level, threads=1).run({"x": x}).values()
    return y.astype(np.int64)


SCALES = (0.003, 0.0235, 0.047, 0.05, 0.0706, 0.11, 0.4, 3.0)


@pytest.mark.parametrize("level", [Level.OFF, Level.ALL])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("op", ["silu", "1.702", "gelu", "hard"])
def test_every_level_is_as_near_as_the_gate_allows(op: str, kind: str, level: Level) -> None:
    """Half a step of the gate, what the Q rounds, and half a step more where the integer kernel rounds twice."""
    for scale in SCALES:
        for zero in (0, 31, 128, 255):
            x = np.arange(256) + LEAST[kind]
            real = (np.arange(256) - zero) * float(np.float32(scale))
            alpha = {"silu": 1.0, "1.702": 1.702, "gelu": 1.702}.get(op, 0.0)
            exact = silu(real, alpha) if alpha else hard(real)
            step = max((exact.max() - min(exact.min(), 0)) / 255, 1e-3)
            start = round(-exact.min() / step)
            node = {"gelu": "Gelu(d)", "hard": "HardSwish(d)"}.get(op, f"com.microsoft.QuickGelu <alpha = {alpha}> (d)")
            source = model(
                f"({kind}[256] x) => ({kind}[256] y) <float s = {{{scale}}}, {kind} z = {{{zero + LEAST[kind]}}}, "
                f"float t = {{{step}}}, {kind} u = {{{start + LEAST[kind]}}}> {{ [d] d = DequantizeLinear(x, s, z) "
                f"[m] m = {node} [q] y = QuantizeLinear(m, t, u) }}"
            )
            found = levels(source, x.astype(kind), level) - LEAST[kind]
            wanted = np.clip(exact / step + start, 0, 255)
            assert (np.abs(found - wanted) <= 0.5 * np.abs(real) / 255 / step + 1.001).all(), (scale, zero)


GIVEN = NUMBERS.format()
DATA = "[m_gate_data] m_gate_data = DequantizeLinear(x, m_gate_data_scale, m_gate_data_zero_point) "
PRODUCT = (
    "[m_gate_dequantized] m_gate_dequantized = DequantizeLinear(m_gate_quantized, m_gate_scale, m_gate_zero_point) "
    "[m] m = Mul(d, m_gate_dequantized) [q] y = QuantizeLinear(m, t, u) }"
)


@pytest.mark.parametrize(("attributes", "scale"), [("<alpha = 2.0>", "0.1"), ("", "0.0851")])
def test_alpha_goes_into_a_scale(attributes: str, scale: str) -> None:
    rewrite(
        PASS,
        HEAD.format(f"[m] m = com.microsoft.QuickGelu {attributes} (d)"),
        f"(uint8[4] x) => (uint8[4] y) <{GIVEN}, float m_gate_data_scale = {{{scale}}}, "
        "uint8 m_gate_data_zero_point = {120}, float m_gate_scale = {0.0039215689}, uint8 m_gate_zero_point = {0}> "
        f"{{ [d] d = DequantizeLinear(x, s, z) {DATA} [m_gate] m_gate = Sigmoid(m_gate_data) "
        f"[m_gate_quantized] m_gate_quantized = QuantizeLinear(m_gate, m_gate_scale, m_gate_zero_point) {PRODUCT}",
        rewrites=1,
        atol=1,
    )


@pytest.mark.parametrize("op", ["Gelu", 'Gelu <approximate = "tanh">', "com.microsoft.Gelu"])
def test_gelu_is_another_function_by_0_0203_at_most(op: str) -> None:
    """Beside what rounding does: half a step of the gate, of the Q, and half a step more in the integer kernel."""
    x = np.arange(256, dtype=np.uint8)
    source = model(HEAD.format(f"[h] m = {op} (d)").replace("uint8[4]", "uint8[256]").replace("0.02", "0.035"))
    real = (x.astype(np.float64) - 120) * np.float64(np.float32(0.05))
    away = levels(source, x, Level.ALL) - 20 - real * ndtr(real) / 0.035
    assert (np.abs(away) <= (0.0204 + 0.5 * np.abs(real) / 255) / 0.035 + 1.001).all()
    assert np.abs(away).max() > 0.01 / 0.035


def test_gelu_with_the_alpha_of_the_plan() -> None:
    one = text.parse(
        model(
            HEAD.format(
                "[a] n = Gelu(d) [e] o = QuantizeLinear(n, s, z) [f] p = DequantizeLinear(o, s, z) [b] m = Gelu(p)"
            )
        )
    )
    decisions = {name: Decision(op="Gelu", integer=True) for name in "ab"}
    plan = Plan(values={}, uses={}, decisions=decisions, alphas={"b": 1.6})
    report = PASS.run(one.graph, dataclasses.replace(default_context(), plan=plan))
    assert report.rewrites == 2
    assert report.notes == ["GELU is x * sigmoid(alpha * x) in bytes in 2 ops, which differs by up to 0.02."]
    scales = {n.name: float(n.inputs[1].values) for n in one.graph.nodes if n.op == "DequantizeLinear"}
    assert scales["a_gate_data"] == pytest.approx(0.05 * 1.702)
    assert scales["b_gate_data"] == pytest.approx(0.05 * 1.6)


def test_hardswish() -> None:
    rewrite(
        PASS,
        HEAD.format("[m] m = HardSwish(d)"),
        f"(uint8[4] x) => (uint8[4] y) <{GIVEN}, uint8 m_gate_one = {{1}}, float m_gate_three_scale = {{3}}, "
        "uint8 m_gate_three_zero_point = {0}, float m_gate_scale = {0.0039215689}, uint8 m_gate_zero_point = {0}, "
        "float m_gate_cut_scale = {0.023529412}, uint8 m_gate_cut_zero_point = {0}> { [d] d = DequantizeLinear(x, s, z) "
        "[m_gate_three] m_gate_three = DequantizeLinear(m_gate_one, m_gate_three_scale, m_gate_three_zero_point) "
        "[m_gate] m_gate = Add(d, m_gate_three) [m_gate_quantized] m_gate_quantized = "
        f"QuantizeLinear(m_gate, m_gate_cut_scale, m_gate_cut_zero_point) {PRODUCT}",
        rewrites=1,
        atol=1,
    )


@pytest.mark.parametrize("scale", ["7.888609052210118e-31", "3.4028234663852886e38"])
def test_alpha_at_the_ends_of_what_a_scale_can_be(scale: str) -> None:
    one = text.parse(model(HEAD.format(f"[m] m = {SILU} (d)").replace("s = {0.05}", f"s = {{{scale}}}")))
    assert PASS.run(one.graph, default_context()).rewrites == 1


def test_the_three_of_a_hard_gate_is_a_scalar() -> None:
    one = text.parse(model(HEAD.format("[m] m = HardSwish(d)")))
    PASS.run(one.graph, default_context())
    three = next(n for n in one.graph.nodes if n.name == "m_gate_three").outputs[0]
    assert three.dtype == np.float32 and three.shape == ()


def test_a_hard_gate_has_no_alpha_and_is_no_other_function() -> None:
    one = text.parse(model(HEAD.format("[m] m = HardSwish(d)").replace("s = {0.05}", "s = {4e-31}")))
    report = PASS.run(one.graph, default_context())
    assert report.rewrites == 1 and report.notes == []


def test_a_hard_gate_ends_at_0_and_1() -> None:
    """Where HardSwish is 0 and where it is x, the result is that."""
    x = np.arange(256, dtype=np.uint8)
    source = model(HEAD.format("[h] m = HardSwish(d)").replace("uint8[4]", "uint8[256]").replace("0.02", "0.05"))
    found = levels(source, x, Level.ALL)
    real = (x.astype(np.int64) - 120) * 0.05
    assert (found[real < -3.03] == 20).all()
    assert (found[real > 3.03] == np.minimum(x.astype(np.int64)[real > 3.03] - 100, 255)).all()


@pytest.mark.parametrize(
    ("node", "ops"),
    [
        (f"{SILU} (d)", ["QLinearSigmoid", "QLinearMul"]),
        ("Gelu(d)", ["QLinearSigmoid", "QLinearMul"]),
        ("HardSwish(d)", ["QLinearAdd", "QLinearMul"]),
    ],
)
def test_ort_makes_integer_ops_of_it(node: str, ops: list[str]) -> None:
    one = text.parse(model(HEAD.format(f"[m] m = {node}")))
    PASS.run(one.graph, default_context())
    assert [n.op_type for n in onnx.load_from_string(optimized(save.to_bytes(one))).graph.node] == ops


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            "(uint8[4] x) => (uint8[4] y, float[4] f) <" + NUMBERS.format() + "> { [d] d = DequantizeLinear(x, s, z) "
            f"[h] m = {SILU} (d) [q] y = QuantizeLinear(m, t, u) [n] f = Neg(m) }}",
            "its result is also read in float",
        ),
        (
            "(uint8[4] x) => (uint8[4] y, float[4] m) <" + NUMBERS.format() + "> { [d] d = DequantizeLinear(x, s, z) "
            "[h] m = HardSwish(d) [q] y = QuantizeLinear(m, t, u) }",
            "its result is also read in float",
        ),
        (HEAD.format("[h] m = com.microsoft.QuickGelu <alpha = -1.0> (d)"), "its alpha is not above 0"),
        (HEAD.format("[h] m = com.microsoft.QuickGelu <alpha = 1e38> (d)").replace("0.05", "50.0"), "its alpha is not above 0"),
        (
            "(uint16[4] x) => (uint16[4] y) <float s = {0.05}, uint16 z = {120}> { [d] d = DequantizeLinear(x, s, z) "
            "[h] m = HardSwish(d) [q] y = QuantizeLinear(m, s, z) }",
            "its data has no single scale of 8 bits",
        ),
        (
            "(uint8[2] x) => (uint8[2] y) <float[2] s = {0.05, 0.1}, uint8[2] z = {120, 9}> "
            "{ [d] d = DequantizeLinear <axis = 0> (x, s, z) [h] m = HardSwish(d) [q] y = QuantizeLinear <axis = 0> (m, s, z) }",
            "its data has no single scale of 8 bits",
        ),
    ],
)  # fmt: skip
def test_refused(graph: str, reason: str) -> None:
    keep(PASS, graph, reason)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[4] x) => (uint8[4] y) <float t = {0.02}, uint8 u = {20}> { [h] m = HardSwish(x) [q] y = QuantizeLinear(m, t, u) }",
        HEAD.format("[h] m = Sigmoid(d)"),
        HEAD.format("[h] m = com.microsoft.FastGelu(d)"),
        HEAD.format("[r] r = Relu(d) [h] m = HardSwish(r)"),
    ],
)
def test_near_misses(graph: str) -> None:
    keep(PASS, graph)


def test_with_a_plan_only_what_it_puts_into_integers() -> None:
    one = text.parse(
        model(
            HEAD.format(
                f"[a] n = {SILU} (d) [e] o = QuantizeLinear(n, s, z) [f] p = DequantizeLinear(o, s, z) [b] m = {SILU} (p)"
            )
        )
    )
    decisions = {
        "a": Decision(op="QuickGelu", integer=True),
        "b": Decision(op="QuickGelu", integer=False, reason="slow"),
    }
    plan = Plan(values={}, uses={}, decisions=decisions)
    assert plan.gates == {"a"}
    report = PASS.run(one.graph, dataclasses.replace(default_context(), plan=plan))
    assert report.rewrites == 1
    assert [n.name for n in one.graph.nodes if n.op == "QuickGelu"] == ["b"]


def test_planned_means_nothing_without_a_plan() -> None:
    keep(ExpandGates(planned=True), HEAD.format(f"[silu] m = {SILU} (d)"))


def test_many_sites() -> None:
    other = HEAD.format("[r] r = Relu(d) [h] m = HardSwish(r)")
    before = HEAD.format(f"[silu] m = {SILU} (d)")
    together(PASS, changed=[(before, AFTER, 1)], quiet=[other], atol=1)
