"""The checks for plugin authors must pass good plugins, and fail bad ones for the right reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.data.sample import InputSpec
from onnxq.encoding import Scheme
from onnxq.pipeline.base import Context, Pass, Report
from onnxq.stats.statistics import TensorStatistics
from onnxq.testing import SAMPLES, assert_rewrite, check_calibrator, check_pass, random_inputs


@dataclass(frozen=True, kw_only=True)
class ReluToIdentity(Pass):
    """Replace Relu by another op; `op` says by which.

    Wrong for negative inputs, which is what a test must find.
    """

    op: str = "Identity"
    claim: bool = True
    again: bool = False

    def run(self, graph: gs.Graph, context: Context) -> Report:
        report = Report()
        for node in graph.nodes:
            if node.op == "Relu":
                node.op = self.op
                report.rewrites += self.claim
            elif node.op == "Neg":
                report.refuse(node, "Neg is no Relu")
            elif self.again and node.op == self.op:
                node.name += "x"
                report.rewrites += 1
        return report


HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) '
BEFORE, AFTER = HEAD + "{ y = Relu(x) }", HEAD + "{ y = Abs(x) }"
POSITIVE = {"x": np.array([1, 2], np.float32)}


def test_a_good_rewrite() -> None:
    report = assert_rewrite(ReluToIdentity(op="Abs"), BEFORE, AFTER, rewrites=1, atol=0, inputs=POSITIVE)
    assert report.rewrites == 1


def test_a_good_refusal() -> None:
    same = HEAD + "{ y = Neg(x) }"
    assert_rewrite(ReluToIdentity(), same, same, rewrites=0, refused=["no Relu"], atol=0)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"op": "Identity"}, {}, "the rewritten graph is not the expected one"),
        ({}, {"rewrites": 2}, "expected 2 rewrites, the pass reports 1"),
        ({"claim": False}, {"rewrites": 0}, "claims 0 rewrites, but the graph changed"),
        ({}, {"refused": ["something"]}, 'no refusal says "something"'),
        ({}, {"inputs": None}, "not the same bit for bit"),
        ({}, {"inputs": None, "atol": 0.1}, "Not equal to tolerance"),
        ({"again": True}, {}, "a second run makes 1 more rewrites"),
    ],
)
def test_a_bad_rewrite(settings: dict[str, Any], options: dict[str, Any], message: str) -> None:
    arguments = {"rewrites": 1, "atol": 0, "inputs": POSITIVE, **options}
    with pytest.raises(AssertionError, match=message):
        assert_rewrite(ReluToIdentity(**{"op": "Abs", **settings}), BEFORE, AFTER, **arguments)


def test_a_refusal_that_was_not_expected() -> None:
    same = HEAD + "{ y = Neg(x) }"
    with pytest.raises(AssertionError, match=r"were not expected: \['Neg is no Relu'\]"):
        assert_rewrite(ReluToIdentity(), same, same, rewrites=0, atol=0)


def test_a_wide_tolerance_is_used() -> None:
    assert_rewrite(ReluToIdentity(op="Abs"), BEFORE, AFTER, rewrites=1, atol=100.0)


def test_random_inputs_are_seeded_and_fit() -> None:
    specs = [
        InputSpec(name="f", dtype=np.dtype(np.float32), shape=(3, "n", None)),
        InputSpec(name="i", dtype=np.dtype(np.int64), shape=(5,)),
    ]
    first, second = random_inputs(specs), random_inputs(specs)
    assert first["f"].shape == (3, 2, 2)
    assert set(first["i"].tolist()) <= {0, 1}
    assert all(np.array_equal(first[k], second[k]) for k in first)
    given = np.arange(5)
    assert random_inputs(specs, {"i": given})["i"] is given


def test_samples_keep_their_names() -> None:
    assert {"one node", "diamond", "branches", "convolution"} <= SAMPLES.keys()


@dataclass(frozen=True, kw_only=True)
class Nothing(Pass):
    """Do nothing."""

    def run(self, graph: gs.Graph, context: Context) -> Report:
        return Report()


def test_a_good_pass() -> None:
    check_pass(Nothing)


def _variant(**members: Any) -> type[Pass]:
    return dataclass(frozen=True, kw_only=True)(type("Variant", (Nothing,), {"__doc__": "Do nothing.", **members}))


def _claims_too_much(self: Pass, graph: gs.Graph, context: Context) -> Report:
    return Report(rewrites=1)


def _renames_the_output(self: Pass, graph: gs.Graph, context: Context) -> Report:
    changed = graph.outputs[0].name != "other"
    graph.outputs[0].name = "other"
    return Report(rewrites=int(changed))


def _grows(self: Pass, graph: gs.Graph, context: Context) -> Report:
    graph.nodes[0].name += "x"
    return Report(rewrites=1)


COUNTER = [0]


def _counts(self: Pass, graph: gs.Graph, context: Context) -> Report:
    COUNTER[0] += 1
    graph.nodes[0].name = f"n{COUNTER[0]}"
    return Report(rewrites=1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"__doc__": ""}, "needs a docstring"),
        ({"takes": "float"}, "takes must be a Stage"),
        ({"needs": ["plan"]}, "needs must be a frozenset"),
        ({"run": lambda self, graph, context: None}, "run returned NoneType, not a Report"),
        ({"run": _claims_too_much}, "1 rewrites are claimed, the text says otherwise"),
        ({"run": _renames_the_output}, "the outputs of the graph were"),
        ({"run": _grows}, "a second run makes more rewrites"),
        ({"run": _counts}, "two runs on equal graphs differ"),
    ],
)
def test_a_bad_pass(members: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_pass(_variant(**members))


def test_a_pass_of_the_wrong_form() -> None:
    class Plain(Nothing):
        """Not a dataclass of its own, but it inherits one."""

    check_pass(Plain)

    @dataclass(kw_only=True)
    class Thawed:
        """Not frozen."""

    @dataclass(frozen=True)
    class Positional(Pass):
        """Not keyword-only."""

        size: int = 1

    @dataclass(frozen=True, kw_only=True)
    class Needy(Pass):
        """A setting without a default."""

        size: int

    class Bare(Pass):
        """No dataclass."""

    for bad, message in (
        (Thawed, "must be frozen"),
        (Positional, r"must be keyword-only.*\['size'\] are positional"),
        (Needy, "every setting of Needy needs a default"),
        (Bare, "must be a dataclass"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_pass(bad)  # type: ignore[arg-type]


def test_a_class_that_is_no_pass() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Stranger:
        """Not derived from Pass."""

    with pytest.raises(AssertionError, match="must derive from"):
        check_pass(Stranger)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """The observed range, symmetric if the scheme is."""

    observers: ClassVar[tuple[str, ...]] = ("minmax",)

    def range(self, statistics: TensorStatistics, scheme: Scheme) -> tuple[float, float]:
        low, high = min(statistics.min, 0.0), max(statistics.max, 0.0)
        amax = max(-low, high)
        return (-amax, amax) if scheme.symmetric else (low, high)


def test_a_good_calibrator() -> None:
    check_calibrator(Extremes)


def _calibrator(rule: Any, **members: Any) -> type[Any]:
    body = {"__doc__": "Wrong.", "range": lambda self, statistics, scheme: rule(statistics), **members}
    return dataclass(frozen=True, kw_only=True)(type("Variant", (Extremes,), body))


NUMBERS = [0.0]


def _drift(statistics: TensorStatistics) -> tuple[float, float]:
    NUMBERS[0] += 1
    return 0.0, max(statistics.max, 0.0) / NUMBERS[0]


@pytest.mark.parametrize(
    ("rule", "members", "message"),
    [
        (lambda s: (float("nan"), 1.0), {}, "is not finite"),
        (lambda s: (0.0, float("inf")), {}, "is not finite"),
        (lambda s: (1.0, -1.0), {}, "is upside down"),
        (lambda s: (s.min, s.max * 2), {}, "leaves the observed"),
        (_drift, {}, "two runs give"),
        (None, {"observers": ()}, "must name at least one observer"),
        (None, {"observers": (1,)}, "must be names of observers"),
        (None, {"__doc__": ""}, "needs a docstring"),
    ],
)
def test_a_bad_calibrator(rule: Any, members: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_calibrator(_calibrator(rule, **members))
