"""Resize between integers as Gathers of whole pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from rewriting import bitwise, keep, model, together

from onnxq.ir import save, text
from onnxq.optable import MOVES
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.gather_resize import GatherResize

PASS = GatherResize()
FLOOR = 'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
BLOCKS, GROWS = "do not become blocks of one size", "or no whole number, or batch or channels grow"
NUMBERS = {"uint8": "float s = {0.5}, uint8 z = {3}", "int8": "float s = {0.02}, int8 z = {-7}"}


def data(shape: Sequence[int], kind: str = "uint8") -> NDArray[Any]:
    ends = np.iinfo(kind)
    return np.random.default_rng(0).integers(ends.min, ends.max, shape, kind, endpoint=True)


def listed(values: Sequence[float]) -> str:
    return "{" + ", ".join(str(v) for v in values) + "}"


def by(factors: Sequence[float], name: str = "k") -> str:
    return f"float[{len(factors)}] {name} = {listed(factors)}"


def resize(
    *constants: str,
    attributes: str = FLOOR,
    slots: str = "d, , k",
    shape: str = "1,2,2,3",
    grown: str = "1,2,a,b",
    kind: str = "uint8",
    numbers: str = "",
) -> str:
    """DQ -> Resize -> Q. ONNX Runtime doesn't mind the names of dimensions that the graph gives its output."""
    constants = (numbers or NUMBERS[kind], *constants, f"float[{shape}] d")
    return (
        f"({kind}[{shape}] x) => ({kind}[{grown}] y) <{', '.join(constants)}> {{ [d] d = DequantizeLinear(x, s, z) "
        f"[r] r = Resize <{attributes}> ({slots}) [q] y = QuantizeLinear(r, s, z) }}"
    )


BLOCK = ("int64[6] r_indices = {0, 0, 1, 1, 2, 2}", "int64[4] r_indices_1 = {0, 0, 1, 1}")
"""Which columns and which rows are taken to make 2 x 3 pixels 4 x 6."""


def moved(result: str = "y") -> str:
    """What the pass makes of a Resize r of x."""
    return (
        f"[r{MOVES}] r_transpose = Transpose <perm = [0, 2, 3, 1]> (x) "
        f"[r{MOVES}_1] r_gather = Gather <axis = 2> (r_transpose, r_indices) "
        f"[r] r_gather_1 = Gather <axis = 1> (r_gather, r_indices_1) "
        f"[r{MOVES}_3] {result} = Transpose <perm = [0, 3, 1, 2]> (r_gather_1)"
    )


def gathers(*constants: str, shape: str = "1,2,2,3", grown: str = "1,2,a,b", kind: str = "uint8") -> str:
    """The graph that `resize` becomes."""
    return f"({kind}[{shape}] x) => ({kind}[{grown}] y) <{', '.join(constants)}> {{ {moved()} }}"


def check(before: str, *constants: str, opset: int = 21, **options: str) -> None:
    """The rewrite, on numbers from the whole of the type."""
    kind, shape = options.get("kind", "uint8"), options.get("shape", "1,2,2,3")
    sizes = [int(size) if size.isdigit() else 2 for size in shape.split(",")]
    after = gathers(*(constants or BLOCK), **options)
    bitwise(PASS, before, after, rewrites=1, inputs={"x": data(sizes, kind)}, opset=opset)


def test_contract() -> None:
    check_pass(GatherResize)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_case_1(kind: str) -> None:
    check(resize(by([1, 1, 2, 2]), kind=kind), kind=kind)


def test_case_1_rows_and_columns_by_factors_of_their_own() -> None:
    check(
        resize(by([1, 1, 3, 2])),
        "int64[6] r_indices = {0, 0, 1, 1, 2, 2}",
        "int64[6] r_indices_1 = {0, 0, 0, 1, 1, 1}",
    )


def test_case_1_grows_one_way_only() -> None:
    """Then there is one Gather."""
    for shape, factors, indices, axis in (
        ("2,3,1,1", [1, 1, 1, 4], "int64[4] r_indices = {0, 0, 0, 0}", 2),
        ("2,3,2,5", [1, 1, 2, 1], "int64[4] r_indices = {0, 0, 1, 1}", 1),
    ):
        after = (
            f"(uint8[{shape}] x) => (uint8[1,2,a,b] y) <{indices}> {{ "
            f"[r{MOVES}] r_transpose = Transpose <perm = [0, 2, 3, 1]> (x) "
            f"[r] r_gather = Gather <axis = {axis}> (r_transpose, r_indices) "
            f"[r{MOVES}_2] y = Transpose <perm = [0, 3, 1, 2]> (r_gather) }}"
        )
        x = data([int(size) for size in shape.split(",")])
        bitwise(PASS, resize(by(factors), shape=shape), after, rewrites=1, inputs={"x": x})


