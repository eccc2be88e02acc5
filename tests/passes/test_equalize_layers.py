from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from quantized import quantize_text
from rewriting import keep, model, rewrite

from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import to_bytes
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.equalize_layers import EqualizeLayers

PASS = EqualizeLayers()
# rows {8, 0.5} of v, columns {2, 2} of w: s = sqrt(8 / 2), sqrt(0.5 / 2) = {2, 0.5}
CONVS = "float[2,1,1,1] v = {8, 0.5}, float[2] b = {4, -1}, float[1,2,1,1] w = {2, -2}"
DONE = "float[2,1,1,1] v = {4, 1}, float[2] b = {2, -2}, float[1,2,1,1] w = {4, -1}"
HEAD = "(float[1,1,3,3] x) => (float[1,1,3,3] y)"


def test_contract() -> None:
    check_pass(EqualizeLayers)


@pytest.mark.parametrize(
    "between",
    [
        "a = Conv(x, v, b) y = Conv(a, w)",
        "c = Conv(x, v, b) a = Relu(c) y = Conv(a, w)",
        "c = Conv(x, v, b) a = LeakyRelu<alpha = 0.25>(c) y = Conv(a, w)",
        "c = Conv(x, v, b) a = PRelu(c, p) y = Conv(a, w)",
        "c = Conv(x, v, b) a = Clip(c, zero) y = Conv(a, w)",
        "c = Conv(x, v, b) a = Clip(c) y = Conv(a, w)",
        "c = Conv(x, v, b) d = Relu(c) a = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(d) y = Conv(a, w)",
    ],
)
def test_case_1_and_2_two_convolutions(between: str) -> None:
    before, after = (
        f"{HEAD} <{c}, float[2,1,1] p = {{0.1, 0.2}}, float zero = {{0}}> {{ {between} }}" for c in (CONVS, DONE)
    )
    rewrite(PASS, before, after, rewrites=1, atol=1e-5)


def test_case_1_several_readers_share_the_scales() -> None:
    head = "(float[1,1,3,3] x) => (float[1,1,3,3] y, float[1,1,3,3] z)"
    nodes = "c = Conv(x, v, b) a = Relu(c) y = Conv(a, w) z = Conv(a, u)"
    rewrite(
        PASS,
        f"{head} <{CONVS.replace('{2, -2}', '{2, 0}')}, float[1,2,1,1] u = {{1, -2}}> {{ {nodes} }}",
        f"{head} <{DONE.replace('{4, -1}', '{4, 0}')}, float[1,2,1,1] u = {{2, -1}}> {{ {nodes} }}",
        rewrites=1,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("nodes", "before", "after"),
    [
        (
            "a = MatMul(x, v) h = Add(b, a) r = Relu(h) y = MatMul(r, w)",
            "float[1,2] v = {8, 0.5}, float[2] b = {4, -1}, float[2,1] w = {2, -2}",
            "float[1,2] v = {4, 1}, float[2] b = {2, -2}, float[2,1] w = {4, -1}",
        ),
        (
            "h = Gemm<transB = 1, beta = 0.5>(x, v, b) r = Relu(h) y = Gemm<transB = 1>(r, w)",
            "float[2,1] v = {8, 0.5}, float b = {4}, float[1,2] w = {2, -2}",
            "float[2,1] v = {4, 1}, float[2] b = {2, 8}, float[1,2] w = {4, -1}",
        ),
    ],
)
def test_case_1_matrices(nodes: str, before: str, after: str) -> None:
    head = "(float[3,1] x) => (float[3,1] y)"
    rewrite(PASS, f"{head} <{before}> {{ {nodes} }}", f"{head} <{after}> {{ {nodes} }}", rewrites=1, atol=1e-5)


