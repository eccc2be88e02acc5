from __future__ import annotations

from dataclasses import replace

import pytest
from rewriting import keep, model, rewrite

from onnxq.ir import text
from onnxq.pipeline.base import Context
from onnxq.plan.plan import Plan
from onnxq.targets.target import load_target
from onnxq.testing import check_pass
from onnxq_passes.pad_channels import PadChannels

PASS = PadChannels(multiple=4)
HEAD = "(float[1,1,2,2] x) => (float[1,4,2,2] y)"
W, B = "float[3,1,1,1] w = {1, 2, -3}", "float[3] b = {1, -1, 2}"
D, V = "float[3,1,1,1] d = {2, 1, -1}", "float[4,3,1,1] v = {1, -1, 2, 0, 1, 0, 2, 2, 2, 1, 0, -1}"
W4, B4 = "float[4,1,1,1] w_padded = {1, 2, -3, 0}", "float[4] b_padded = {1, -1, 2, 0}"
D4, V4 = (
    "float[4,1,1,1] d_padded = {2, 1, -1, 0}",
    "float[4,4,1,1] v_padded = {1, -1, 2, 0, 0, 1, 0, 0, 2, 2, 2, 0, 1, 0, -1, 0}",
)


def around(inner: str, *constants: str, last: str = "y = Conv({0}, {1})", v: str = "v") -> str:
    """A graph whose channels begin at one Conv and end at another one."""
    return f"{HEAD} <{', '.join(constants)}> {{ {inner} {last.format('z', v)} }}"


def both(inner: str, *more: tuple[str, str], rewrites: int = 2) -> None:
    """{w}, {b}, {d}: the constants, padded or not; `more`: further constants before and after."""
    before = {"w": "w", "b": "b", "d": "d", "g": "3"}
    after = {"w": "w_padded", "b": "b_padded", "d": "d_padded", "g": "4"}
    pairs = [(k, p) for k, p in [(W, W4), (B, B4), (D, D4)] if f"{{{k.split()[1]}}}" in inner]
    rewrite(
        PASS,
        around(inner.format(**before), *(k for k, _ in [*pairs, *more]), V),
        around(inner.format(**after), *(p for _, p in [*pairs, *more]), V4, v="v_padded"),
        rewrites=rewrites,
        atol=1e-5,
    )


def test_contract() -> None:
    check_pass(PadChannels)


@pytest.mark.parametrize(
    "inner",
    [
        "z = Conv(x, {w})",
        "z = Conv(x, {w}, {b})",
        "a = Conv(x, {w}) z = Relu(a)",
        "a = Conv(x, {w}, {b}) z = Sigmoid(a)",
        "a = Conv(x, {w}) z = MaxPool<kernel_shape = [1, 1]>(a)",
        "a = Conv(x, {w}) h = HardSigmoid(a) z = Mul(a, h)",
        "a = Conv(x, {w}) p = GlobalAveragePool(a) h = HardSigmoid(p) z = Mul(h, a)",
    ],
)
def test_case_1(inner: str) -> None:
    both(inner)


def test_case_1_depthwise() -> None:
    both("a = Conv(x, {w}) z = Conv<group = {g}>(a, {d}, {b})", rewrites=3)


def test_case_1_of_several_convs() -> None:
    before = f"{HEAD} <{W}, float[3,1,1,1] u = {{1, 1, 1}}, {V}> {{ a = Conv(x, w) c = Conv(x, u) z = Sub(a, c) y = Conv(z, v) }}"
    after = (
        f"{HEAD} <{W4}, float[4,1,1,1] u_padded = {{1, 1, 1, 0}}, {V4}> "
        "{ a = Conv(x, w_padded) c = Conv(x, u_padded) z = Sub(a, c) y = Conv(z, v_padded) }"
    )
    rewrite(PASS, before, after, rewrites=3, atol=1e-5)


def test_case_1_a_scalar_may_join() -> None:
    both("a = Conv(x, {w}) z = Mul(a, two)", ("float two = {2}", "float two = {2}"))


def test_case_1_two_channels() -> None:
    """Two output channels of one input channel are no depthwise Conv, unless it has two groups."""
    head = "(float[1,1,2,2] x) => (float[1,4,2,2] y)"
    nodes = "a = Conv(x, {0}) z = Conv<group = {2}>(a, {1}) y = Conv(z, {3})"
    before = "float[2,1,1,1] w = {1, 2}, float[2,1,1,1] d = {2, -1}, float[4,2,1,1] v = {1, -1, 2, 0, 1, 0, 2, 2}"
    for multiple in (2, 4):
        pads = (", 0" * (multiple - 2), multiple)
        after = (
            f"float[{multiple},1,1,1] w_padded = {{1, 2{pads[0]}}}, float[{multiple},1,1,1] d_padded = {{2, -1{pads[0]}}}, "
            f"float[4,{multiple},1,1] v_padded = {{1, -1{pads[0]}, 2, 0{pads[0]}, 1, 0{pads[0]}, 2, 2{pads[0]}}}"
        )
        old = f"{head} <{before}> {{ {nodes.format('w', 'd', 2, 'v')} }}"
        new = f"{head} <{after}> {{ {nodes.format('w_padded', 'd_padded', multiple, 'v_padded')} }}"
        changes = multiple > 2
        rewrite(PadChannels(multiple=multiple), old, new if changes else old, rewrites=3 * changes, atol=1e-5)


def test_case_1_up_to_an_even_number() -> None:
    after = (
        "float[4,1,1,1] w_padded = {1, 2, -3, 0}, "
        "float[4,4,1,1] v_padded = {1, -1, 2, 0, 0, 1, 0, 0, 2, 2, 2, 0, 1, 0, -1, 0}"
    )
    rewrite(
        PadChannels(multiple=2),
        around("z = Conv(x, w)", W, V),
        around("z = Conv(x, w_padded)", after, v="v_padded"),
        rewrites=2,
        atol=1e-5,
    )


