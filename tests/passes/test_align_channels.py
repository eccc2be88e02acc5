"""Channels of integer convolutions, filled up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from fusing import OUT, Qdq

from onnxq.ir import load, save
from onnxq.ir.model import Model
from onnxq.optable import ALIGNED
from onnxq.pipeline.base import Report
from onnxq.runtime.session import Level, Session, optimized
from onnxq.testing import check_pass, default_context
from onnxq_passes.align_channels import AlignChannels

COUNTS = "where every channel counts"


class Net(Qdq):
    """Convolutions between Q and DQ."""

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        *,
        group: int = 1,
        kernel: int = 3,
        bias: str = "",
        per_channel: bool = True,
        zero: int = 0,
        kind: str = "int8",
    ) -> str:
        scale: Any = list(np.linspace(0.003, 0.005, outputs)) if per_channel else 0.0041
        w = self.weight(outputs, inputs // group, kernel, kernel, scale=scale, zero=zero, kind=kind)
        more = []
        if bias == "int32":
            steps = np.broadcast_to(np.float32(0.0213571) * np.asarray(scale, np.float32), outputs)
            more = [
                self.op(
                    "DequantizeLinear", self.constant(np.arange(outputs) * 777, "int32"), self.constant(steps), axis=0
                )
            ]
        elif bias:
            more = [self.constant(np.linspace(-1, 1, outputs))]
        return str(self.op("Conv", x, w, *more, pads=[kernel // 2] * 4, group=group))

    def pair(self, tensor: str, scale: Any = OUT, zero: Any = 100, kind: str = "uint8") -> str:
        return self.dq(self.q(tensor, scale, zero, kind), scale, zero, kind)


def integer(g: Net, level: Level = Level.ALL, sizes: dict[str, Sequence[Any]] | None = None) -> tuple[Model, Report]:
    """The model behind the pass and its report; in integer kernels the outputs are the same bit for bit, a second run
    finds nothing, and nothing is left that nobody reads.
    """
    proto = g.model()
    for value in proto.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, (sizes or {}).get(value.name, ()), strict=False):
            dimension.dim_param = str(size)
    model = load.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    before = save.to_bytes(model.copy())
    report = AlignChannels().run(model.graph, default_context())
    assert AlignChannels().run(model.graph, default_context()).rewrites == 0
    ends = {t.name for t in model.graph.outputs}
    assert all(t.outputs or t.name in ends for n in model.graph.nodes for t in n.outputs)
    after = save.to_bytes(model.copy())
    onnx.checker.check_model(onnx.load_from_string(after), full_check=True)
    old, new = (Session(m, level=level, threads=1).run(g.feeds) for m in (before, after))
    assert all(np.array_equal(old[name], new[name]) for name in old)
    return model, report


def kept(g: Net, *reasons: str) -> Report:
    model, report = integer(g, Level.OFF)
    assert report.rewrites == 0 and not any(n.op == "Pad" for n in model.graph.nodes)
    assert sorted(any(part in r.reason for part in reasons) for r in report.refusals) == [True] * len(reasons)
    return report


def shapes(model: Model) -> list[tuple[int, ...]]:
    """Of the weights of all Convs."""
    return [tuple(n.inputs[1].inputs[0].inputs[0].shape) for n in model.graph.nodes if n.op == "Conv"]


def middle(count: int, *, bias: str = "", per_channel: bool = True) -> Net:
    """Two Convs with so many channels between them."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, count, bias=bias, per_channel=per_channel))
    g.out(g.conv(wide, count, 16, per_channel=per_channel))
    return g


def test_contract() -> None:
    check_pass(AlignChannels)


@pytest.mark.parametrize("bias", ["", "int32", "float"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("count", "filled"), [(6, 8), (3, 4), (1, 4), (9, 16), (22, 24)])
def test_case_1_between_two(count: int, filled: int, bias: str, per_channel: bool) -> None:
    model, report = integer(middle(count, bias=bias, per_channel=per_channel))
    assert shapes(model) == [(filled, 4, 3, 3), (16, filled, 3, 3)]
    assert (report.rewrites, report.refusals) == (2, [])


def test_case_1_new_weights_are_zeros() -> None:
    model, _ = integer(middle(6, bias="int32"))
    first, second = (n for n in model.graph.nodes if n.op == "Conv")
    values = [np.asarray(t.inputs[0].inputs[0].values) for t in (*first.inputs[1:], second.inputs[1])]
    assert not values[0][6:].any() and not values[1][6:].any() and not values[2][:, 6:].any()
    assert values[0][:6].all(axis=(1, 2, 3)).any() and values[2].shape == (16, 8, 3, 3)
    scales = np.asarray(first.inputs[1].inputs[0].inputs[1].values)
    assert scales.shape == (8,) and (scales[6:] == scales[5]).all()
    assert [t.shape[1] for n in model.graph.nodes for t in n.outputs if n.op == "Conv"] == [8, 16]


@pytest.mark.parametrize("count", [4, 8, 12, 20])
def test_what_4_divides_stays(count: int) -> None:
    kept(middle(count))


def deep(count: int, around: Callable[[Net, str], str] = lambda g, x: x) -> Net:
    """A depthwise Conv between an expanding and a projecting one, and what is done behind it."""
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, count, kernel=1))
    g.out(g.conv(around(g, g.pair(g.conv(wide, count, count, group=count, bias="int32"))), count, 16, kernel=1))
    return g


