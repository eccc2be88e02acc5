"""onnx's ReferenceEvaluator, numpy code by the authors of the standard, against ONNX Runtime without optimizations.

Food: every small graph that the tests of passes run, before and after the pass (`recorder`), random networks after
quantization, and the Q/DQ files of the committed models. Both runtimes read the standard independently, so where they
agree a Q/DQ file means what we think it means.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import random_graphs
import whole
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from rewriting import model

from onnxq.config.job import load_job
from onnxq.driver import quantize
from onnxq.ir import save, text
from onnxq.optable import OP_TABLE
from onnxq.runtime.session import Level, Session

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "models").glob("fashion-*/job*.yaml"))
PASS_TESTS = [
    p
    for p in sorted((ROOT / "tests" / "passes").glob("test_*.py"))
    # these run no small graphs, or thousands; what computes in float16 is held against the evaluator there, since its
    # sums are in float16 and ONNX Runtime's are not
    if p.stem
    not in {"test_qdq_oracle", "test_fuse_whole", "test_catalogue", "test_random_graphs", "test_float_to_half"}
]

Arrays = Mapping[str, NDArray[Any]]

ELEMENTARY = {"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Relu", "Clip", "Greater", "Constant", "Shape", "Cast", "If"}
"""IEEE 754 rounds these in one way only."""
SAME_BITS = {op for op, row in OP_TABLE.items() if row.moves is not None} | ELEMENTARY | {
    "QuantizeLinear",
    "DequantizeLinear",
}  # fmt: skip
"""A graph of these ops only must give the same bits; behind a Where, but for the sign of zero, which ONNX Runtime's
Where drops (`test_where_drops_the_sign_of_zero`)."""
ROUNDING = 1e-4
"""Greatest difference of a float output of any other graph, as a share of its greatest value: the order of sums and
the exponential function. A product of 33,025 equal terms, the longest, differs by 6.5e-5."""
HALF_ROUNDING = 2.0**-10
"""The same where the graph asks for float16: ONNX Runtime computes such ops in float32 and rounds at the end."""
STEP = 1
"""Greatest difference of an integer output: a sum that falls on the other side of a tie."""

NEARLY_ALL_DB, NETWORK_DB = 100.0, 25.0
"""Least SQNR (dB) of a whole quantized network, for nearly all outputs and for all: float32 rounds at 144 dB. A sum in
another order may cross a rounding border, which later ops see; a wrong scale, axis or zero point gives less than 10."""


@dataclass(frozen=True)
class Fault:
    """What the evaluator of onnx 1.23 gets wrong or lacks: how it shows, and the one line that proves it.

    Attributes:
        sign: part of the message of its exception, or of numpy's warning.
        graph, opset, inputs: the proof: ONNX Runtime gives `right`.
    """

    sign: str
    graph: str
    inputs: list[float]
    right: list[float]
    opset: int = 21


FAULTS = {
    "QuantizeLinear casts to int32 before it saturates": Fault(
        "invalid value encountered in cast",
        "(float[2] x) => (uint8[2] y) <float s = {1}, uint8 z = {0}> { y = QuantizeLinear(x, s, z) }",
        [3e9, -3e9],
        [255, 0],
    ),
    "there is no DequantizeLinear below opset 19": Fault(
        "No implementation for operator 'DequantizeLinear'",
        "(float[2] x) => (float[2] y) <float s = {1}, uint8 z = {0}> "
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        [1.2, 2],
        [1, 2],
        opset=13,
    ),
    "Pad cannot crop": Fault(
        "index can't contain negative values",
        "(float[3] x) => (float[n] y) <int64[2] p = {-1, 1}> { y = Pad(x, p) }",
        [1, 2, 3],
        [2, 3, 0],
    ),
    "MaxPool over one axis with a border": Fault(
        "is out of bounds for axis",
        "(float[3] x) => (float[n] y) <int64[2] a = {0, 1}> "
        "{ b = Unsqueeze(x, a) c = MaxPool<kernel_shape = [3], pads = [1, 1]>(b) y = Squeeze(c, a) }",
        [1, 2, 3],
        [2, 3, 3],
    ),
    "MaxPool of integers with a border": Fault(
        "cannot convert float NaN to integer",
        "(float[4] x) => (float[4] y) <int64[4] s = {1, 1, 2, 2}, int64[1] f = {-1}> "
        "{ a = Reshape(x, s) b = Cast<to = 3>(a) c = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(b) "
        "d = Cast<to = 1>(c) y = Reshape(d, f) }",
        [-1, 2, 3, -4],
        [3, 3, 3, 3],
    ),
    "MaxPool over one axis that is shorter than its kernel": Fault(
        "output shape cannot be null or negative",
        "(float[1] x) => (float[1] y) <int64[2] a = {0, 1}> "
        "{ b = Unsqueeze(x, a) c = MaxPool<kernel_shape = [3], pads = [1, 1]>(b) y = Squeeze(c, a) }",
        [1],
        [1],
    ),
    "ConvTranspose with more than one output channel per group": Fault(
        "could not broadcast input array from shape",
        "(float[4] x) => (float[4] y) <float[4,2,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, "
        "int64[4] s = {1, 4, 1, 1}, int64[1] f = {-1}> "
        "{ a = Reshape(x, s) b = ConvTranspose<group = 2>(a, w) y = Reshape(b, f) }",
        [1, 2, 3, 4],
        [7, 10, 43, 50],
    ),
    "ConvTranspose with groups and a bias": Fault(
        "cannot reshape array of size",
        "(float[4] x) => (float[n] y) <float[4,1,1,1] w = {1, 2, 3, 4}, float[2] b = {1, 2}, "
        "int64[4] s = {1, 4, 1, 1}, int64[1] f = {-1}> "
        "{ a = Reshape(x, s) c = ConvTranspose<group = 2>(a, w, b) y = Reshape(c, f) }",
        [1, 2, 3, 4],
        [6, 27],
    ),
}
SEQUENCE_LENS = 4
"""Slot of an LSTM."""

QLINEAR_CONV = "QLinearConv with scales per channel takes pictures only"
MAX_POOL = "MaxPool with a border that is not the same on all sides gets a wrong shape"
MAX_INDEX = "MaxPool with wrong indices"
SAME_DILATED = "ONNX Runtime makes SAME of a dilated MaxPool smaller than its input"
CROPS = "ONNX Runtime copies what Resize would crop but not scale"
BOTH_PADS = "pads beside auto_pad, which the standard forbids"
MAX_POOLS = (MAX_POOL, MAX_INDEX, BOTH_PADS, SAME_DILATED)
OLD_SOFTMAX = "Softmax and LogSoftmax below opset 13 are taken along one axis"
LENGTHS = "an LSTM takes its sequences to be equally long"
CONTRIB = "ops that the standard does not know"
EITHER_ZERO = ("Where", "MaxPool")
"""Ops of which the standard does not say whether -0.0 or 0.0 comes out."""


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def reference(proto: onnx.ModelProto, feeds: Arrays, names: tuple[str, ...]) -> dict[str, NDArray[Any]] | str:
    """The outputs, or the key of FAULTS that keeps the evaluator from them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values: list[Any] = list(ReferenceEvaluator(proto).run(list(names), dict(feeds)))
            signs = [str(w.message) for w in caught if "onnx/reference" in w.filename.replace("\\", "/")]
        except Exception as error:  # whatever numpy raises
            signs = [str(error)]
            values = []
    for name, fault in FAULTS.items():
        if any(fault.sign in sign for sign in signs):
            return name
    assert values or not names, signs
    return {n: np.asarray(v) for n, v in zip(names, values, strict=True)}


