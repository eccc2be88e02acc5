from __future__ import annotations

import numpy as np
import pytest

from onnxq.testing import assert_rewrite, check_pass
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
    text = before(inits, pad, conv)
    assert_rewrite(PASS, text, text, rewrites=0, refused=[reason], atol=0)


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
