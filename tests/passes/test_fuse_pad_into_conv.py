from __future__ import annotations

import numpy as np
import pytest
from rewriting import model, together

from onnxq.ir import text
from onnxq.pipeline.base import Report
from onnxq.testing import assert_rewrite, check_pass, default_context
from onnxq_passes.fuse_pad_into_conv import FusePadIntoConv

PASS = FusePadIntoConv()
HEAD = '<ir_version: 10, opset_import: ["": 21]> g '
INITS = "float[1,1,2,2] w = {1, -2, 3, -4}"
BEFORE = (
    HEAD + "(float[1,1,4,4] x) => (float[1,1,m,n] y) <" + INITS + ", {0}> {{ [pad] p = Pad{1} [conv] y = Conv{2} }}"
)


def before(inits: str, pad: str, conv: str = "(p, w)") -> str:
    return BEFORE.replace(INITS, "@").format(inits, pad, conv).replace("@", INITS)


def after(pads: str) -> str:
    return HEAD + f"(float[1,1,4,4] x) => (float[1,1,m,n] y) <{INITS}> {{ [conv] y = Conv<pads = {pads}>(x, w) }}"


def test_contract() -> None:
    check_pass(FusePadIntoConv)


@pytest.mark.parametrize(
    ("inits", "pad", "conv", "pads"),
    [
        ("int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}", "(x, a)", "(p, w)", "[0, 1, 2, 0]"),
        (
            "int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}, float v = {0}",
            "(x, a, v)",
            "<pads = [1, 1, 1, 1]>(p, w)",
            "[1, 2, 3, 1]",
        ),
        ("int64[8] a = {0, 0, 1, 1, 0, 0, 1, 1}", "(x, a)", '<auto_pad = "VALID">(p, w)', "[1, 1, 1, 1]"),
        ("int64[4] a = {1, 0, 0, 2}, int64[2] axes = {-1, 2}", "(x, a, , axes)", "(p, w)", "[0, 1, 2, 0]"),
    ],
)
def test_padding_moves_into_the_conv(inits: str, pad: str, conv: str, pads: str) -> None:
    assert_rewrite(PASS, before(inits, pad, conv), after(pads), rewrites=1, atol=1e-6)


def test_pads_in_a_row() -> None:
    first, inits = (
        "(x, a) [more] q = Pad(p, b)",
        "int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}, int64[8] b = {0, 0, 1, 1, 0, 0, 0, 1}",
    )
    assert_rewrite(PASS, before(inits, first, "(q, w)"), after("[1, 2, 2, 1]"), rewrites=2, atol=1e-6)


