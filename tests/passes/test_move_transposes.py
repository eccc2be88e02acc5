from __future__ import annotations

import pytest
from rewriting import bitwise, keep, rewrite, together

from onnxq.testing import check_pass
from onnxq_passes.move_transposes import MoveTransposes

PASS = MoveTransposes()
TO_LAST, TO_FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"
MORE = "would not leave fewer"


def nchw(body: str, constants: str = "", *, outs: str = "float[1,2,3,4] y", ins: str = "float[1,2,3,4] x") -> str:
    return f"({ins}) => ({outs}) <{constants}> {{ {body} }}"


def test_contract() -> None:
    check_pass(MoveTransposes)


def test_elementwise_ops_between_two_transposes() -> None:
    """Cases 1 to 3; the constant has one number per channel, the scalar stays."""
    bitwise(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) [m] b = Mul(a, s) [n] c = Add(k, b) [r] d = Relu(c) e = {TO_FIRST}(d) [z] y = Neg(e)",
            "float[2] s = {2, 3}, float k = {0.5}",
        ),
        nchw(
            "[m] b_moved = Mul(x, s_moved) [n] c_moved = Add(k, b_moved) [r] d_moved = Relu(c_moved) [z] y = Neg(d_moved)",
            "float[1,2,1,1] s_moved = {2, 3}, float k = {0.5}",
        ),
        rewrites=1,
    )


def test_a_residual_is_one_region() -> None:
    """Two Transposes in front, two behind, one of them behind the Add, and a reader that wants NHWC."""
    bitwise(
        PASS,
        nchw(
            f"p = Exp(x) q = Sin(x) a = {TO_LAST}(p) b = {TO_LAST}(q) [r] c = Relu(a) f = {TO_FIRST}(c) y = Neg(f) "
            f"[s] d = Add(c, b) e = {TO_FIRST}(d) z = Neg(e) w = Softmax(d)",
            outs="float[1,2,3,4] y, float[1,2,3,4] z, float[1,3,4,2] w",
        ),
        nchw(
            "p = Exp(x) q = Sin(x) [r] c_moved = Relu(p) y = Neg(c_moved) [s] d_moved = Add(c_moved, q) "
            f"[moved] d = {TO_LAST}(d_moved) z = Neg(d_moved) w = Softmax(d)",
            outs="float[1,2,3,4] y, float[1,2,3,4] z, float[1,3,4,2] w",
        ),
        rewrites=1,
    )


def test_axes_and_pads_follow() -> None:
    bitwise(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) [p] b = Pad(a, pads) [c] c = Concat<axis = -1>(b, b) [m] d = ReduceMax(c, axes) "
            f"e = {TO_FIRST}(d) y = Neg(e)",
            "int64[8] pads = {0, 1, 0, 0, 0, 0, 2, 0}, int64[1] axes = {2}",
            outs="float[1,4,4,1] y",
        ),
        nchw(
            "[p] b_moved = Pad(x, p_pads) [c] c_moved = Concat<axis = 1>(b_moved, b_moved) "
            "[m] d_moved = ReduceMax(c_moved, m_axes) y = Neg(d_moved)",
            "int64[8] p_pads = {0, 0, 1, 0, 0, 0, 0, 2}, int64[1] m_axes = {3}",
            outs="float[1,4,4,1] y",
        ),
        rewrites=1,
    )


def test_a_global_mean_of_nhwc_needs_no_transpose() -> None:
    before = f"a = {TO_LAST}(x) [m] y = ReduceMean<keepdims = 0>(a, axes)"
    rewrite(
        PASS,
        nchw(before, "int64[2] axes = {1, 2}", outs="float[1,2] y"),
        nchw("[m] y = ReduceMean<keepdims = 0>(x, m_axes)", "int64[2] m_axes = {2, 3}", outs="float[1,2] y"),
        rewrites=1,
        atol=1e-6,
    )
    keep(PASS, nchw(before, "int64[1] axes = {0}", outs="float[3,4,2] y"))  # what is left is in another order


def test_near_misses() -> None:
    keep(PASS, nchw(f"a = {TO_LAST}(x) y = Relu(a)", outs="float[1,3,4,2] y"))
    keep(  # another input would need a Transpose
        PASS,
        nchw(
            f"a = {TO_LAST}(x) b = Mul(a, v) e = {TO_FIRST}(b) y = Neg(e) w = Softmax(b)",
            outs="float[1,2,3,4] y, float[1,3,4,2] w",
            ins="float[1,2,3,4] x, float[1,3,4,2] v",
        ),
        MORE,
    )
    keep(  # the one in front stays, the one behind is another one
        PASS,
        nchw(
            f"a = {TO_LAST}(x) b = Relu(a) e = Transpose<perm = [0, 2, 1, 3]>(b) y = Neg(e) w = Softmax(a)",
            outs="float[1,4,3,2] y, float[1,3,4,2] w",
        ),
    )


@pytest.mark.parametrize(
    "between",
    [
        "b = Add(a, v)",  # of smaller rank
        "b = Pad(a, n)",  # computed
        "b = CumSum(a, i)",  # no such op
        "b = Clip(a, m)",  # computed bound
    ],
)
def test_what_ends_a_region(between: str) -> None:
    keep(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) {between} e = {TO_FIRST}(b) y = Neg(e)",
            "int64 i = {1}",
            ins="float[1,2,3,4] x, float[2] v, int64[8] n, float m",
            outs="float[a,b,c,d] y",
        ),
    )


def test_in_bodies_and_many_sites() -> None:
    source = """(bool c, float[1,2,3,4] x) => (float[1,2,3,4] y) {{ y = If(c) <then_branch = p () => (float[1,2,3,4] t)
        {{ {0} }}, else_branch = q () => (float[1,2,3,4] e) {{ e = Neg(x) }}> }}"""
    inner = f"a = {TO_LAST}(x) [r] b = Relu(a) d = {TO_FIRST}(b) t = Exp(d)"
    bitwise(PASS, source.format(inner), source.format("[r] b_moved = Relu(x) t = Exp(b_moved)"), rewrites=1)
    together(
        PASS,
        changed=[
            (
                nchw(f"a = {TO_LAST}(x) [r] b = Relu(a) d = {TO_FIRST}(b) [z] y = Neg(d)"),
                nchw("[r] b_moved = Relu(x) [z] y = Neg(b_moved)"),
                1,
            )
        ],
        quiet=[
            nchw(f"a = {TO_LAST}(x) y = Relu(a)", outs="float[1,3,4,2] y"),
            nchw(f"a = {TO_LAST}(x) y = Softmax(a)", outs="float[1,3,4,2] y"),
        ],
    )


def test_an_inverse_transpose_in_front_pays_where_two_vanish() -> None:
    bitwise(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) b = {TO_LAST}(u) [m] c = Sum(a, b, v) d = {TO_FIRST}(c) y = Neg(d)",
            ins="float[1,2,3,4] x, float[1,2,3,4] u, float[1,3,4,2] v",
        ),
        nchw(
            f"[moved] v_moved = {TO_FIRST}(v) [m] c_moved = Sum(x, u, v_moved) y = Neg(c_moved)",
            ins="float[1,2,3,4] x, float[1,2,3,4] u, float[1,3,4,2] v",
        ),
        rewrites=1,
    )