@pytest.mark.parametrize(("count", "filled"), [(24, 32), (6, 16), (72, 80), (17, 32)])
def test_case_1_depthwise(count: int, filled: int) -> None:
    model, report = integer(deep(count))
    assert shapes(model) == [(filled, 4, 1, 1), (filled, 1, 3, 3), (16, filled, 1, 1)]
    assert [n.attrs["group"] for n in model.graph.nodes if n.op == "Conv"] == [1, filled, 1]
    assert report.rewrites == 3


@pytest.mark.parametrize("count", [16, 32])
def test_depthwise_that_16_divides_stays(count: int) -> None:
    kept(deep(count))


def gate(op: str) -> Callable[[Net, str], str]:
    """Squeeze and excite."""

    def around(g: Net, x: str) -> str:
        axes: dict[str, Any] = {"keepdims": 1}
        mean = g.op(op, x) if op.startswith("Global") else g.op(op, x, g.constant([2, -1], "int64"), **axes)
        small = g.pair(g.conv(g.pair(mean), 24, 8, kernel=1))
        each = g.pair(g.op("HardSigmoid", g.conv(small, 8, 24, kernel=1)), 0.0041, 0)
        return g.pair(g.op("Mul", x, each))

    return around


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean"])
def test_case_2_squeeze_and_excite(op: str) -> None:
    """Float kernels of what no integer kernel takes see other channels beside theirs; a mean over the same numbers."""
    model, report = integer(deep(24, gate(op)), Level.OFF if op == "ReduceMean" else Level.ALL)
    assert shapes(model)[:2] == [(32, 4, 1, 1), (32, 1, 3, 3)] and report.rewrites == 5


@pytest.mark.parametrize(
    ("around", "reason"),
    [
        (lambda g, x: g.op("ReduceMean", x, g.constant([1], "int64"), keepdims=1), "ReduceMean"),
        (lambda g, x: g.op("ReduceMean", x, g.constant([2, 3], "int64"), keepdims=0), "ReduceMean"),
        (lambda g, x: g.op("ReduceMean", x, g.constant([], "int64")), "ReduceMean"),
        (lambda g, x: g.op("ReduceMax", x, g.constant([-3], "int64")), "ReduceMax"),
        (lambda g, x: g.op("ReduceMean", x), "ReduceMean"),
        (lambda g, x: g.op("Concat", x, x, axis=1), "Concat"),
    ],
)
def test_case_4_all_channels_count(around: Callable[[Net, str], str], reason: str) -> None:
    g = Net()
    x = g.pair(g.conv(g.pair(g.conv(g.data(1, 4, 6, 5), 4, 24, kernel=1)), 24, 24, group=24))
    g.raw(around(g, x))
    kept(g, reason)


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_case_1_activations_in_front_of_the_q(op: str) -> None:
    g = Net()
    ends = [g.constant(0), g.constant(6)] if op == "Clip" else []
    wide = g.pair(g.op(op, g.conv(g.data(1, 4, 6, 5), 4, 6), *ends), 0.0237, 0)
    g.out(g.op("Relu", g.conv(wide, 6, 16)), 0.0237, 0)
    assert shapes(integer(g)[0]) == [(8, 4, 3, 3), (16, 8, 3, 3)]


def test_case_2_residual() -> None:
    g = Net()
    x = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    y = g.pair(g.op("Add", x, g.pair(g.conv(x, 6, 6))))
    g.out(g.conv(y, 6, 16))
    assert shapes(integer(g)[0]) == [(8, 4, 3, 3), (8, 8, 3, 3), (16, 8, 3, 3)]


def test_case_2_float_convs_beside_integer_ones() -> None:
    """They follow; alone they would stay as they are."""

    def start() -> tuple[Net, str]:
        g = Net()
        g.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, (1, 4, 6, 5)))
        g.feeds["x0"] = np.random.default_rng(1).normal(0, 1.5, (1, 4, 6, 5)).astype(np.float32)
        return g, str(g.op("Conv", "x0", g.constant(np.ones((6, 4, 3, 3)) / 50), pads=[1] * 4))

    g, y = start()
    g.out(g.conv(g.pair(y), 6, 16))
    model, report = integer(g, Level.OFF)
    assert report.rewrites == 2 and model.graph.nodes[0].inputs[1].shape == (8, 4, 3, 3)
    alone, y = start()
    alone.raw(alone.op("Conv", y, alone.constant(np.ones((16, 6, 3, 3)) / 50), pads=[1] * 4))
    kept(alone)


def test_case_4_groups() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    g.out(g.conv(wide, 6, 16, group=2))
    kept(g, "works in groups")


