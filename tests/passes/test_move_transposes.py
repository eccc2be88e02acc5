from __future__ import annotations

import pytest
from rewriting import bitwise, keep, model, rewrite, together

from onnxq.ir import text
from onnxq.testing import check_pass, default_context
from onnxq_passes.move_transposes import MoveTransposes

PASS = MoveTransposes()
TO_LAST, TO_FIRST = "Transpose<perm = [0, 2, 3, 1]>", "Transpose<perm = [0, 3, 1, 2]>"
MORE = "no fewer Transposes would be left: "
INPUTS, ELSEWHERE, RESULT = (
    "other inputs of its region would need one",
    "one in front is also read elsewhere",
    "a result is also read as it is",
)


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
        f"{MORE}{INPUTS}; {RESULT}",
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


def test_readers_that_are_not_free_beside_some_that_are() -> None:
    """Whatever order they come in."""
    outs = "float[1,2,3,4] y, float[1,3,4,2] v, float[1,3,4,2] w"
    bitwise(
        PASS,
        nchw(f"a = {TO_LAST}(x) v = Softmax(a) [r] b = Relu(a) w = Hardmax(a) e = {TO_FIRST}(b) y = Neg(e)", outs=outs),
        nchw(f"a = {TO_LAST}(x) v = Softmax(a) [r] b_moved = Relu(x) w = Hardmax(a) y = Neg(b_moved)", outs=outs),
        rewrites=1,
    )


def test_transposes_that_do_nothing_or_do_not_say_what() -> None:
    keep(
        PASS, nchw("a = Transpose<perm = [0, 1, 2, 3]>(x) b = Relu(a) c = Transpose<perm = [0, 1, 2, 3]>(b) y = Neg(c)")
    )
    keep(PASS, nchw("a = Transpose(x) b = Relu(a) c = Transpose(b) y = Neg(c)"))
    other = nchw(
        "a = com.example.Transpose<perm = [0, 2, 3, 1]>(x) b = Relu(a) c = com.example.Transpose<perm = [0, 3, 1, 2]>(b) y = Neg(c)"
    )
    assert not PASS.run(text.parse(model(other)).graph, default_context()).rewrites
    other = nchw(f"a = {TO_LAST}(x) b = Relu(a) c = com.example.Transpose<perm = [0, 3, 1, 2]>(b) y = Neg(c)")
    assert not PASS.run(text.parse(model(other)).graph, default_context()).rewrites


def test_ops_that_are_not_elementwise_tell_no_rank() -> None:
    """Squeeze of rank 4 gives rank 2, which nothing says."""
    keep(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) b = Squeeze(v) c = Add(a, b) d = {TO_FIRST}(c) y = Neg(d)",
            ins="float[1,2,3,4] x, float[1,1,4,2] v",
        ),
    )


def test_a_region_with_many_transposes_in_front_is_refused_once() -> None:
    ins = ", ".join(f"float[1,{s}] {n}" for n, s in (("x", "2,3,4"), ("u", "2,3,4"), ("v", "3,4,2"), ("w", "3,4,2")))
    nodes = f"a = {TO_LAST}(x) b = {TO_LAST}(u) c = Mul(a, v) d = Mul(b, w) y = Add(c, d)"
    keep(PASS, nchw(nodes, ins=ins, outs="float[1,3,4,2] y"), f"{MORE}{INPUTS}; {RESULT}")


WIDE = "float[4,2] k = {1, 2, 3, 4, 5, 6, 7, 8}"


@pytest.mark.parametrize(
    ("before", "after", "constants", "moved"),
    [
        ("Add(a, k)", "Add(x, k_moved)", WIDE, "float[1,2,1,4] k_moved = {1, 3, 5, 7, 2, 4, 6, 8}"),
        ("PRelu(a, k)", "PRelu(x, k_moved)", "float[2] k = {0.5, 2}", "float[1,2,1,1] k_moved = {0.5, 2}"),
        ("Mul(k, a)", "Mul(k, x)", "float[1,1,1,1] k = {2}", "float[1,1,1,1] k = {2}"),
        ("Clip(a, , k)", "Clip(x, , k)", "float k = {0.5}", "float k = {0.5}"),
        ("Pad(a, p, k)", "Pad(x, b_p_pads, k)", "int64[8] p = {0, 0, 1, 0, 0, 0, 0, 1}, float k = {3}",
         "int64[8] b_p_pads = {0, 0, 0, 1, 0, 1, 0, 0}, float k = {3}"),
        ("com.microsoft.QuickGelu(a)", "com.microsoft.QuickGelu(x)", "", ""),
        ("Mean(a, a, k)", "Mean(x, x, k_moved)", "float[2] k = {1, 2}", "float[1,2,1,1] k_moved = {1, 2}"),
        ("ReduceMin(a, k)", "ReduceMin(x, b_n_axes)", "int64[2] k = {-2, 3}", "int64[2] b_n_axes = {3, 1}"),
    ],
)  # fmt: skip
def test_what_works_in_any_layout(before: str, after: str, constants: str, moved: str) -> None:
    name = "[b_p]" if "Pad" in before else "[b_n]"
    outs = "float[a,b,c,d] y"
    rewrite(
        PASS,
        nchw(f"a = {TO_LAST}(x) {name} b = {before} e = {TO_FIRST}(b) y = Neg(e)", constants, outs=outs),
        nchw(f"{name} b_moved = {after} y = Neg(b_moved)", moved, outs=outs),
        rewrites=1,
        atol=1e-6,
    )