def test_case_1_transposed_and_grouped() -> None:
    """Two groups in both ops: channel 2 g + j of the first is w[g, j] of a ConvTranspose, w[2 g + j] of a Conv."""
    nodes = "c = ConvTranspose<group = 2>(x, v, b) a = Relu(c) y = Conv<group = 2>(a, w)"
    head = "(float[1,2,3,3] x) => (float[1,2,3,3] y)"
    rewrite(
        PASS,
        f"{head} <float[2,2,1,1] v = {{8, 2, -1, 8}}, float[4] b = {{2, 1, 1, 2}}, float[2,2,1,1] w = {{2, 2, 4, 2}}> {{ {nodes} }}",
        f"{head} <float[2,2,1,1] v = {{4, 2, -2, 4}}, float[4] b = {{1, 1, 2, 1}}, float[2,2,1,1] w = {{4, 2, 2, 4}}> {{ {nodes} }}",
        rewrites=1,
        atol=1e-5,
    )


def test_case_1_a_transposed_convolution_reads() -> None:
    nodes = "c = Conv(x, v, b) y = ConvTranspose(c, w)"
    before, after = (f"{HEAD} <{c.replace('[1,2,1,1]', '[2,1,1,1]')}> {{ {nodes} }}" for c in (CONVS, DONE))
    rewrite(PASS, before, after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "reasons"),
    [
        ("c = Conv(x, v, b) a = Clip(c, zero, six) y = Conv(a, w)", ["Clip in front is not positively homogeneous"]),
        ("l = ReduceMin<keepdims = 0>(x) c = Conv(x, v, b) a = Clip(c, l) y = Conv(a, w)", ["Clip in front is not"]),
        ("c = Conv(x, v, b) a = Sigmoid(c) y = Conv(a, w)", ["Sigmoid in front is not positively homogeneous"]),
        ("c = Conv(x, v, b) a = Add(c, x) y = Conv(a, w)", ["Add in front is not positively homogeneous"]),
        ("c = Conv(x, v, b) y = Conv(c, w) [n] z = Neg(c)", ['also read by Neg "n"']),
        ("c = Conv(x, v, b) [r] a = Relu(c) y = Conv(a, w) z = Neg(c)", ["what Relu in front reads is also read elsewhere"]),
        ("c = Conv(x, v, b) y = Conv(c, w) d = Conv(x, v, b) z = Sigmoid(d)", ["the weight of Conv in front is shared"]),
        ("c = Conv(x, v, b) y = Conv(c, w) d = Mul(x, p) z = Conv(d, w)", ["its weight is shared", "its weight is shared"]),
        ("e = Abs(b) c = Conv(x, v, e) y = Conv(c, w)", ["the bias of Conv in front is not constant"]),
        ("c = Mul(x, p) y = Conv(c, w)", ["Mul in front is no linear op"]),
        ("c = Conv(x, v, b) a = MaxPool<kernel_shape = [1, 1]>(c) y = MatMul(a, m)", ["MaxPool in front"]),
        ("c = Conv(x, v, b) y = MatMul(c, m)", ["Conv in front has its channels elsewhere"]),
        ("y = Conv(x, u)", []),
    ],
)  # fmt: skip
def test_case_2_and_5_near_misses(nodes: str, reasons: list[str]) -> None:
    more = "float zero = {0}, float six = {6}, float[2,1,1] p = {1, 2}, float[3,3] m = {1, 2, 3, 4, 5, 6, 7, 8, 9}"
    outputs = "(float[b,c,h,w0] y, float[b2,c2,h2,w2] z)" if "z =" in nodes else "(float[b,c,h,w0] y)"
    keep(PASS, f"(float[1,1,3,3] x) => {outputs} <{CONVS}, {more}, float[1,1,1,1] u = {{1}}> {{ {nodes} }}", *reasons)


def test_case_2_an_output_of_the_graph() -> None:
    head = "(float[1,1,3,3] x) => (float[1,1,3,3] y, float[1,2,3,3] c)"
    keep(PASS, f"{head} <{CONVS}> {{ c = Conv(x, v, b) y = Conv(c, w) }}", "also read by an output of the graph")


