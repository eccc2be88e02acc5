from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from rewriting import bitwise, keep, model, rewrite, together

from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.ir.save import to_bytes
from onnxq.pipeline.base import Report
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.einsum_to_matmul import EinsumToMatmul

PASS = EinsumToMatmul()


def einsum(equation: str, *shapes: str, kind: str = "float") -> str:
    """A graph: the shapes are those of the operands and of the result."""
    operands = [f"x{number}" for number in range(len(shapes) - 1)]
    inputs = ", ".join(f"{kind}[{shape}] {x}" for shape, x in zip(shapes, operands, strict=False))
    return (
        f'({inputs}) => ({kind}[{shapes[-1]}] y) {{ [e] y = Einsum<equation = "{equation}">({", ".join(operands)}) }}'
    )


def after(shapes: tuple[str, str, str], nodes: str, constants: str = "") -> str:
    one, two, result = shapes
    return f"(float[{one}] x0, float[{two}] x1) => (float[{result}] y) <{constants}> {{ {nodes} }}"


def flat(number: int, *sizes: int) -> str:
    """A constant of a Reshape."""
    suffix = f"_{number}" if number else ""
    return f"int64[{len(sizes)}] e_Reshape_shape{suffix} = {{{', '.join(map(str, sizes))}}}"


SCORES = (
    "bqhd,bkhd->bhqk",
    ("2,5,3,4", "2,6,3,4", "2,3,5,6"),
    "[e_Transpose] x0_turned = Transpose<perm = [0, 2, 1, 3]>(x0) "
    "[e_Transpose_1] x1_turned = Transpose<perm = [0, 2, 3, 1]>(x1) [e] y = MatMul(x0_turned, x1_turned)",
)
SITES = {
    "plain": ("ij,jk->ik", ("3,4", "4,5", "3,5"), "[e] y = MatMul(x0, x1)"),
    "no arrow": ("ij,jk", ("3,4", "4,5", "3,5"), "[e] y = MatMul(x0, x1)"),
    "no arrow, the result by the alphabet": (
        "ki,ij",
        ("3,4", "4,5", "5,3"),
        "[e] y_turned = MatMul(x0, x1) [e_Transpose] y = Transpose<perm = [1, 0]>(y_turned)",
    ),
    "blanks": (" b i j , j k -> b i k ", ("2,3,4", "4,5", "2,3,5"), "[e] y = MatMul(x0, x1)"),
    "capitals": ("Bij,Bjk->Bik", ("2,3,4", "2,4,5", "2,3,5"), "[e] y = MatMul(x0, x1)"),
    "sizes of no matter": ("bij,jk->bik", ("N,S,4", "4,5", "N,S,5"), "[e] y = MatMul(x0, x1)"),
    "symbols": ("bij,bjk->bik", ("N,A,S", "N,S,B", "N,A,B"), "[e] y = MatMul(x0, x1)"),
    "a batch of one": ("bij,bjk->bik", ("1,3,4", "2,4,5", "2,3,5"), "[e] y = MatMul(x0, x1)"),
    "a batch of more than one": ("bij,bjk->bik", ("N,3,4", "2,4,5", "2,3,5"), "[e] y = MatMul(x0, x1)"),
    "scores, heads in front": (
        "bhid,bhjd->bhij",
        ("2,3,5,4", "2,3,6,4", "2,3,5,6"),
        "[e_Transpose] x1_turned = Transpose<perm = [0, 1, 3, 2]>(x1) [e] y = MatMul(x0, x1_turned)",
    ),
    "context, heads in front": ("bhij,bhjd->bhid", ("2,3,5,6", "2,3,6,4", "2,3,5,4"), "[e] y = MatMul(x0, x1)"),
    "scores": SCORES,
    "context": (
        "bhqk,bkhd->bqhd",
        ("2,3,5,6", "2,6,3,4", "2,5,3,4"),
        "[e_Transpose] x1_turned = Transpose<perm = [0, 2, 1, 3]>(x1) [e] y_turned = MatMul(x0, x1_turned) "
        "[e_Transpose_1] y = Transpose<perm = [0, 2, 1, 3]>(y_turned)",
    ),
    "a matrix for each head, a free length": (
        "bihd,hde->bihe",
        ("2,S,2,3", "2,3,4", "2,S,2,4"),
        "[e_Transpose] x0_turned = Transpose<perm = [0, 2, 1, 3]>(x0) [e] y_turned = MatMul(x0_turned, x1) "
        "[e_Transpose_1] y = Transpose<perm = [0, 2, 1, 3]>(y_turned)",
    ),
    "a matrix for each head, a free batch": (
        "bihd,hde->bihe",
        ("N,5,2,3", "2,3,4", "N,5,2,4"),
        "[e_Transpose] x0_turned = Transpose<perm = [1, 2, 0, 3]>(x0) [e] y_turned = MatMul(x0_turned, x1) "
        "[e_Transpose_1] y = Transpose<perm = [2, 0, 1, 3]>(y_turned)",
    ),
}
RESHAPED = {
    "into heads": (
        "bid,dhe->bihe",
        ("N,S,4", "4,2,3", "N,S,2,3"),
        "[e_Reshape] x1_flat = Reshape(x1, e_Reshape_shape) [e] y_flat = MatMul(x0, x1_flat) "
        "[e_Reshape_1] y = Reshape(y_flat, e_Reshape_shape_1)",
        (flat(0, 0, 6), flat(1, 0, 0, 2, 3)),
    ),
    "out of heads": (
        "bihe,hed->bid",
        ("N,S,2,3", "2,3,4", "N,S,4"),
        "[e_Reshape] x0_flat = Reshape(x0, e_Reshape_shape) [e_Reshape_1] x1_flat = Reshape(x1, e_Reshape_shape_1) "
        "[e] y = MatMul(x0_flat, x1_flat)",
        (flat(0, 0, 0, 6), flat(1, 6, 4)),
    ),
    "heads that share their keys": (
        "bhid,bjd->bhij",
        ("N,3,5,4", "N,6,4", "N,3,5,6"),
        "[e_Reshape] x0_flat = Reshape(x0, e_Reshape_shape) "
        "[e_Transpose] x1_turned = Transpose<perm = [0, 2, 1]>(x1) [e] y_flat = MatMul(x0_flat, x1_turned) "
        "[e_Reshape_1] y = Reshape(y_flat, e_Reshape_shape_1)",
        (flat(0, 0, 15, 4), flat(1, 0, 3, 5, 6)),
    ),
}