def test_axes_and_pads_as_attributes() -> None:
    outs = "float[a,b,c,d] y"
    for before, after in (
        ("ReduceSumSquare<axes = [2, -1]>", "ReduceSumSquare<axes = [3, 1]>"),
        ("Pad<pads = [0, 1, 0, 0, 0, 0, 2, 0]>", "Pad<pads = [0, 0, 1, 0, 0, 0, 0, 2]>"),
    ):
        rewrite(
            PASS,
            nchw(f"a = {TO_LAST}(x) [m] b = {before}(a) e = {TO_FIRST}(b) y = Neg(e)", outs=outs),
            nchw(f"[m] b_moved = {after}(x) y = Neg(b_moved)", outs=outs),
            opset=10,
            rewrites=1,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "between",
    [
        "b = Add(a, five)",  # of greater rank
        "b = Concat<axis = 1>(a, four)",  # a constant part
        "b = Pad(a, pads, k, one)",  # only some axes
        "b = Pad(a, full, k, all)",
        "b = ReduceMax(a)",  # all axes
        "b = ReduceMax(a, n)",  # computed axes
        "b = com.example.Relu(a)",  # an op of somebody else
        "b = Clip(a, k, m)",  # a computed bound
        "b, c = MaxPool<kernel_shape = [1, 1]>(a)",
    ],
)
def test_what_else_ends_a_region(between: str) -> None:
    source = nchw(
        f"a = {TO_LAST}(x) {between} e = Transpose<perm = [0, 3, 1, 2]>(b) y = Neg(e)",
        "float[1,1,1,1,2] five = {1, 2}, float[1,1,4,2] four = {1, 2, 3, 4, 5, 6, 7, 8}, int64[2] pads = {1, 0}, "
        "float k = {0}, int64[1] one = {1}, int64[8] full = {0, 1, 0, 0, 0, 0, 0, 0}, int64[4] all = {1, 0, 2, 3}",
        ins="float[1,2,3,4] x, int64[1] n, float m",
        outs="float[a,b,c,d] y",
    )
    before = text.parse(model(source))
    if "five" in between or "example" in between or "ReduceMax(a, n)" in between:  # nothing that would run
        kept = text.text(before.graph)
        assert not PASS.run(before.graph, default_context()).rewrites and text.text(before.graph) == kept
    else:
        keep(PASS, source)


IMAGES = {n: f"float[1,2,3,4] {n}" for n in "xu"} | {n: f"float[1,3,4,2] {n}" for n in "vwt"}


def test_the_balance_counts_each_transpose() -> None:
    def source(ops: str, ins: str, outs: str = "float[1,2,3,4] y") -> str:
        return nchw(ops, "float[1,3,4,2] e", ins=", ".join(IMAGES[n] for n in ins), outs=outs)

    two = f"a = {TO_LAST}(x) b = {TO_LAST}(u)"
    keep(
        PASS, source(f"{two} c = Sum(a, b, v, w, t) d = {TO_FIRST}(c) y = Neg(d)", "xuvwt"), f"{MORE}{INPUTS}"
    )  # 3 and 3
    rewrite(  # 3 and 2; the new ones stand behind what makes their input
        PASS,
        source(f"{two} e = Softmax(v) [m] c = Sum(a, b, e, w) d = {TO_FIRST}(c) y = Neg(d)", "xuvw"),
        source(
            f"[moved_1] w_moved = {TO_FIRST}(w) e = Softmax(v) [moved] e_moved = {TO_FIRST}(e) "
            "[m] c_moved = Sum(x, u, e_moved, w_moved) y = Neg(c_moved)",
            "xuvw",
        ),
        rewrites=1,  # and nothing is refused: between the new ones, the region would be moved back
        atol=1e-6,
    )
    rewrite(  # 2 and 1
        PASS,
        source(f"{two} [m] c = Mul(a, b) y = Softmax(c)", "xu", "float[1,3,4,2] y"),
        source(f"[m] c_moved = Mul(x, u) [moved] c = {TO_LAST}(c_moved) y = Softmax(c)", "xu", "float[1,3,4,2] y"),
        rewrites=1,
        atol=1e-6,
    )
    keep(PASS, source(f"a = {TO_LAST}(x) b = Relu(a) y = {TO_FIRST}(b)", "x"))  # the output must be made anyway


