"""DQ goes down through moves: where, in which form, and where not."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.errors import ConfigError
from onnxq.ir import text
from onnxq.testing import default_context
from onnxq_passes.sink_dequantize import SinkDequantize

K = "float s = {0.05}, uint8 z = {120}"
BARE = SinkDequantize(form="bare")


def test_pair_form_in_front_of_a_float_reader() -> None:
    head = f"(uint8[2,3] p) => (float[3,2] y) <{K}>"
    bitwise(
        SinkDequantize(),
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] b = Transpose(a) [n] y = Neg(b) }}",
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] b = Transpose(a) [b_QuantizeLinear] b_quantized = QuantizeLinear(b, s, z) "
        "[b_DequantizeLinear] b_dequantized = DequantizeLinear(b_quantized, s, z) [n] y = Neg(b_dequantized) }",
        rewrites=1,
    )


def test_pair_form_at_an_output_keeps_its_name_and_the_q_beside() -> None:
    head = f"(uint8[2,3] p) => (float[3,2] y, uint8[3,2] w) <{K}>"
    bitwise(
        SinkDequantize(),
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] y = Transpose(a) [q] w = QuantizeLinear(y, s, z) }}",
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] y_float = Transpose(a) [y_float_QuantizeLinear] y_float_quantized = QuantizeLinear(y_float, s, z) "
        "[y_float_DequantizeLinear] y = DequantizeLinear(y_float_quantized, s, z) [q] w = QuantizeLinear(y_float, s, z) }",
        rewrites=1,
    )


def test_bare_form_leaves_the_dq_to_other_readers() -> None:
    head = f"(uint8[2,3] p) => (float[3,2] y, float[2,3] w) <{K}>"
    bitwise(
        BARE,
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] y = Transpose(a) [n] w = Neg(a) }}",
        f"{head} {{ [d] a = DequantizeLinear(p, s, z) [t] y_quantized = Transpose(p) [y_DequantizeLinear] y = DequantizeLinear(y_quantized, s, z) [n] w = Neg(a) }}",
        rewrites=1,
    )


def test_where_with_a_constant_on_the_grid() -> None:
    head = f"(bool[2] c, uint8[2] p) => (float[2] y) <{K}, float k = {{0}}"
    bitwise(
        BARE,
        f"{head}> {{ [d] a = DequantizeLinear(p, s, z) [w] y = Where(c, a, k) }}",
        f"{head}, uint8 k_quantized = {{120}}> {{ [w] y_quantized = Where(c, p, k_quantized) [y_DequantizeLinear] y = DequantizeLinear(y_quantized, s, z) }}",
        rewrites=1,
    )
    for number in ("0.01", "-0.0", "100.0"):
        graph = f"{head}> {{ [d] a = DequantizeLinear(p, s, z) [w] y = Where(c, a, k) }}".replace(
            "{0}", f"{{{number}}}"
        )
        keep(BARE, graph, "not on the grid")


def test_pad_fills_with_the_zero_point() -> None:
    head = f"(uint8[3] p) => (float[5] y) <{K}, int64[2] w = {{1, 1}}"
    bitwise(
        BARE,
        f"{head}> {{ [d] a = DequantizeLinear(p, s, z) [m] y = Pad(a, w) }}",
        f"{head}, uint8 m_fill = {{120}}> {{ [m] y_quantized = Pad(p, w, m_fill) [y_DequantizeLinear] y = DequantizeLinear(y_quantized, s, z) }}",
        rewrites=1,
    )
    keep(BARE, f"{head}, float c = {{0.07}}> {{ [d] a = DequantizeLinear(p, s, z) [m] y = Pad(a, w, c) }}", "grid")


def test_a_channel_axis_is_carried_along() -> None:
    head = "(uint8[2,3,1] p) => (float[3,2,1] y) <float[3] s = {0.05, 0.1, 0.2}"
    nodes = "{ [d] a = DequantizeLinear <axis = -2> (p, s) [t] y = Transpose <perm = [1, 0, 2]> (a) }"
    bitwise(
        BARE,
        f"{head}, float[2,3,1] a> {nodes}",
        f"{head}, uint8[3] d_zero_point = {{0, 0, 0}}> {{ [t] y_quantized = Transpose <perm = [1, 0, 2]> (p) "
        "[y_DequantizeLinear] y = DequantizeLinear <axis = 0> (y_quantized, s, d_zero_point) }",
        rewrites=1,
    )
    keep(BARE, f"{head}> {nodes}", "rank of its input is not known")


D = "[d] a = DequantizeLinear(p, s, z)"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (f"{D} [c] b = Concat <axis = 0> (a, x) [n] y = Neg(b)", "input 1 is not dequantized"),
        (f"{D} [e] b = DequantizeLinear(p, s2, z) [c] f = Concat <axis = 0> (a, b) [n] y = Neg(f)", "different"),
        (f"{D} [t] b = Transpose(a) [q] c = QuantizeLinear(b, s2, z) [n] y = DequantizeLinear(c, s2, z)", "other parameters"),
        ("[d] a = DequantizeLinear(j, s) [t] b = Transpose(a) [n] y = Neg(b)", "Q(DQ(q)) is not q"),
        (f"{D} [m] b = Resize <mode = \"linear\"> (a, , r) [n] y = Neg(b)", "computes new values"),
        (f"{D} [m] b = ScatterND <reduction = \"add\"> (a, i, a) [n] y = Neg(b)", "reduction add"),
    ],
)  # fmt: skip
def test_what_stays(nodes: str, reason: str) -> None:
    head = f"(float[2,2] x, uint8[2,2] p) => (float[n,m] y) <{K}, float s2 = {{0.06}}, float[2] r = {{2, 2}}, int64[2,1] i = {{0, 1}}, int32[2,2] j = {{1, 2, 3, 4}}>"
    keep(SinkDequantize(), f"{head} {{ {nodes} }}", reason)


def test_nothing_to_do_between_dq_and_q() -> None:
    keep(
        SinkDequantize(),
        f"(uint8[2,3] p) => (uint8[3,2] y) <{K}> {{ {D} [t] b = Transpose(a) [q] y = QuantizeLinear(b, s, z) }}",
    )


def test_unknown_form() -> None:
    with pytest.raises(ConfigError, match="pair or bare"):
        SinkDequantize(form="naked")


def test_many_sites() -> None:
    head = f"(uint8[2,3] p) => (float[3,2] y) <{K}>"
    other = f"{head} {{ {D} [m] b = CumSum(a, k) [n] y = Neg(b) }}".replace("(float[3,2] y)", "(float[2,3] y)")
    together(
        SinkDequantize(),
        changed=[
            (
                f"{head} {{ {D} [t] b = Transpose(a) [n] y = Neg(b) }}",
                f"{head} {{ {D} [t] b = Transpose(a) [b_QuantizeLinear] b_quantized = QuantizeLinear(b, s, z) "
                "[b_DequantizeLinear] b_dequantized = DequantizeLinear(b_quantized, s, z) [n] y = Neg(b_dequantized) }",
                1,
            )
        ],
        kept=[
            (
                f"(uint8[2,3] p, float[2,3] x) => (float[4,3] y) <{K}> {{ {D} [c] y = Concat <axis = 0> (a, x) }}",
                "not dequantized",
            )
        ],
        quiet=[other.replace("CumSum(a, k)", "Exp(a)")],
    )


def test_bare_form_wants_an_opset_that_takes_8_bits() -> None:
    graph = f"(uint8[1,1,4,4] p) => (float[1,1,3,3] y) <{K}> {{ {D} [m] y = MaxPool <kernel_shape = [2, 2]> (a) }}"
    keep(BARE, graph, "from opset 12 on", opset=11)


def test_bare_form_in_front_of_a_q_with_the_same_parameters() -> None:
    head = f"(uint8[2,3] p) => (uint8[3,2] y) <{K}>"
    bitwise(
        BARE,
        f"{head} {{ {D} [t] b = Transpose(a) [q] y = QuantizeLinear(b, s, z) }}",
        f"{head} {{ [t] b_quantized = Transpose(p) [b_DequantizeLinear] b = DequantizeLinear(b_quantized, s, z) [q] y = QuantizeLinear(b, s, z) }}",
        rewrites=1,
    )


def test_bare_form_knows_the_type_between() -> None:
    graph = text.parse(
        model(f"(int8[2,3] p) => (float[3,2] y) <float s = {{0.05}}, int8 z = {{3}}> {{ {D} [t] y = Transpose(a) }}")
    ).graph
    assert BARE.run(graph, default_context()).rewrites == 1
    assert [np.dtype(n.outputs[0].dtype).name for n in graph.nodes] == ["int8", "float32"]


def test_a_q_that_is_scaled_by_it_reads_it_in_float() -> None:
    head = f"(uint8[1] p, float[2] x) => (uint8[2] y) <{K}, int64[0] none = {{}}>"
    bitwise(
        SinkDequantize(),
        f"{head} {{ {D} [t] b = Reshape(a, none) [q] y = QuantizeLinear(x, b, z) }}",
        f"{head} {{ {D} [t] b = Reshape(a, none) [b_QuantizeLinear] b_quantized = QuantizeLinear(b, s, z) "
        "[b_DequantizeLinear] b_dequantized = DequantizeLinear(b_quantized, s, z) [q] y = QuantizeLinear(x, b_dequantized, z) }",
        rewrites=1,
        inputs={"p": np.array([121], np.uint8)},
    )


def test_pair_form_carries_the_channels_of_constants() -> None:
    channels = "float[3] s = {0.05, 0.1, 0.2}, uint8[3] z = {1, 2, 3}"
    head = f"() => (float[3,2] y) <{channels}, uint8[2,3] w = {{1, 2, 3, 4, 5, 6}}, float[2,3] a>"
    d = "DequantizeLinear <axis = 1>"
    before = f"{head} {{ [d] a = {d} (w, s, z) [t] b = Transpose(a) [n] y = Neg(b) }}"
    after = (
        f"{head} {{ [d] a = {d} (w, s, z) [t] b = Transpose(a) [b_QuantizeLinear] b_quantized = QuantizeLinear <axis = 0> (b, s, z) "
        "[b_DequantizeLinear] b_dequantized = DequantizeLinear <axis = 0> (b_quantized, s, z) [n] y = Neg(b_dequantized) }"
    )
    bitwise(SinkDequantize(), before, after, rewrites=1)


def test_bare_form_carries_an_axis_forth_not_back() -> None:
    """perm = [1, 2, 0] takes axis 1 to 0; carried back it would be 2."""
    head = (
        "(uint8[2,3,4] p) => (float[3,4,2] y) <float[3] s = {0.05, 0.1, 0.2}, uint8[3] z = {1, 2, 3}, float[2,3,4] a>"
    )
    bitwise(
        BARE,
        f"{head} {{ [d] a = DequantizeLinear <axis = 1> (p, s, z) [t] y = Transpose <perm = [1, 2, 0]> (a) }}",
        f"{head} {{ [t] y_quantized = Transpose <perm = [1, 2, 0]> (p) [y_DequantizeLinear] y = DequantizeLinear <axis = 0> (y_quantized, s, z) }}",
        rewrites=1,
    )


@pytest.mark.parametrize("values", ["0, 0", "0, nan", "inf, 0"])
def test_a_constant_beside_channels_or_without_a_number_stays(values: str) -> None:
    channels = values == "0, 0"
    head = f"(uint8[2,2] p) => (float[3,2] y) <float{'[2]' if channels else ''} s = {{{'1, 1' if channels else '1'}}}, "
    head += f"uint8{'[2]' if channels else ''} z = {{{'0, 0' if channels else '0'}}}, float[1,2] k = {{{values}}}>"
    axis = " <axis = 1>" if channels else ""
    keep(
        SinkDequantize(),
        f"{head} {{ [d] a = DequantizeLinear{axis} (p, s, z) [c] b = Concat <axis = 0> (a, k) [n] y = Neg(b) }}",
        "its constant input 1 is not on the grid",
    )


def test_integers_that_move_already_and_scales_that_are_computed() -> None:
    for nodes in (
        "[q] a = QuantizeLinear(x, s, z) [t] b = Transpose(a) [d] y = DequantizeLinear(b, s, z)",
        "[k] k = Abs(s) [d] a = DequantizeLinear(p, k, z) [t] b = Transpose(a) [n] y = Neg(b)",
    ):
        for form in ("pair", "bare"):
            keep(SinkDequantize(form=form), f"(float[2,3] x, uint8[2,3] p) => (float[3,2] y) <{K}> {{ {nodes} }}")