def test_contract() -> None:
    check_pass(EinsumToMatmul)


@pytest.mark.parametrize("title", SITES)
def test_products(title: str) -> None:
    equation, shapes, nodes = SITES[title]
    bitwise(PASS, einsum(equation, *shapes), after(shapes, nodes), rewrites=1, inputs=_fed(*shapes))


def _fed(*shapes: str) -> dict[str, np.ndarray]:
    """A batch whose size the graph leaves open is as large as in the other operand."""
    sizes = {"N": "2", "S": "3", "A": "2", "B": "5"}
    return _feeds(*(",".join(sizes.get(d, d) for d in shape.split(",")) for shape in shapes[:2]))


@pytest.mark.parametrize("title", RESHAPED)
def test_several_letters_on_one_axis(title: str) -> None:
    equation, shapes, nodes, constants = RESHAPED[title]
    bitwise(PASS, einsum(equation, *shapes), after(shapes, nodes, ", ".join(constants)), rewrites=1)


def test_operands_change_places() -> None:
    """The sums are rounded in another order."""
    shapes = ("2,3,4", "2,5,4", "2,5,3")
    nodes = "[e_Transpose] x0_turned = Transpose<perm = [0, 2, 1]>(x0) [e] y = MatMul(x1, x0_turned)"
    rewrite(PASS, einsum("bij,bkj->bki", *shapes), after(shapes, nodes), rewrites=1, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "shape", "weight", "result", "matrix", "nodes"),
    [
        ("bi,io->bo", "N,2", "float[2,2] w = {1, 2, 3, 4}", "N,2", "", "[e] y = MatMul(x, w)"),
        ("bi,oi->bo", "N,2", "float[3,2] w = {1, 2, 3, 4, 5, 6}", "N,3", "float[2,3] w_matrix = {1, 3, 5, 2, 4, 6}",
            "[e] y = MatMul(x, w_matrix)"),
        ("oi,bi->bo", "N,2", "float[3,2] w = {1, 2, 3, 4, 5, 6}", "N,3", "float[2,3] w_matrix = {1, 3, 5, 2, 4, 6}",
            "[e] y = MatMul(x, w_matrix)"),
        ("oi,bih->boh", "N,2,4", "float[3,2] w = {1, 2, 3, 4, 5, 6}", "N,3,4",
            "float[2,3] w_matrix = {1, 3, 5, 2, 4, 6}",
            "[e_Transpose] x_turned = Transpose<perm = [0, 2, 1]>(x) [e] y_turned = MatMul(x_turned, w_matrix) "
            "[e_Transpose_1] y = Transpose<perm = [0, 2, 1]>(y_turned)"),
        ("bid,hed->bihe", "N,S,2", "float[1,2,2] w = {1, 2, 3, 4}", "N,S,1,2", "float[2,2] w_matrix = {1, 3, 2, 4}",
            "[e] y_flat = MatMul(x, w_matrix) [e_Reshape] y = Reshape(y_flat, e_Reshape_shape)"),
        ("bihe,hed->bid", "N,S,2,1", "float[2,1,2] w = {1, 2, 3, 4}", "N,S,2", "float[2,2] w_matrix = {1, 2, 3, 4}",
            "[e_Reshape] x_flat = Reshape(x, e_Reshape_shape) [e] y = MatMul(x_flat, w_matrix)"),
        ("nbi,nio->nbo", "2,S,2", "float[2,2,1] w = {1, 2, 3, 4}", "2,S,1", "", "[e] y = MatMul(x, w)"),
        ("oi,ib->ob", "2,N", "float[3,2] w = {1, 2, 3, 4, 5, 6}", "3,N", "float[2,3] w_matrix = {1, 3, 5, 2, 4, 6}",
            "[e_Transpose] x_turned = Transpose<perm = [1, 0]>(x) [e] y_turned = MatMul(x_turned, w_matrix) "
            "[e_Transpose_1] y = Transpose<perm = [1, 0]>(y_turned)"),
        ("ib,io->ob", "2,N", "float[2,1] w = {1, 2}", "1,N", "",
            "[e_Transpose] x_turned = Transpose<perm = [1, 0]>(x) [e] y_turned = MatMul(x_turned, w) "
            "[e_Transpose_1] y = Transpose<perm = [1, 0]>(y_turned)"),
        ("bnsi,nio->bnso", "3,2,S,2", "float[2,2,1] w = {1, 2, 3, 4}", "3,2,S,1", "", "[e] y = MatMul(x, w)"),
    ],
)  # fmt: skip
def test_weights(equation: str, shape: str, weight: str, result: str, matrix: str, nodes: str) -> None:
    """They come second, and are rearranged in the file."""
    name, shapes = ("x, w", "w, x")[equation[0] == "o"], {4: flat(0, 0, 0, 1, 2), 3: flat(0, 0, 0, 2)}
    extra = shapes[len(result.split(","))] if "e_Reshape_shape" in nodes else ""
    head = f"(float[{shape}] x) => (float[{result}] y)"
    before = f'{head} <{weight}> {{ [e] y = Einsum<equation = "{equation}">({name}) }}'
    constants = ", ".join(c for c in (matrix or weight, extra) if c)
    rewrite(PASS, before, f"{head} <{constants}> {{ {nodes} }}", rewrites=1, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "made"),
    [
        ("ihgd,hgjd->ghij", "x0_turned x1_turned y"),  # batches in the order of the result
        ("hgid,ghjd->gihj", "x1_turned y_turned y"),  # of the first operand
        ("ighd,hgdj->gihj", "x0_turned y_turned y"),  # of the second one
        ("jikl,jm->lkim", "x0_turned y"),  # rows in the order of the result
        ("iklj,jm->mlki", "y_turned y"),  # of the first operand
        ("ijk,mkj->im", "x0_flat x1_turned x1_flat y"),  # the sum in the order of the first operand
        ("jki,kjm->im", "x0_turned x0_flat x1_flat y"),  # of the second one
        ("ij,mnj->inm", "x1_turned x1_flat y_flat y"),  # columns in the order of the result
        ("ij,jmn->nmi", "x1_flat y_flat y_turned y"),  # of the second operand
        ("ji,kjl->ikl", "x1_turned y_turned y"),  # as many Transposes with the operands in place, and two Reshapes more
    ],
)
def test_as_little_as_possible_is_moved(equation: str, made: str) -> None:
    sizes = {c: str(at + 2) for at, c in enumerate("ghijklmnd")}
    left, _, out = equation.partition("->")
    some = _parsed(equation, *(",".join(sizes[c] for c in term) for term in (*left.split(","), out)))
    assert PASS.run(some.graph, default_context()).rewrites == 1
    assert [t.name for n in some.graph.nodes for t in n.outputs] == made.split()