@pytest.mark.parametrize(
    ("slots", "constants", "opset"),
    [
        ("d, , , k", ["int64[4] k = {1, 2, 4, 6}"], 21),
        ("d, , , k", ["int64[4] k = {1, 2, 4, 6}"], 13),
        ("d, e, e, k", ["int64[4] k = {1, 2, 4, 6}", "float[0] e = {}"], 11),
        ("d, e, k", ["float[4] k = {1, 1, 2, 2}", "float[0] e = {}"], 11),
        ("d, e, k", ["float[4] k = {1, 1, 2, 2}", "float[8] e = {0, 0, 0.5, 0, 1, 1, 0.75, 1}"], 18),
        ("d, , k, ", ["float[4] k = {1, 1, 2, 2}"], 21),
    ],
)
def test_case_1_scales_and_sizes(slots: str, constants: list[str], opset: int) -> None:
    check(resize(*constants, slots=slots), opset=opset)


@pytest.mark.parametrize("shape", ["n,2,2,3", "n,c,2,3", "2,c,2,3"])
def test_case_1_of_any_batch_and_channels(shape: str) -> None:
    check(resize(by([1, 1, 2, 2]), shape=shape), shape=shape)


def test_case_1_without_zero_points() -> None:
    before = resize(by([1, 1, 2, 2]), numbers="float s = {0.5}").replace(", z)", ")")
    check(before)


def test_case_1_by_default_of_attributes() -> None:
    """Half pixels, rounded half down."""
    for attributes in (
        'mode = "nearest"',
        'nearest_mode = "round_prefer_floor"',
        'coordinate_transformation_mode = "half_pixel"',
    ):
        check(resize(by([1, 1, 2, 2]), attributes=attributes))
    check(resize(by([1, 1, 2, 2])).replace(f"<{FLOOR}>", ""))


def test_names_end_alike_and_the_resize_lives_on_in_its_last_gather() -> None:
    source = text.parse(model(resize(by([1, 1, 2, 2]))))
    report = PASS.run(source.graph, default_context())
    nodes = source.graph.nodes
    assert (report.refusals, report.renamed) == ([], {})
    assert [n.op for n in nodes] == ["Transpose", "Gather", "Gather", "Transpose"]
    assert nodes[2].name == "r"
    others = [nodes[i].name for i in (0, 1, 3)]
    assert len(set(others)) == 3
    assert all(name.rstrip("0123456789").rstrip("_").endswith("r_moves") for name in others)


def test_types_and_shapes_are_known_behind_it() -> None:
    source = text.parse(model(resize(by([1, 1, 2, 3]), shape="n,c,4,5", kind="int8")))
    PASS.run(source.graph, default_context())
    made = [node.outputs[0] for node in source.graph.nodes[:3]]
    assert [t.shape for t in made] == [["n", 4, 5, "c"], ["n", 4, 15, "c"], ["n", 8, 15, "c"]]
    assert {t.dtype for t in made} == {np.dtype(np.int8)}


