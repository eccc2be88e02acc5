from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.ir import text
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes import fold_constants
from onnxq_passes.fold_constants import FoldConstants

PASS = FoldConstants()


def test_contract() -> None:
    check_pass(FoldConstants)


@pytest.mark.parametrize(
    ("constants", "op", "result"),
    [
        ("float[2] a = {1, 2}, float[2] b = {3, 4}", "k = Add(a, b)", "float[2] k = {4, 6}"),
        ("float[2] a = {4, 9}", "k = Sqrt(a)", "float[2] k = {2, 3}"),
        ("float[2] a = {1, 2}, float[2] b = {3, 4}", "k = Sub(a, b)", "float[2] k = {-2, -2}"),
        ("float[1,2] a = {1, 2}", "t = Transpose(a) o = Squeeze(t) k = Identity(o)", "float[2] k = {1, 2}"),
        (
            "float[2] a = {1, 2}, int64[1] x0 = {0}",
            "u = Unsqueeze(a, x0) k = Concat<axis = 1>(u)",
            "float[1,2] k = {1, 2}",
        ),
        ("float[3] a = {1, 2, 3}, int64[2] i = {2, -3}", "k = Gather(a, i)", "float[2] k = {3, 1}"),
        ("int32[2] a = {1, 2}", "k = Cast<to = 1>(a)", "float[2] k = {1, 2}"),
        ("float[2] a = {1.5, -2.5}", "i = Cast<to = 7>(a) k = Cast<to = 1>(i)", "float[2] k = {1, -2}"),
        ("int64[1] s = {2}", "k = ConstantOfShape<value = float[1] {3}>(s)", "float[2] k = {3, 3}"),
        ("float[2] a = {1, 2}, float[2] b = {2, 2}", "k = Div(a, b)", "float[2] k = {0.5, 1}"),
    ],
)
def test_case_1(constants: str, op: str, result: str) -> None:
    frame = f"(float[2] x) => ({shape(result)} y) <{{0}}> {{{{ {{1}} z = Add(x, k) y = Neg(z) }}}}"
    nodes = op.count("(")
    bitwise(PASS, frame.format(constants, op), frame.format(result, ""), rewrites=nodes)


def shape(result: str) -> str:
    return result.split(" ", maxsplit=1)[0]


def test_case_1_fp16_weights_behind_a_cast() -> None:
    bitwise(
        PASS,
        "(float[2] x) => (float[2] y) <float16[2] w = {15872, 16640}> { f = Cast<to = 1>(w) y = Mul(x, f) }",
        "(float[2] x) => (float[2] y) <float[2] f = {1.5, 2.5}> { y = Mul(x, f) }",
        rewrites=1,
    )


def test_case_1_in_bodies() -> None:
    source = """(bool c, float[2] x) => (float[2] y) <{1}> {{ y = If(c) <
        then_branch = p () => (float[2] t) {{ {0} t = Add(x, k) }}, else_branch = q () => (float[2] e) {{ e = Neg(x) }}> }}"""
    before, after = source.format("k = Neg(a)", "float[2] a = {1, 2}"), source.format("", "float[2] k = {-1, -2}")
    bitwise(PASS, before, after, rewrites=1)


def test_case_2_shape() -> None:
    bitwise(
        PASS,
        "(float[2,3] x, int64[2] v) => (int64[2] y) { s = Shape(x) y = Add(v, s) }",
        "(float[2,3] x, int64[2] v) => (int64[2] y) <int64[2] s = {2, 3}> { y = Add(v, s) }",
        rewrites=1,
    )


def test_case_2_the_known_dimension_of_a_shape_with_unknown_ones() -> None:
    bitwise(
        PASS,
        "(float[n,3] x, int64 v) => (int64 y) <int64 one = {1}, int64 two = {2}> { s = Shape(x) d = Gather(s, one) e = Mul(d, two) y = Add(v, e) }",
        "(float[n,3] x, int64 v) => (int64 y) <int64 e = {6}> { s = Shape(x) y = Add(v, e) }",
        rewrites=2,
    )


def test_case_2_slice_of_a_shape() -> None:
    bitwise(
        PASS,
        "(float[n,3,4] x, int64[2] v) => (int64[2] y) <int64[1] a = {1}, int64[1] b = {3}> { s = Shape(x) d = Slice(s, a, b) y = Add(v, d) }",
        "(float[n,3,4] x, int64[2] v) => (int64[2] y) <int64[2] d = {3, 4}> { s = Shape(x) y = Add(v, d) }",
        rewrites=1,
    )


