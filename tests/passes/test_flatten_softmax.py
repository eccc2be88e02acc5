from __future__ import annotations

import numpy as np
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import to_bytes
from onnxq.runtime.session import Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.flatten_softmax import FlattenSoftmax

PASS = FlattenSoftmax()
AFTER = (
    "(float[{0}] x) => (float[{0}] y) <int64[{3}] s_flat = {{{1}}}, int64[4] s_shape = {{{2}}}> "
    "{{ [s_Reshape] x_flat = Reshape(x, s_flat) [s] y_flat = {4}(x_flat) [s_Reshape_1] y = Reshape(y_flat, s_shape) }}"
)
AT_RUN_TIME = (
    "(float[N,3,A,B] x) => (float[N,3,A,B] y) { [s_shape] s_shape = Shape(x) [s_kept] s_kept = Shape<end = 2>(x) "
    "[s_rest] s_rest = Shape<start = 2>(x) [s_product] s_product = ReduceProd<keepdims = 1>(s_rest) "
    "[s_flat] s_flat = Concat<axis = 0>(s_kept, s_product) [s_Reshape] x_flat = Reshape<allowzero = 1>(x, s_flat) "
    "[s] y_flat = Softmax<axis = 1>(x_flat) [s_Reshape_1] y = Reshape<allowzero = 1>(y_flat, s_shape) }"
)


def test_contract() -> None:
    check_pass(FlattenSoftmax)


@pytest.mark.parametrize(
    ("op", "shape", "axis", "flat", "back"),
    [
        ("Softmax", "2,3,4,5", 1, "0, 0, 20", "0, 0, 4, 5"),
        ("LogSoftmax", "2,3,4,5", 1, "0, 0, 20", "0, 0, 4, 5"),
        ("Softmax", "2,3,4,5", -3, "0, 0, 20", "0, 0, 4, 5"),
        ("Softmax", "2,3,4,5", 0, "0, 60", "0, 3, 4, 5"),
        ("Softmax", "N,C,4,5", 1, "0, 0, 20", "0, 0, 4, 5"),  # what lies in front is copied
        ("Softmax", "2,3,1,5", 1, "0, 0, 5", "0, 0, 1, 5"),
    ],
)
def test_known_sizes(op: str, shape: str, axis: int, flat: str, back: str) -> None:
    after = AFTER.format(shape, flat, back, flat.count(",") + 1, f"{op}<axis = {axis % 4}>")
    before = f"(float[{shape}] x) => (float[{shape}] y) {{ [s] y = {op}<axis = {axis}>(x) }}"
    bitwise(PASS, before, after, rewrites=1)


def test_sizes_taken_at_run_time() -> None:
    before = "(float[N,3,A,B] x) => (float[N,3,A,B] y) { [s] y = Softmax<axis = 1>(x) }"
    bitwise(PASS, before, AT_RUN_TIME, rewrites=1)


def test_types_and_shapes_of_what_is_new() -> None:
    """Tensors without a type are none that passes behind this one can judge."""
    graph = text.parse(model("(float[N,3,A,B,4] x) => (float[N,3,A,B,4] y) { [s] y = Softmax<axis = 1>(x) }")).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    made = {t.name: (np.dtype(t.dtype).name, t.shape) for node in graph.nodes for t in node.outputs}
    product = made["x_flat"][1][-1]
    assert isinstance(product, str) and product not in ("N", "A", "B")
    assert made == {
        "s_shape": ("int64", (5,)),
        "s_kept": ("int64", (2,)),
        "s_rest": ("int64", (3,)),
        "s_product": ("int64", (1,)),
        "s_flat": ("int64", (3,)),
        "x_flat": ("float32", ["N", 3, product]),
        "y_flat": ("float32", ["N", 3, product]),
        "y": ("float32", ("N", 3, "A", "B", 4)),
    }


def test_a_size_of_nothing_is_taken_at_run_time() -> None:
    """A constant 0 would ask to copy a size."""
    graph = text.parse(model("(float[2,3,0,5] x) => (float[2,3,0,5] y) { [s] y = Softmax<axis = 1>(x) }")).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    assert [n.op for n in graph.nodes].count("Shape") == 3
    (flat,) = (n.outputs[0].shape for n in graph.nodes if n.name == "s_Reshape")
    assert flat == [2, 3, "x_behind"]