def test_what_is_moved_in_the_file_is_free() -> None:
    before = "(float[2,3,N,1] x) => (float[3,N,2,1] y) <float[3,2,1,1] w = {1, 2, 3, 4, 5, 6}> "
    nodes = "[e] y_turned = MatMul(x, w_matrix) [e_Transpose] y = Transpose<perm = [1, 2, 0, 3]>(y_turned)"
    after = before.replace("[3,2,1,1] w = {1, 2, 3, 4, 5, 6}", "[2,3,1,1] w_matrix = {1, 3, 5, 2, 4, 6}")
    bitwise(
        PASS, before + '{ [e] y = Einsum<equation = "hgid,ghde->gihe">(x, w) }', f"{after} {{ {nodes} }}", rewrites=1
    )


@pytest.mark.parametrize(("known", "flat_shape"), [(True, ["N", None, 6]), (False, None)])
def test_shapes_of_what_is_new(known: bool, flat_shape: list[object] | None) -> None:
    """Where the graph does not tell, they are left open."""
    some = _parsed("bhid,bjd->bhij", "N,3,5,4", "N,6,4", "N,P,Q,6")
    if not known:
        some.graph.outputs[0].shape = None
    assert PASS.run(some.graph, default_context()).rewrites == 1
    shapes = {t.name: t.shape for n in some.graph.nodes for t in n.outputs if t.name != "y"}
    assert shapes == {"x0_flat": ["N", 15, 4], "x1_turned": ["N", 4, 6], "y_flat": flat_shape}


