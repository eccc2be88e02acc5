from __future__ import annotations

import pytest
from rewriting import bitwise, keep, model, together

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.canonicalise_qdq import CanonicaliseQdq

PASS = CanonicaliseQdq()
K = "float s = {0.02}, uint8 z = {120}"
HEAD = "(float[2,3] x) => (float[2,3] y) "
AFTER = f"{HEAD}<{K}> {{ [q] a = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(a, s, z) }}"


def test_contract() -> None:
    check_pass(CanonicaliseQdq)


def test_the_canonical_form_stays() -> None:
    keep(PASS, AFTER)


def test_case_1_the_domain_of_ort() -> None:
    before = f"{HEAD}<{K}> {{ [q] a = com.microsoft.QuantizeLinear(x, s, z) [d] y = com.microsoft.DequantizeLinear(a, s, z) }}"
    bitwise(PASS, before, AFTER, rewrites=2)


@pytest.mark.parametrize("opset", [17, 21])
def test_case_1_16_bits_need_their_opset(opset: int) -> None:
    wide = K.replace("uint8", "uint16")
    before = f"{HEAD}<{wide}> {{ [q] a = com.microsoft.QuantizeLinear(x, s, z) [d] y = com.microsoft.DequantizeLinear(a, s, z) }}"
    if opset == 17:
        reason = "uint16 from opset 21 on, the model has 17"
        keep(PASS, before, reason, reason, opset=17)
    else:
        bitwise(PASS, before, before.replace("com.microsoft.", ""), rewrites=2)


def test_case_2_one_scale_has_rank_0() -> None:
    before = f"{HEAD}<float[1] s = {{0.02}}, uint8[1] z = {{120}}> {{ [q] a = QuantizeLinear<axis = 1>(x, s, z) [d] y = DequantizeLinear<axis = 0>(a, s, z) }}"
    after = (
        f"{HEAD}<float s_1 = {{0.02}}, uint8 z_1 = {{120}}, float s_2 = {{0.02}}, uint8 z_2 = {{120}}> "
        "{ [q] a = QuantizeLinear(x, s_1, z_1) [d] y = DequantizeLinear(a, s_2, z_2) }"
    )
    bitwise(PASS, before, after, rewrites=2)


def test_case_3_zero_points_are_written() -> None:
    before = f"{HEAD}<float s = {{0.02}}> {{ [q] a = QuantizeLinear<output_dtype = 3, saturate = 1>(x, s) [d] y = DequantizeLinear(a, s) }}"
    after = (
        f"{HEAD}<float s = {{0.02}}, int8 q_zero_point = {{0}}, int8 d_zero_point = {{0}}> "
        "{ [q] a = QuantizeLinear(x, s, q_zero_point) [d] y = DequantizeLinear(a, s, d_zero_point) }"
    )
    bitwise(PASS, before, after, rewrites=2)


@pytest.mark.parametrize("written", ["", "<axis = -1>", "<axis = 1>"])
def test_case_4_the_axis_is_written_from_the_front(written: str) -> None:
    many = "float[3] s = {0.02, 0.03, 0.04}, uint8[3] z = {120, 3, 0}"
    after = (
        f"{HEAD}<{many}> {{ [q] a = QuantizeLinear<axis = 1>(x, s, z) [d] y = DequantizeLinear<axis = 1>(a, s, z) }}"
    )
    before = after.replace("QuantizeLinear<axis = 1>", f"QuantizeLinear{written}", 1)
    bitwise(PASS, before, after, rewrites=int(written != "<axis = 1>"))


@pytest.mark.parametrize("bounds", ["Clip(a)", "Clip(a, l, h)", "Clip(a, , h)"])
def test_case_5_a_clip_of_everything_goes(bounds: str) -> None:
    ends = ", uint8 l = {0}, uint8 h = {255}"
    before = (
        f"{HEAD}<{K}{ends}> {{ [q] a = QuantizeLinear(x, s, z) [c] b = {bounds} [d] y = DequantizeLinear(b, s, z) }}"
    )
    bitwise(PASS, before, AFTER, rewrites=1)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [("Clip(a, , m)", "cuts the levels of uint8 at 127"), ("Clip(a, m)", "at 127"), ("Clip(a, , e)", "computed")],
)
def test_case_5_a_clip_that_cuts_stays(bounds: str, reason: str) -> None:
    head = f"(float[2,3] x, uint8 e) => (float[2,3] y) <{K}, uint8 m = {{127}}> "
    keep(
        PASS, f"{head} {{ [q] a = QuantizeLinear(x, s, z) [c] b = {bounds} [d] y = DequantizeLinear(b, s, z) }}", reason
    )


def test_case_6_computed_scales_stay() -> None:
    graph = f"(float[2,3] x, float e) => (float[2,3] y) <{K}> {{ [q] a = QuantizeLinear(x, e, z) [d] y = DequantizeLinear(a, e, z) }}"
    keep(PASS, graph, "parameters are computed", "parameters are computed")
    keep(PASS, graph.replace(" QuantizeLinear", " com.microsoft.QuantizeLinear"), "computed", "computed")


def test_many_sites() -> None:
    foreign = (
        "[q] a = com.microsoft.QuantizeLinear(x, s, z) [c] b = Clip(a) [d] y = com.microsoft.DequantizeLinear(b, s, z)"
    )
    many = "float[2] v = {0.02, 0.03}, uint8[2] o = {120, 3}"
    together(
        PASS,
        changed=[(f"{HEAD}<{K}> {{ {foreign} }}", AFTER, 3)],
        kept=[
            (
                f"{HEAD}<{K}, uint8 m = {{127}}> {{ [q] a = QuantizeLinear(x, s, z) [c] b = Clip(a, m) [d] y = DequantizeLinear(b, s, z) }}",
                "at 127",
            )
        ],
        quiet=[
            AFTER,
            f"{HEAD}<float l = {{0}}> {{ [n] a = Neg(x) [c] y = Clip(a, l) }}",
            f"{HEAD}<{many}> {{ [q] a = QuantizeLinear<axis = 0>(x, v, o) [d] y = DequantizeLinear<axis = 0>(a, v, o) }}",
        ],
    )


def test_case_1_signed_16_bits_need_their_opset_too() -> None:
    wide = K.replace("uint8", "int16")
    before = f"{HEAD}<{wide}> {{ [q] a = com.microsoft.QuantizeLinear(x, s, z) [d] y = com.microsoft.DequantizeLinear(a, s, z) }}"
    keep(PASS, before, "int16 from opset 21 on", "int16 from opset 21 on", opset=20)


def test_case_1_another_domain() -> None:
    graph = text.parse(model(f"{HEAD}<{K}> {{ [q] y = com.example.QuantizeLinear(x, s, z) }}")).graph
    report = PASS.run(graph, default_context())
    assert ([r.reason for r in report.refusals], report.rewrites) == (["its domain is not known"], 0)
    assert graph.nodes[0].domain == "com.example"


def test_case_5_a_clip_of_integers_whose_type_is_not_known() -> None:
    graph = f"(float[2,3] x, float e) => (float[2,3] y) <{K}> {{ [q] a = QuantizeLinear(x, e, z) [c] b = Clip(a) [d] y = DequantizeLinear(b, s, z) }}"
    keep(PASS, graph, "parameters are computed", "the type of its integers is not known")