KNOWN = ("asymmetric", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
OTHERS = ("align_corners", "tf_crop_and_resize")
MODES = [*((mode, 21) for mode in (*KNOWN, *OTHERS)), ("half_pixel", 11), ("tf_half_pixel_for_nn", 11)]


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize(("mode", "opset"), MODES)
def test_case_1_and_2_as_onnx_runtime_has_it(mode: str, opset: int, nearest: str) -> None:
    """Rewritten is what ONNX Runtime makes blocks of, for every pair of factors from 1 to 4, and nothing else; of rarer
    modes nothing.
    """
    x = data((1, 2, 5, 7))
    pairs = list(itertools.product(range(1, 5), repeat=2))
    how = f'coordinate_transformation_mode = "{mode}", nearest_mode = "{nearest}"'
    nodes = "".join(
        f"[r{h}{w}] r{h}{w} = Resize <{how}> (d, roi, k{h}{w}) [q{h}{w}] y{h}{w} = QuantizeLinear(r{h}{w}, s, z) "
        for h, w in pairs
    )
    outputs = ", ".join(f"uint8[1,2,{5 * h},{7 * w}] y{h}{w}" for h, w in pairs)
    constants = [by([1, 1, h, w], f"k{h}{w}") for h, w in pairs] + ["float[8] roi = {0, 0, 0.1, 0.2, 1, 1, 0.8, 1}"]
    source = text.parse(
        model(
            f"(uint8[1,2,5,7] x) => ({outputs}) <{NUMBERS['uint8']}, {', '.join(constants)}, float[1,2,5,7] d> "
            f"{{ [d] d = DequantizeLinear(x, s, z) {nodes} }}",
            opset,
        )
    )
    theirs = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})
    blocks = {f"r{h}{w}" for h, w in pairs if np.array_equal(theirs[f"y{h}{w}"], x.repeat(h, axis=2).repeat(w, axis=3))}
    assert "r11" in blocks
    blocks = blocks - {"r11"} if mode in KNOWN else set()
    report = PASS.run(source.graph, default_context())
    assert {n.name for n in source.graph.nodes if n.op == "Gather" and MOVES not in n.name} == blocks
    assert {r.node for r in report.refusals} == {f"r{h}{w}" for h, w in pairs} - blocks
    assert all(("does not grow" if r.node == "r11" else BLOCKS) in r.reason for r in report.refusals)
    assert report.rewrites == len(blocks)
    assert any(n.op == "DequantizeLinear" for n in source.graph.nodes) == (len(blocks) < len(pairs))
    ours = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})
    assert all(theirs[name].tobytes() == ours[name].tobytes() for name in theirs)
    if (mode, nearest) in {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}:
        assert len(blocks) == len(pairs) - 1


@pytest.mark.parametrize(
    ("mode", "nearest"),
    [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")],
)
@pytest.mark.parametrize("factor", [5, 7, 8, 11, 47])
def test_case_1_large_factors_of_long_rows(factor: int, mode: str, nearest: str) -> None:
    """ONNX Runtime computes places in float32."""
    how = f'coordinate_transformation_mode = "{mode}", nearest_mode = "{nearest}"'
    x = data((1, 1, 1, 999))
    source = text.parse(model(resize(by([1, 1, 1, factor]), shape="1,1,1,999", attributes=how)))
    theirs = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})["y"]
    assert PASS.run(source.graph, default_context()).rewrites == 1
    ours = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})["y"]
    assert ours.tobytes() == theirs.tobytes()


def test_case_1_other_readers_of_the_data() -> None:
    """The DQ stays for them; who reads the integers behind the Q reads what they read before."""
    head = "(uint8[1,2,2,3] x) => (float[1,2,2,3] d, float[1,2,2,3] e, uint8[1,2,4,6] y, float[1,2,4,6] f) "
    tail = "[f] f = DequantizeLinear(y, s, z)"
    shared = "[d] d = DequantizeLinear(x, s, z) [e] e = Neg(d)"
    asked = f"[r] r = Resize <{FLOOR}> (d, , k) [q] y = QuantizeLinear(r, s, z)"
    numbers = NUMBERS["uint8"]
    for outputs in (head, head.replace("float[1,2,2,3] d, ", "")):
        bitwise(
            PASS,
            f"{outputs} <{numbers}, {by([1, 1, 2, 2])}, float[1,2,2,3] d> {{ {shared} {asked} {tail} }}",
            f"{outputs} <{numbers}, {', '.join(BLOCK)}> {{ {shared} {moved()} {tail} }}",
            rewrites=1,
            inputs={"x": data((1, 2, 2, 3))},
        )


def test_case_1_an_output_of_the_graph_that_is_the_data_alone() -> None:
    head = "(uint8[1,2,2,3] x) => (float[1,2,2,3] d, uint8[1,2,4,6] y) "
    made = "[d] d = DequantizeLinear(x, s, z)"
    asked = f"[r] r = Resize <{FLOOR}> (d, , k) [q] y = QuantizeLinear(r, s, z)"
    bitwise(
        PASS,
        f"{head} <{NUMBERS['uint8']}, {by([1, 1, 2, 2])}, float[1,2,2,3] d> {{ {made} {asked} }}",
        f"{head} <{NUMBERS['uint8']}, {', '.join(BLOCK)}> {{ {made} {moved()} }}",
        rewrites=1,
        inputs={"x": data((1, 2, 2, 3))},
    )


