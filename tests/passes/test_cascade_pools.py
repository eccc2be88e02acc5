"""MaxPools of several sizes on one tensor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from rewriting import bitwise, keep, model, together

from onnxq.ir import save, text
from onnxq.runtime.session import Level, Session
from onnxq.testing import check_pass, default_context
from onnxq_passes.cascade_pools import CascadePools

PASS = CascadePools()
AROUND = "its elements are not the maxima of those around them"
SAME = 'auto_pad = "SAME_UPPER"'


def ints(numbers: Sequence[int]) -> str:
    return "[" + ", ".join(str(n) for n in numbers) + "]"


def pool(name: str, source: str, kernel: Sequence[int], more: str | None = None) -> str:
    """A MaxPool `name` that makes `y<name>`; padded by half a kernel, unless `more` says otherwise."""
    more = f"pads = {ints([k // 2 for k in kernel] * 2)}" if more is None else more
    attributes = ", ".join(filter(None, [f"kernel_shape = {ints(kernel)}", more]))
    return f"[{name}] y{name} = MaxPool <{attributes}> ({source})"


def graph(*nodes: str, names: str = "abc", shape: str = "1,2,7,6", kind: str = "float") -> str:
    """Nodes that read x and make `y<name>` of that shape."""
    return f"({kind}[{shape}] x) => ({', '.join(f'{kind}[{shape}] y{n}' for n in names)}) {{ {' '.join(nodes)} }}"


YOLO = graph(pool("a", "x", (5, 5)), pool("b", "x", (9, 9)), pool("c", "x", (13, 13)))
YOLO_AFTER = graph(pool("a", "x", (5, 5)), pool("b", "ya", (5, 5)), pool("c", "yb", (5, 5)))


def test_contract() -> None:
    check_pass(CascadePools)


def test_case_1() -> None:
    bitwise(PASS, YOLO, YOLO_AFTER, rewrites=2)


@pytest.mark.parametrize("shape", ["2,3,17", "2,3,1", "1,2,9,4", "3,1,1,2", "1,2,5,6,4", "n,2,h,w"])
def test_case_1_in_every_dimension(shape: str) -> None:
    """Each direction grows by another step, one at a time stays as it is."""
    rank = shape.count(",") - 1
    before = [pool("a", "x", (3, 5, 1)[:rank]), pool("b", "x", (7, 5, 3)[:rank]), pool("c", "x", (9, 11, 3)[:rank])]
    after = [pool("a", "x", (3, 5, 1)[:rank]), pool("b", "ya", (5, 1, 3)[:rank]), pool("c", "yb", (3, 7, 1)[:rank])]
    bitwise(PASS, graph(*before, shape=shape), graph(*after, shape=shape), rewrites=2)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_case_1_in_any_order(order: Sequence[int]) -> None:
    """All stand where the first one stood, so whoever reads one of them still comes later."""
    pools = [pool(name, "x", (size, size)) for name, size in (("a", 3), ("b", 5), ("c", 9))]
    first, second, third = (pools[i] for i in order)
    head, middle, tail = "[h] yh = Neg(x)", f"[m] ym = Neg(y{'abc'[order[0]]})", "[t] yt = Add(ya, yc)"
    after = [pool("a", "x", (3, 3)), pool("b", "ya", (3, 3)), pool("c", "yb", (5, 5))]
    bitwise(
        PASS,
        graph(head, first, middle, second, third, tail, names="habcmt"),
        graph(head, *after, middle, tail, names="habcmt"),
        rewrites=2,
    )


@pytest.mark.parametrize("how", [SAME, 'auto_pad = "SAME_LOWER"'])
def test_case_1_padded_by_auto_pad(how: str) -> None:
    before = graph(pool("a", "x", (3, 5), how), pool("b", "x", (7, 7), how), pool("c", "x", (9, 7), how))
    after = graph(pool("a", "x", (3, 5), how), pool("b", "ya", (5, 3), how), pool("c", "yb", (3, 1), how))
    bitwise(PASS, before, after, rewrites=2)


def test_case_1_each_keeps_its_own_way_of_padding() -> None:
    before = graph(pool("a", "x", (3, 3)), pool("b", "x", (5, 5), SAME), pool("c", "x", (7, 7)))
    after = graph(pool("a", "x", (3, 3)), pool("b", "ya", (3, 3), SAME), pool("c", "yb", (3, 3)))
    bitwise(PASS, before, after, rewrites=2)


def test_case_1_attributes_stay() -> None:
    more = 'auto_pad = "NOTSET", ceil_mode = 1, dilations = [1, 1], storage_order = 1, strides = [1, 1], pads = '
    before = graph(pool("a", "x", (3, 3)), pool("b", "x", (7, 9), f"{more}[3, 4, 3, 4]"), names="ab")
    after = graph(pool("a", "x", (3, 3)), pool("b", "ya", (5, 7), f"{more}[2, 3, 2, 3]"), names="ab")
    bitwise(PASS, before, after, rewrites=1)


def test_case_1_a_kernel_of_one_needs_no_padding() -> None:
    before = graph(pool("a", "x", (1, 1), ""), pool("b", "x", (3, 3)), names="ab")
    bitwise(PASS, before, before.replace("(x) }", "(ya) }"), rewrites=1)


def test_case_1_without_names() -> None:
    """The text of the graph would tell of a name that was made up."""
    before, after = (one.replace("[a]", "").replace("[b]", "") for one in (YOLO, YOLO_AFTER))
    bitwise(PASS, before, after, rewrites=2)


def test_case_1_inside_the_graph() -> None:
    tail = "[t] y = Concat <axis = 1> (x, ya, yb, yc) }"
    before, after = (
        one.replace("float[1,2,7,6] ya, float[1,2,7,6] yb, float[1,2,7,6] yc", "float[1,8,7,6] y").replace("}", tail)
        for one in (YOLO, YOLO_AFTER)
    )
    bitwise(PASS, before, after, rewrites=2)


def test_case_1_in_the_bodies_of_an_if() -> None:
    """Pools of a branch that read a tensor from around it are a family of their own."""
    head = "(bool c, float[1,2,7,6] x) => (float[1,2,7,6] ya, float[1,2,7,6] yb, float[1,2,7,6] y) "
    bodies = (
        "[if] y = If(c) <then_branch = t () => (float[1,2,7,6] yd) {{ {0} }}, "
        "else_branch = e () => (float[1,2,7,6] yf) {{ {1} }}>"
    )
    outside = [pool("a", "x", (3, 3)), pool("b", "x", (9, 9))]
    then = [pool("e", "x", (3, 3)), pool("g", "x", (5, 5)), "[d] yd = Sub(ye, yg)"]
    other = [pool("f", "x", (5, 5))]
    before = f"{head} {{ {' '.join(outside)} {bodies.format(' '.join(then), ' '.join(other))} }}"
    outside[1], then[1] = pool("b", "ya", (7, 7)), pool("g", "ye", (3, 3))
    after = f"{head} {{ {' '.join(outside)} {bodies.format(' '.join(then), ' '.join(other))} }}"
    bitwise(PASS, before, after, rewrites=2)


@pytest.mark.parametrize("kind", ["float", "double", "float16", "uint8", "int8"])
def test_case_1_of_every_type(kind: str) -> None:
    """On numbers that the samples of `rewrite` do not hold: below zero throughout, infinities, the ends of a type."""
    dtype = np.dtype({"float": "float32"}.get(kind, kind))
    random = np.random.default_rng(0)
    if dtype.kind == "f":
        low = -np.abs(random.standard_normal((1, 2, 7, 6))) - 1
        low[0, 0, 2:5], low[0, 1, 0, 0] = -np.inf, np.inf
    else:
        low = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (1, 2, 7, 6), endpoint=True)
        low[0, 0, 2:5] = np.iinfo(dtype).min
    before, after = (one.replace("float", kind) for one in (YOLO, YOLO_AFTER))
    bitwise(PASS, before, after, rewrites=2, inputs={"x": low.astype(dtype)})


def test_every_level_gives_the_same() -> None:
    """ONNX Runtime's own layouts and kernels for pools included."""
    x = np.random.default_rng(1).standard_normal((1, 16, 20, 20)).astype(np.float32)
    before, after = (text.parse(model(YOLO.replace("2,7,6", "16,20,20"))) for _ in range(2))
    assert PASS.run(after.graph, default_context()).rewrites == 2
    for level in Level:
        old, new = (Session(save.to_bytes(m), level=level, threads=1).run({"x": x}) for m in (before, after))
        assert all(old[name].tobytes() == new[name].tobytes() for name in ("ya", "yb", "yc"))