def test_a_reduction_that_needs_no_transpose_beside_an_op_that_goes_on() -> None:
    outs = "float[1,2] y, float[1,2,3,4] z"
    rewrite(
        PASS,
        nchw(
            f"a = {TO_LAST}(x) [e] d = Exp(a) [m] y = ReduceMean<keepdims = 0>(d, k) [r] b = Relu(d) c = {TO_FIRST}(b) z = Neg(c)",
            "int64[2] k = {1, 2}",
            outs=outs,
        ),
        nchw(
            "[e] d_moved = Exp(x) [m] y = ReduceMean<keepdims = 0>(d_moved, m_axes) [r] b_moved = Relu(d_moved) z = Neg(b_moved)",
            "int64[2] m_axes = {2, 3}",
            outs=outs,
        ),
        rewrites=1,
        atol=1e-5,
    )


def test_shapes_follow() -> None:
    before = text.parse(model(nchw(f"a = {TO_LAST}(x) b = Relu(a) c = Neg(b) d = {TO_FIRST}(c) y = Neg(d)"))).graph
    before.nodes[1].outputs[0].shape = [1, 3, "columns", 2]
    PASS.run(before, default_context())
    shapes = {t.name: t.shape and list(t.shape) for n in before.nodes for t in n.outputs}
    assert shapes == {"b_moved": [1, 2, 3, "columns"], "c_moved": None, "y": [1, 2, 3, 4]}


def test_a_body_goes_on_with_what_was_moved_outside() -> None:
    """What the outer op gets behind it is read past inside."""
    source = """(bool c, float[1,2,3,4] x) => (float[1,2,3,4] y, float[1,2,3,4] v, float[1,2,3,4] z) {{ {0} z = If(c) <
        then_branch = p () => (float[1,2,3,4] t) {{ {1} }}, else_branch = q () => (float[1,2,3,4] e) {{ e = Neg(x) }}> }}"""
    bitwise(
        PASS,
        source.format(
            f"a = {TO_LAST}(x) [r] b = Relu(a) d = {TO_FIRST}(b) f = {TO_FIRST}(b) y = Neg(d) v = Abs(f)",
            f"[m] g = Mul(a, b) h = {TO_FIRST}(g) t = Exp(h)",
        ),
        source.format(
            "[r] b_moved = Relu(x) y = Neg(b_moved) v = Abs(b_moved)", "[m] g_moved = Mul(x, b_moved) t = Exp(g_moved)"
        ),
        rewrites=2,
    )


def test_sites_behind_one_that_is_none() -> None:
    """One Transpose that does nothing, one whose region stays, one to rewrite: in this order."""
    head = "(float[1,2,3,4] x) => (float[1,2,3,4] y, float[1,2,3,4] v, float[1,3,4,2] w)"
    first = f"i = Transpose<perm = [0, 1, 2, 3]>(x) v = Neg(i) s = {TO_LAST}(x) w = Relu(s)"
    bitwise(
        PASS,
        f"{head} {{ {first} a = {TO_LAST}(x) [r] b = Relu(a) e = {TO_FIRST}(b) y = Neg(e) }}",
        f"{head} {{ {first} [r] b_moved = Relu(x) y = Neg(b_moved) }}",
        rewrites=1,
    )


@pytest.mark.parametrize(
    ("ops", "outs", "stopped"),
    [
        ("c = Sum(a, b, v, w, t) d = {1}(c) y = Neg(d)", "y", [INPUTS]),
        ("c = Mul(a, b) d = Relu(c) p = Softmax(c) q = Softmax(d)", "pq", [RESULT]),
        ("c = Relu(a) d = {1}(c) e = {1}(c) p = Softmax(a) q = Softmax(c) r = Abs(c) y = Neg(d) z = Neg(e)", "pqryz",
         [ELSEWHERE, RESULT]),
        ("c = Relu(a) d = {1}(c) e = {1}(c) p = Softmax(a) q = Softmax(c) y = Neg(d) z = Neg(e)", "pqyz", None),
        ("c = Relu(a) p = Softmax(c)", "p", []),
    ],
)  # fmt: skip
def test_a_refusal_names_what_stopped_it_and_nothing_else(ops: str, outs: str, stopped: list[str] | None) -> None:
    """None: it is not stopped. An empty list: there is nothing to gain and nothing to say."""
    results = ", ".join(f"float[1,{'2,3,4' if n in 'yz' else '3,4,2'}] {n}" for n in outs)
    both = f"a = {TO_LAST}(x) b = {TO_LAST}(u) "
    source = nchw(both + ops.format(TO_LAST, TO_FIRST), ins=", ".join(IMAGES.values()), outs=results)
    report = PASS.run(text.parse(model(source)).graph, default_context())
    assert report.rewrites == (stopped is None)
    assert [r.reason for r in report.refusals] == ([MORE + "; ".join(stopped)] if stopped else [])