def test_case_1_two_of_the_same_data() -> None:
    """The last of them takes the DQ along."""
    names = ("a", "b")
    nodes = " ".join(f"[{n}] r{n} = Resize <{FLOOR}> (d, , k) [q{n}] y{n} = QuantizeLinear(r{n}, s, z)" for n in names)
    source = text.parse(
        model(
            f"(uint8[1,2,2,3] x) => (uint8[1,2,4,6] ya, uint8[1,2,4,6] yb) <{NUMBERS['uint8']}, {by([1, 1, 2, 2])}, "
            f"float[1,2,2,3] d> {{ [d] d = DequantizeLinear(x, s, z) {nodes} }}"
        )
    )
    x = data((1, 2, 2, 3))
    assert PASS.run(source.graph, default_context()).rewrites == 2
    assert [n.op for n in source.graph.nodes] == ["Transpose", "Gather", "Gather", "Transpose"] * 2
    got = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})
    assert all(np.array_equal(y, x.repeat(2, axis=2).repeat(2, axis=3)) for y in got.values())


def test_case_1_in_a_body() -> None:
    """What leads to the Gathers stands where the Q stands; the DQ may be further out."""
    head = "(bool c, uint8[1,2,2,3] x) => (uint8[1,2,4,6] y) "
    bodies = (
        "[if] y = If(c) <then_branch = t () => (uint8[1,2,4,6] t) {{ {0} }}, "
        "else_branch = e () => (uint8[1,2,4,6] e) <uint8[1] o = {{9}}, int64[4] p = {{1, 2, 4, 6}}> {{ e = Expand(o, p) }}>"
    )
    inside = f"[r] r = Resize <{FLOOR}> (d, , k) [q] t = QuantizeLinear(r, s, z)"
    made, around = "[d] d = DequantizeLinear(x, s, z)", f"<{NUMBERS['uint8']}, {by([1, 1, 2, 2])}, float[1,2,2,3] d>"
    for c in (True, False):
        bitwise(
            PASS,
            f"{head} {around} {{ {made} {bodies.format(inside)} }}",
            f"{head} <{', '.join(BLOCK)}> {{ {bodies.format(moved('t'))} }}",
            rewrites=1,
            inputs={"c": np.array(c), "x": data((1, 2, 2, 3))},
        )


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (resize(by([1, 1, 2, 2]), attributes='mode = "linear"'), "it computes new values"),
        (resize(by([1, 1, 2, 2]), attributes='mode = "cubic"'), "it computes new values"),
        (resize(by([1, 1, 0.5, 0.5]), shape="1,2,4,4"), GROWS),
        (resize(by([1, 1, 2, 0.5]), shape="1,2,4,4"), GROWS),
        (resize(by([1, 1, 1.5, 2]), shape="1,2,4,4"), GROWS),
        (resize(by([1, 1, 2, 2.5]), shape="1,2,4,4"), GROWS),
        (resize(by([2, 1, 2, 2]), grown="a,b,c,e"), GROWS),
        (resize(by([1, 2, 2, 2]), grown="a,b,c,e"), GROWS),
        (resize("int64[4] k = {1, 2, 5, 6}", slots="d, , , k"), GROWS),
        (resize("int64[4] k = {1, 2, 4, 7}", slots="d, , , k"), GROWS),
        (resize("int64[4] k = {2, 2, 4, 6}", slots="d, , , k", grown="a,b,c,e"), GROWS),
        (resize("int64[4] k = {1, 4, 4, 6}", slots="d, , , k", grown="a,b,c,e"), GROWS),
        (resize("int64[4] k = {2, 2, 4, 6}", slots="d, , , k", shape="n,2,2,3"), GROWS),
        (resize("int64[2] k = {4, 6}", slots="d, , , k", attributes=f"{FLOOR}, axes = [2, 3]"), "for some axes"),
        (resize(by([2, 2]), attributes=f"{FLOOR}, axes = [2, 3]"), "for some axes"),
        (resize(by([1, 1, 2, 3]), attributes=f"{FLOOR}, axes = [0, 1, 3, 2]"), "for some axes"),
        (resize(by([1, 1, 2]), shape="1,2,3", grown="1,2,a"), "no picture of known height and width"),
        (resize(by([1, 1, 1, 2, 2]), shape="1,2,3,1,2", grown="1,2,a,b,c"), "no picture of known height and width"),
        (resize(by([1, 1, 2, 2]), shape="1,2,h,3"), "no picture of known height and width"),
        (resize(by([1, 1, 2, 2]), shape="1,2,2,w"), "no picture of known height and width"),
        (resize(by([1, 1, 2, 2])).replace(", float[1,2,2,3] d>", ">"), "no picture of known height and width"),
        (resize(by([1, 1, 2, 2]), attributes='coordinate_transformation_mode = "align_corners"'), BLOCKS),
        (resize(by([1, 1, 1, 2]), attributes='coordinate_transformation_mode = "align_corners"'), BLOCKS),
        (resize(by([1, 1, 2, 1]), attributes='coordinate_transformation_mode = "align_corners"'), BLOCKS),
        (resize(by([1, 1, 2, 3]), attributes='coordinate_transformation_mode = "asymmetric"'), BLOCKS),
    ],
)  # fmt: skip
def test_case_2(graph: str, reason: str) -> None:
    assert [r.node for r in keep(PASS, graph, reason).refusals] == ["r"]


