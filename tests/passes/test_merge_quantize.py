"""One Q where several say the same."""

from __future__ import annotations

from rewriting import bitwise, keep, together

from onnxq_passes.merge_quantize import MergeQuantize

K = "float s = {0.05}, uint8 z = {120}, float t = {0.05}, float s2 = {0.06}"


def test_equal_values_count_not_equal_names() -> None:
    head = f"(float[2] x) => (float[2] y, float[2] w) <{K}>"
    bitwise(
        MergeQuantize(),
        f"{head} {{ [q] a = QuantizeLinear(x, s, z) [r] b = QuantizeLinear(x, t, z) [d] y = DequantizeLinear(a, s, z) [e] w = DequantizeLinear(b, s, z) }}",
        f"{head} {{ [q] a = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(a, s, z) [e] w = DequantizeLinear(a, s, z) }}",
        rewrites=1,
    )


def test_an_output_keeps_its_name() -> None:
    head = f"(float[2] x) => (float[2] y, uint8[2] b) <{K}>"
    bitwise(
        MergeQuantize(),
        f"{head} {{ [q] a = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(a, s, z) [r] b = QuantizeLinear(x, s, z) }}",
        f"{head} {{ [q] b = QuantizeLinear(x, s, z) [d] y = DequantizeLinear(b, s, z) }}",
        rewrites=1,
    )
    keep(
        MergeQuantize(),
        f"(float[2] x) => (uint8[2] a, uint8[2] b) <{K}> {{ [q] a = QuantizeLinear(x, s, z) [r] b = QuantizeLinear(x, s, z) }}",
        "both results are outputs",
    )


def test_what_stays() -> None:
    head = f"(float[2] x, float e) => (uint8[2] a, uint8[2] b) <{K}, int8 i = {{1}}>"
    for other, reason in (("x, s2, z", "other parameters"), ("x, e, z", "not constant")):
        keep(MergeQuantize(), f"{head} {{ [q] a = QuantizeLinear(x, s, z) [r] b = QuantizeLinear({other}) }}", reason)


def test_bodies_are_apart() -> None:
    keep(
        MergeQuantize(),
        f"(bool c, float[2] x) => (uint8[2] y, uint8[2] w) <{K}> {{ [q] w = QuantizeLinear(x, s, z) "
        "y = If(c) <then_branch = a () => (uint8[2] g) { [r] g = QuantizeLinear(x, s, z) }, else_branch = b () => (uint8[2] u) { [v] u = QuantizeLinear(x, s, z) }> }",
    )


def test_many_sites() -> None:
    head = f"(float[2] x, float e) => (float[2] y, float[2] w, float[2] v) <{K}>"
    rest = "[d] y = DequantizeLinear(a, s, z) [e] w = DequantizeLinear({}, s, z) [f] v = DequantizeLinear({}, s, z)"
    q = "[q] a = QuantizeLinear(x, s, z)"
    before = f"{head} {{ {q} [r] b = QuantizeLinear(x, t, z) [p] c = QuantizeLinear(x, s, z) {rest.format('b', 'c')} }}"
    other = f"{head} {{ {q} [r] b = QuantizeLinear(x, s2, z) {rest.format('b', 'a')} }}"
    together(
        MergeQuantize(),
        changed=[(before, f"{head} {{ {q} {rest.format('a', 'a')} }}", 2)],
        kept=[
            (other, "q quantizes the same tensor with other parameters"),
            (other.replace("x, s2, z", "x, e, z"), "not constant"),
        ],
        quiet=[f"(float[2] x, float e) => (uint8[2] y) <{K}> {{ [q] y = QuantizeLinear(x, e, z) }}"],
    )


def test_the_first_one_is_named_and_equal_ones_behind_others_join() -> None:
    head = f"(float[2] x) => (uint8[2] a, uint8[2] b, uint8[2] c) <{K}, uint8 z2 = {{1}}>"
    keep(
        MergeQuantize(),
        f"{head} {{ [q] a = QuantizeLinear(x, s, z) [r] b = QuantizeLinear(x, s2, z) [p] c = QuantizeLinear(x, s, z2) }}",
        "q quantizes",
        "q quantizes",
    )