def test_two_weights() -> None:
    head = "() => (float[2,1] y) <float[2,2] v = {1, 2, 3, 4}, "
    before = head + 'float[1,2] w = {1, 2}> { [e] y = Einsum<equation = "ij,kj->ik">(v, w) }'
    bitwise(PASS, before, head + "float[2,1] w_matrix = {1, 2}> { [e] y = MatMul(v, w_matrix) }", rewrites=1)


@pytest.mark.parametrize(
    ("equation", "shapes", "reason"),
    [
        ("bij->bji", ("2,3,4", "2,4,3"), "it has 1 operand, a matrix product has two"),
        ("ij,jk,kl->il", ("2,3", "3,4", "4,5", "2,5"), "it has 3 operands, a matrix product has two"),
        ("...ij,...jk->...ik", ("2,3,4", "2,4,5", "2,3,5"), "its equation has an ellipsis"),
        ("iij,jk->ik", ("3,3,4", "4,5", "3,5"), "its equation has a letter twice in one operand"),
        ("ij,jkk->ik", ("3,4", "4,5,5", "3,5"), "its equation has a letter twice in one operand"),
        ("hij,jk->ik", ("2,3,4", "4,5", "3,5"), "h is summed over in one operand alone"),
        ("ij,jkh->ik", ("3,4", "4,5,2", "3,5"), "h is summed over in one operand alone"),
        ("bij,bij->bij", ("2,3,4", "2,3,4", "2,3,4"), "no letter is summed over"),
        ("bi,bj->bij", ("2,3", "2,4", "2,3,4"), "no letter is summed over"),
        ("bj,bjk->bk", ("2,4", "2,4,5", "2,5"), "it has no rows"),
        ("bij,bj->bi", ("2,3,4", "2,4", "2,3"), "it has no columns"),
        ("ij,ij->", ("3,4", "3,4", ""), "it has no rows"),
        ("ij,jk->ik", ("3,S", "4,5", "3,5"), "j, which is summed over, may be 1 in one operand and more in the other"),
        ("ij,jk->ik", ("3,4", "S,5", "3,5"), "j, which is summed over, may be 1 in one operand and more in the other"),
        ("ij,jk->ik", ("3,S", "T,5", "3,5"), "j, which is summed over, may be 1 in one operand and more in the other"),
        ("ij,jk->ik", ("3,1", "4,5", "3,5"), "j, which is summed over, may be 1 in one operand and more in the other"),
        ("bij,bjk->bik", ("N,3,4", "M,4,5", "P,3,5"), "the batches b may be 1 in one operand and 0 in the other"),
        ("bij,bjk->bik", ("N,3,4", "1,4,5", "N,3,5"), "the batches b may be 1 in one operand and 0 in the other"),
        ("bij,bjk->bik", ("1,3,4", "N,4,5", "N,3,5"), "the batches b may be 1 in one operand and 0 in the other"),
        ("bij,bjk->bik", ("1,3,4", "0,4,5", "0,3,5"), "the batches b may be 1 in one operand and 0 in the other"),
        ("bij,bjk->bik", ("0,3,4", "N,4,5", "0,3,5"), "the batches b may be 1 in one operand and 0 in the other"),
        ("ijk,jkl->il", ("3,S,2", "S,2,5", "3,5"), "several letters would become one axis, and a size is not known, or 0"),
        ("ijk,jkl->il", ("3,0,2", "0,2,5", "3,5"), "several letters would become one axis, and a size is not known, or 0"),
        ("bihd,hde->bihe", ("S,T,2,3", "2,3,4", "S,T,2,4"), "several letters would become one axis"),
        ("bihd,hde->bihe", ("0,T,2,3", "2,3,4", "0,T,2,4"), "several letters would become one axis"),
        ("hij,jkl->hikl", ("S,T,4", "4,S,T", "S,T,S,T"), "several letters would become one axis, and a size is not known, or 0"),
    ],
)  # fmt: skip
def test_refusals(equation: str, shapes: tuple[str, ...], reason: str) -> None:
    keep(PASS, einsum(equation, *shapes), reason, inputs=_ones(*shapes[:-1]))


