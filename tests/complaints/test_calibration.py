"""Public complaints about calibration in other tools, each with the test that makes it impossible here.

| complaint | test |
|---|---|
| memory grows with the samples (onnxruntime #10503, #11020, #21979) | test_memory_is_flat |
| "entropy" changes nothing (onnxruntime, histogram of 128 bins) | test_entropy_is_a_real_search |
| one method wrecks a transformer (onnxruntime #10571) | tests/test_quantization.py::test_auto_names_the_figures_... |
| samples of different shape crash (onnxruntime #18792) | test_samples_of_different_shapes |
| Inf in the data gives an infinite scale, silently | test_inf_and_nan_name_tensor_and_sample, tests/cli/test_bad_input.py |
| nobody takes a folder of data without code (optimum #1094, onnxruntime #20060) | test_a_folder_of_pictures_and_no_code |
| two runs, two models (onnxruntime #12086, #5667) | test_two_runs_with_other_hash_seeds_and_threads |
| statistics of another model or data set (onnxruntime #21908) | tests/stats/test_statistics.py::test_stale_statistics_... |
"""  # noqa: E501

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import whole
from numpy.typing import NDArray

from onnxq.errors import OnnxqError

CONV = "(float[1,3,H,W] x) => (float[1,8,H,W] y) { c = Conv<pads = [1,1,1,1]>(x, w) y = Relu(c) }"


def _weights(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process as Linux counts it")
def test_memory_is_flat(tmp_path: Path) -> None:
    """onnxruntime #10503, #11020, #21979: every batch's raw activations stay in memory. Here 480 more samples would
    have 480 * 2 * 64 * 64 * 8 floats, 126 MB.
    """
    path = tmp_path / "m.onnx"
    onnx.save(whole.model(CONV, {"w": _weights(8, 3, 3, 3)}), path)
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(512, 3, 64, 64)).astype(np.float32))
    code = (
        "import resource, sys\n"
        "from onnxq.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )

    def peak(samples: int) -> int:
        arguments = ["quantize", path, "--calib", tmp_path / "data.npy", "--calib-samples", samples, "--no-validate"]
        arguments += ["--method", "mse", "--threads", 1, "-o", tmp_path / "out.onnx"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, encoding="utf-8", check=True
        )
        exit_code, kilobytes = done.stderr.split()[-2:]
        assert exit_code == "0", done.stderr
        return int(kilobytes)

    assert peak(512) - peak(32) < 30_000  # kB; the file itself has 25 MB, read in parts


def test_entropy_is_a_real_search() -> None:
    """ORT's entropy method gives MinMax's bytes. Here a tail that carries no information is cut off."""
    model = whole.model(CONV, {"w": _weights(8, 3, 3, 3)})
    samples = whole.normal(6, x=(1, 3, 32, 32))
    samples[3]["x"][0, 1, 5, 5] = 60.0
    files = {}
    for method in ("minmax", "entropy"):
        made = whole.quantized(model, samples, method=method)
        files[method] = whole.file(made)
        scale = next(e.scale for u, e in made.plan.uses.items() if u.slot == 0 and e.type == "uint8")
        assert (float(scale) > 60 / 255) == (method == "minmax")
    assert files["entropy"] != files["minmax"]


def test_samples_of_different_shapes() -> None:
    """onnxruntime #18792: histogram methods stack what does not stack."""
    model = whole.model(CONV, {"w": _weights(8, 3, 3, 3)})
    samples = [whole.normal(1, seed, x=(1, 3, 6 + seed, 9 - seed))[0] for seed in range(4)]
    for method in ("minmax", "percentile", "entropy", "mse", "auto"):
        out = whole.file(whole.quantized(model, samples, method=method))
        assert whole.sqnr(whole.run(model, samples), whole.run(out, samples), "y") > 25


@pytest.mark.parametrize(("bad", "said"), [(np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "NaN")])
def test_inf_and_nan_name_tensor_and_sample(bad: float, said: str) -> None:
    """Other tools write scale = inf."""
    model = whole.model(CONV, {"w": _weights(8, 3, 3, 3)})
    samples = whole.normal(4, x=(1, 3, 6, 6))
    samples[2]["x"][0, 0, 0, 0] = bad
    with pytest.raises(OnnxqError, match=said) as caught:
        whole.quantized(model, samples)
    assert "sample 2" in str(caught.value) and "x" in str(caught.value)


def test_a_folder_of_pictures_and_no_code(tmp_path: Path, onnxq: Any) -> None:
    """optimum #1094, onnxruntime #20060, Model-Optimizer #565: static quantization asks for a reader class."""
    model = tiny.save_classifier(tmp_path / "m.onnx")
    pictures = tiny.save_pictures(tmp_path / "pictures")
    outcome = onnxq(
        "quantize",
        model,
        "--calib",
        pictures,
        "-o",
        tmp_path / "out.onnx",
        "--no-validate",
        "--json",
        "--placement",
        "rules",
    )
    assert outcome.code == 0, outcome.err
    heavy = [op for op in json.loads(outcome.out)["coverage"]["ops"] if op["heavy"]]
    assert len(heavy) == 2 and all(op["integer"] for op in heavy)
    assert (tmp_path / "out.onnx").exists()


def test_two_runs_with_other_hash_seeds_and_threads(tmp_path: Path, onnxq_process: Any) -> None:
    """onnxruntime #12086, #5667: two runs, two models."""
    model, data = tiny.save_classifier(tmp_path / "m.onnx"), tiny.save_samples(tmp_path / "data.npz")
    files = []
    for seed, threads in (("0", 1), ("1", 2), ("4711", 3)):
        out = tmp_path / f"{seed}.onnx"
        outcome = onnxq_process(
            "quantize", model, "--calib", data, "-o", out, "--no-validate", "--threads", threads,
            "--placement", "rules",
            env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]
