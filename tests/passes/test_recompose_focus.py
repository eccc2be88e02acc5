from __future__ import annotations

import itertools

import pytest
from rewriting import bitwise, keep, rewrite

from onnxq.testing import check_pass
from onnxq_passes.recompose_focus import RecomposeFocus

PASS = RecomposeFocus()
NUMBERS = """int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] end = {2147483647},
    int64[2] i00 = {0, 0}, int64[2] i01 = {0, 1}, int64[2] i10 = {1, 0}, int64[2] i11 = {1, 1}, int64[2] i22 = {2, 2},
    int64[2] i23 = {2, 3}, int64[2] far = {2147483647, 9223372036854775807}, int64[2] m12 = {-2, -1}, int64[1] i4 = {4},
    int64[1] m1 = {-1}, int64[2] i66 = {6, 6}, int64[2] i33 = {3, 3}"""
HEAD = f"(float[1,2,4,6] x) => (float[1,8,2,3] y) <{NUMBERS}>"
WEIGHTS = "float[2,8,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}"
MOVED = "float[2,8,1,1] w_blocks = {1, 2, 5, 6, 3, 4, 7, 8, 9, 10, 13, 14, 11, 12, 15, 16}"
CONV = f"(float[1,2,4,6] x) => (float[1,2,2,3] y) <{NUMBERS}, {WEIGHTS}>"
WHOLE = "p{0}{1} = Slice(x, i{0}{1}, far, i23, i22)"
TWO = "r{0}{1} = Slice(x, i{0}, end, i2, i2) p{0}{1} = Slice(r{0}{1}, i{1}, end, i3, i2)"
ROWS, COLUMNS = "p00, p01, p10, p11", "p00, p10, p01, p11"
DONE = "[j_SpaceToDepth] {0} = SpaceToDepth<blocksize = 2>(x)"


def cuts(form: str = WHOLE) -> str:
    return " ".join(form.format(i, j) for i, j in itertools.product("01", "01"))


def test_contract() -> None:
    check_pass(RecomposeFocus)


@pytest.mark.parametrize("form", [WHOLE, TWO, WHOLE.replace("i23", "m12"), WHOLE.replace("far", "i66")])
@pytest.mark.parametrize("axis", [1, -3])
def test_case_1(form: str, axis: int) -> None:
    report = bitwise(
        PASS, f"{HEAD} {{ {cuts(form)} [j] y = Concat<axis = {axis}>({ROWS}) }}", f"{HEAD} {{ {DONE.format('y')} }}",
        rewrites=1,
    )  # fmt: skip
    assert report.renamed == {"j_SpaceToDepth": "j"}


def test_case_1_columns_first_and_rows_cut_once() -> None:
    once = (
        "a = Slice(x, i0, end, i3, i2) b = Slice(x, i1, end, i3, i2) p00 = Slice(a, i0, end, i2, i2) "
        "p10 = Slice(a, i1, end, i2, i2) p01 = Slice(b, i0, end, i2, i2) p11 = Slice(b, i1, end, i2, i2)"
    )
    bitwise(
        PASS, f"{HEAD} {{ {once} [j] y = Concat<axis = 1>({ROWS}) }}", f"{HEAD} {{ {DONE.format('y')} }}", rewrites=1
    )


def test_case_1_three_by_three() -> None:
    numbers = ", ".join(f"int64[2] n{i}{j} = {{{i}, {j}}}" for i, j in itertools.product(range(3), range(3)))
    head = f"(float[1,1,3,6] x) => (float[1,9,1,2] y) <{NUMBERS}, {numbers}>"
    pairs = list(itertools.product(range(3), range(3)))
    slices = " ".join(f"p{i}{j} = Slice(x, n{i}{j}, far, i23, i33)" for i, j in pairs)
    joined = ", ".join(f"p{i}{j}" for i, j in pairs)
    bitwise(
        PASS,
        f"{head} {{ {slices} [j] y = Concat<axis = 1>({joined}) }}",
        f"{head} {{ [j_SpaceToDepth] y = SpaceToDepth<blocksize = 3>(x) }}",
        rewrites=1,
    )


def test_case_2_the_weights_follow() -> None:
    rewrite(
        PASS,
        f"{CONV} {{ {cuts()} [j] f = Concat<axis = 1>({COLUMNS}) [c] y = Conv(f, w) }}",
        f"{CONV.replace(WEIGHTS, MOVED)} {{ {DONE.format('f')} [c] y = Conv(f, w_blocks) }}",
        rewrites=1,
        atol=1e-4,
    )


