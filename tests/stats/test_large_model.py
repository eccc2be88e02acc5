"""A model beyond 2 GB is calibrated and quantized with little memory: its weights stay on disk, read piece by piece."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper

SIDE, LAYERS = 4096, 38
BYTES = SIDE * SIDE * 4
"""Of each weight, 67 MB; all together 2.55 GB."""

CHILD = """
import sys, threading, time
from pathlib import Path

peak = 0

def watch():
    global peak
    status = Path("/proc/self/status")
    while True:
        lines = status.read_text().splitlines()
        peak = max(peak, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024)
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
from onnxq.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("peak", peak)
"""


def write(folder: Path) -> None:
    tile = np.random.default_rng(0).normal(0, SIDE**-0.5, (128, SIDE)).astype(np.float32)
    nodes, tensors = [], []
    with (folder / "weights.data").open("wb") as file:
        for i in range(LAYERS):
            part = (tile * np.float32(1 + i / LAYERS)).tobytes()
            for _ in range(SIDE // len(tile)):
                file.write(part)
            w = onnx.TensorProto(name=f"w{i}", data_type=1, dims=[SIDE, SIDE], data_location=onnx.TensorProto.EXTERNAL)
            for key, value in (("location", "weights.data"), ("offset", str(i * BYTES)), ("length", str(BYTES))):
                w.external_data.add(key=key, value=value)
            tensors.append(w)
            nodes.append(helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Relu", [f"m{i}"], [f"t{i + 1}"]))
    ends = [helper.make_tensor_value_info(n, 1, [1, SIDE]) for n in ("t0", f"t{LAYERS}")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    np.save(folder / "calib.npy", np.random.default_rng(1).standard_normal((2, SIDE)).astype(np.float32))


def test_two_and_a_half_gigabytes_in_one_of_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux to read anonymous memory")
    if psutil.disk_usage(str(tmp_path)).free < 8 << 30:
        pytest.skip("needs 8 GB of disk")
    try:
        write(tmp_path)
        command = ["quantize", "m.onnx", "--calib", "calib.npy", "--method", "minmax", "--no-validate", "--no-cache"]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *command, "-o", "out.onnx"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # quantized for real: 8-bit weights, all in the external file
        assert (tmp_path / "out.onnx.data").stat().st_size == pytest.approx(LAYERS * BYTES / 4, rel=0.01)
        peak = int(done.stdout.rsplit("peak ", 1)[1])
        assert peak < 1_000_000_000 + BYTES
    finally:
        for path in tmp_path.iterdir():
            if path.is_file():
                path.unlink()