def test_zeros_of_both_signs_are_equal_but_not_bit_for_bit() -> None:
    """ONNX Runtime takes either of two equal numbers, by its place in the window."""
    zeros = np.random.default_rng(2).choice(np.array([0.0, -0.0], np.float32), (1, 2, 7, 6))
    before, after = text.parse(model(YOLO)), text.parse(model(YOLO_AFTER))
    old, new = (Session(save.to_bytes(m), level=Level.OFF, threads=1).run({"x": zeros}) for m in (before, after))
    assert all(np.array_equal(old[name], new[name]) for name in old)


def test_other_tensors_have_their_own_cascades() -> None:
    """Pools of one size in a row are none: each reads another tensor. One pool beside none is not refused."""
    row = graph(pool("a", "x", (3, 3)), pool("b", "ya", (5, 5)), pool("c", "yb", (9, 9), SAME))
    lonely = graph("[a] ya = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", names="").replace(
        "=> ()", "=> (float[1,2,3,3] ya)"
    )
    other = graph(
        pool("a", "x", (3, 3)), "[b] yb = AveragePool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]> (x)", names="ab"
    )
    beside = graph(pool("a", "x", (5, 5)), pool("b", "x", (5, 5), SAME), names="ab")
    together(PASS, changed=[(YOLO, YOLO_AFTER, 2)], quiet=[row, lonely, other, beside])