def test_case_2_size() -> None:
    bitwise(
        PASS,
        "(float[2,3] x, int64 v) => (int64 y) { s = Size(x) y = Add(v, s) }",
        "(float[2,3] x, int64 v) => (int64 y) <int64 s = {6}> { y = Add(v, s) }",
        rewrites=1,
    )


@pytest.mark.parametrize(
    "ops",
    [
        "s = Shape(x) t = Size(x)",
        "s = Shape(x) t = Gather(s, zero)",
        "s = Shape(x) r = Slice(s, from, to) t = Gather(r, zero)",
    ],
)
def test_case_2_near_miss_unknown_dimensions(ops: str) -> None:
    constants = "int64 zero = {0}, int64[1] from = {0}, int64[1] to = {2}"
    keep(PASS, f"(float[n,3] x) => (int64 y) <{constants}> {{ {ops} y = Neg(t) }}")


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("k = RandomNormalLike(a)", "random"),
        ("k = QuantizeLinear(a, s)", "never folded"),
        ("k = Tile(a, many)", "grow by more than 1048576 bytes"),
        ("k = Expand(a, large)", "grow by more than 1048576 bytes"),
        ("k = ConstantOfShape(large)", "grow by more than 1048576 bytes"),
        ("k = Range(zero, million, one)", "grow by more than 1048576 bytes"),
    ],
)
def test_cases_3_and_4_refusals(op: str, reason: str) -> None:
    constants = (
        "float[1] a = {1}, float s = {1}, int64[1] many = {300000}, int64[1] large = {300000}, "
        "int64 zero = {0}, int64 million = {1000000}, int64 one = {1}"
    )
    keep(PASS, f"(float x) => (float z, int64[1] y) <{constants}> {{ {op} y = Shape(k) z = Neg(x) }}", reason)


def test_case_4_near_miss_below_the_limit() -> None:
    bitwise(
        FoldConstants(limit=8),
        "(float[3] x) => (float[3] y) <float[1] a = {1}, int64[1] s = {3}> { k = Expand(a, s) y = Add(x, k) }",
        "(float[3] x) => (float[3] y) <float[3] k = {1, 1, 1}> { y = Add(x, k) }",
        rewrites=1,
    )
    source = "(float[6] x) => (float[6] y) <float[1] a = {1}, int64[1] s = {6}> { k = Expand(a, s) y = Add(x, k) }"
    keep(FoldConstants(limit=8), source, "grow by more than 8 bytes")


def test_case_3_other_domains_and_bodies() -> None:
    keep(PASS, "(float[1] x) => (float[1] y) <float[1] a = {1}> { k = com.microsoft.QuickGelu(a) y = Add(x, k) }")


def test_case_5_an_output() -> None:
    keep(PASS, "() => (float[1] y) <float[1] a = {1}> { y = Neg(a) }", "its value is an output")


def test_an_op_that_fails_stays() -> None:
    source = "(float x) => (float y, float[m] z) <int64[1] i = {7}, float[1] a = {1}> { y = Neg(x) k = GatherElements(a, i) z = Neg(k) }"
    graph = text.parse(model(source)).graph
    report = PASS.run(graph, default_context())
    assert report.rewrites == 0
    assert "it cannot be computed" in report.refusals[0].reason


def computed(node: str, constants: str, opset: int) -> Any:
    """What the pass makes of one node, whose result an op of another domain reads."""
    source = f"(float[n] x) => (float[n] y) <{constants}> {{ {node} y = Exp(x) o = com.example.Keep(k, x) }}"
    graph = text.parse(model(source, opset)).graph
    report = PASS.run(graph, default_context())
    assert report.rewrites == 1, report.refusals
    return next(t for n in graph.nodes if n.op == "Keep" for t in n.inputs if t.name == "k").values


def by_ort(node: str, constants: str, opset: int, kind: str) -> Any:
    proto = onnx.parser.parse_model(model(f"() => ({kind} k) <{constants}> {{ {node} }}", opset))
    return Session(proto.SerializeToString(), level=Level.OFF, threads=1).run({})["k"]


A23 = "float[2,3] a = {1, -2, 3, -4, 5, -6}"
A123 = "float[1,2,3] a = {1, -2, 3, -4, 5, -6}"
A1213 = "float[1,2,1,3] a = {1, -2, 3, -4, 5, -6}"


