"""The model of saturating pairs against integers in numpy, and its bound."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxq.gating.saturation import LEAST, MOST, bound, layers, pair_sums, saturating
from onnxq.ir.load import load
from onnxq.ir.save import runnable
from onnxq.runtime.session import Level, Session


def quantized(
    path: Path, weights: np.ndarray, op: str = "Conv", *, signed: bool = False, per_channel: bool = True, **attrs: Any
) -> Path:
    """x (u8 or s8) -> DQ -> op with s8 weights -> y, a float; scales are powers of two, so floats are exact."""
    rng = np.random.default_rng(1)
    zero = np.array(-28 if signed else 100, np.int8 if signed else np.uint8)
    outputs = weights.shape[0] if op == "Conv" or attrs.get("transB") else weights.shape[1]
    axis = 0 if op == "Conv" or attrs.get("transB") else 1
    scale = (2.0 ** rng.integers(-4, 0, outputs)).astype(np.float32) if per_channel else np.array(0.25, np.float32)
    constants = {
        "sx": np.array(0.5, np.float32), "zx": zero, "w": weights.astype(np.int8), "sw": scale,
        "zw": np.zeros(scale.shape, np.int8), "b": rng.integers(-9, 9, outputs).astype(np.float32),
    }  # fmt: skip
    inputs = ["xf", "wf"] if op == "MatMul" else ["xf", "wf", "b"]
    rank = 4 if op == "Conv" else 2 if op == "Gemm" else 3
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["xf"], "dx"),
            helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wf"], "dw", axis=axis),
            helper.make_node(op, inputs, ["y"], "layer", **attrs),
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, [None] * rank)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def both(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As the file says, and saturating."""
    model = load(path)
    changed = saturating(model)
    assert changed is not None
    with runnable(changed) as source:
        two = Session(source, level=Level.OFF, threads=1).run({"x": x})["y"]
    return Session(path, level=Level.OFF, threads=1).run({"x": x})["y"], two