def test_two_families_in_one_graph() -> None:
    head = "(float[1,2,7,6] x) => (float[1,2,7,6] ya, float[1,2,7,6] yb, float[1,2,7,6] yc, float[1,2,7,6] yd) "
    front, back = [pool("a", "x", (3, 3)), pool("b", "x", (5, 5))], [pool("c", "z", (7, 3)), pool("d", "z", (3, 3))]
    before = f"{head} {{ {front[0]} [z] z = Neg(ya) {back[0]} {front[1]} {back[1]} }}"
    after = f"{head} {{ {front[0]} {pool('b', 'ya', (3, 3))} [z] z = Neg(ya) {back[1]} {pool('c', 'yd', (5, 1))} }}"
    bitwise(PASS, before, after, rewrites=2)


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        ((4, 4), "pads = [2, 2, 1, 1]"),  # even
        ((5, 4), SAME),
        ((5, 5), "pads = [2, 2, 2, 2], strides = [1, 2]"),
        ((5, 5), "pads = [2, 2, 2, 2], strides = [2, 1]"),
        ((5, 5), f"{SAME}, strides = [2, 2]"),
        ((3, 3), "pads = [2, 1, 2, 1], dilations = [2, 1]"),
        ((3, 3), f"{SAME}, dilations = [1, 2]"),
        ((5, 5), "pads = [2, 2, 2, 1]"),  # not by half a kernel on each side
        ((5, 5), "pads = [3, 2, 1, 2]"),
        ((5, 5), "pads = [1, 1, 1, 1]"),
        ((5, 5), ""),
        ((5, 5), 'auto_pad = "VALID"'),
    ],
)
def test_case_2_none_of_these(kernel: Sequence[int], how: str) -> None:
    """It stays, whether smaller or larger than the others; alone with one other, so does that one."""
    head = "(float[1,2,7,6] x) => (float[1,2,7,6] ya, float[1,2,7,6] yb, float[n,m,h,w] yc) "
    odd, small = pool("c", "x", kernel, how), pool("a", "x", (3, 3))
    for size in (3, 7):
        one = head.replace("float[1,2,7,6] yb, ", "") + f"{{ {pool('a', 'x', (size, size))} {odd} }}"
        assert [r.node for r in keep(PASS, one, AROUND).refusals] == ["c"]
    before = f"{head} {{ {odd} {pool('b', 'x', (7, 7))} {small} }}"
    after = f"{head} {{ {small} {pool('b', 'ya', (5, 5))} {odd} }}"
    bitwise(PASS, before, after, rewrites=1, refused=[AROUND])