def test_case_3_dead_channels_and_unread_ones_stay() -> None:
    dead = CONVS.replace("v = {8, 0.5}", "v = {8, 0}").replace("b = {4, -1}", "b = {4, 0}")
    done = DONE.replace("v = {4, 1}", "v = {4, 0}").replace("b = {2, -2}", "b = {2, 0}").replace("{4, -1}", "{4, -2}")
    nodes = "c = Conv(x, v, b) y = Conv(c, w)"
    rewrite(PASS, f"{HEAD} <{dead}> {{ {nodes} }}", f"{HEAD} <{done}> {{ {nodes} }}", rewrites=1, atol=1e-5)
    unread, left = CONVS.replace("w = {2, -2}", "w = {2, 0}"), DONE.replace("w = {4, -1}", "w = {4, 0}")
    left = left.replace("v = {4, 1}", "v = {4, 0.5}").replace("b = {2, -2}", "b = {2, -1}")
    rewrite(PASS, f"{HEAD} <{unread}> {{ {nodes} }}", f"{HEAD} <{left}> {{ {nodes} }}", rewrites=1, atol=1e-5)


def test_case_4_small_moves_are_not_made() -> None:
    some = CONVS.replace("v = {8, 0.5}", "v = {2.03, 2}")
    keep(PASS, f"{HEAD} <{some}> {{ c = Conv(x, v, b) y = Conv(c, w) }}")  # sqrt(2.03 / 2) = 1.0075


CHAIN = "c = Conv(x, v, b) r = Relu(c) d = Conv<group = 4, pads = [1, 1, 1, 1]>(r, k) s = Relu(d) y = Conv(s, w)"


def source(constants: str) -> str:
    return model(f"(float[1,3,9,9] x) => (float[1,2,9,9] y) <{constants}> {{ {CHAIN} }}")


def unequal(seed: int = 0) -> Model:
    """Pointwise, depthwise, pointwise, with channels that differ by factors up to 2^10."""
    random = np.random.default_rng(seed)
    factor = 2.0 ** random.uniform(-5, 5, (2, 4))
    v, k, w = (random.normal(0, 1, n) for n in ((4, 3), (4, 9), (2, 4)))
    v, b = v * factor[0][:, None], random.normal(0, 1, 4) * factor[0]
    k, w = k / factor[0][:, None] * factor[1][:, None], w / factor[1]
    text_of = ["{" + ", ".join(str(x) for x in np.asarray(a, np.float32).ravel()) + "}" for a in (v, b, k, w)]
    constants = "float[4,3,1,1] v = {}, float[4] b = {}, float[4,1,3,3] k = {}, float[2,4,1,1] w = {}".format(*text_of)
    return text.parse(source(constants))


def test_case_4_chains_converge() -> None:
    before, after = unequal(), unequal()
    assert PASS.run(after.graph, default_context()).rewrites == 2
    first, depthwise, last = (np.abs(n.inputs[1].values) for n in after.graph.nodes if n.op == "Conv")
    middle = depthwise.max(axis=(1, 2, 3))
    np.testing.assert_allclose(first.max(axis=(1, 2, 3)), middle, rtol=0.02)
    np.testing.assert_allclose(middle, last.max(axis=(0, 2, 3)), rtol=0.02)
    x = {"x": np.random.default_rng(1).normal(0, 1, (1, 3, 9, 9)).astype(np.float32)}
    want, got = (Session(to_bytes(m), level=Level.OFF, threads=1).run(x)["y"] for m in (before, after))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    assert PASS.run(after.graph, default_context()).rewrites == 0