def test_pads_in_a_row_across_a_body() -> None:
    one = text.parse(
        HEAD
        + "(float[1,1,4,4] x, bool c) => (float[1,1,m,n] y) <"
        + INITS
        + ", int64[8] a = {0, 0, 0, 1, 0, 0, 0, 0}> { [pad] p = Pad(x, a) y = If (c) <"
        "then_branch = t () => (float[1,1,m,n] s) { [inner] q = Pad(p, a) [one] s = Conv(q, w) }, "
        "else_branch = e () => (float[1,1,m,n] r) { [two] r = Conv(p, w) }> }"
    )
    assert PASS.run(one.graph, default_context()).rewrites == 2
    (choice,) = one.graph.nodes
    pads = [choice.attrs[k].nodes[-1].attrs["pads"] for k in ("then_branch", "else_branch")]
    assert pads == [[0, 2, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("inits", "pad", "conv", "reason"),
    [
        ("int64[8] a = {0, 0, 0, 1, 0, 0, 1, 0}", '<mode = "edge">(x, a)', "(p, w)", "pads with mode edge"),
        ("int64[8] a = {0, 0, 0, 1, 0, 0, 1, 0}, float v = {1}", "(x, a, v)", "(p, w)", "another value than 0"),
        ("int64[8] a = {1, 0, 0, 0, 0, 0, 0, 0}", "(x, a)", "(p, w)", "the batch or the channels"),
        ("int64[8] a = {0, 0, -1, 0, 0, 0, 0, 0}", "(x, a)", "(p, w)", "it crops"),
        ("int64[8] a = {0, 0, 1, 0, 0, 0, 0, 0}", "(x, a)", '<auto_pad = "SAME_UPPER">(p, w)', "auto_pad"),
    ],
)
def test_near_misses(inits: str, pad: str, conv: str, reason: str) -> None:
    graph = before(inits, pad, conv)
    assert_rewrite(PASS, graph, graph, rewrites=0, refused=[reason], atol=0)


def test_a_pad_that_others_read_stays_without_a_word() -> None:
    text = HEAD + (
        f"(float[1,1,4,4] x) => (float[1,1,m,n] y, float[1,1,5,4] z) <{INITS}, int64[8] a = {{0, 0, 1, 0, 0, 0, 0, 0}}>"
        " { [pad] p = Pad(x, a) [conv] y = Conv(p, w) [neg] z = Neg(p) }"
    )
    assert_rewrite(PASS, text, text, rewrites=0, atol=0)


def test_a_graph_output_and_run_time_amounts_are_refused() -> None:
    text = HEAD + (
        f"(float[1,1,4,4] x) => (float[1,1,m,n] y, float[1,1,5,4] p) <{INITS}, int64[8] a = {{0, 0, 1, 0, 0, 0, 0, 0}}>"
        " { [pad] p = Pad(x, a) [conv] y = Conv(p, w) }"
    )
    assert_rewrite(PASS, text, text, rewrites=0, refused=["output of the graph"], atol=0)
    text = (
        HEAD
        + f"(float[1,1,4,4] x, int64[8] a) => (float[1,1,m,n] y) <{INITS}> {{ [pad] p = Pad(x, a) [conv] y = Conv(p, w) }}"
    )
    amounts = np.array([0, 0, 1, 0, 0, 0, 0, 0], np.int64)
    x = np.ones((1, 1, 4, 4), np.float32)
    assert_rewrite(
        PASS, text, text, rewrites=0, refused=["amounts are computed"], atol=0, inputs={"x": x, "a": amounts}
    )


PLAIN = f"(float[1,1,4,4] x) => (float[1,1,m,n] y) <{INITS}, int64[8] a = {{0, 0, 0, 1, 0, 0, 2, 0}}> {{ [pad] p = Pad(x, a) [conv] y = Conv(p, w) }}"


def test_many_sites() -> None:
    together(
        PASS,
        changed=[
            (
                PLAIN,
                f"(float[1,1,4,4] x) => (float[1,1,m,n] y) <{INITS}> {{ [conv] y = Conv<pads = [0, 1, 2, 0]>(x, w) }}",
                1,
            )
        ],
        kept=[(PLAIN.replace("{0, 0, 0, 1", "{1, 0, 0, 1"), "the batch or the channels")],
        quiet=[PLAIN.replace("[conv] y = Conv(p, w)", "[neg] y = Neg(p)"), PLAIN.replace("Pad(x, a)", "Neg(x)")],
        atol=1e-6,
    )


def _run(graph: str, opset: int) -> tuple[Report, list[int] | None]:
    made = text.parse(model(graph, opset)).graph
    report = PASS.run(made, default_context())
    return report, made.nodes[-1].attrs.get("pads")


@pytest.mark.parametrize(
    ("value", "pads"), [("", [0, 1, 2, 0]), (", value = 0.0", [0, 1, 2, 0]), (", value = 1.0", None)]
)
def test_amounts_and_value_that_are_attributes(value: str, pads: list[int] | None) -> None:
    pad = f"Pad<pads = [0, 0, 0, 1, 0, 0, 2, 0]{value}>(x)"
    report, found = _run(PLAIN.replace("Pad(x, a)", pad).replace(", int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}", ""), 10)
    assert found == pads
    assert [r.reason for r in report.refusals] == ([] if pads else ["it pads with another value than 0"])


@pytest.mark.parametrize(
    ("inputs", "constants", "pad", "reason"),
    [
        ("float[1,1,4,4] x, float v", "int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}", "Pad(x, a, v)", "its value is computed"),
        ("float[1,1,4,4] x, int64[2] b", "int64[4] a = {1, 0, 0, 2}", "Pad(x, a, , b)", "its amounts are computed"),
    ],
)
def test_values_and_axes_that_are_computed(inputs: str, constants: str, pad: str, reason: str) -> None:
    report, found = _run(
        f"({inputs}) => (float[1,1,m,n] y) <{INITS}, {constants}> {{ [pad] p = {pad} [conv] y = Conv(p, w) }}", 21
    )
    assert found is None
    assert [r.reason for r in report.refusals] == [f"{reason} at run time"]


@pytest.mark.parametrize("shaped", ["x", "p", ""])
def test_axes_count_from_a_shape_that_somebody_tells(shaped: str) -> None:
    constants = "int64[4] a = {1, 0, 0, 2}, int64[2] b = {3, 2}"
    graph = text.parse(
        model(
            f"(float[1,1,4,4] x) => (float[1,1,m,n] y) <{INITS}, {constants}> {{ [pad] p = Pad(x, a, , b) [conv] y = Conv(p, w) }}"
        )
    ).graph
    graph.inputs[0].shape = (1, 1, 4, 4) if shaped == "x" else None
    graph.nodes[0].outputs[0].shape = (1, 1, 6, 5) if shaped == "p" else None
    report = PASS.run(graph, default_context())
    assert graph.nodes[-1].attrs.get("pads") == ([0, 1, 2, 0] if shaped else None)
    assert len(report.refusals) == (0 if shaped else 1)


def test_a_value_of_shape_1() -> None:
    graph = before("int64[8] a = {0, 0, 0, 1, 0, 0, 2, 0}, float[1] v = {0}", "(x, a, v)")
    assert PASS.run(text.parse(graph).graph, default_context()).rewrites == 1