@pytest.mark.parametrize(
    ("constants", "node", "kind", "opset"),
    [
        (A23, "k = Identity(a)", "float[2,3]", 21),
        ("uint8[2] a = {1, 200}", "k = Cast<to = 1>(a)", "float[2]", 21),
        ("float[2] a = {1, 200}", "k = Cast<to = 1>(a)", "float[2]", 21),
        ("bool[2] a = {1, 0}", "k = Cast<to = 6>(a)", "int32[2]", 21),
        ("int32[2] a = {1, -200}", "k = Cast<to = 7>(a)", "int64[2]", 21),
        ("bfloat16[2] a = {16256, 16384}", "k = Cast<to = 1>(a)", "float[2]", 21),
        (f"{A23}, float[2,1] b = {{7, 8}}", "k = Concat<axis = 1>(a, b)", "float[2,4]", 21),
        (f"{A23}, int64[2] i = {{-1, 0}}", "k = Gather<axis = 1>(a, i)", "float[2,2]", 21),
        (f"{A23}, int32 i = {{1}}", "k = Gather(a, i)", "float[3]", 21),
        (A123, "k = Transpose<perm = [1, 0, 2]>(a)", "float[2,1,3]", 21),
        (A123, "k = Transpose(a)", "float[3,2,1]", 21),
        (f"{A23}, int64[2] i = {{0, -1}}", "k = Unsqueeze(a, i)", "float[1,2,3,1]", 13),
        (A23, "k = Unsqueeze<axes = [0, 3]>(a)", "float[1,2,3,1]", 11),
        (f"{A23}, int64[2] i = {{3, -1}}", "k = Reshape(a, i)", "float[3,2]", 21),
        (f"{A23}, int64[3] i = {{1, 3, 2}}", "k = Reshape(a, i)", "float[1,3,2]", 21),
        (A1213, "k = Squeeze(a)", "float[2,3]", 13),
        (f"{A1213}, int64[1] i = {{2}}", "k = Squeeze(a, i)", "float[1,2,3]", 13),
        (A1213, "k = Squeeze<axes = [2]>(a)", "float[1,2,3]", 11),
        (A1213, "k = Squeeze(a)", "float[2,3]", 11),
        (A23, "k = Neg(a)", "float[2,3]", 21),
        (A23, "k = Abs(a)", "float[2,3]", 21),
        ("float[3] a = {0.1, 2, inf}", "k = Sqrt(a)", "float[3]", 21),
        ("float[3] a = {1, 2, 0}, float[3] b = {3, 0, 0}", "k = Div(a, b)", "float[3]", 21),
        (f"{A23}, float[3] b = {{0.1, 0.2, 0.3}}", "k = Add(a, b)", "float[2,3]", 21),
        (f"{A23}, float[3] b = {{0.1, 0.2, 0.3}}", "k = Sub(a, b)", "float[2,3]", 21),
        (f"{A23}, float[3] b = {{0.1, 0.2, 3e38}}", "k = Mul(a, b)", "float[2,3]", 21),
    ],
)
def test_case_1_numpy_computes_what_ort_does(
    constants: str, node: str, kind: str, opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, and without a session, which costs a thousand times as much."""
    wanted = by_ort(node, constants, opset, kind) if "bfloat16" not in constants else np.array([1, 2], np.float32)
    monkeypatch.setattr(fold_constants, "Session", None)
    got = computed(node, constants, opset)
    assert (got.dtype, got.shape, got.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@pytest.mark.parametrize(
    ("constants", "node", "kind"),
    [
        ("float[3] a = {1.5, -2.5, 300.7}", "k = Cast<to = 6>(a)", "int32[3]"),
        ("double[2] a = {1.1, 1e300}", "k = Cast<to = 1>(a)", "float[2]"),
        ("float[2] a = {0, 2}", "k = Cast<to = 9>(a)", "bool[2]"),
        ("int64[2] a = {16777217, 3}", "k = Cast<to = 1>(a)", "float[2]"),
        ("int32[3] a = {7, -7, 8}, int32[3] b = {2, 2, -3}", "k = Div(a, b)", "int32[3]"),
        ("int32[2] a = {4, 9}, int32[2] b = {1, 2}", "k = Mod(a, b)", "int32[2]"),
        (f"{A23}, int64[2] i = {{0, -1}}", "k = Reshape(a, i)", "float[2,3]"),
        (f"{A23}, int64[1] one = {{1}}", "k = ReduceSum(a, one)", "float[2,1]"),
        (f"{A23}, float two = {{2}}", "k = Clip(a, , two)", "float[2,3]"),
        (f"{A23}, bool[3] c = {{1, 0, 1}}, float[2,1] b = {{7, 8}}", "k = Where(c, a, b)", "float[2,3]"),
    ],
)
def test_case_1_the_rest_is_left_to_ort(constants: str, node: str, kind: str) -> None:
    wanted = by_ort(node, constants, 21, kind)
    got = computed(node, constants, 21)
    assert (got.dtype, got.shape, got.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@pytest.mark.parametrize(
    ("constants", "node", "outputs"),
    [
        ("float[1,1] a = {1}, int64[2] many = {200, 1500}", "k = Tile(a, many)", "int64 unused"),
        ("float[3] a = {1, 2, 3}, int64[1] many = {90000}", "k = Tile(a, many)", "int64 unused"),
        ("float[1] a = {1}, int64[2] large = {600, 500}", "k = Expand(a, large)", "int64 unused"),
        ("int64[2] large = {600, 500}", "k = ConstantOfShape(large)", "int64 unused"),
        ("int64[2] large = {600, 250}", "k = ConstantOfShape<value = double[1] {2}>(large)", "int64 unused"),
        ("float a = {10}, float b = {600020}, float c = {2}", "k = Range(a, b, c)", "int64 unused"),
        ("float a = {600020}, float b = {-10}, float c = {-2}", "k = Range(a, b, c)", "int64 unused"),
        ("float a = {0}, float b = {300000}, float c = {1}", "k = Range(a, b, c)", "int64 unused"),
        ("float[1] a = {1}, int64[1] r = {400000}", 'k = Resize<mode = "nearest">(a, , , r)', "float[400000] k"),
    ],
)
def test_case_4_what_would_be_too_large_is_not_even_computed(
    constants: str, node: str, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_constants, "_evaluate", None)
    graph = text.parse(
        model(
            f"(float x) => (float z, int64[r] y) <{constants}, {outputs}> {{ {node} y = com.example.Keep(k) z = Neg(x) }}"
        )
    ).graph
    report = PASS.run(graph, default_context())
    assert [r.reason for r in report.refusals] == ["the constants would grow by more than 1048576 bytes"]


@pytest.mark.parametrize(
    ("constants", "node", "elements"),
    [
        ("int64[1] s = {262144}", "k = ConstantOfShape(s)", 262144),
        ("int64[1] s = {1048576}", "k = ConstantOfShape<value = uint8[1] {3}>(s)", 1048576),
        ("float a = {0}, float b = {200000}, float c = {1}", "k = Range(a, b, c)", 200000),
        ("float a = {100000}, float b = {300000}, float c = {1}", "k = Range(a, b, c)", 200000),
        ("float a = {0}, float b = {1000000}, float c = {5}", "k = Range(a, b, c)", 200000),
        ("float a = {5}, float b = {0}, float c = {1}", "k = Range(a, b, c)", 0),
        ("float[400000] a", "k = Cast<to = 11>(a)", 400000),
    ],
)
def test_case_4_what_fits_exactly_and_what_was_as_large_before(constants: str, node: str, elements: int) -> None:
    limit = FoldConstants(limit=(1 << 20) - 8 if "ConstantOfShape" in node else 1 << 20)
    graph = text.parse(
        model(
            f"(float x) => (float z) <{constants.replace('float[400000] a', 'float[2] a = {1, 2}')}> {{ {node} z = com.example.Keep(k, x) }}"
        )
    ).graph
    if "400000" in constants:
        graph.nodes[0].inputs[0].values = np.ones(elements, np.float32)
        limit = FoldConstants(limit=0)
    assert limit.run(graph, default_context()).rewrites == 1
    (k,) = (t for t in graph.nodes[-1].inputs if t.name == "k")
    assert k.values.size == elements
    assert not k.values.flags.writeable


def test_case_4_the_limit_is_the_growth_that_is_allowed() -> None:
    """Three elements instead of one: 12 bytes less the 4 of the data and the 8 of the shape are none; five are 8."""
    source = "(float[{0}] x) => (float[{0}] y) <float[1] a = {{1}}, int64[1] s = {{{0}}}> {{ k = Expand(a, s) y = Add(x, k) }}"
    for size, limit, rewrites in ((3, 0, 1), (5, 8, 1), (5, 7, 0), (1, 0, 1)):
        graph = text.parse(model(source.format(size))).graph
        assert FoldConstants(limit=limit).run(graph, default_context()).rewrites == rewrites, (size, limit)


def test_many_sites_and_nodes_that_are_none() -> None:
    head = "(float[2] x) => (float[2] y) <float[2] a = {{1, 2}}{0}> {{ {1} y = Add(x, k) }}"
    together(
        PASS,
        changed=[(head.format("", "k = Neg(a)"), "(float[2] x) => (float[2] y) <float[2] k = {-1, -2}> { y = Add(x, k) }", 1)],
        kept=[(head.format("", "k = RandomNormalLike(a)").replace("y = Add(x, k)", "[r] l = Shape(k) y = Neg(x)"), "random")],
        quiet=[
            head.format("", "k = com.microsoft.QuickGelu(a)"),
            head.format("", "k, l = Split<num_outputs = 2>(a)"),
            "(float[2] x) => (float[2] y) { k = Constant<value = float[2] {1, 2}>() y = Add(x, k) }",
            "(bool c, float[2] x) => (float[2] y) <bool t = {1}, float[2] a = {1, 2}> { k = If(t) <then_branch = p () => (float[2] q) { q = Exp(x) }, else_branch = r () => (float[2] s) { s = Neg(x) }> y = Add(x, k) }",
        ],
    )  # fmt: skip


def test_case_3_strings() -> None:
    graph = text.parse(
        model('(float[2] x) => (float[2] y) <string[2] a = {"b", "c"}> { k = Identity(a) y = com.example.Keep(x, k) }')
    ).graph
    assert [r.reason for r in PASS.run(graph, default_context()).refusals] == ["string constants are not folded"]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("k = Shape(x)", None),
        ("k = Shape<start = 1>(x)", [3, 4]),
        ("k = Shape<start = -2, end = -1>(x)", [3]),
        ("k = Shape<end = 1>(x)", None),
        ("k = Size(f)", 12),
        ("k = Shape(z)", [2, 0]),
        ("k = Size(z)", 0),
        ("s = Shape(x) k = Gather(s, both)", [3, 3]),
        ("s = Shape(x) k = Gather(s, far)", None),
        ("s = Shape(x) k = Gather(s, beyond)", None),
        ("s = Shape(x) k = Gather(s, which)", None),
        ("s = Shape(x) k = Gather(s, none)", []),
        ("s = Shape(x) k = Slice(s, one, three)", [3, 4]),
        ("s = Shape(x) k = Slice(s, one, three, zero, two)", [3]),
        ("s = Shape(x) k = Slice(s, one, three, zero, minus)", None),
        ("s = Shape(x) k = Slice(s, one, three, zero, zero)", None),
        ("s = Shape(x) k = Slice(s, one, three, zero, which)", None),
        ("s = Shape(x) k = Slice(s, which, three)", None),
        ("s = Shape(x) k = Slice(s, one, which)", None),
        ("s = Shape(x) k = Slice(s, one, three, , two)", [3]),
        ("s = Shape(x) k = Neg(s)", None),
        ("s = com.example.Shape(x) k = Slice(s, one, three)", None),
    ],
)
def test_case_2_dimensions(source: str, wanted: Any) -> None:
    """x is [n, 3, 4], f is [3, 4], z is [2, 0]."""
    constants = (
        "int64[2] both = {1, -2}, int64[1] far = {-4}, int64[1] beyond = {3}, int64[0] none = {}, "
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] minus = {-1}"
    )
    head = f"(float[n,3,4] x, float[3,4] f, float[2,0] z, int64[1] which) => (float[2] y) <{constants}>"
    graph = text.parse(model(f"{head} {{ {source} y = com.example.Keep(k, x) }}")).graph
    report = PASS.run(graph, default_context())
    (k,) = (t for t in graph.nodes[-1].inputs if t.name == "k")
    values = getattr(k, "values", None)
    assert report.rewrites == (wanted is not None)
    assert (None if values is None else values.tolist()) == wanted
    assert values is None or values.dtype == np.int64


def test_case_2_the_lowest_index_of_a_known_shape() -> None:
    graph = text.parse(
        model(
            "(float[2,n] x) => (float[2] y) <int64[1] i = {-2}> { s = Shape(x) k = Gather(s, i) y = com.example.Keep(k, x) }"
        )
    ).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert graph.nodes[-1].inputs[0].values.tolist() == [2]


def test_case_1_the_second_result_alone() -> None:
    """Outputs that are omitted are omitted where the op is computed, too."""
    constants = "float[1,1,1] a = {2}, float[1,1,1] w = {1}, float[1,1,1] r = {3}"
    source = (
        f"(float x) => (float y) <{constants}> {{ j, k = RNN<hidden_size = 1>(a, w, r) y = com.example.Keep(k, x) }}"
    )
    graph = text.parse(model(source)).graph
    graph.nodes[0].outputs[0].name = ""
    assert PASS.run(graph, default_context()).rewrites == 1
    assert graph.nodes[-1].inputs[0].values.ravel().tolist() == pytest.approx([np.tanh(2)])