def test_int8_gains_where_channels_are_unequal() -> None:
    """The same function, int8 by the rules of the target: more than 10 dB."""
    before, after = unequal(), unequal()
    PASS.run(after.graph, default_context())
    shapes = "float[4,3,1,1] v = {0}, float[4] b = {0}, float[4,1,3,3] k = {0}, float[2,4,1,1] w = {0}"
    x = {"x": np.random.default_rng(1).normal(0, 1, (1, 3, 9, 9)).astype(np.float32)}
    noise = []
    for some in (before, after):
        constants = {t.name: t.values for n in some.graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
        made = quantize_text(source(shapes), constants=constants, inputs=x)
        assert made.kernels()["QLinearConv"] == 3
        wanted = made.run(original=True)["y"]
        noise.append(float(((made.run()["y"] - wanted) ** 2).sum() / (wanted**2).sum()))
    assert noise[1] < 0.1 * noise[0], noise


def test_case_5_weights_that_would_not_be_finite() -> None:
    tiny = "float[2,1,1,1] v = {1e38, 1e-38}, float[2] b = {0, 3e38}, float[1,2,1,1] w = {1, 1}"
    keep(PASS, f"{HEAD} <{tiny}> {{ c = Conv(x, v, b) y = Conv(c, w) }}", "would not be finite", inputs={"x": np.zeros((1, 1, 3, 3), np.float32)})  # fmt: skip


def test_case_1_all_positions_of_a_transposed_kernel_count() -> None:
    nodes = "c = ConvTranspose(x, v, b) y = Conv(c, w)"
    head = "(float[1,1,3,3] x) => (float[1,1,4,3] y)"
    rewrite(
        PASS,
        f"{head} <{CONVS.replace('float[2,1,1,1] v = {8, 0.5}', 'float[1,2,2,1] v = {1, -8, 0.5, 0.25}')}> {{ {nodes} }}",
        f"{head} <{DONE.replace('float[2,1,1,1] v = {4, 1}', 'float[1,2,2,1] v = {0.5, -4, 1, 0.5}')}> {{ {nodes} }}",
        rewrites=1,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("nodes", "reasons"),
    [
        ("h = MatMul(x, v) y = Mul(h, w)", []),  # no product, though its constant is a matrix
        ("h = MatMul(x, v) q = Abs(x) y = MatMul(h, q)", []),
        ("h = MatMul(x, v) c = Cast<to = 6>(h) d = MatMul(c, i) y = Cast<to = 1>(d)", []),
        ("h = MatMul(x, v) d = MatMul(h, t) y = Squeeze<axes = [0]>(d)", []),
        ("h = MatMul(x, v) y = Gemm<transA = 1>(h, w)", ["it transposes its data"]),
        ("h = MatMul(x, v) [m] m = Mul(h, k) n = MatMul(h, w) y = Add(m, n)", ['its input is also read by Mul "m"']),
        ("h = MatMul(x, v) [m] m = MatMul(x, h) n = MatMul(h, w) y = Add(m, n)", ['also read by MatMul "m"']),
    ],
)
def test_case_1_and_5_what_is_no_product(nodes: str, reasons: list[str]) -> None:
    one, other = "{8, 1, 2, 3}", "{1, 2, 3, 40}"
    constants = f"float[2,2] v = {one}, float[2,2] w = {other}, float[2,2] k = {other}, float[1,2,2] t = {one}, int32[2,2] i = {one}"
    keep(PASS, f"(float[2,2] x) => (float[2,2] y) <{constants}> {{ {nodes} }}", *reasons, opset=11)


def test_case_5_who_reads_it_is_told_with_the_outputs_first() -> None:
    source = f"(float[1,1,3,3] x) => (float[1,1,3,3] y, float[1,2,3,3] c, float[1,2,3,3] z) <{CONVS}> {{ c = Conv(x, v, b) y = Conv(c, w) [n] z = Neg(c) }}"
    keep(PASS, source, 'also read by an output of the graph, Neg "n"')


def test_case_5_channels_that_lie_elsewhere_though_there_are_as_many() -> None:
    source = f"(float[1,1,2,2] x) => (float[1,2,2,2] y) <{CONVS}, float[2,2] m = {{1, 2, 3, 4}}> {{ c = Conv(x, v, b) y = MatMul(c, m) }}"
    keep(PASS, source, "Conv in front has its channels elsewhere")


@pytest.mark.parametrize(("nodes"), ["Sub(a, b)", "Sub(b, a)", "Add(a, b)", "Add(b, a)"])
@pytest.mark.parametrize("rank", ["float[2]", "float[1,1,2]"])
def test_case_1_constants_on_either_side(nodes: str, rank: str) -> None:
    head = "(float[1,3,1] x) => (float[1,3,1] y)"
    before, after = (
        f"{head} <float[1,2] v = {{{v}}}, {rank} b = {{{b}}}, float[2,1] w = {{{w}}}> {{ a = MatMul(x, v) h = {nodes} y = MatMul(h, w) }}"
        for v, b, w in (("8, 0.5", "4, -1", "2, -2"), ("4, 1", "2, -2", "4, -1"))
    )
    rewrite(PASS, before, after, rewrites=1, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("float[2,1,1] k = {8, 1}", "float[2,1,1] k = {4, 2}"),
        ("float[1,2,1,1] k = {8, 1}", "float[1,2,1,1] k = {4, 2}"),
        ("float k = {4}", "float[2,1,1] k = {2, 8}"),
        ("float[3] k = {4, 2, 0}", "float[2,1,3] k = {2, 1, 0, 8, 4, 0}"),
        ("float[3,1] k = {4, 2, 0}", "float[2,3,1] k = {2, 1, 0, 8, 4, 0}"),
    ],
)
def test_case_1_constants_between_convolutions(before: str, after: str) -> None:
    nodes = "c = Conv(x, v, b) h = Add(c, k) y = Conv(h, w)"
    rewrite(
        PASS,
        f"{HEAD} <{CONVS}, {before}> {{ {nodes} }}",
        f"{HEAD} <{DONE}, {after}> {{ {nodes} }}",
        rewrites=1,
        atol=1e-5,
    )