def _ones(*shapes: str) -> dict[str, np.ndarray]:
    """Free sizes are 4, but batches, which are 1."""
    sizes = {"S": "4", "T": "4", "N": "1", "M": "1"}
    return _feeds(*(",".join(sizes.get(d, d) for d in shape.split(",")) for shape in shapes))


@pytest.mark.parametrize("kind", ["double", "int64"])
def test_other_types(kind: str) -> None:
    reason = "only products of float tensors have integer kernels"
    keep(PASS, einsum("ij,jk->ik", "3,4", "4,5", "3,5", kind=kind), reason)


def test_other_ops_and_domains() -> None:
    keep(PASS, "(float[3,4] a, float[4,5] b) => (float[3,5] y) { y = MatMul(a, b) }")


def _parsed(equation: str, *shapes: str) -> Model:
    return text.parse(model(einsum(equation, *shapes)))


def _run(some: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return Session(to_bytes(some), level=Level.OFF, threads=1).run(feeds)["y"]


def test_another_domain() -> None:
    some = _parsed("ij,jk->ik", "3,4", "4,5", "3,5")
    some.graph.nodes[0].domain = "custom"
    assert PASS.run(some.graph, default_context()) == Report()


def test_shapes_that_are_not_known() -> None:
    some = _parsed("ij,jk->ik", "3,4", "4,5", "3,5")
    some.graph.nodes[0].inputs[0].shape = None
    report = PASS.run(some.graph, default_context())
    reason = "j, which is summed over, may be 1 in one operand and more in the other"
    assert (report.rewrites, [r.reason for r in report.refusals]) == (0, [reason])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ("3,4,2", "4,5", "3,5")),
        ("ij,jk->ik", ("3,4", "5", "3,5")),
        ("ij,jk->ik", ("3,4", "4,5", "3,5,1")),
        ("ij,jk->ih", ("3,4", "4,5", "3,5")),
        ("ij,jk->ik", ("3,4", "3,4")),
        ("ij,jk,kl->il", ("3,4", "4,5", "3,5")),
    ],
)
def test_equations_that_ort_does_not_take(equation: str, shapes: tuple[str, ...]) -> None:
    some = _parsed(equation, *shapes)
    report = PASS.run(some.graph, default_context())
    assert (report.rewrites, [r.reason for r in report.refusals]) == (0, ["its equation does not fit its operands"])