def by_hand(path: Path, patches: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[n, K] raw u8 and [K, m] weights to results, the zero point taken off behind the saturating sums."""
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    zero = int(values["zx"]) + (128 if values["zx"].dtype == np.int8 else 0)
    sums = pair_sums(patches, weights) - zero * weights.sum(axis=0)
    real = sums * float(values["sx"]) * values["sw"].astype(np.float64)
    return real + values["b"]


def heavy(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights of which many pairs can saturate."""
    return rng.choice(np.array([-127, -90, -3, 0, 5, 80, 127]), shape)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((6, 3, 1, 1), {"strides": [2, 2]}),
        ((4, 3, 3, 3), {"pads": [0, 1, 2, 1], "dilations": [1, 2]}),
        ((6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    ],
)
def test_convolution(tmp_path: Path, shape: tuple[int, ...], attrs: dict[str, Any], signed: bool) -> None:
    rng = np.random.default_rng(0)
    weights = heavy(rng, *shape)
    path = quantized(tmp_path / "m.onnx", weights, signed=signed, **attrs)
    groups = attrs.get("group", 1)
    raw = rng.integers(0, 256, (2, shape[1] * groups, 7, 8))
    x = (raw - 128).astype(np.int8) if signed else raw.astype(np.uint8)
    exact, got = both(path, x)
    zero = 100
    top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
    padded = np.pad(raw, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
    (down, across), (d, e) = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    expected = np.empty_like(got)
    for i in range(got.shape[2]):
        for j in range(got.shape[3]):
            window = padded[:, :, i * down :, j * across :][:, :, : d * shape[2] : d, : e * shape[3] : e]
            window = window[:, :, : shape[2], : shape[3]]
            parts = []
            for g in range(groups):
                rows = window[:, g * shape[1] : (g + 1) * shape[1]].transpose(0, 2, 3, 1).reshape(2, -1)
                kernel = weights[g * shape[0] // groups : (g + 1) * shape[0] // groups].transpose(2, 3, 1, 0)
                parts.append((rows, kernel.reshape(-1, shape[0] // groups)))
            values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
            sums = np.concatenate([pair_sums(r, k) - zero * k.sum(axis=0) for r, k in parts], axis=1)
            expected[:, :, i, j] = sums * 0.5 * values["sw"] + values["b"]
    assert np.array_equal(got, expected)
    assert not np.array_equal(got, exact), "some pair saturates, so the model must differ from the literal one"


@pytest.mark.parametrize(("op", "attrs"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
@pytest.mark.parametrize("inner", [8, 9])
def test_product(tmp_path: Path, op: str, attrs: dict[str, Any], inner: int) -> None:
    rng = np.random.default_rng(2)
    weights = heavy(rng, inner, 5)
    path = quantized(tmp_path / "m.onnx", weights.T if attrs else weights, op, per_channel=op == "MatMul", **attrs)
    x = rng.integers(0, 256, (3, inner)).astype(np.uint8)
    exact, got = both(path, x[None] if op == "MatMul" else x)
    expected = by_hand(path, x.astype(np.int64), weights.astype(np.int64))
    if op == "MatMul":
        values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        expected, got, exact = expected - values["b"], got[0], exact[0]
    assert np.array_equal(got, expected.astype(np.float32))
    assert not np.array_equal(got, exact)


def test_bound_is_reached_and_never_passed() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (200, 2))
    corners = np.array([[0, 0], [255, 0], [0, 255], [255, 255]])
    sums = corners @ weights.T
    worst = np.maximum(sums.max(axis=0), -sums.min(axis=0) - 1)
    assert np.array_equal(bound(weights), worst)
    risky = bound(weights) > MOST
    clipped = (sums.max(axis=0) > MOST) | (sums.min(axis=0) < LEAST)
    assert np.array_equal(risky, clipped)


def test_seven_bits_cannot_saturate(tmp_path: Path) -> None:
    """What `reduce_range` is for: 255 * 63 * 2 = 32,130. One weight beyond is the near-miss."""
    safe = np.full((4, 2, 1, 1), 63)
    model = load(quantized(tmp_path / "safe.onnx", safe))
    assert [(f.risky, f.worst) for f in layers(model)] == [(0, 32130)]
    assert "cannot saturate: its worst pair is 32,130 of 32,767" in layers(model)[0].sentence
    assert saturating(model) is None
    safe[0, 0] = 66
    risky = layers(load(quantized(tmp_path / "risky.onnx", safe)))
    assert (risky[0].risky, risky[0].worst) == (1, 255 * (66 + 63))
    assert "1 of 4 pairs can" in risky[0].sentence


def test_what_is_no_layer(tmp_path: Path) -> None:
    """Depthwise convolutions widen each product."""
    assert layers(load(quantized(tmp_path / "m.onnx", np.full((3, 1, 3, 3), 127), group=3))) == []


def test_integer_operators_are_bounded(tmp_path: Path) -> None:
    """QLinearMatMul with s8 weights; those of u8 are multiplied in wider registers, near-miss."""
    for kind, worst in ((np.int8, [64770]), (np.uint8, [])):
        constants = {
            "s": np.float32(0.1), "z": np.uint8(3), "w": np.full((4, 2), 127, kind), "v": kind(0)
        }  # fmt: skip
        graph = helper.make_graph(
            [helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "v", "s", "z"], ["y"], "layer")], "g",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 2])],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        )  # fmt: skip
        path = tmp_path / f"{kind.__name__}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
        assert [f.worst for f in layers(load(path))] == worst
        assert saturating(load(path)) is None


def test_forms_that_are_bounded_only(tmp_path: Path) -> None:
    path = quantized(tmp_path / "m.onnx", np.full((4, 2, 3, 3), 127), auto_pad="SAME_UPPER")
    (layer,) = layers(load(path))
    assert layer.risky and not layer.simulated
    assert saturating(load(path)) is None


def run_emulated(qemu: str, path: Path, x: np.ndarray, folder: Path) -> np.ndarray:
    """The first output of ONNX Runtime on an emulated CPU that has AVX2 and no VNNI."""
    np.save(folder / "x.npy", x)
    script = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "options = ort.SessionOptions(); options.intra_op_num_threads = 1\n"
        "session = ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
        "np.save(sys.argv[3], session.run(None, {'x': np.load(sys.argv[2])})[0])\n"
    )
    files = [str(path), str(folder / "x.npy"), str(folder / "y.npy")]
    done = subprocess.run(
        [qemu, "-cpu", "Haswell", sys.executable, "-c", script, *files],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.asarray(np.load(folder / "y.npy"))


@pytest.mark.slow
def test_against_a_cpu_without_vnni(tmp_path: Path) -> None:
    """ONNX Runtime itself, on an emulated CPU with AVX2 only: the very numbers of the model of a MatMul."""
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.skip("qemu-user is not installed: apt install qemu-user")
    rng = np.random.default_rng(3)
    weights = heavy(rng, 64, 16)
    path = quantized(tmp_path / "m.onnx", weights, "MatMul", per_channel=False)
    x = rng.integers(0, 256, (1, 8, 64)).astype(np.uint8)
    exact, expected = both(path, x)
    got = run_emulated(qemu, path, x, tmp_path)
    assert np.allclose(got, expected, rtol=1e-6)
    assert not np.allclose(got, exact)


@pytest.mark.slow
def test_a_convolution_against_a_cpu_without_vnni(tmp_path: Path) -> None:
    """The fused kernel, with its output quantized: the very steps of the model, far from those of the exact sums."""
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        pytest.skip("qemu-user is not installed: apt install qemu-user")
    rng = np.random.default_rng(4)
    weights = heavy(rng, 16, 16, 3, 3)
    path = quantized(tmp_path / "m.onnx", weights, per_channel=False, pads=[1, 1, 1, 1])
    x = rng.integers(0, 256, (1, 16, 8, 8)).astype(np.uint8)
    exact, expected = both(path, x)
    scale = np.float32(np.abs(exact).max() / 120)
    model = onnx.load(path)
    parameters = {"sy": scale, "zy": np.uint8(128)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in parameters.items())
    model.graph.node.append(helper.make_node("QuantizeLinear", ["y", "sy", "zy"], ["z"], "qy"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.UINT8, [None] * 4))
    onnx.save(model, path)
    got = run_emulated(qemu, path, x, tmp_path).astype(np.float64)
    as_steps = [np.clip(np.rint(v.astype(np.float64) / scale) + 128, 0, 255) for v in (exact, expected)]
    errors = [float(np.abs(got - v).mean()) for v in as_steps]
    assert errors[1] < 0.001 and errors[0] > 1.0, "every element but a rounding; the exact sums are far off"