def compare(file: bytes, feeds: Arrays) -> str:
    """What was compared ("bits" or "rounding"), or why it was not."""
    proto = onnx.load_from_string(file)
    nodes = [n for g in graphs(proto.graph) for n in g.node]
    if any(n.domain not in ("", "ai.onnx") for n in nodes):
        return CONTRIB
    if proto.opset_import[0].version < 13 and any(n.op_type in ("Softmax", "LogSoftmax") for n in nodes):
        return OLD_SOFTMAX
    if any(n.op_type == "LSTM" and len(n.input) > SEQUENCE_LENS and n.input[SEQUENCE_LENS] for n in nodes):
        return LENGTHS
    weights = {i.name: i for i in proto.graph.initializer}
    if any(
        n.op_type == "QLinearConv" and weights[n.input[4]].dims and len(weights[n.input[3]].dims) != 4 for n in nodes
    ):
        return QLINEAR_CONV
    if any(
        n.op_type == "MaxPool" and any(a.name == "pads" and len(set(a.ints)) > 1 for a in n.attribute) for n in nodes
    ):
        return MAX_POOL
    if any(n.op_type == "MaxPool" and len(n.output) > 1 for n in nodes):
        return MAX_INDEX
    attributes = [{a.name: a for a in n.attribute} for n in nodes]
    if any({"pads", "auto_pad"} <= set(a) for a in attributes):
        return BOTH_PADS
    if any("dilations" in a and "auto_pad" in a and a["auto_pad"].s != b"VALID" for a in attributes):
        return SAME_DILATED
    if any(a.s == b"tf_crop_and_resize" for each in attributes for a in each.values()):
        return CROPS
    session = Session(file, level=Level.OFF, threads=1)
    expected, got = session.run(feeds), reference(proto, feeds, session.outputs)
    if isinstance(got, str):
        return got
    half = re.search(r"float16|to: int = 10\b", onnx.printer.to_text(proto)) is not None
    bits = not half and {n.op_type for n in nodes} <= SAME_BITS and not any(_interpolates(n) for n in nodes)
    unsigned_zero = any(n.op_type in EITHER_ZERO for n in nodes)
    arrays = [(n, a, b) for n, value in expected.items() for a, b in _pairs(value, got[n])]
    for name, value, other in arrays:
        assert (value.dtype, value.shape) == (other.dtype, other.shape), name
        if unsigned_zero and value.dtype.kind == "f":
            value, other = value + 0, other + 0  # noqa: PLW2901  -0.0 + 0 is 0.0
        if value.dtype == object:
            assert value.tolist() == other.tolist(), name
        elif bits:
            assert value.tobytes() == other.tobytes(), (name, value, other)
        elif value.dtype.kind == "f":
            most = float(np.abs(value[np.isfinite(value)]).max(initial=0))
            share = HALF_ROUNDING if half else ROUNDING
            np.testing.assert_allclose(other, value, rtol=0, atol=share * most + _step(proto), err_msg=name)
        else:
            assert np.abs(value.astype(np.int64) - other.astype(np.int64)).max(initial=0) <= STEP, (value, other)
    return "bits" if bits else "rounding"


