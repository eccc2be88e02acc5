"""Q goes up through moves: where, in which form, and where not."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.errors import ConfigError
from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes.hoist_quantize import HoistQuantize

K = "float s = {0.05}, uint8 z = {120}"
PAIR = "[x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [x_DequantizeLinear] x_dequantized = DequantizeLinear(x_quantized, s, z)"
BARE = HoistQuantize(form="bare")


def test_pair_form() -> None:
    bitwise(
        HoistQuantize(),
        f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ [t] a = Transpose(x) [q] y = QuantizeLinear(a, s, z) }}",
        f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ {PAIR} [t] a = Transpose(x_dequantized) [q] y = QuantizeLinear(a, s, z) }}",
        rewrites=1,
    )


def test_bare_form_keeps_the_name_of_the_output() -> None:
    bitwise(
        BARE,
        f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ [t] a = Transpose(x) [q] y = QuantizeLinear(a, s, z) }}",
        f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [t] y = Transpose(x_quantized) }}",
        rewrites=1,
    )


def test_a_chain_and_a_fork_with_equal_readers() -> None:
    report = bitwise(
        BARE,
        f"(float[2,3] x) => (float[1,3,2] y, float[1,3,2] w) <{K}, int64[1] o = {{0}}> {{ [t] a = Transpose(x) [u] b = Unsqueeze(a, o) "
        "[q] c = QuantizeLinear(b, s, z) [r] d = QuantizeLinear(b, s, z) [e] y = DequantizeLinear(c, s, z) [f] w = DequantizeLinear(d, s, z) }",
        f"(float[2,3] x) => (float[1,3,2] y, float[1,3,2] w) <{K}, int64[1] o = {{0}}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) "
        "[t] a = Transpose(x_quantized) [u] b = Unsqueeze(a, o) [e] y = DequantizeLinear(b, s, z) [f] w = DequantizeLinear(b, s, z) }",
        rewrites=2,
    )
    assert not report.refusals


def test_a_concat_quantizes_each_input_and_leaves_an_equal_pair() -> None:
    head = f"(float[1,2] x, uint8[1,2] p) => (uint8[1,6] y) <{K}, float[1,2] c = {{1, 2}}"
    bitwise(
        HoistQuantize(),
        f"{head}> {{ [d] a = DequantizeLinear(p, s, z) [n] b = Concat <axis = 1> (a, x, c) [q] y = QuantizeLinear(b, s, z) }}",
        f"{head}, uint8[1,2] c_quantized = {{140, 160}}> {{ [d] a = DequantizeLinear(p, s, z) {PAIR} [c_DequantizeLinear] c_dequantized = DequantizeLinear(c_quantized, s, z) "
        "[n] b = Concat <axis = 1> (a, x_dequantized, c_dequantized) [q] y = QuantizeLinear(b, s, z) }",
        rewrites=1,
    )


def test_pad_in_integers_fills_with_the_integer() -> None:
    head = f"(float[3] x) => (uint8[5] y) <{K}, int64[2] p = {{1, 1}}"
    for number, level in ((", c", 123), ("", 120)):
        bitwise(
            BARE,
            f"{head}, float c = {{0.15}}> {{ [p] a = Pad(x, p{number}) [q] y = QuantizeLinear(a, s, z) }}",
            f"{head}, uint8 p_fill = {{{level}}}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [p] y = Pad(x_quantized, p, p_fill) }}",
            rewrites=1,
        )


def test_a_channel_axis_is_carried_back() -> None:
    k = "float[3] s = {0.05, 0.1, 0.2}, uint8[3] z = {1, 2, 3}"
    bitwise(
        HoistQuantize(),
        f"(float[2,3] x) => (uint8[3,2] y) <{k}> {{ [t] a = Transpose(x) [q] y = QuantizeLinear <axis = 0> (a, s, z) }}",
        f"(float[2,3] x) => (uint8[3,2] y) <{k}> {{ {PAIR.replace('Linear(', 'Linear <axis = 1> (')} [t] a = Transpose(x_dequantized) [q] y = QuantizeLinear <axis = 0> (a, s, z) }}",
        rewrites=1,
    )
    blocks = "float[2,1] s = {1, 2}, uint8[2,1] z = {0, 0}, int64[2] i = {1, 0}"
    keep(
        HoistQuantize(),
        f"(float[2,2] x) => (uint8[2,2] y) <{blocks}> {{ [g] a = Gather(x, i) [q] y = QuantizeLinear <axis = 1, block_size = 2> (a, s, z) }}",
        "blocks",
    )


def test_in_a_body() -> None:
    bitwise(
        BARE,
        f"(bool c, float[2,3] x) => (uint8[3,2] y) <{K}> {{ y = If(c) <then_branch = a () => (uint8[3,2] t) {{ [i] a = Transpose(x) [q] t = QuantizeLinear(a, s, z) }}, else_branch = b () => (uint8[3,2] e) {{ [j] b = Transpose(x) [r] e = QuantizeLinear(b, s, z) }}> }}",
        f"(bool c, float[2,3] x) => (uint8[3,2] y) <{K}> {{ y = If(c) <then_branch = a () => (uint8[3,2] t) {{ [x_QuantizeLinear_1] x_quantized_1 = QuantizeLinear(x, s, z) [i] t = Transpose(x_quantized_1) }}, else_branch = b () => (uint8[3,2] e) {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [j] e = Transpose(x_quantized) }}> }}",
        rewrites=2,
    )


Q2 = "[q] y = QuantizeLinear(a, s, z)"


@pytest.mark.parametrize(
    ("nodes", "outputs", "reason"),
    [
        (f"[t] a = Transpose(x) {Q2}", "uint8[2,2] y, float[2,2] a", "output of the graph"),
        (f"[t] a = Transpose(x) {Q2} [n] w = Neg(a)", "uint8[2,2] y, float[2,2] w", "n reads its result in float"),
        (f"[t] a = Transpose(x) {Q2} [r] w = QuantizeLinear(a, s2, z)", "uint8[2,2] y, uint8[2,2] w", "other parameters"),
        (f"[d] b = DequantizeLinear(p, s2, z) [t] a = Transpose(b) {Q2}", "uint8[2,2] y", "dequantized with other"),
        (f"[m] a, i = TopK <axis = 0> (x, k) {Q2}", "uint8[1,2] y, int64[1,2] i", "output 1 is read"),
        (f"[m] a = Resize <mode = \"linear\"> (x, , r) {Q2}", "uint8[4,4] y", "computes new values"),
        ("[t] a = Transpose(x) [q] y = QuantizeLinear(a, e, z)", "uint8[2,2] y", "not constant or not regular"),
        ("[t] a = Transpose(x) [q] y = QuantizeLinear(a, big, z)", "uint8[2,2] y", "Q(DQ(q)) is not q"),
    ],
)  # fmt: skip
def test_what_stays(nodes: str, outputs: str, reason: str) -> None:
    head = f"(float[2,2] x, uint8[2,2] p, float e) => ({outputs}) <{K}, float s2 = {{0.06}}, int64[1] k = {{1}}, float[2] r = {{2, 2}}, float big = {{3e37}}>"
    keep(HoistQuantize(), f"{head} {{ {nodes} }}", reason, inputs={"e": np.array(0.5, np.float32)})


def test_bare_form_wants_an_opset_that_takes_8_bits() -> None:
    graph = f"(float[1,1,4,4] x) => (uint8[1,1,3,3] y) <{K}> {{ [m] a = MaxPool <kernel_shape = [2, 2]> (x) {Q2} }}"
    keep(BARE, graph, "from opset 12 on", opset=11)
    bitwise(
        BARE,
        graph,
        f"(float[1,1,4,4] x) => (uint8[1,1,3,3] y) <{K}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [m] y = MaxPool <kernel_shape = [2, 2]> (x_quantized) }}",
        opset=13,
        rewrites=1,
    )


def test_unknown_form() -> None:
    with pytest.raises(ConfigError, match="pair or bare"):
        HoistQuantize(form="naked")


MOVED = f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ {PAIR} [t] a = Transpose(x_dequantized) {Q2} }}"


def test_many_sites_and_bodies() -> None:
    head = f"(float[2,3] x) => (uint8[3,2] y) <{K}>"
    together(
        HoistQuantize(),
        changed=[(f"{head} {{ [t] a = Transpose(x) {Q2} }}", MOVED, 1)],
        kept=[
            (f"(float[2,3] x) => (uint8[3,2] y, float[3,2] w) <{K}> {{ [t] a = Transpose(x) {Q2} [n] w = Neg(a) }}", "n reads"),
            (f"(float[2,3] x) => (uint8[3,2] y, float[3,2] a) <{K}> {{ [t] a = Transpose(x) {Q2} }}", "output of the graph"),
        ],
        quiet=[
            MOVED,
            f"{head.replace('[3,2]', '[2,3]')} {{ [t] a = Exp(x) {Q2} }}",
            f"{head.replace('uint8', 'float')} {{ [t] y = Transpose(x) }}",
        ],
    )  # fmt: skip


def test_the_zero_point_is_written_out() -> None:
    head = "(float[2,3] x) => (uint8[3,2] y) <float s = {0.05}"
    bitwise(
        HoistQuantize(),
        f"{head}> {{ [t] a = Transpose(x) [q] y = QuantizeLinear(a, s) }}",
        f"{head}, uint8 q_zero_point = {{0}}> {{ {PAIR.replace(', z)', ', q_zero_point)')} [t] a = Transpose(x_dequantized) [q] y = QuantizeLinear(a, s) }}",
        rewrites=1,
    )


def test_bare_form_takes_the_integers_of_an_equal_dq() -> None:
    head = f"(uint8[2,3] p) => (uint8[3,2] y) <{K}>"
    bitwise(
        BARE,
        f"{head} {{ [d] b = DequantizeLinear(p, s, z) [t] a = Transpose(b) {Q2} }}",
        f"{head} {{ [d] b = DequantizeLinear(p, s, z) [t] y = Transpose(p) }}",
        rewrites=1,
    )


def test_bare_form_keeps_a_pair_that_does_not_give_back_its_integers() -> None:
    head = "(uint8[2,3] p) => (uint8[3,2] y) <float s = {3e37}, uint8 z = {120}>"
    d = "[d] b = DequantizeLinear(p, s, z)"
    bitwise(
        BARE,
        f"{head} {{ {d} [t] a = Transpose(b) {Q2} }}",
        f"{head} {{ {d} [b_QuantizeLinear] b_quantized = QuantizeLinear(b, s, z) [t] y = Transpose(b_quantized) }}",
        rewrites=1,
        inputs={"p": np.array([[0, 1, 2], [120, 200, 255]], np.uint8)},
    )


def test_a_tensor_that_is_read_twice_is_quantized_once() -> None:
    head = f"(float[2,3] x) => (uint8[4,3] y) <{K}>"
    bitwise(
        HoistQuantize(),
        f"{head} {{ [c] a = Concat <axis = 0> (x, x) {Q2} }}",
        f"{head} {{ {PAIR} [c] a = Concat <axis = 0> (x_dequantized, x_dequantized) {Q2} }}",
        rewrites=1,
    )


def test_bare_form_leaves_other_results_their_type() -> None:
    head = f"(float[2,2] x) => (uint8[1,2] y) <{K}, int64[1] k = {{1}}, int64[1,2] i>"
    before = f"{head} {{ [m] a, i = TopK <axis = 0> (x, k) {Q2} }}"
    graph = text.parse(model(before)).graph
    assert BARE.run(graph, default_context()).rewrites == 1
    assert {t.name: np.dtype(t.dtype).name for n in graph.nodes for t in n.outputs} == {
        "x_quantized": "uint8",
        "y": "uint8",
        "i": "int64",
    }


def test_a_q_in_another_body() -> None:
    q = "[{0}] {1} = QuantizeLinear(a, s, z)"
    bodies = f"y = If(c) <then_branch = g () => (uint8[3,2] t) {{ {q.format('q', 't')} }}, else_branch = h () => (uint8[3,2] e) {{ {q.format('r', 'e')} }}>"
    head = f"(bool c, float[2,3] x) => (uint8[3,2] y) <{K}>"
    before = f"{head} {{ [t] a = Transpose(x) {bodies} }}"
    keep(BARE, before, "stands in another body")
    bitwise(HoistQuantize(), before, f"{head} {{ {PAIR} [t] a = Transpose(x_dequantized) {bodies} }}", rewrites=1)


def test_integers_that_are_two_outputs() -> None:
    head = f"(float[2,3] x) => (uint8[3,2] y, uint8[3,2] w) <{K}>"
    nodes = f"{Q2} [r] w = QuantizeLinear(a, s, z)"
    keep(BARE, f"{head} {{ [t] a = Transpose(x) {nodes} }}", "two outputs of the graph")
    bitwise(
        HoistQuantize(),
        f"{head} {{ [t] a = Transpose(x) {nodes} }}",
        f"{head} {{ {PAIR} [t] a = Transpose(x_dequantized) {nodes} }}",
        rewrites=1,
    )


def test_bare_form_wants_a_constant_to_fill_with() -> None:
    head = f"(float[3] x, float c) => (uint8[5] y) <{K}, int64[2] p = {{1, 1}}>"
    before = f"{head} {{ [p] a = Pad(x, p, c) {Q2} }}"
    keep(BARE, before, "is computed")
    bitwise(HoistQuantize(), before, f"{head} {{ {PAIR} [p] a = Pad(x_dequantized, p, c) {Q2} }}", rewrites=1)


def test_bare_form_rounds_the_number_that_it_fills_with() -> None:
    head = f"(float[3] x) => (uint8[5] y) <{K}, int64[2] p = {{1, 1}}"
    bitwise(
        BARE,
        f"{head}, float c = {{0.16}}> {{ [p] a = Pad(x, p, c) {Q2} }}",
        f"{head}, uint8 p_fill = {{123}}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [p] y = Pad(x_quantized, p, p_fill) }}",
        rewrites=1,
    )


def test_a_channel_axis_that_comes_from_elsewhere_is_carried_back_not_forth() -> None:
    """perm = [1, 2, 0] takes axis 1 to 0: behind the op it is 0, in front of it 1; carried forth it would be 2."""
    k = "float[3] s = {0.05, 0.1, 0.2}, uint8[3] z = {1, 2, 3}"
    head = f"(float[2,3,4] x) => (uint8[3,4,2] y) <{k}>"
    q = "[q] y = QuantizeLinear <axis = 0> (a, s, z)"
    bitwise(
        HoistQuantize(),
        f"{head} {{ [t] a = Transpose <perm = [1, 2, 0]> (x) {q} }}",
        f"{head} {{ {PAIR.replace('Linear(', 'Linear <axis = 1> (')} [t] a = Transpose <perm = [1, 2, 0]> (x_dequantized) {q} }}",
        rewrites=1,
    )


def test_a_constant_that_is_not_float32() -> None:
    """onnx quantizes int32, too; ONNX Runtime does not, so that nothing can be compared."""
    before = f"() => (uint8[3,2] y) <int32[2,3] c = {{1, 2, 3, 4, 5, 6}}, {K}> {{ [t] a = Transpose(c) {Q2} }}"
    graph = text.parse(model(before, 13)).graph
    report = HoistQuantize().run(graph, default_context())
    assert ([r.reason for r in report.refusals], report.rewrites) == (["its input 0 is not float32"], 0)


def test_an_op_of_another_domain_is_none_of_its_business() -> None:
    before = f"(float[2,3] x) => (uint8[3,2] y) <{K}> {{ [t] a = com.microsoft.Transpose(x) {Q2} }}"
    report = HoistQuantize().run(text.parse(model(before)).graph, default_context())
    assert (report.rewrites, report.refusals) == (0, [])


def test_another_result_that_a_node_reads() -> None:
    head = f"(float[2,2] x) => (uint8[1,2] y, float[1,2] w) <{K}, int64[1] k = {{1}}>"
    keep(
        HoistQuantize(),
        f"{head} {{ [m] a, i = TopK <axis = 0> (x, k) {Q2} [n] w = Cast <to = 1> (i) }}",
        "output 1 is read",
    )


def test_bare_form_is_content_with_the_least_opset() -> None:
    bitwise(
        BARE,
        f"(float[1,1,4,4] x) => (uint8[1,1,3,3] y) <{K}> {{ [m] a = MaxPool <kernel_shape = [2, 2]> (x) {Q2} }}",
        f"(float[1,1,4,4] x) => (uint8[1,1,3,3] y) <{K}> {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [m] y = MaxPool <kernel_shape = [2, 2]> (x_quantized) }}",
        opset=12,
        rewrites=1,
    )


def test_16_bits_in_pairs() -> None:
    head = "(float[2,3] x) => (uint16[3,2] y) <float s = {0.0005}, uint16 z = {30000}>"
    before = f"{head} {{ [t] a = Transpose(x) {Q2} }}"
    bitwise(HoistQuantize(), before, f"{head} {{ {PAIR} [t] a = Transpose(x_dequantized) {Q2} }}", rewrites=1)
    keep(BARE, before, "was not checked for uint16")


def test_the_types_between() -> None:
    before = f"(float[2,3] x) => (int8[3,2] y) <float s = {{0.05}}, int8 z = {{120}}> {{ [t] a = Transpose(x) {Q2} }}"
    graph = text.parse(model(before)).graph
    HoistQuantize().run(graph, default_context())
    assert [np.dtype(n.outputs[0].dtype).name for n in graph.nodes[:2]] == ["int8", "float32"]


def test_bare_form_of_a_pad_that_copies_and_of_one_with_axes() -> None:
    head = f"(float[3] x) => (uint8[5] y) <{K}, int64[2] p = {{1, 1}}, int64[1] e = {{0}}"
    q = "[x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z)"
    edge = '[p] {0} = Pad <mode = "edge"> ({1}, p)'
    bitwise(
        BARE,
        f"{head}> {{ {edge.format('a', 'x')} {Q2} }}",
        f"{head}> {{ {q} {edge.format('y', 'x_quantized')} }}",
        rewrites=1,
    )
    bitwise(
        BARE,
        f"{head}> {{ [p] a = Pad(x, p, , e) {Q2} }}",
        f"{head}, uint8 p_fill = {{120}}> {{ {q} [p] y = Pad(x_quantized, p, p_fill, e) }}",
        rewrites=1,
    )


def test_bare_form_of_a_pad_that_copies_drops_its_number() -> None:
    """It is float, and a Pad of integers takes none."""
    head = f"(float[3] x, float c) => (uint8[5] y) <{K}, int64[2] p = {{1, 1}}, int64[1] e = {{0}}>"
    bitwise(
        BARE,
        f'{head} {{ [p] a = Pad <mode = "edge"> (x, p, c, e) {Q2} }}',
        f'{head} {{ [x_QuantizeLinear] x_quantized = QuantizeLinear(x, s, z) [p] y = Pad <mode = "edge"> (x_quantized, p, , e) }}',
        rewrites=1,
    )
