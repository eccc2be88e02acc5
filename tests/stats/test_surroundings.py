"""What the ops around a tensor say about its range."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.ir.save import to_bytes
from onnxq.ir.text import parse
from onnxq.runtime.session import Level, Session
from onnxq.stats.observers import MinMax
from onnxq.stats.statistics import TensorStatistics
from onnxq.stats.surroundings import Feel, Surroundings, surroundings

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def around(body: str, name: str) -> Surroundings:
    graph = parse(f"{HEAD}g (float[2,4] x) => (float[2,4] y) {{ {body} }}").graph
    return surroundings(graph, [name])[name]


def seen(low: float, high: float) -> TensorStatistics:
    ends = MinMax()
    ends.update(np.array([low, high], dtype=np.float32))
    return TensorStatistics("t", {"minmax": ends})


@pytest.mark.parametrize(
    ("op", "bounds"),
    [
        ("t = Sigmoid(x)", (0, 1)),
        ("t = Softmax(x)", (0, 1)),
        ("t = HardSigmoid(x)", (0, 1)),
        ("t = Tanh(x)", (-1, 1)),
        ("l = Constant<value_float = 0.0>() h = Constant<value_float = 6.0>() t = Relu(x)", None),
        ("t = Mul(x, x)", None),
    ],
)
def test_bounds_of_the_op_that_makes_a_tensor(op: str, bounds: object) -> None:
    assert around(f"{op} y = Add(t, x)", "t").bounds == bounds


def test_bounds_of_a_clip_are_its_constants() -> None:
    text = (
        f"{HEAD}g (float[2] x) => (float[2] y) <float lo = {{-1.0}}, float hi = {{6.0}}> "
        "{ t = Clip(x, lo, hi) y = Neg(t) }"
    )
    assert surroundings(parse(text).graph, ["t"])["t"].bounds == (-1.0, 6.0)
    open_text = f"{HEAD}g (float[2] x) => (float[2] y) <float lo = {{0.0}}> {{ t = Clip(x, lo) y = Neg(t) }}"
    assert surroundings(parse(open_text).graph, ["t"])["t"].bounds == (0.0, math.inf)
    computed = f"{HEAD}g (float[2] x, float m) => (float[2] y) {{ t = Clip(x, m) y = Neg(t) }}"
    assert surroundings(parse(computed).graph, ["t"])["t"].bounds is None


def test_what_only_reorders_is_looked_through() -> None:
    found = around("s = Sigmoid(x) t = Transpose(s) y = Tanh(t)", "t")
    assert found.bounds == (0, 1)
    assert len(found.readers) == 1
    assert found.readers[0](np.array([2.0]), 2.0) == pytest.approx(math.tanh(2.0))


def test_a_bound_counts_where_the_measured_extreme_is_near() -> None:
    known = Surroundings(bounds=(-1.0, 1.0))
    assert known.within(-0.9375, 0.90625, seen(-0.9375, 0.90625)) == (-1.0, 1.0)
    near_miss = 0.890625
    assert known.within(-near_miss, near_miss, seen(-near_miss, near_miss)) == (-near_miss, near_miss)
    assert known.within(-0.5, 0.97, seen(-0.99, 0.99)) == (-0.5, 0.97), "the calibrator cut here, and it stays so"


def test_zero_as_a_bound_needs_no_widening() -> None:
    assert Surroundings(bounds=(0.0, 1.0)).within(0.25, 0.9375, seen(0.25, 0.9375)) == (0.25, 1.0)
    assert Surroundings().within(-1.0, 3.0, seen(-1.0, 3.0)) == (-1.0, 3.0)


def test_equal_readers_count_once_and_linear_ones_are_one() -> None:
    assert (
        len(around("t = Neg(x) a = Sigmoid(t) b = Sigmoid(t) c = Add(a, b) d = Add(t, c) y = Mul(t, d)", "t").readers)
        == 2
    )
    assert around("y = Neg(x)", "y").readers == ()


def test_a_reader_in_a_body_counts() -> None:
    text = f"""{HEAD}g (float[2] x, bool c) => (float[2] y) {{
      t = Neg(x)
      y = If(c) <then_branch = a () => (float[2] p) {{ p = Sigmoid(t) }},
                 else_branch = b () => (float[2] q) {{ q = Neg(t) }}>
    }}"""
    assert len(surroundings(parse(text).graph, ["t"])["t"].readers) == 2


OPS = {
    "Relu(t)": None,
    "LeakyRelu<alpha = 0.3>(t)": None,
    "Elu<alpha = 0.7>(t)": None,
    "Sigmoid(t)": None,
    "HardSigmoid<alpha = 0.25, beta = 0.4>(t)": None,
    "HardSwish(t)": None,
    "Tanh(t)": None,
    "Erf(t)": None,
    "Gelu(t)": None,
}


@pytest.mark.parametrize("call", OPS)
def test_readers_compute_what_their_op_computes(call: str) -> None:
    model = parse(f"{HEAD}g (float[64] x) => (float[64] y) {{ t = Identity(x) y = {call} }}")
    values: NDArray[Any] = np.linspace(-8, 8, 64, dtype=np.float32)
    exact = Session(to_bytes(model), level=Level.OFF, threads=1).run({"x": values})["y"]
    (reader,) = surroundings(model.graph, ["t"])["t"].readers
    np.testing.assert_allclose(reader(values.astype(np.float64), 8.0), exact, atol=1e-5)


def test_softmax_feels_little_of_low_logits() -> None:
    found = around("t = Neg(x) y = Softmax(t)", "t")
    near, far = (
        abs(float(found.readers[0](np.array([v]), 5.0)[0] - found.readers[0](np.array([v + 0.1]), 5.0)[0]))
        for v in (4.5, -20.0)
    )
    assert near > 1e6 * far


def test_a_tensor_of_a_body_and_what_it_takes_from_around() -> None:
    text = f"""{HEAD}g (float[2] x, bool c) => (float[2] y) {{ t = Sigmoid(x) r = Identity(t)
      y = If(c) <then_branch = a () => (float[2] p) {{ u = Tanh(r) v = Squeeze(u) p = Softmax(v) }},
                 else_branch = b () => (float[2] q) {{ q = Neg(r) }}> }}"""
    found = surroundings(parse(text).graph, ["r", "u", "p"])
    assert found["r"] == Surroundings(bounds=(0, 1), feels=(Feel("Tanh"), Feel()))
    assert found["u"] == Surroundings(bounds=(-1, 1), feels=(Feel("Softmax"),))
    assert found["p"] == Surroundings(bounds=(0, 1))


@pytest.mark.parametrize(
    "one",
    [
        Surroundings(),
        Surroundings(bounds=(0, math.inf), feels=(Feel(), Feel("Softmax"))),
        Surroundings(bounds=(-math.inf, 0.1)),
        Surroundings(feels=(Feel("Clip", (("min", -math.inf), ("max", 6.0))), Feel("LeakyRelu", (("alpha", 0.1),)))),
    ],
)
def test_as_json_and_back(one: Surroundings) -> None:
    plain = json.dumps(one.plain(), allow_nan=False)
    assert Surroundings.of(json.loads(plain)) == one
    x = np.linspace(-3, 3, 7)
    for mine, theirs in zip(one.readers, Surroundings.of(json.loads(plain)).readers, strict=True):
        np.testing.assert_array_equal(mine(x, 3.0), theirs(x, 3.0))


@pytest.mark.parametrize(
    "plain", [{}, {"bounds": [1], "readers": []}, {"bounds": None, "readers": [["Sinus", {}]]}, {"bounds": None}]
)
def test_what_is_no_description_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        Surroundings.of(plain)
