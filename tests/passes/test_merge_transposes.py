from __future__ import annotations

from rewriting import bitwise, keep, together

from onnxq.testing import check_pass
from onnxq_passes.merge_transposes import MergeTransposes

PASS = MergeTransposes()
HEAD = "(float[2,3,4] x) => (float[{0}] y) {{ {1} }}"


def test_contract() -> None:
    check_pass(MergeTransposes)


def test_case_1_two_become_one() -> None:
    bitwise(
        PASS,
        HEAD.format(
            "2,4,3", "[a] t = Transpose<perm = [1, 2, 0]>(x) [b] u = Transpose<perm = [2, 1, 0]>(t) y = Neg(u)"
        ),
        HEAD.format("2,4,3", "[b] u = Transpose<perm = [0, 2, 1]>(x) y = Neg(u)"),
        rewrites=1,
    )


def test_case_1_three_become_one() -> None:
    bitwise(
        PASS,
        HEAD.format(
            "3,4,2",
            "t = Transpose<perm = [1, 2, 0]>(x) u = Transpose<perm = [1, 2, 0]>(t) v = Transpose<perm = [2, 0, 1]>(u) y = Neg(v)",
        ),
        HEAD.format("3,4,2", "v = Transpose<perm = [1, 2, 0]>(x) y = Neg(v)"),
        rewrites=2,
    )


def test_case_1_the_first_one_is_read_elsewhere() -> None:
    head = HEAD.replace("y)", "y, float[3,4,2] z)")
    bitwise(
        PASS,
        head.format(
            "2,4,3", "t = Transpose<perm = [1, 2, 0]>(x) u = Transpose<perm = [2, 1, 0]>(t) y = Neg(u) z = Neg(t)"
        ),
        head.format(
            "2,4,3", "t = Transpose<perm = [1, 2, 0]>(x) u = Transpose<perm = [0, 2, 1]>(x) y = Neg(u) z = Neg(t)"
        ),
        rewrites=1,
    )


def test_case_2_they_undo_each_other() -> None:
    bitwise(
        PASS,
        HEAD.format(
            "2,3,4", "a = Exp(x) t = Transpose<perm = [1, 2, 0]>(a) u = Transpose<perm = [2, 0, 1]>(t) y = Neg(u)"
        ),
        HEAD.format("2,3,4", "a = Exp(x) y = Neg(a)"),
        rewrites=1,
    )


def test_case_2_in_front_of_an_output() -> None:
    bitwise(
        PASS,
        HEAD.format("2,3,4", "a = Exp(x) t = Transpose(a) y = Transpose(t)")
        .replace("{ a", "{ a")
        .replace(" y) {", " y) <float[2,3,4] a> {"),
        HEAD.format("2,3,4", "y = Exp(x)"),
        rewrites=1,
        opset=20,
    )


def test_case_2_input_to_output_stays() -> None:
    source = HEAD.format("2,3,4", "t = Transpose<perm = [1, 2, 0]>(x) y = Transpose<perm = [2, 0, 1]>(t)")
    keep(PASS, source, "joins an input")


def test_case_3_unknown_rank() -> None:
    keep(PASS, HEAD.format("2,3,4", "a = Exp(x) t = Transpose(a) u = Transpose(t) y = Neg(u)"), "unknown rank")


def test_near_miss_something_in_between() -> None:
    keep(PASS, HEAD.format("2,3,4", "t = Transpose<perm = [1, 2, 0]>(x) a = Neg(t) y = Transpose<perm = [2, 0, 1]>(a)"))


def test_in_bodies() -> None:
    source = """(bool c, float[2,3] x) => (float[2,3] y) {{ y = If(c) <then_branch = p () => (float[2,3] t) {{ {0} }},
        else_branch = q () => (float[2,3] e) {{ e = Neg(x) }}> }}"""
    before = source.format("a = Transpose<perm = [1, 0]>(x) b = Transpose<perm = [1, 0]>(a) t = Exp(b)")
    bitwise(PASS, before, source.format("t = Exp(x)"), rewrites=1)


def test_many_sites() -> None:
    pair = "[a] t = Transpose<perm = [1, 2, 0]>(x) [b] u = Transpose<perm = [2, 1, 0]>(t) [n] y = Neg(u)"
    together(
        PASS,
        changed=[
            (
                HEAD.format("2,4,3", pair),
                HEAD.format("2,4,3", "[b] u = Transpose<perm = [0, 2, 1]>(x) [n] y = Neg(u)"),
                1,
            )
        ],
        kept=[
            (
                HEAD.format("2,3,4", "t = Transpose<perm = [1, 2, 0]>(x) y = Transpose<perm = [2, 0, 1]>(t)"),
                "joins an input",
            ),
            (HEAD.format("2,3,4", "a = Exp(x) t = Transpose(a) u = Transpose(t) y = Neg(u)"), "unknown rank"),
        ],
        quiet=[HEAD.format("3,4,2", "e = Exp(x) t = Transpose<perm = [1, 2, 0]>(e) y = Neg(t)")],
    )


def test_case_1_one_of_them_says_nothing() -> None:
    """Without perm the dimensions are reversed, which wants a rank."""
    before = HEAD.format("3,4,2", "t = Transpose(x) u = Transpose<perm = [1, 0, 2]>(t) y = Neg(u)")
    bitwise(PASS, before, HEAD.format("3,4,2", "u = Transpose<perm = [1, 2, 0]>(x) y = Neg(u)"), rewrites=1)
    for nodes in (
        "t = Transpose(a) u = Transpose<perm = [1, 0, 2]>(t)",
        "t = Transpose<perm = [1, 0, 2]>(a) u = Transpose(t)",
    ):
        keep(PASS, HEAD.format("n,m,k", f"a = Exp(x) {nodes} y = Neg(u)"), "unknown rank")


def test_case_1_the_first_one_is_an_output() -> None:
    head = HEAD.replace("y)", "y, float[3,4,2] t)")
    before = head.format("2,4,3", "t = Transpose<perm = [1, 2, 0]>(x) u = Transpose<perm = [2, 1, 0]>(t) y = Neg(u)")
    after = head.format("2,4,3", "t = Transpose<perm = [1, 2, 0]>(x) u = Transpose<perm = [0, 2, 1]>(x) y = Neg(u)")
    bitwise(PASS, before, after, rewrites=1)


def test_case_1_behind_a_pair_that_stays() -> None:
    """All in one run: what is read in the end is looked at again."""
    body = "t = Transpose<perm = [1, 2, 0]>(x) y = Transpose<perm = [2, 0, 1]>(t)"
    head = "(float[2,3,4] x) => (float[2,3,4] y, float[2,4,3] z)"
    bitwise(
        PASS,
        f"{head} {{ {body} v = Transpose<perm = [0, 2, 1]>(y) z = Neg(v) }}",
        f"{head} {{ {body} v = Transpose<perm = [0, 2, 1]>(x) z = Neg(v) }}",
        rewrites=2,
        refused=["joins an input"],
    )