def first(count: int, *, outputs: int = 16, kind: str = "uint8", **options: Any) -> Net:
    """A Conv on a picture of the caller's."""
    g = Net()
    zero = 120 if kind == "uint8" else -8
    g.out(g.conv(g.data(1, count, 6, 5, kind=kind, zero=zero), count, outputs, **options), kind=kind, zero=zero)
    return g


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("count", "filled"), [(3, 4), (1, 4), (6, 8), (7, 8)])
def test_case_3_a_picture(count: int, filled: int, kind: str) -> None:
    model, report = integer(first(count, kind=kind, bias="int32"))
    pad = next(n for n in model.graph.nodes if n.op == "Pad")
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    assert pad.name == f"{conv.name}{ALIGNED}" and conv.inputs[0].inputs[0].inputs[0].inputs[0] is pad
    amounts, fill = (np.asarray(t.values) for t in pad.inputs[1:])
    assert amounts.tolist() == [0, 0, 0, 0, 0, filled - count, 0, 0]
    assert fill.dtype == kind and fill == (120 if kind == "uint8" else -8)
    assert [list(t.shape) for t in (pad.outputs[0], conv.inputs[0])] == [[1, filled, 6, 5]] * 2
    assert shapes(model) == [(16, filled, 3, 3)] and (report.rewrites, report.refusals) == (1, [])


def test_case_3_one_pad_for_all_readers() -> None:
    g = Net()
    x = g.data(1, 3, 6, 5)
    g.out(g.conv(x, 3, 16))
    g.out(g.conv(x, 3, 8, kernel=1))
    g.raw(g.op("Abs", x))
    model, report = integer(g)
    assert sum(n.op == "Pad" for n in model.graph.nodes) == 1 and report.rewrites == 2
    assert shapes(model) == [(16, 4, 3, 3), (8, 4, 1, 1)]


def test_case_3_of_any_batch_and_size() -> None:
    model, _ = integer(first(3), sizes={"x0": ["n"]})
    assert shapes(model) == [(16, 4, 3, 3)]
    unknown = first(3)
    proto = unknown.model()
    model = load.from_proto(proto)
    assert AlignChannels().run(model.graph, default_context()).rewrites == 1


def test_case_3_and_4_outputs_that_have_to_stay() -> None:
    """The input is filled up all the same."""
    model, report = integer(first(3, outputs=18))
    assert shapes(model) == [(18, 4, 3, 3)] and report.rewrites == 1
    assert [COUNTS in r.reason or "graph output" in r.reason for r in report.refusals] == [True]


def test_only_quantize_pad_and_transpose_stand_before_the_first_convolution() -> None:
    model, _ = integer(first(3))
    graph = onnx.load_from_string(optimized(save.to_bytes(model))).graph
    at = next(i for i, n in enumerate(graph.node) if n.op_type == "QLinearConv")
    assert sorted(n.op_type for n in graph.node[:at]) == ["Pad", "QuantizeLinear", "Transpose"]


@pytest.mark.parametrize(
    "options",
    [{"zero": 3}, {"zero": 128, "kind": "uint8"}],
)
def test_weights_that_no_fast_kernel_takes(options: dict[str, Any]) -> None:
    g = Net()
    g.out(g.conv(g.data(1, 3, 6, 5), 3, 16, per_channel=False, **options))
    kept(g)


def test_data_that_no_integer_kernel_takes() -> None:
    wide = Net()
    wide.out(wide.conv(wide.data(1, 3, 6, 5, kind="uint16", zero=30000), 3, 16))
    kept(wide)
    each = Net()
    each.inputs.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, (1, 3, 6, 5)))
    each.feeds["x0"] = np.ones((1, 3, 6, 5), np.float32)
    numbers = each.constant([0.02, 0.03, 0.04]), each.constant([1, 2, 3], "uint8")
    x = each.op("DequantizeLinear", each.op("QuantizeLinear", "x0", *numbers, axis=1), *numbers, axis=1)
    each.out(each.conv(x, 3, 16))
    kept(each)


def test_a_float_result_is_no_integer_kernel() -> None:
    for readers in ("output", "Relu", "both"):
        g = Net()
        y = g.conv(g.data(1, 3, 6, 5), 3, 16)
        if readers == "Relu":
            y = g.op("Relu", y)
        if readers == "both":
            g.out(y)
        g.raw(y)
        kept(g)


def test_case_4_a_body() -> None:
    g = Net()
    wide = g.pair(g.conv(g.data(1, 4, 6, 5), 4, 6))
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("p", "q")]
    bodies = [
        onnx.helper.make_graph([onnx.helper.make_node(op, [wide], [end.name], op)], op, [], [end])
        for op, end in zip(("Neg", "Abs"), ends, strict=True)
    ]
    g.raw(g.op("If", g.constant(True, "bool"), then_branch=bodies[0], else_branch=bodies[1]))
    g.out(g.conv(wide, 6, 16))
    model, report = integer(g)
    assert [len(report.refusals), report.rewrites] == [1, 1], "the Conv behind it gets a Pad"
    assert shapes(model) == [(6, 4, 3, 3), (16, 8, 3, 3)]