def test_case_2_one_group_of_several() -> None:
    head = "(float[1,1,2,2] x) => (float[1,3,2,2] p, float[1,4,2,2] y)"
    rewrite(
        PASS,
        f"{head} <{W}, {V}> {{ [a] p = Conv(x, w) [b] z = Conv(x, w) y = Conv(z, v) }}",
        f"{head} <{W}, {W4}, {V4}> {{ [a] p = Conv(x, w) [b] z = Conv(x, w_padded) y = Conv(z, v_padded) }}",
        rewrites=2,
        refused=["reach the graph output p"],
        atol=1e-5,
    )


def test_what_fits_stays() -> None:
    keep(PadChannels(multiple=1), around("z = Conv(x, w)", W, V))
    keep(PadChannels(multiple=3), f"{HEAD} <{W}, {V}> {{ z = Conv(x, w) y = Conv(z, v) }}", "reach the graph output")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (f"(float[1,1,2,2] x) => (float[1,3,2,2] y) <{W}> {{ y = Conv(x, w) }}", "reach the graph output y"),
        (around("a = Conv(x, w) z = Softmax<axis = 1>(a)", W, V), "reach Softmax"),
        (around("a = Conv(x, w) z = Add(a, k)", W, V, "float[3,1,1] k = {1, 2, 3}"), "a constant with several elements"),
        (
            f"(float[1,1,2,2] x, float[1,3,2,2] q) => (float[1,4,2,2] y) <{W}, {V}> "
            "{ a = Conv(x, w) z = Add(a, q) y = Conv(z, v) }",
            "come from q",
        ),
        (
            f"(float[1,1,2,2] x, float[4,3,1,1] v) => (float[1,4,2,2] y) <{W}> {{ z = Conv(x, w) y = Conv(z, v) }}",
            "are no constants",
        ),
        (
            f"(float[1,1,2,2] x) => (float[1,12,2,2] y) <{W}, float[12,1,1,1] m = {{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}}> "
            "{ z = Conv(x, w) y = Conv<group = 3>(z, m) }",
            "works in groups",
        ),
        (around("a = Conv(x, w) s = Conv(x, one) z = Mul(a, s)", W, V, "float[1,1,1,1] one = {2}"), "other numbers of"),
        (  # a scalar of five dimensions makes five, and the channels are no longer on axis 1
            f"(float[1,1,2,2] x) => (float[1,4,3,2,2] y) <{W}, float[1,1,1,1,1] k = {{1}}, "
            "float[4,1,1,1,1] v = {1, -1, 2, 3}> { a = Conv(x, w) z = Add(a, k) y = Conv(z, v) }",
            "or dimensions",
        ),
        (
            f"(float[1,1,2,2] x, float[3] q) => (float[1,4,2,2] y) <{W}, {V}> {{ z = Conv(x, w, q) y = Conv(z, v) }}",
            "are no constants",
        ),
        (
            f"(float[1,1,2,2] x, float[3] q) => (float[1,4,2,2] y) <{W}, {D}, {V}> "
            "{ a = Conv(x, w) z = Conv<group = 3>(a, d, q) y = Conv(z, v) }",
            "are no constants",
        ),
        (
            "(float[1,1,2,2] x) => (float[1,4,2,2] y) <float[2,1,1,1] w = {1, 2}, float[4,1,1,1] m = {1, 2, 3, 4}> "
            "{ z = Conv(x, w) y = Conv<group = 2>(z, m) }",
            "works in groups",
        ),
        (  # a depthwise Conv behind channels that have to stay keeps them, too
            f"(float[1,1,2,2] x) => (float[1,4,2,2] y, float[1,3,2,2] s) <{W}, {D}, {V}> "
            "{ a = Conv(x, w) s = Softmax<axis = 1>(a) z = Conv<group = 3>(a, d) y = Conv(z, v) }",
            "reach Softmax",
        ),
        (
            around("a = Conv(x, w) z = If(c) <then_branch = t () => (float[1,3,2,2] p) { p = Neg(a) }, "
            "else_branch = e () => (float[1,3,2,2] q) { q = Abs(a) }>", W, V, "bool c = {1}"),
            "reach",
        ),
    ],
)  # fmt: skip
def test_case_2(graph: str, reason: str) -> None:
    keep(PASS, graph, reason)


def test_a_convolution_of_a_constant() -> None:
    """Nobody makes its channels."""
    numbers = "{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}"
    graph = f"(float[1,4,2,2] x) => (float[1,4,2,2] y) <float[1,3,2,2] c = {numbers}, {V}> {{ z = Conv(c, v) y = Add(x, z) }}"
    keep(PASS, graph)


def test_case_3_the_plan_decides() -> None:
    target = load_target("cpu")
    plan = Plan(values={}, uses={}, decisions={})
    counts = []
    for asked in (0, 4, 8):
        graph = text.parse(model(around("z = Conv(x, w)", W, V))).graph
        context = Context(target=target, plan=replace(plan, channel_multiple=asked))
        counts.append((PASS.run(graph, context).rewrites, graph.nodes[0].inputs[1].values.shape[0]))
    assert counts == [(0, 3), (2, 4), (2, 8)]


def test_shapes_follow() -> None:
    graph = text.parse(model(around("z = Conv(x, w)", W, V))).graph
    graph.nodes[0].outputs[0].shape = [1, 3, 2, 2]
    PASS.run(graph, Context(target=load_target("cpu")))
    assert graph.nodes[0].outputs[0].shape == [1, 4, 2, 2]
