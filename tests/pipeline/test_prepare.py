"""What is done before the first pass: made-up inputs."""

from __future__ import annotations

import pytest

from onnxq.ir.text import parse
from onnxq.pipeline.prepare import made_up_inputs


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