def _pairs(value: Any, other: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The arrays of an output, of which a sequence has many; texts are objects in ONNX Runtime."""
    for one, two in zip(value, other, strict=True) if isinstance(value, list) else [(value, other)]:
        found = np.asarray(two)
        yield one, found.astype(object) if found.dtype.kind == "U" else found


def _step(proto: onnx.ModelProto) -> float:
    """What STEP is after a DequantizeLinear, if an integer operator stands in the graph, else 0."""
    if not any(n.op_type.startswith("QLinear") for n in proto.graph.node):
        return 0.0
    values = {i.name: onnx.numpy_helper.to_array(i) for i in proto.graph.initializer}
    read = [n.input[1] for n in proto.graph.node if n.op_type == "DequantizeLinear"]
    return STEP * max((float(values[name].max(initial=0)) for name in read if name in values), default=0.0)


def _interpolates(node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and any(a.name == "mode" and a.s != b"nearest" for a in node.attribute)


def recorded(modules: Sequence[Path], folder: Path, tests_per_module: int = 0) -> list[Path]:
    """The graphs that tests of passes run; 0: all tests of a module."""
    files = [str(p) for p in modules]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "recorder", "-p", "no:cacheprovider", "-m", "not slow", *files],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "ONNXQ_RECORD": str(folder),
            "ONNXQ_RECORD_TESTS": str(tests_per_module),
            "OMP_NUM_THREADS": "1",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # a test of a pass that fails says so itself
    return sorted(folder.glob("*.onnx"))


def compare_all(files: list[Path]) -> Counter[str]:
    seen: Counter[str] = Counter()
    for file in files:
        with np.load(file.with_suffix(".npz")) as arrays:
            feeds = dict(arrays)
        try:
            seen[compare(file.read_bytes(), feeds)] += 1
        except AssertionError as error:
            shown = onnx.printer.to_text(onnx.load(file))
            raise AssertionError(f"{file.stem}: {error}\n{shown[:1000]}") from error
    print(sorted(seen.items()))
    return seen


@pytest.mark.parametrize("name", FAULTS)
def test_the_evaluator_is_at_fault(name: str) -> None:
    fault = FAULTS[name]
    proto = onnx.parser.parse_model(model(fault.graph, fault.opset).replace("ir_version: 10", "ir_version: 8"))
    feeds = {"x": np.array(fault.inputs, np.float32)}
    assert Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"].tolist() == fault.right
    assert reference(proto, feeds, ("y",)) == name


@pytest.mark.parametrize(("opset", "equal"), [(11, False), (13, True)])
def test_the_evaluator_is_at_fault_in_old_softmax(opset: int, equal: bool) -> None:
    """By the text of Softmax-11, all axes from `axis` on are one."""
    graph = "(float[1,2,2] x) => (float[1,2,2] y) { y = Softmax <axis = 1> (x) }"
    proto = onnx.parser.parse_model(model(graph, opset).replace("ir_version: 10", "ir_version: 8"))
    feeds = {"x": np.zeros((1, 2, 2), np.float32)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)
    theirs = reference(proto, feeds, ("y",))
    assert isinstance(theirs, dict)
    assert float(ours["y"].max()) == (0.5 if equal else 0.25)
    assert np.array_equal(ours["y"], theirs["y"]) is equal
    assert compare(proto.SerializeToString(), feeds) == ("rounding" if equal else OLD_SOFTMAX)


@pytest.mark.parametrize(("lengths", "equal"), [((2, 1), False), ((2, 2), True)])
def test_the_evaluator_is_at_fault_in_lstm(lengths: tuple[int, int], equal: bool) -> None:
    """Behind the end of a sequence, its results are 0."""
    graph = (
        "(float[2,2,1] x) => (float[2,1,2,1] y) <float[1,4,1] w = {1, 1, 1, 1}, float[1,4,1] r = {0, 0, 0, 0}, "
        f"float[1,8] b = {{0, 0, 0, 0, 0, 0, 0, 0}}, int32[2] n = {{{lengths[0]}, {lengths[1]}}}> "
        "{ y = LSTM <hidden_size = 1> (x, w, r, b, n) }"
    )
    proto = onnx.parser.parse_model(model(graph, 21))
    feeds = {"x": np.ones((2, 2, 1), np.float32)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)
    theirs = reference(proto, feeds, ("y",))
    assert isinstance(theirs, dict)
    assert (float(ours["y"][1, 0, 1, 0]) == 0.0) is not equal
    assert np.allclose(ours["y"], theirs["y"]) is equal
    assert compare(proto.SerializeToString(), feeds) == LENGTHS


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_evaluator_is_at_fault_in_qlinear_conv(per_channel: bool) -> None:
    scale = "float[2] t = {1, 1}, uint8[2] v = {0, 0}" if per_channel else "float t = {1}, uint8 v = {0}"
    source = (
        "(uint8[1,2,3] x) => (uint8[1,2,3] y) <float s = {1}, uint8 z = {0}, uint8[2,2,1] w = {1, 0, 0, 1}, "
        f"{scale}> {{ y = QLinearConv(x, s, z, w, t, v, s, z) }}"
    )
    proto = onnx.parser.parse_model(model(source))
    feeds = {"x": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)}
    assert np.array_equal(Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"], feeds["x"])
    (got,) = ReferenceEvaluator(proto).run(None, feeds)
    assert np.array_equal(got, feeds["x"]) != per_channel, got


@pytest.mark.parametrize(("pads", "right"), [("1, 1, 0, 0", False), ("1, 1, 1, 1", True)])
def test_the_evaluator_is_at_fault_in_max_pool(pads: str, right: bool) -> None:
    """It takes the border of one axis from its two neighbours in `pads`, which lists all beginnings first."""
    source = f"(float[1,1,4,4] x) => (float[1,1,h,w] y) {{ y = MaxPool<kernel_shape = [2, 2], pads = [{pads}]>(x) }}"
    proto = onnx.parser.parse_model(model(source).replace("ir_version: 10", "ir_version: 8"))
    feeds = {"x": np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"]
    (got,) = ReferenceEvaluator(proto).run(None, feeds)
    assert ours.shape[2] == 4 + sum(map(int, pads.split(", ")[::2])) - 1
    assert (got.shape == ours.shape) == right
    assert (compare(proto.SerializeToString(), feeds) == MAX_POOL) != right


def test_the_evaluator_is_at_fault_in_the_indices_of_max_pool() -> None:
    """The greatest of 4 x 3 rising numbers in a window stands at its lower right corner."""
    source = "(float[1,1,4,3] x) => (float[1,1,h,w] y, int64[1,1,h,w] i) { y, i = MaxPool<kernel_shape = [3, 3]>(x) }"
    proto = onnx.parser.parse_model(model(source).replace("ir_version: 10", "ir_version: 8"))
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(1, 1, 4, 3)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["i"]
    _, got = ReferenceEvaluator(proto).run(None, feeds)
    assert ours.ravel().tolist() == [8, 11] and max(got.ravel()) > 11
    assert compare(proto.SerializeToString(), feeds) == MAX_INDEX


def test_onnx_runtime_is_at_fault_in_same_of_a_dilated_max_pool() -> None:
    """By the standard, SAME with a stride of 1 keeps the size."""
    how = 'kernel_shape = [1, 3], auto_pad = "SAME_UPPER", dilations = [1, 2]'
    proto = onnx.parser.parse_model(
        model(f"(float[1,1,1,6] x) => (float[1,1,h,w] y) {{ y = MaxPool<{how}>(x) }}").replace("n: 10", "n: 8")
    )
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"]
    (got,) = ReferenceEvaluator(proto).run(None, feeds)
    assert (ours.shape, got.shape) == ((1, 1, 1, 4), (1, 1, 1, 6))
    assert compare(proto.SerializeToString(), feeds) == SAME_DILATED


def test_onnx_runtime_is_at_fault_in_a_resize_that_only_crops() -> None:
    how = 'mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize", nearest_mode = "floor"'
    roi = "float[8] roi = {0, 0, 0.5, 0.5, 1, 1, 1, 1}, float[4] k = {1, 1, 1, 1}"
    proto = onnx.parser.parse_model(
        model(f"(float[1,1,3,3] x) => (float[1,1,3,3] y) <{roi}> {{ y = Resize<{how}>(x, roi, k) }}")
    )
    feeds = {"x": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"]
    (got,) = ReferenceEvaluator(proto).run(None, feeds)
    assert np.array_equal(ours, feeds["x"]) and got[0, 0, 0, 0] == 4
    assert compare(proto.SerializeToString(), feeds) == CROPS


def test_where_drops_the_sign_of_zero() -> None:
    """The standard says selection; the evaluator is right."""
    proto = onnx.parser.parse_model(model("(float[1] x, bool[1] c) => (float[1] y) { y = Where(c, x, x) }"))
    feeds = {"x": np.array([-0.0], np.float32), "c": np.array([True])}
    ours = Session(proto.SerializeToString(), level=Level.OFF, threads=1).run(feeds)["y"]
    (other,) = ReferenceEvaluator(proto).run(None, feeds)
    assert (np.signbit(ours).item(), np.signbit(other).item()) == (False, True)


def test_the_comparison_sees_a_scale_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one part in a million, of which no integer tells."""
    pair = "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    source = f"(float[4] x) => (float[4] y) <float s = {{SCALE}}, uint8 z = {{9}}> {pair}"
    feeds = {"x": np.array([0.1, 0.2, 1, 2], np.float32)}
    ours, wrong = (save.to_bytes(text.parse(model(source.replace("SCALE", s)))) for s in ("0.05", "0.05000005"))
    assert compare(ours, feeds) == "bits"
    other = ReferenceEvaluator(onnx.load_from_string(wrong))
    monkeypatch.setitem(globals(), "ReferenceEvaluator", lambda _: other)
    with pytest.raises(AssertionError, match="y"):
        compare(ours, feeds)


def test_a_handful_of_graphs_of_each_pass(tmp_path: Path) -> None:
    files = recorded([p for p in PASS_TESTS if "random" not in p.stem], tmp_path, tests_per_module=3)
    seen = compare_all(files)
    assert len({f.stem.rsplit("-", 1)[0] for f in files}) >= 30
    assert seen["bits"] >= 80 and seen["rounding"] >= 20


@pytest.mark.slow
def test_all_graphs_of_all_passes(tmp_path: Path) -> None:
    seen = compare_all(recorded(PASS_TESTS, tmp_path))
    assert seen["bits"] >= 400 and seen["rounding"] >= 100
    assert set(seen) <= {"bits", "rounding", CONTRIB, QLINEAR_CONV, *MAX_POOLS, CROPS, OLD_SOFTMAX, LENGTHS, *FAULTS}, (
        "left out without a proof"
    )
    assert seen["bits"] + seen["rounding"] >= 0.7 * seen.total()


@pytest.mark.parametrize("count", [15, pytest.param(400, marks=pytest.mark.slow)], ids=["quick", "slow"])
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_random_networks(target: str, count: int) -> None:
    near: list[float] = []
    left: Counter[str] = Counter()
    for seed in range(count):
        recipe = random_graphs.drawn(seed)
        network = random_graphs.build(recipe)
        samples = random_graphs.inputs(recipe, network, 2)
        found = decibels(whole.file(whole.quantized(network, samples, target)), samples)
        if isinstance(found, str):
            left[found] += 1
            continue
        assert min(found) >= NETWORK_DB, f"seed {seed}: {found}"
        near += found
    print(f"{len(near)} outputs, least {min(near):.1f} dB; left out: {sorted(left.items())}")
    assert sum(n >= NEARLY_ALL_DB for n in near) >= 0.98 * len(near)
    assert set(left) <= {CONTRIB}
    assert left.total() <= 0.1 * count + 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("path", JOBS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_committed_models(path: Path, target: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    quantize(
        load_job(path).with_overrides(
            output=out, target=target, calib_limit=16, eval_limit=2, threads=1, speed=False, placement="rules"
        )
    )
    (name,) = (i.name for i in Session(out, threads=1).inputs)
    images = np.load(ROOT / "models" / "fashion-mnist" / "eval.npz")["image"][:4]
    near = [decibels(out.read_bytes(), [{name: image[None]}]) for image in images]
    assert all(isinstance(n, list) and min(n) >= NETWORK_DB for n in near), near
    assert sum(min(n) >= NEARLY_ALL_DB for n in near if isinstance(n, list)) >= 3, near


def decibels(file: bytes, samples: Sequence[Arrays]) -> list[float] | str:
    """SQNR (dB) of each output over all samples, or why there is none."""
    proto = onnx.load_from_string(file)
    if any(n.domain not in ("", "ai.onnx") for g in graphs(proto.graph) for n in g.node):
        return CONTRIB
    expected = whole.run(file, samples)
    got: list[Arrays] = []
    for sample in samples:
        one = reference(proto, sample, tuple(expected[0]))
        if isinstance(one, str):
            return one
        got.append(one)
    return [whole.sqnr(expected, got, name) for name in expected[0]]
