"""What is done before the first pass: made-up inputs, types and shapes written in."""

from __future__ import annotations

import pytest

from onnxq.ir.shapes import infer
from onnxq.ir.text import parse
from onnxq.pipeline.prepare import describe, made_up_inputs, prepare
from onnxq.targets.target import load_target


def model(dimensions: str, body: str) -> str:
    return f'<ir_version: 8, opset_import: ["": 17]> g (float[{dimensions}] x) => (float[a,b,c] y) {{ {body} }}'


@pytest.mark.parametrize(
    ("dimensions", "width", "expected"),
    [
        ("1,2,N", 1, (1, 2, 1)),
        ("1,2,N", 9, (1, 2, 32)),  # a window of nine does not fit into one
        ("1,2,N", 100, (1, 2, 224)),
        ("1,2,N", 5000, (1, 2, 1)),  # nothing fits: what runs says so
        ("1,2,4", 9, (1, 2, 4)),  # nothing is free
    ],
)
def test_free_dimensions_grow_until_the_model_runs(dimensions: str, width: int, expected: tuple[int, ...]) -> None:
    text = model(dimensions, f"y = MaxPool<kernel_shape = [{width}]>(x)")
    assert made_up_inputs(parse(text))["x"].shape == expected


def test_inputs_are_not_huge() -> None:
    text = model("N,N,N", "y = MaxPool<kernel_shape = [300]>(x)")
    assert made_up_inputs(parse(text))["x"].shape == (1, 1, 1)


HEADS = """g (float[N,S,384] x) => (float[N,12,S,32] y)
  <int64[1] zero = {0}, int64[1] one = {1}, int64[1] minus_one = {-1}, int64[2] heads = {12, 32}> {
    all = Shape(x)
    first = Slice(all, zero, one)
    target = Concat<axis = 0>(first, minus_one, heads)
    split = Reshape(x, target)
    y = Transpose<perm = [0, 2, 1, 3]>(split)
}"""


def test_sizes_are_written_in_where_the_conversion_left_symbols() -> None:
    """onnx.version_converter writes symbols for what inference that follows values knows."""
    source = parse('<ir_version: 8, opset_import: ["": 17]>' + HEADS)
    made = prepare(source, load_target("cpu"), None, keep_overridable=False)
    assert made.opset > 17
    shapes = {t.name: t.shape for node in made.graph.nodes for t in node.outputs}
    assert shapes["split"][2:] == (12, 32)


def test_what_a_file_declares_stays() -> None:
    source = parse(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) { h = Neg(x) y = Neg(h) }'
    )
    hidden = source.graph.nodes[0].outputs[0]
    hidden.shape = ("rows", "columns")
    describe(source.graph, {"h": (hidden.dtype, (None, 4))})
    assert hidden.shape == ("rows", 4)
    describe(source.graph, {"h": (hidden.dtype, ("N", 5))})
    assert hidden.shape == ("rows", 4)
    describe(source.graph, {"h": (hidden.dtype, ("N", 5, 6))})
    assert hidden.shape == ("rows", 4)
    assert infer(source)["h"][1] == ("N", 4)
