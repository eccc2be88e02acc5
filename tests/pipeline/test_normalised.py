"""Normalising passes keep what a model computes, within what its types can tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.errors import PassError
from onnxq.ir.text import parse
from onnxq.pipeline.normalised import check_normalised, coarseness


def graph(body: str, inputs: str = "float[4] x") -> str:
    return f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => (float[4] y) {{ {body} }}'


@pytest.mark.parametrize(
    ("text", "factor"),
    [
        (graph("y = Relu(x)"), 1.0),
        (graph("h = Cast<to = 10>(x) r = Relu(h) y = Cast<to = 1>(r)"), 30.0),  # inputs and outputs stay float32
        (graph("h = Cast<to = 16>(x) y = Cast<to = 1>(h)"), 240.0),
        (graph("y = Cast<to = 1>(x)", "float16[4] x"), 30.0),
        (graph("c = Cast<to = 7>(x) y = Cast<to = 1>(c)"), 1.0),
    ],
)
def test_a_graph_in_half_precision_may_move_more(text: str, factor: float) -> None:
    assert coarseness(parse(text).graph) == factor


def test_what_moves_more_is_a_fault() -> None:
    exact, moved = {"y": np.array([1.0, 8.0], np.float32)}, {"y": np.array([1.0, 8.1], np.float32)}
    check_normalised(exact, moved, "a.npz", coarse=30.0)
    with pytest.raises(PassError, match=r"changed output y of a\.npz by 0\.1 "):
        check_normalised(exact, moved, "a.npz")
    with pytest.raises(PassError, match="by inf"):
        check_normalised(exact, {"y": np.array([1.0, np.nan], np.float32)}, "a.npz", coarse=240.0)