def test_case_2_computed_at_run_time() -> None:
    for kind, slots, grown in (("float", "d, , k", (1, 1, 2, 2)), ("int64", "d, , , k", (1, 2, 4, 6))):
        graph = resize(slots=slots).replace(" x)", f" x, {kind}[4] k)")
        keep(PASS, graph, GROWS, inputs={"k": np.array(grown, "float32" if kind == "float" else kind)})


def test_case_2_of_opset_10() -> None:
    """There the scales stand where the region of interest stands later."""
    keep(PASS, resize(by([1, 1, 2, 2]), slots="d, k").replace(f"<{FLOOR}>", ""), GROWS, opset=10)


@pytest.mark.parametrize("other", ["float t = {0.25}, uint8 u = {3}", "float t = {0.5}, uint8 u = {4}"])
def test_other_encodings_on_the_two_sides(other: str) -> None:
    keep(PASS, resize(by([1, 1, 2, 2]), other).replace("(r, s, z)", "(r, t, u)"))


def test_other_types_on_the_two_sides() -> None:
    graph = (
        resize(by([1, 1, 2, 2]), "int8 u = {3}")
        .replace("(r, s, z)", "(r, s, u)")
        .replace("uint8[1,2,a,b]", "int8[1,2,a,b]")
    )
    keep(PASS, graph)


@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_types_of_16_bits(kind: str) -> None:
    keep(PASS, resize(by([1, 1, 2, 2]), kind=kind, numbers=f"float s = {{0.5}}, {kind} z = {{3}}"))


def test_scales_of_channels() -> None:
    numbers = "float[2] s = {0.5, 0.25}, uint8[2] z = {3, 4}"
    graph = resize(by([1, 1, 2, 2]), numbers=numbers)
    keep(PASS, graph)


@pytest.mark.parametrize("last", ["[f] f = Neg(r)", "[f] f = QuantizeLinear(r, s, z)"])
def test_several_readers_of_the_result(last: str) -> None:
    kind = "float" if "Neg" in last else "uint8"
    graph = resize(by([1, 1, 2, 2])).replace(" y)", f" y, {kind}[1,2,4,6] f)", 1).replace("[q]", f"{last} [q]")
    keep(PASS, graph)


def test_the_result_is_an_output_of_the_graph() -> None:
    keep(PASS, resize(by([1, 1, 2, 2])).replace(" y)", " y, float[1,2,4,6] r)", 1))


QUIET = [
    f"(float[1,2,2,3] x) => (uint8[1,2,4,6] y) <{NUMBERS['uint8']}, {by([1, 1, 2, 2])}> "
    f"{{ [r] r = Resize <{FLOOR}> (x, , k) [q] y = QuantizeLinear(r, s, z) }}",
    resize(by([1, 1, 2, 2])).replace("(d, , k)", "(e, , k)").replace("[r]", "[e] e = Neg(d) [r]"),
    resize(by([1, 1, 2, 2])).replace("(r, s, z)", "(e, s, z)").replace("[q]", "[e] e = Relu(r) [q]"),
    resize(by([1, 1, 2, 2]), "float t = {0.25}").replace("(r, s, z)", "(r, t, z)"),
    resize(by([1, 1, 2, 2]), kind="uint16", numbers="float s = {0.5}, uint16 z = {3}"),
    f"(uint8[1,2,2,3] x) => (uint8[1,2,2,3] y) <{NUMBERS['uint8']}> "
    "{ [d] d = DequantizeLinear(x, s, z) [r] r = Relu(d) [q] y = QuantizeLinear(r, s, z) }",
]