def test_case_2_a_constant_of_more_dimensions_than_the_image_adds_one() -> None:
    source = f"(float[1,1,3,3] x) => (float[1,1,3,3] y) <{CONVS}, float[1,1,2,1,1] k = {{1, 2}}> {{ c = Conv(x, v, b) h = Add(c, k) d = Squeeze<axes = [0]>(h) y = Conv(d, w) }}"
    keep(PASS, source, "Squeeze in front", opset=11)
    (found,) = PASS.run(
        text.parse(model(source.replace("d = Squeeze<axes = [0]>(h)", "").replace("Conv(d", "Conv(h"))).graph,
        default_context(),
    ).refusals
    assert "Add in front is not positively homogeneous" in found.reason


def test_case_4_a_chain_goes_on_after_a_round_in_which_all_factors_were_2() -> None:
    constants = "float[2,1,1,1] v = {16, -16}, float[2,1,1,1] k = {4, 4}, float[1,2,1,1] w = {2, 2}"
    found = text.parse(model(f"{HEAD} <{constants}> {{ c = Conv(x, v) d = Conv<group = 2>(c, k) y = Conv(d, w) }}"))
    assert PASS.run(found.graph, default_context()).rewrites == 2
    for node in found.graph.nodes:
        np.testing.assert_allclose(np.abs(node.inputs[1].values), 128 ** (1 / 3), rtol=0.01)


def test_case_1_a_bias_that_others_read_stays_for_them() -> None:
    head = "(float[1,1,3,3] x) => (float[1,1,3,3] y, float[2] z)"
    rewrite(
        PASS,
        f"{head} <{CONVS}> {{ c = Conv(x, v, b) y = Conv(c, w) z = Neg(b) }}",
        f"{head} <{DONE.replace(' b =', ' b_scaled =')}, float[2] b = {{4, -1}}> {{ c = Conv(x, v, b_scaled) y = Conv(c, w) z = Neg(b) }}",
        rewrites=1,
        atol=1e-5,
    )
