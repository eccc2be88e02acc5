"""Inner tensors part by part: the bits of the whole run, and each node once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.part import part
from onnxq.ir.save import runnable
from onnxq.runtime.session import Level, Session
from onnxq.stats.taps import with_outputs
from onnxq.validate import inner
from onnxq.validate.inner import inner_values

HEAD = '<ir_version: 10, opset_import: ["": 21]> g (float[4] x, bool c) => (float[4] y)'
BRANCHES = f"""{HEAD} <float[4] k = {{1, 2, 3, 4}}> {{
    a = Exp(x) b = Sin(a) d = Mul(a, k) e = Cos(x) f = Add(b, d)
    i = If(c) <then_branch = t () => (float[4] p) {{ q = Mul(e, b) p = Neg(q) }},
        else_branch = u () => (float[4] r) {{ r = Abs(f) }}>
    h = Sub(i, e) y = Mul(h, k) }}"""
SEQUENCE = f"""{HEAD} <int64 n = {{2}}, int64 first = {{0}}> {{
    a = Exp(x) s = SplitToSequence(a, n) b = Sin(a) d = SequenceAt(s, first) e = Neg(d)
    f = ConcatFromSequence<axis = 0>(s) y = Add(f, b) }}"""


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of nodes of the parts that were opened."""
    seen: list[int] = []

    def counted(model: Model, nodes: Sequence[Any], *rest: Any) -> Model:
        seen.append(len(nodes))
        return part(model, nodes, *rest)

    monkeypatch.setattr(inner, "part", counted)
    return seen


def inputs(count: int = 3) -> list[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(3)
    return [{"x": random.normal(size=4).astype(np.float32), "c": np.array(i % 2 == 0)} for i in range(count)]


def whole(model: Model, names: Sequence[str], sample: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with runnable(with_outputs(model, [n for n in names if n not in sample])) as source:
        return {**sample, **Session(source, level=Level.OFF, threads=1, prepacking=False).run(sample)}


@pytest.mark.parametrize(
    ("source", "groups", "parts"),
    [
        (BRANCHES, [["a", "b"], ["d"], ["f", "i"], ["h"]], [2, 1, 3, 1]),
        (BRANCHES, [["f"], ["a"], ["x", "y"], ["e", "b"]], [5, 3]),  # in no order: what was made before is kept
        (BRANCHES, [["x"], ["a"]], [1]),
        (SEQUENCE, [["a"], ["b"], ["d", "e"], ["y"]], [1, 2, 4, 6]),  # which is not handed on
    ],
)
def test_the_parts_compute_what_the_whole_computes(
    source: str, groups: list[list[str]], parts: list[int], exported: list[int]
) -> None:
    model = text.parse(source)
    samples = inputs()
    found = list(inner_values(model, groups, samples))
    assert len(found) == len(groups) * len(samples)
    for at, values in enumerate(found):
        group, sample = groups[at // len(samples)], samples[at % len(samples)]
        assert values.keys() == set(group)
        exact = whole(model, group, sample)
        assert all(np.array_equal(values[n].view(np.uint32), exact[n].view(np.uint32)) for n in group)
    assert exported == parts


def chain(length: int) -> Model:
    steps = " ".join(f"t{i + 1} = {'Neg' if i % 2 else 'Sin'}(t{i})" for i in range(1, length))
    return text.parse(f"{HEAD} {{ t1 = Relu(x) {steps} y = Identity(t{length}) }}")


@pytest.mark.parametrize("length", [320, 640])
def test_each_node_of_a_chain_is_exported_once(length: int, exported: list[int]) -> None:
    names = [f"t{i + 1}" for i in range(length)]
    groups = [names[i : i + 32] for i in range(0, length, 32)]
    count = sum(1 for _ in inner_values(chain(length), groups, inputs(2)))
    assert count == 2 * length // 32 and sum(exported) == length


def test_only_what_is_needed_later_is_kept() -> None:
    nodes = list(text.parse(BRANCHES).graph.nodes)
    stops, last = inner._plan(nodes, [["a"], ["b"], ["f"], ["i"]])
    assert stops == [1, 2, 5, 6]
    assert {n: last[n] for n in "abdefi"} == {"a": 2, "b": 3, "d": 2, "e": 3, "f": 3, "i": 3}


def test_no_group_is_no_run(exported: list[int]) -> None:
    assert list(inner_values(text.parse(BRANCHES), [], inputs())) == [] and exported == []
