"""Q goes up through moves: where, in which form, and where not."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep

from onnxq.errors import ConfigError
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