@pytest.mark.parametrize("graph", QUIET)
def test_near_misses(graph: str) -> None:
    keep(PASS, graph)


def test_many_sites() -> None:
    grown = "1,2,4,6"
    together(
        PASS,
        changed=[(resize(by([1, 1, 2, 2]), grown=grown), gathers(*BLOCK, grown=grown), 1)],
        quiet=[graph.replace("1,2,a,b", grown) for graph in QUIET],
        kept=[
            (resize(by([1, 1, 2, 2]), attributes='mode = "linear"', grown=grown), "it computes new values"),
            (resize(by([1, 1, 2, 2]), numbers="float s = {3e38}, uint8 z = {3}", grown=grown), "Q(DQ(q)) is not q"),
        ],
    )


def weights(name: str, *shape: int) -> str:
    return f"int8[{','.join(map(str, shape))}] {name} = {listed(data(shape, 'int8').ravel().tolist())}"


@pytest.mark.parametrize("factors", [(2, 2), (3, 2)])
def test_between_integer_convolutions_only_gathers_are_left(factors: tuple[int, int]) -> None:
    """Its Transposes meet those that ONNX Runtime puts around the convolutions."""
    height, width = 6 * factors[0], 5 * factors[1]
    constants = [NUMBERS["uint8"], "float t = {0.01}, int8 o = {0}", weights("w", 4, 4, 3, 3), weights("v", 8, 4, 1, 1)]
    source = text.parse(
        model(
            f"(uint8[1,4,6,5] x) => (uint8[1,8,{height},{width}] y) "
            f"<{', '.join(constants)}, {by([1, 1, *factors])}, float[1,4,6,5] d> {{ "
            "a = DequantizeLinear(x, s, z) b = DequantizeLinear(w, t, o) c = Conv <pads = [1, 1, 1, 1]> (a, b) "
            f"e = QuantizeLinear(c, s, z) d = DequantizeLinear(e, s, z) r = Resize <{FLOOR}> (d, , k) "
            "f = QuantizeLinear(r, s, z) g = DequantizeLinear(f, s, z) h = DequantizeLinear(v, t, o) i = Conv(g, h) "
            "y = QuantizeLinear(i, s, z) }"
        )
    )
    x = data((1, 4, 6, 5))
    theirs = Session(save.to_bytes(source), threads=1).run({"x": x})["y"]
    assert PASS.run(source.graph, default_context()).rewrites == 1
    made = save.to_bytes(source)
    ops = [n.op_type for n in onnx.load_from_string(optimized(made)).graph.node]
    assert ops == ["Transpose", "QLinearConv", "Gather", "Gather", "QLinearConv", "Transpose"]
    assert Session(made, threads=1).run({"x": x})["y"].tobytes() == theirs.tobytes()


def same(before: str, x: NDArray[Any]) -> None:
    """Whether the pass rewrites or not, the result is what it was."""
    source = text.parse(model(before))
    theirs = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})["y"]
    PASS.run(source.graph, default_context())
    ours = Session(save.to_bytes(source), level=Level.OFF, threads=1).run({"x": x})["y"]
    assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_sizes_that_are_bounds(policy: str) -> None:
    how = f'{FLOOR}, keep_aspect_ratio_policy = "{policy}"'
    same(resize("int64[4] k = {1, 2, 4, 6}", slots="d, , , k", attributes=how, grown="a,b,c,e"), data((1, 2, 2, 3)))


def test_a_scale_that_loses_steps() -> None:
    same(resize(by([1, 1, 2, 2]), numbers="float s = {3e38}, uint8 z = {3}"), data((1, 2, 2, 3)))


def test_sizes_of_no_element() -> None:
    same(resize("int64[4] k = {1, 2, 0, 6}", slots="d, , , k", shape="1,2,0,3"), data((1, 2, 0, 3)))