def test_case_2_several_readers_of_one_weight() -> None:
    head, after = (f"(float[1,2,4,6] x) => (float[1,2,2,3] y) <{NUMBERS}, {w}>" for w in (WEIGHTS, MOVED))
    sums = "[c] g = Conv(f, {0}) [d] h = Conv<strides = [1, 1]>(f, {0}) y = Add(g, h)"
    rewrite(
        PASS,
        f"{head} {{ {cuts()} [j] f = Concat<axis = 1>({COLUMNS}) {sums.format('w')} }}",
        f"{after} {{ {DONE.format('f')} {sums.format('w_blocks')} }}",
        rewrites=1,
        atol=1e-4,
    )


def test_case_2_readers_with_weights_of_their_own() -> None:
    u, moved = (f"float[1,8,1,1] {n}" for n in ("u = {8, 7, 6, 5, 4, 3, 2, 1}", "u_blocks = {8, 7, 4, 3, 6, 5, 2, 1}"))
    head, after = (
        f"(float[1,2,4,6] x) => (float[1,2,2,3] y, float[1,1,2,3] z) <{NUMBERS}, {c}>"
        for c in (f"{WEIGHTS}, {u}", f"{MOVED}, {moved}")
    )
    rewrite(
        PASS,
        f"{head} {{ {cuts()} [j] f = Concat<axis = 1>({COLUMNS}) [c] y = Conv(f, w) [d] z = Conv(f, u) }}",
        f"{after} {{ {DONE.format('f')} [c] y = Conv(f, w_blocks) [d] z = Conv(f, u_blocks) }}",
        rewrites=1,
        atol=1e-4,
    )


def test_case_3_read_elsewhere() -> None:
    keep(
        PASS,
        f"{HEAD} {{ {cuts()} f = Concat<axis = 1>({ROWS}) s = ReduceMax(p00) y = Add(f, s) }}",
        "also read elsewhere",
    )


@pytest.mark.parametrize(
    "reader",
    ["y = Neg(f)", "[c] g = Conv(f, w) s = ReduceMax(f) h = Add(g, s) y = Expand(h, shape)", "y = Identity(f)"],
)
def test_case_3_order(reader: str) -> None:
    head = f"(float[1,2,4,6] x) => (float[1,8,2,3] y) <{NUMBERS}, {WEIGHTS.replace('[2,8', '[1,8').split(', 9')[0]}}}, int64[4] shape = {{1, 8, 2, 3}}>"
    keep(
        PASS, f"{head} {{ {cuts()} f = Concat<axis = 1>({COLUMNS}) {reader} }}", "its order is not that of SpaceToDepth"
    )


def test_case_3_order_of_an_output_and_groups() -> None:
    keep(PASS, f"{HEAD} {{ {cuts()} y = Concat<axis = 1>({COLUMNS}) }}", "its order is not that")
    grouped = f"(float[1,2,4,6] x) => (float[1,2,2,3] y) <{NUMBERS}, float[2,4,1,1] w = {{1, 2, 3, 4, 5, 6, 7, 8}}>"
    keep(
        PASS, f"{grouped} {{ {cuts()} f = Concat<axis = 1>({COLUMNS}) y = Conv<group = 2>(f, w) }}", "its order is not"
    )
    variable = f"(float[1,2,4,6] x, float[2,8,1,1] w) => (float[1,2,2,3] y) <{NUMBERS}>"
    keep(PASS, f"{variable} {{ {cuts()} f = Concat<axis = 1>({COLUMNS}) y = Conv(f, w) }}", "its order is not that")


def test_case_3_type() -> None:
    head = HEAD.replace("(float[1,2", "(uint8[1,2").replace("(float[1,8", "(uint8[1,8")
    keep(PASS, f"{head} {{ {cuts()} y = Concat<axis = 1>({ROWS}) }}", "only float tensors")