def test_case_2_indices() -> None:
    head = "(float[1,2,7,6] x) => (float[1,2,7,6] ya, float[1,2,7,6] yb, float[1,2,7,6] yc, int64[1,2,7,6] i) "
    asked = pool("c", "x", (5, 5)).replace("yc =", "yc, i =")
    before = f"{head} {{ {pool('a', 'x', (3, 3))} {asked} {pool('b', 'x', (9, 9))} }}"
    after = f"{head} {{ {pool('a', 'x', (3, 3))} {pool('b', 'ya', (7, 7))} {asked} }}"
    bitwise(PASS, before, after, rewrites=1, refused=[AROUND])


@pytest.mark.parametrize("kernels", [((5, 1), (1, 5)), ((3, 5), (7, 3)), ((5, 3), (3, 7)), ((5, 5), (5, 5))])
def test_neither_holds_the_other(kernels: tuple[Sequence[int], Sequence[int]]) -> None:
    keep(PASS, graph(pool("a", "x", kernels[0]), pool("b", "x", kernels[1]), names="ab"))


def test_case_1_of_equal_sizes() -> None:
    """Both read the same one, and who is larger reads the last of them."""
    names = "abcd"
    pools = [pool(n, "x", (s, s)) for n, s in zip(names, (5, 3, 3, 7), strict=True)]
    after = [pools[1], pools[2], pool("a", "yc", (3, 3)), pool("d", "ya", (3, 3))]
    bitwise(PASS, graph(*pools, names=names), graph(*after, names=names), rewrites=2)


def test_case_1_what_holds_several_reads_the_largest() -> None:
    pools = [pool("a", "x", (5, 1)), pool("b", "x", (1, 7)), pool("c", "x", (5, 7))]
    after = graph(pools[0], pools[1], pool("c", "yb", (5, 1)))
    bitwise(PASS, graph(*pools), after, rewrites=1)


def test_case_1_what_comes_to_stand_beside_one_that_was_there() -> None:
    pools = [pool("a", "x", (3, 3)), pool("b", "x", (5, 5)), pool("c", "ya", (7, 7))]
    after = [pools[0], pool("b", "ya", (3, 3)), pool("c", "yb", (5, 5))]
    bitwise(PASS, graph(*pools), graph(*after), rewrites=2)


@pytest.mark.parametrize(
    "nodes",
    [
        [pool("a", "x", (3, 3)), pool("b", "x", (5, 5)), pool("c", "x", (5, 5))],
        [pool("a", "x", (3, 3)), pool("b", "x", (3, 5)), pool("c", "x", (5, 3))],
        [pool("a", "x", (3, 3)), pool("b", "x", (5, 5)), pool("c", "ya", (7, 7))],
    ],
)
def test_a_second_run_finds_nothing(nodes: list[str]) -> None:
    source = text.parse(model(graph(*nodes)))
    assert PASS.run(source.graph, default_context()).rewrites >= 1
    assert PASS.run(source.graph, default_context()).rewrites == 0


@pytest.mark.parametrize("odd", [0, 1])
def test_pads_beside_auto_pad(odd: int) -> None:
    """ONNX forbids both, ONNX Runtime takes it and goes by auto_pad."""
    how = ["pads = [1, 1, 1, 1]", "pads = [2, 2, 2, 2]"]
    how[odd] += ', auto_pad = "VALID"'
    head = "(float[1,2,7,6] x) => (float[n,m,h,w] ya, float[k,l,i,j] yb) "
    keep(PASS, f"{head} {{ {pool('a', 'x', (3, 3), how[0])} {pool('b', 'x', (5, 5), how[1])} }}", AROUND)