def test_types_and_shapes_of_what_is_new_where_sizes_are_known() -> None:
    graph = text.parse(model("(float[N,3,4,5] x) => (float[N,3,4,5] y) { [s] y = Softmax<axis = 1>(x) }")).graph
    assert PASS.run(graph, default_context()).rewrites == 1
    first, softmax, last = graph.nodes
    assert [n.inputs[1].values.dtype for n in (first, last)] == [np.dtype(np.int64)] * 2
    assert [(t.dtype, t.shape) for t in (*first.outputs, *softmax.outputs)] == [(np.float32, ["N", 3, 20])] * 2


@pytest.mark.parametrize("dims", ["N,3,A,B", "N,3,4,B", "N,3,4,5", "0,3,A,B"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5), (2, 3, 4, 0), (2, 3, 0, 5)])
def test_empty_tensors_stay_possible(dims: str, shape: tuple[int, ...]) -> None:
    """A size of -1 could not be told from nothing."""
    if any(d.isdigit() and int(d) != size for d, size in zip(dims.split(","), shape, strict=True)):
        pytest.skip("the graph says otherwise")
    before = text.parse(model(f"(float[{dims}] x) => (float[{dims}] y) {{ y = Softmax<axis = 1>(x) }}"))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 7
    expected = _run(before, x)
    assert PASS.run(before.graph, default_context()).rewrites == 1
    np.testing.assert_array_equal(_run(before, x), expected)


def _run(some: Model, x: np.ndarray) -> np.ndarray:
    return Session(to_bytes(some), threads=1).run({"x": x})["y"]


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ("2,3,4,5", "<axis = 3>"),
        ("2,3,4,5", "<axis = -1>"),
        ("2,3,4,5", ""),
        ("2,3,1,1", "<axis = 1>"),  # nothing to move
        ("2,1", "<axis = 0>"),
    ],
)
def test_near_misses(shape: str, attributes: str) -> None:
    keep(PASS, f"(float[{shape}] x) => (float[{shape}] y) {{ y = Softmax{attributes}(x) }}")


def test_one_axis_behind() -> None:
    graph = "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = Softmax<axis = 2>(x) }"
    keep(PASS, graph, "one axis lies behind its own: ONNX Runtime is quick at that")
    keep(PASS, graph.replace("axis = 2", "axis = -2"), "one axis lies behind its own: ONNX Runtime is quick at that")


def test_other_ops() -> None:
    keep(PASS, "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = Hardmax<axis = 1>(x) }")


def test_old_opsets() -> None:
    graph = "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = Softmax<axis = 1>(x) }"
    keep(PASS, graph, "it needs opset 15, the model has 14", opset=14)
    keep(PASS, graph, "it needs opset 15, the model has 11", opset=11)
    two = "(float[2,3,4,5] x) => (float y, float z) { y = Softmax<axis = 1>(x) z = Softmax<axis = 1>(x) }"
    report = PASS.run(text.parse(model(two, 14)).graph, default_context())
    assert [r.reason for r in report.refusals] == ["it needs opset 15, the model has 14"] * 2
    assert PASS.run(text.parse(model(two, 15)).graph, default_context()).rewrites == 2


def test_a_rank_that_is_not_known() -> None:
    graph = text.parse(model("(float x, int64[N] s) => (float y) { r = Reshape(x, s) y = Softmax<axis = 1>(r) }")).graph
    graph.nodes[0].outputs[0].shape = None
    report = PASS.run(graph, default_context())
    assert (report.rewrites, [r.reason for r in report.refusals]) == (0, ["the rank of its input is not known"])


def test_what_is_left_alone_does_not_end_the_run() -> None:
    body = "r = Reshape(x, s) a = Softmax<axis = 1>(r) b = Softmax(a) c = Reshape(b, t) y = Softmax<axis = 1>(c)"
    graph = text.parse(
        model(f"(float[2,3,4,5] x, int64[4] s) => (float[2,3,4,5] y) <int64[4] t = {{2, 3, 4, 5}}> {{ {body} }}")
    ).graph
    graph.nodes[0].outputs[0].shape, graph.nodes[3].outputs[0].shape = None, (2, 3, 4, 5)
    report = PASS.run(graph, default_context())
    assert (report.rewrites, [r.reason for r in report.refusals]) == (1, ["the rank of its input is not known"])


def test_many_sites() -> None:
    shape = "2,3,4,5"
    before = f"(float[{shape}] x) => (float[{shape}] y) {{ [s] y = Softmax<axis = 1>(x) }}"
    after = AFTER.format(shape, "0, 0, 20", "0, 0, 4, 5", 3, "Softmax<axis = 1>")
    together(
        PASS,
        changed=[(before, after, 1)],
        kept=[(before.replace("axis = 1", "axis = 2"), "one axis lies behind its own")],
        quiet=[before.replace("axis = 1", "axis = 3")],
    )