@pytest.mark.parametrize(
    ("equation", "shapes", "sizes"),
    [
        (equation, shapes, sizes)
        for equation, shapes, choices in (
            ("bij,bjk->bik", ("B,I,J", "B,J,K", "B,I,K"), "BIJK"),
            ("bqhd,bkhd->bhqk", ("B,I,2,J", "B,K,2,J", "B,2,I,K"), "BIJK"),
            ("bid,dhe->bihe", ("B,I,4", "4,2,3", "B,I,2,3"), "BI"),
            ("bihe,hed->bid", ("B,I,2,3", "2,3,4", "B,I,4"), "BI"),
            ("bihd,hde->bihe", ("B,5,2,3", "2,3,4", "B,5,2,4"), "B"),
            ("bihd,hde->bihe", ("2,I,2,3", "2,3,4", "2,I,2,4"), "I"),
        )
        for letter in choices
        for sizes in ({letter: 0}, {letter: 1}, {})
    ],
)
def test_free_sizes_may_be_none_or_one(equation: str, shapes: tuple[str, ...], sizes: dict[str, int]) -> None:
    """Of empty operands numpy has to say the result: some such Einsums end ONNX Runtime 1.31 with its process."""
    some = _parsed(equation, *shapes)
    sizes = {"B": 2, "I": 5, "J": 4, "K": 6, **sizes}
    feeds = _feeds(*(",".join(str(sizes.get(d, d)) for d in shape.split(",")) for shape in shapes[:2]))
    expected = np.einsum(equation, *feeds.values()) if 0 in sizes.values() else _run(some, feeds)
    assert PASS.run(some.graph, default_context()).rewrites == 1
    got = _run(some, feeds)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def _feeds(*shapes: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [[int(d) for d in shape.split(",")] for shape in shapes]
    return {f"x{at}": random.standard_normal(dims).astype(np.float32) for at, dims in enumerate(sizes)}


def _random_equation(random: np.random.Generator) -> tuple[str, tuple[str, str, str]]:
    """Some letters of each kind, in any order; sizes may be 1."""
    kinds = [list("ab")[: random.integers(3)], *(list(c)[: random.integers(1, 3)] for c in ("ij", "kl", "mn"))]
    batch, rows, columns, summed = kinds
    sizes = {c: int(random.integers(1, 5)) for letters in kinds for c in letters}
    terms = ["".join(random.permutation(t)) for t in (batch + rows + summed, batch + columns + summed)]
    out = "".join(random.permutation(batch + rows + columns))
    one, two, result = (",".join(str(sizes[c]) for c in term) for term in (*terms, out))
    return f"{','.join(terms)}->{out}", (one, two, result)


@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_letters(seed: int) -> None:
    """At most one Transpose and one Reshape for each operand and for the result, and the numbers of Einsum: to the bit
    where there is one letter of each kind, unless the operands change places."""
    random = np.random.default_rng(seed)
    equation, shapes = _random_equation(random)
    some = _parsed(equation, *shapes)
    feeds = _feeds(*shapes[:2])
    expected = _run(some, feeds)
    assert PASS.run(some.graph, default_context()).rewrites == 1
    ops = [n.op for n in some.graph.nodes]
    assert ops.count("MatMul") == 1
    assert max(ops.count("Transpose"), ops.count("Reshape")) <= 3
    at = ops.index("MatMul")
    assert max(ops[at:].count("Transpose"), ops[at:].count("Reshape")) <= 1
    got = _run(some, feeds)
    (product,) = [n for n in some.graph.nodes if n.op == "MatMul"]
    if _source(product.inputs[0]) == "x0" and all(equation.count(c) == 0 for c in "jln"):
        assert (got.shape, got.tobytes()) == (expected.shape, expected.tobytes())
    else:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * math.sqrt(expected.size))
    _declared(some, feeds)


def _source(tensor: gs.Tensor) -> str:
    while tensor.inputs:
        tensor = tensor.inputs[0].inputs[0]
    return str(tensor.name)


def _declared(some: Model, feeds: dict[str, np.ndarray]) -> None:
    """What is new has the type and the shape that it has when it runs."""
    inner = [t for n in some.graph.nodes for t in n.outputs]
    assert all(t.dtype == np.float32 and all(isinstance(d, int) for d in t.shape) for t in inner)
    some.graph.outputs = inner
    found = Session(to_bytes(some), level=Level.OFF, threads=1).run(feeds)
    assert [found[t.name].shape for t in inner] == [tuple(t.shape) for t in inner]


def test_many_sites() -> None:
    equation, shapes, nodes = SCORES
    turned = "(float[3] x, float[2,3] z) => (float[2] y) { "
    together(
        PASS,
        changed=[
            (einsum(equation, *shapes), after(shapes, nodes), 1),
            (einsum("ij,jk->ik", "3,4", "4,5", "3,5"), after(("3,4", "4,5", "3,5"), "[e] y = MatMul(x0, x1)"), 1),
        ],
        kept=[
            (einsum("bij->bji", "2,3,4", "2,4,3"), "it has 1 operand, a matrix product has two"),
            (einsum("bi,bi->b", "2,3", "2,3", "2"), "it has no rows"),
        ],
        quiet=[turned + "y = MatMul(z, x) }"],
    )
