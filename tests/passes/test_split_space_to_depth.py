"""SpaceToDepth in front of integer convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from fusing import OUT, Qdq
from rewriting import rewrite, together

from onnxq.ir import load, save
from onnxq.ir.model import Model
from onnxq.optable import MOVES
from onnxq.pipeline.base import Report
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.split_space_to_depth import SplitSpaceToDepth

READERS = "others than Convs in one group with constant weights"


class Net(Qdq):
    """A picture whose blocks become channels."""

    def picture(self, *shape: Any) -> str:
        self.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, shape))
        sizes = [size if isinstance(size, int) else 2 for size in shape]
        self.feeds["x0"] = np.random.default_rng(1).normal(0, 1.5, sizes).astype(np.float32)
        return "x0"

    def deep(self, x: str, block: int = 2, kind: str = "uint8", zero: int = 120) -> str:
        """SpaceToDepth, Q, DQ."""
        return self.dq(
            self.q(self.op("SpaceToDepth", x, blocksize=block), 0.0213571, zero, kind), 0.0213571, zero, kind
        )

    def conv(self, x: str, inputs: int, outputs: int = 16, *, per_channel: bool = True, **attrs: Any) -> str:
        scale: Any = list(np.linspace(0.003, 0.005, outputs)) if per_channel else 0.0041
        w = self.weight(outputs, inputs // int(attrs.get("group", 1)), 3, 3, scale=scale)
        return str(self.op("Conv", x, w, pads=[1] * 4, **attrs))


def run(g: Net, level: Level = Level.ALL, *, infer: bool = True) -> tuple[Model, Report]:
    """The model behind the pass and its report; outputs of integer kernels are the same bit for bit."""
    proto = g.model()
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True) if infer else proto)
    before = save.to_bytes(model.copy())
    report = SplitSpaceToDepth().run(model.graph, default_context())
    assert SplitSpaceToDepth().run(model.graph, default_context()).rewrites == 0
    after = save.to_bytes(model.copy())
    if infer:
        onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
    old, new = (Session(m, level=level, threads=1).run(g.feeds) for m in (before, after))
    assert all(np.array_equal(old[name], new[name]) for name in old)
    return model, report


def kept(g: Net, *reasons: str, infer: bool = True) -> None:
    model, report = run(g, Level.OFF, infer=infer)
    assert report.rewrites == 0 and any(n.op == "SpaceToDepth" for n in model.graph.nodes)
    assert [part in r.reason for part, r in zip(reasons, report.refusals, strict=True)] == [True] * len(reasons)


def test_contract() -> None:
    check_pass(SplitSpaceToDepth)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("shape", "block"), [((1, 3, 8, 12), 2), ((2, 1, 6, 4), 2), ((1, 3, 6, 9), 3), ((1, 2, 4, 4), 4)]
)
def test_case_1_and_2(shape: tuple[int, ...], block: int, kind: str, per_channel: bool) -> None:
    g = Net()
    zero = 120 if kind == "uint8" else -8
    channels = shape[1] * block * block
    g.out(g.conv(g.deep(g.picture(*shape), block, kind, zero), channels, per_channel=per_channel), kind=kind, zero=zero)
    model, report = run(g)
    assert (report.rewrites, report.refusals) == (1, [])
    ops = [n.op for n in model.graph.nodes if n.op != "DequantizeLinear"]
    assert ops == ["QuantizeLinear", *["Reshape", "Transpose"] * 3, "Conv", "QuantizeLinear"]


def test_case_1_what_moves_are_rows_and_then_channels() -> None:
    """In front of the integer convolution of ONNX Runtime no Transpose is left but the two that move something."""
    g = Net()
    g.out(g.conv(g.deep(g.picture(1, 3, 8, 12)), 12))
    model, _ = run(g)
    graph = onnx.load_from_string(optimized(save.to_bytes(model))).graph
    at = next(i for i, n in enumerate(graph.node) if n.op_type == "QLinearConv")
    assert [n.op_type for n in graph.node[:at]] == ["QuantizeLinear", *["Reshape", "Transpose"] * 2, "Reshape"]


def test_case_2_two_convs_with_weights_of_their_own_and_with_the_same() -> None:
    g = Net()
    x = g.deep(g.picture(1, 3, 8, 8))
    for outputs in (16, 8):
        g.out(g.conv(x, 12, outputs))
    g.out(g.op("Conv", x, g.nodes[-2].input[1], pads=[1] * 4), scale=2 * OUT)
    assert run(g)[1].rewrites == 1


def test_case_2_float_weights() -> None:
    g = Net()
    w = g.constant(np.random.default_rng(2).normal(0, 0.1, (16, 12, 3, 3)))
    g.out(g.op("Conv", g.deep(g.picture(1, 3, 8, 8)), w, pads=[1] * 4))
    assert run(g, Level.OFF)[1].rewrites == 1


def test_names() -> None:
    """The SpaceToDepth lives on in the Transpose of rows."""
    g = Net()
    g.out(g.conv(g.deep(g.picture(1, 3, 8, 8)), 12))
    name = g.nodes[0].name
    model, _ = run(g)
    (row,) = [n for n in model.graph.nodes if n.name == name]
    assert (row.op, row.attrs["perm"]) == ("Transpose", [0, 3, 1, 2, 4])
    added = [n for n in model.graph.nodes if n.name.startswith(f"{name}{MOVES}")]
    assert [n.op for n in added] == ["QuantizeLinear", "Reshape", "Reshape", "Transpose", "Reshape", "Transpose"]
    assert added[0].outputs[0].shape == [1, 3, 8, 8] and added[0].outputs[0].dtype == np.uint8


def test_any_batch() -> None:
    g = Net()
    g.out(g.conv(g.deep(g.picture("n", 3, 8, 8)), 12))
    assert run(g)[1].rewrites == 1


@pytest.mark.parametrize("shape", [(1, 3, "h", 8), (1, 3, 8, "w"), (1, "c", 8, 8)])
def test_case_3_unknown_sizes(shape: tuple[Any, ...]) -> None:
    g = Net()
    g.feeds = {}
    x = g.deep(g.picture(*shape))
    g.feeds["x0"] = np.ones((1, 3, 8, 8), np.float32)
    g.out(g.conv(x, 12))
    kept(g, "no picture of known size", infer=False)


def test_case_3_no_shape_at_all() -> None:
    g = Net()
    g.out(g.conv(g.deep(g.op("Abs", g.picture(1, 3, 8, 8))), 12))
    kept(g, "no picture of known size", infer=False)


def further(g: Net, x: str, integers: str) -> None:
    g.raw(g.op("Abs", x))


@pytest.mark.parametrize(
    "more",
    [
        further,
        lambda g, x, integers: g.raw(x),
        lambda g, x, integers: g.raw(integers, "uint8"),
        lambda g, x, integers: g.raw(g.op("Transpose", integers), "uint8"),
        lambda g, x, integers: g.out(g.conv(x, 12, group=2)),
        lambda g, x, integers: g.out(g.op("Conv", x, g.op("Abs", g.constant(np.ones((16, 12, 1, 1)))))),
        lambda g, x, integers: g.raw(g.op("Conv", g.constant(np.ones((1, 12, 9, 9))), g.op("Identity", x))),
    ],
)
def test_case_3_other_readers(more: Callable[[Net, str, str], None]) -> None:
    g = Net()
    x = g.deep(g.picture(1, 3, 8, 8))
    g.out(g.conv(x, 12))
    more(g, x, g.nodes[1].output[0])
    kept(g, READERS)


def test_case_3_as_weights() -> None:
    g = Net()
    x = g.deep(g.picture(1, 3, 8, 8))
    g.out(g.op("Conv", g.constant(np.ones((1, 12, 9, 9))), x))
    kept(g, READERS)


def test_case_3_other_encodings() -> None:
    g = Net()
    wide = g.op("SpaceToDepth", g.picture(1, 3, 8, 8), blocksize=2)
    g.raw(g.dq(g.q(wide, 0.001, 30000, "uint16"), 0.001, 30000, "uint16"))
    kept(g, "no single scale of 8 bits")
    each = Net()
    numbers = each.constant(np.linspace(0.02, 0.03, 12)), each.constant([120] * 12, "uint8")
    wide = each.op("SpaceToDepth", each.picture(1, 3, 8, 8), blocksize=2)
    x = each.op("DequantizeLinear", each.op("QuantizeLinear", wide, *numbers, axis=1), *numbers, axis=1)
    each.out(each.conv(x, 12))
    kept(each, "no single scale of 8 bits")


def test_float_readers_are_no_business_of_this_pass() -> None:
    for output in (True, False):
        g = Net()
        wide = g.op("SpaceToDepth", g.picture(1, 3, 8, 8), blocksize=2)
        g.out(g.conv(g.dq(g.q(wide, 0.0213571, 120), 0.0213571, 120), 12))
        g.raw(wide if output else g.op("Abs", wide))
        kept(g)
    alone = Net()
    alone.raw(alone.op("Abs", alone.op("SpaceToDepth", alone.picture(1, 3, 8, 8), blocksize=2)))
    kept(alone)


BEFORE = (
    "(float[1,1,4,4] x) => (uint8[1,1,2,2] y) <float s = {0.02}, uint8 z = {120}, int8[1,4,1,1] w = {1, 2, 3, 4}, "
    "int8 o = {0}> { [focus] a = SpaceToDepth <blocksize = 2> (x) [q] b = QuantizeLinear <axis = 0> (a, s, z) "
    "[d] c = DequantizeLinear(b, s, z) [e] v = DequantizeLinear(w, s, o) [conv] f = Conv(c, v) "
    "[r] y = QuantizeLinear(f, s, z) }"
)
AFTER = (
    "(float[1,1,4,4] x) => (uint8[1,1,2,2] y) <float s = {0.02}, uint8 z = {120}, "
    "int8[1,4,1,1] w_by_columns = {1, 3, 2, 4}, int8 o = {0}, int64[5] focus_shape = {0, 1, 2, 2, 4}, "
    "int64[4] focus_shape_1 = {0, 2, 2, 4}, int64[4] focus_shape_2 = {0, 2, 2, 4}> { "
    "[focus_moves] x_levels = QuantizeLinear <axis = 0> (x, s, z) "
    "[focus_moves_1] a_reshape = Reshape(x_levels, focus_shape) "
    "[focus] a_transpose = Transpose <perm = [0, 3, 1, 2, 4]> (a_reshape) "
    "[focus_moves_3] a_reshape_1 = Reshape(a_transpose, focus_shape_1) "
    "[focus_moves_4] a_transpose_1 = Transpose <perm = [0, 2, 3, 1]> (a_reshape_1) "
    "[focus_moves_5] a_reshape_2 = Reshape(a_transpose_1, focus_shape_2) "
    "[focus_moves_6] b = Transpose <perm = [0, 3, 1, 2]> (a_reshape_2) [d] c = DequantizeLinear(b, s, z) "
    "[e_by_columns] v_by_columns = DequantizeLinear(w_by_columns, s, o) [conv] f = Conv(c, v_by_columns) "
    "[r] y = QuantizeLinear(f, s, z) }"
)
ALONE = "(float[1,1,4,4] x) => (float[1,4,2,2] y) { [focus] a = SpaceToDepth <blocksize = 2> (x) [abs] y = Abs(a) }"
READ = BEFORE.replace("=> (uint8[1,1,2,2] y)", "=> (uint8[1,1,2,2] y, uint8[1,4,2,2] b)")


def test_case_1_and_2_what_is_written() -> None:
    rewrite(SplitSpaceToDepth(), BEFORE, AFTER, rewrites=1, atol=0)


def test_many_sites() -> None:
    together(SplitSpaceToDepth(), changed=[(BEFORE, AFTER, 1)], kept=[(READ, READERS)], quiet=[ALONE])


def test_what_moves_in_between_has_no_shape_of_its_own() -> None:
    """Five dimensions come between four; shape inference knows them, the file need not."""
    g = Net()
    g.out(g.conv(g.deep(g.picture(1, 3, 8, 8)), 12))
    model, _ = run(g)
    between = [n.outputs[0] for n in model.graph.nodes if n.op in ("Reshape", "Transpose")][:-1]
    assert [t.shape for t in between] == [None] * 5 and {np.dtype(t.dtype) for t in between} == {np.dtype(np.uint8)}


def test_case_2_unsigned_weights() -> None:
    """Their zero point moves with none of them."""
    g = Net()
    w = g.weight(16, 12, 3, 3, scale=0.0041, zero=128, kind="uint8")
    g.out(g.op("Conv", g.deep(g.picture(1, 3, 8, 12)), w, pads=[1] * 4))
    assert run(g)[1].rewrites == 1


def test_case_3_weights_with_a_scale_for_each_input_channel() -> None:
    g = Net()
    w = g.weight(16, 12, 3, 3, scale=list(np.linspace(0.003, 0.005, 12)), axis=1)
    g.out(g.op("Conv", g.deep(g.picture(1, 3, 8, 8)), w))
    kept(g, READERS)


def test_case_3_scales_of_channels_behind_one_for_all() -> None:
    g = Net()
    wide = g.q(g.op("SpaceToDepth", g.picture(1, 1, 4, 4), blocksize=2), 0.02, 120)
    numbers = g.constant([0.01, 0.02, 0.05, 0.09]), g.constant([120] * 4, "uint8")
    g.out(g.conv(g.op("DequantizeLinear", wide, *numbers, axis=1), 4))
    kept(g, READERS)