@pytest.mark.parametrize(
    "ops",
    [
        cuts() + " y = Concat<axis = 1>(p00, p01, p10, p10)",  # one picture twice
        cuts(WHOLE.replace("far", "i44")) + f" y = Concat<axis = 1>({ROWS})",  # not to the end
        cuts(TWO.replace("i{1}, end", "i{1}, i4")) + f" y = Concat<axis = 1>({ROWS})",
        cuts() + " n = Neg(p11) y = Concat<axis = 1>(p00, p01, p10, n)",
        "b = Neg(x) " + cuts().replace("p11 = Slice(x", "p11 = Slice(b") + f" y = Concat<axis = 1>({ROWS})",
        "p00 = Slice(x, i0, end, i2, i2) p01 = Slice(x, i1, end, i2, i2) y = Concat<axis = 1>(p00, p01)",
        cuts() + f" y = Concat<axis = 2>({ROWS})",
        cuts(WHOLE.replace("Slice(x, i", "Slice(x, m")) + f" y = Concat<axis = 1>({ROWS})",
        cuts(WHOLE.replace("i22", "i24")) + f" y = Concat<axis = 1>({ROWS})",  # every second row, every fourth column
        cuts() + " y = Sum(p00, p01, p10, p11)",
        "p00 = Slice(x, i00, far, i23, i22) n = Neg(p00) y = Concat<axis = 1>(p00, n)",
        "p00 = Slice(x, i00, far, i23, i11) y = Concat<axis = 1>(p00)",
        "p00 = Slice(x, i00, far, i23, i22) y = Concat<axis = 1>(p00)",
        "p00 = Slice(x, i00, far, i23) y = Concat<axis = 1>(p00)",
    ],
)
def test_other_cuts_are_no_sites(ops: str) -> None:
    head = "(float[1,2,4,6] x) => (float[d0,d1,d2,d3] y)"
    extra = "int64[2] i44 = {4, 4}, int64[2] i24 = {2, 4}, " + ", ".join(
        f"int64[2] m{i}{j} = {{{int(i) - 4}, {int(j) - 6}}}" for i, j in itertools.product("01", "01")
    )
    keep(PASS, f"{head} <{NUMBERS}, {extra}> {{ {ops} }}")


def test_of_five_dimensions_is_no_site() -> None:
    head = f"(float[1,2,4,6,2] x) => (float[1,8,2,3,2] y) <{NUMBERS}>"
    keep(PASS, f"{head} {{ {cuts()} y = Concat<axis = 1>({ROWS}) }}")


@pytest.mark.parametrize(("reader", "fires"), [("Conv(f, w)", 1), ("Neg(f)", 0)])
def test_the_number_of_dimensions_has_to_be_known(reader: str, fires: int) -> None:
    head = f"(float[2,3,8] v) => (float[d0,d1,d2,d3] y) <{NUMBERS}, {WEIGHTS}, int64[4] picture = {{1, 2, 4, 6}}>"
    before = f"{head} {{ x = Reshape(v, picture) {cuts()} [j] f = Concat<axis = 1>({ROWS}) y = {reader} }}"
    after = f"{head} {{ x = Reshape(v, picture) {DONE.format('f')} y = {reader} }}"
    bitwise(PASS, before, after if fires else before, rewrites=fires)


def test_numbers_of_lines_from_the_end_are_not_read_as_others() -> None:
    """Rows 1 and 1 again, not 0 and 1: read as if -2 and -1 were numbers they would be all four pictures."""
    starts = "int64[2] a = {1, -2}, int64[2] b = {1, -1}"
    head = f"(float[1,2,2,2] x) => (float[1,8,1,1] y) <{NUMBERS}, {starts}>"
    places = {"p00": "a", "p01": "b", "p10": "i10", "p11": "i11"}
    slices = " ".join(f"{picture} = Slice(x, {at}, far, i23, i22)" for picture, at in places.items())
    keep(PASS, f"{head} {{ {slices} y = Concat<axis = 1>({ROWS}) }}")


@pytest.mark.parametrize(("slot", "known"), list(enumerate(["i00", "far", "i23", "i22"])))
def test_what_is_computed_is_no_site(slot: int, known: str) -> None:
    fixed = ["i00", "far", "i23", "i22"]
    fixed[slot] = "k"
    ops = cuts().replace(
        "p00 = Slice(x, i00, far, i23, i22)", f"k = Identity({known}) p00 = Slice(x, {', '.join(fixed)})"
    )
    keep(PASS, f"{HEAD} {{ {ops} y = Concat<axis = 1>({ROWS}) }}")


def test_slices_of_three_dimensions_are_no_sites() -> None:
    slices = "p = Slice(x, i0, i6, m1, i1) q = Slice(x, i0, end, m1, i2)"
    head = f"(float[2,4,6] x) => (float[2,4,9] y) <{NUMBERS.replace('int64[2] i66 = {6, 6}', 'int64[1] i6 = {6}')}>"
    keep(PASS, f"{head} {{ {slices} y = Concat<axis = -1>(p, q) }}")


def test_slices_of_one_step_of_three_dimensions_are_no_sites() -> None:
    slices = " ".join(f"p{i} = Slice(x, i{i}, end, m1, i4)" for i in range(4))
    head = f"(float[2,4,8] x) => (float[2,16,2] y) <{NUMBERS}>"
    keep(PASS, f"{head} {{ {slices} y = Concat<axis = 1>(p0, p1, p2, p3) }}")
