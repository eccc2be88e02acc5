"""What a stranger does with the command line: odd models, odd data, odd places. Each story ends in a file that ONNX
Runtime loads, or in one sentence and exit code 2; nothing half-written stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.config.job import Job
from onnxq.driver import quantize

F = TensorProto.FLOAT
RANDOM = np.random.default_rng(7)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def weight(*shape: int) -> NDArray[np.float32]:
    return (RANDOM.standard_normal(shape) * 0.3).astype(np.float32)


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, Any],
    samples: dict[str, Any],
    *,
    opset: int = 17,
    ir: int = 8,
) -> Path:
    """`model.onnx` and `calib.npz` in the folder."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "calib.npz", **samples)
    return folder / "model.onnx"


def convolutions(folder: Path, **form: int) -> Path:
    """Conv, Relu, Conv, GlobalAveragePool, Flatten, Gemm: `x` [N, 3, 8, 8] to `y` [N, 10]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "gemm"),
    ]
    constants = {"w1": weight(8, 3, 3, 3), "b1": weight(8), "w2": weight(8, 8, 3, 3), "w3": weight(8, 10)}
    constants["b3"] = weight(10)
    return save(
        folder, nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 10])], constants, {"x": weight(8, 3, 8, 8)},
        **form,
    )  # fmt: skip


def story(onnxq: Any, model: Path, *options: object) -> dict[str, Any]:
    """Quantize without measuring; the report, and the file loads in ONNX Runtime."""
    out = model.parent / "out.onnx"
    done = onnxq(
        "quantize", model, "--calib", model.parent / "calib.npz", "-o", out, "--no-validate", "--threads", 1, "--json",
        "--placement", "rules",
        *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    report: dict[str, Any] = json.loads(done.out)
    return report


def heavy(report: dict[str, Any]) -> tuple[int, int]:
    """(integer, all) heavy operators."""
    ops = [op for op in report["coverage"]["ops"] if op["heavy"]]
    return sum(op["integer"] for op in ops), len(ops)


def left(report: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, reason) of the heavy operators that stay float."""
    return [(op["name"], op["reason"]) for op in report["coverage"]["ops"] if op["heavy"] and not op["integer"]]


# models


@pytest.mark.parametrize(("opset", "ir"), [(7, 4), (8, 8), (9, 5), (11, 6), (13, 7), (17, 8), (21, 10), (26, 13)])
def test_opsets_and_ir_versions(onnxq: Any, tmp_path: Path, opset: int, ir: int) -> None:
    assert heavy(story(onnxq, convolutions(tmp_path, opset=opset, ir=ir))) == (3, 3)


def test_ir_3_where_every_initializer_is_an_input(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path, opset=8, ir=3)
    model = onnx.load(path)
    model.graph.input.extend(value(i.name, list(i.dims)) for i in model.graph.initializer)
    onnx.save(model, path)
    assert heavy(story(onnxq, path)) == (3, 3)


@pytest.mark.parametrize(("opset", "ir", "said"), [(27, 13, "uses opset 27"), (17, 14, "has IR version 14")])
def test_models_from_the_future(onnxq: Any, tmp_path: Path, opset: int, ir: int, said: str) -> None:
    path = convolutions(tmp_path, opset=opset, ir=ir)
    done = onnxq("quantize", path, "--calib", tmp_path / "calib.npz")
    assert (done.code, said in done.sentence) == (2, True)


def test_names_with_spaces_slashes_and_letters_of_all_kinds(onnxq: Any, tmp_path: Path) -> None:
    long = "n" * 300
    nodes = [
        helper.make_node("Conv", ["in put/x", "w"], ["a b"], "conv with space"),
        helper.make_node("Relu", ["a b"], ["a/b/c"], "a/b/c"),
        helper.make_node("Conv", ["a/b/c", "v"], ["日本語-💥"], "日本語-💥"),
        helper.make_node("Conv", ["日本語-💥", "v"], [f"{long}:0"], long),
    ]
    constants = {"w": weight(4, 3, 3, 3), "v": weight(4, 4, 3, 3)}
    inputs, outputs = [value("in put/x", ["N", 3, 9, 9])], [value(f"{long}:0", ["N", 4, "h", "w"])]
    report = story(onnxq, save(tmp_path, nodes, inputs, outputs, constants, {"in put/x": weight(8, 3, 9, 9)}))
    assert heavy(report) == (3, 3)
    assert {"conv with space", "日本語-💥", long} <= {op["name"] for op in report["coverage"]["ops"]}


def test_names_that_the_encoding_of_the_terminal_lacks(tmp_path: Path, onnxq_process: Any) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "日本語")]
    path = save(tmp_path, nodes, [value("x", ["N", 8])], [value("y", ["N", 8])], {"w": weight(8, 8)}, {})
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    done = onnxq_process("inspect", path, env=ascii_only)
    assert (done.code, done.complaints) == (0, [])
    assert r"\u65e5\u672c\u8a9e" in done.out


def test_no_nodes_at_all(onnxq: Any, tmp_path: Path) -> None:
    path = save(tmp_path, [], [value("x", ["N", 8])], [value("x", ["N", 8])], {}, {"x": weight(4, 8)})
    assert heavy(story(onnxq, path)) == (0, 0)


def test_an_input_and_an_initializer_as_outputs(onnxq: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m")]
    outputs = [value("x", ["N", 8]), value("w", [8, 8]), value("y", ["N", 8])]
    path = save(tmp_path, nodes, [value("x", ["N", 8])], outputs, {"w": weight(8, 8)}, {"x": weight(8, 8)})
    assert heavy(story(onnxq, path)) == (1, 1)
    got = ort.InferenceSession(tmp_path / "out.onnx").run(None, {"x": np.full((1, 8), 0.3, np.float32)})
    want = ort.InferenceSession(path).run(None, {"x": np.full((1, 8), 0.3, np.float32)})
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(np.asarray(got[2]), np.asarray(want[2]), atol=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_stay_float(onnxq: Any, tmp_path: Path, bad: float) -> None:
    broken = weight(8, 8)
    broken[2, 2] = bad
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "good"),
        helper.make_node("MatMul", ["x", "v"], ["z"], "bad"),
    ]
    outputs = [value("y", ["N", 8]), value("z", ["N", 8])]
    path = save(tmp_path, nodes, [value("x", ["N", 8])], outputs, {"w": weight(8, 8), "v": broken}, {"x": weight(8, 8)})
    assert left(story(onnxq, path)) == [("bad", "its weight holds NaN or Inf")]


def test_integer_outputs_choose_a_method_by_equal_elements(onnxq: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "m"),
        helper.make_node("ArgMax", ["m"], ["y"], "a", axis=1, keepdims=0),
    ]
    outputs = [value("y", ["N"], TensorProto.INT64)]
    path = save(tmp_path, nodes, [value("x", ["N", 8])], outputs, {"w": weight(8, 8)}, {"x": weight(8, 8)})
    (note,) = [n for n in story(onnxq, path)["notes"] if n.startswith("Method ")]
    assert "by the outputs' equal elements on 8 calibration samples" in note
    assert " dB" not in note


def test_a_sequence_of_float_tensors_is_compared_in_decibels(onnxq: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "m"),
        helper.make_node("SequenceConstruct", ["m", "x"], ["y"], "s"),
    ]
    outputs = [helper.make_tensor_sequence_value_info("y", F, None)]
    path = save(tmp_path, nodes, [value("x", ["N", 8])], outputs, {"w": weight(8, 8)}, {"x": weight(8, 8)})
    (note,) = [n for n in story(onnxq, path)["notes"] if n.startswith("Method ")]
    assert "minmax 0.0 dB" not in note
    assert " dB" in note


def test_random_numbers_are_no_fault_of_the_passes(onnxq: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], "r", scale=0.05),
        helper.make_node("Add", ["x", "r"], ["a"], "a"),
        helper.make_node("MatMul", ["a", "w"], ["y"], "m"),
    ]
    inputs, outputs = [value("x", ["N", 8])], [value("y", ["N", 8])]
    assert heavy(story(onnxq, save(tmp_path, nodes, inputs, outputs, {"w": weight(8, 8)}, {"x": weight(8, 8)}))) == (
        1,
        1,
    )


def test_samples_that_give_nan_are_named_once(onnxq: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["s"], "s"), helper.make_node("MatMul", ["s", "w"], ["y"], "m")]
    ends = [value("x", ["N", 8])], [value("y", ["N", 8])]
    path = save(tmp_path, nodes, *ends, {"w": weight(8, 8)}, {"x": np.full((4, 8), -1, np.float32)})
    done = onnxq("quantize", path, "--calib", tmp_path / "calib.npz")
    assert done.code == 2
    assert done.sentence.startswith('tensor "s" has NaN in sample 0 (calib.npz[0])')


def test_strings_pass_through(onnxq: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "m"), helper.make_node("Identity", ["s"], ["t"], "i")]
    inputs = [value("x", ["N", 8]), value("s", ["N"], TensorProto.STRING)]
    outputs = [value("y", ["N", 8]), value("t", ["N"], TensorProto.STRING)]
    samples = {"x": weight(8, 8), "s": np.array(list("abcdefgh"))}
    assert heavy(story(onnxq, save(tmp_path, nodes, inputs, outputs, {"w": weight(8, 8)}, samples))) == (1, 1)


def test_bodies_are_quantized(onnxq: Any, tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["m"], "inner"),
            helper.make_node("Tanh", ["m"], ["next"], "tanh"),
            helper.make_node("Identity", ["go"], ["on"], "i"),
        ],
        "body",
        [value("step", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", ["N", 8])],
        [value("on", [], TensorProto.BOOL), value("next", ["N", 8])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["before"], "outer"),
        helper.make_node("Loop", ["times", "true", "before"], ["y"], "loop", body=body),
    ]
    constants = {"w": weight(8, 8), "v": weight(8, 8), "times": np.array(3), "true": np.array(True)}
    path = save(tmp_path, nodes, [value("x", ["N", 8])], [value("y", ["N", 8])], constants, {"x": weight(8, 1, 8)})
    assert heavy(story(onnxq, path)) == (2, 2)


@pytest.mark.parametrize(("spread", "location"), [(False, "w.bin"), (False, "weights/w.bin"), (True, None)])
def test_external_data(onnxq: Any, tmp_path: Path, spread: bool, location: str | None) -> None:
    path = convolutions(tmp_path)
    model = onnx.load(path)
    path.unlink()
    if location is not None:
        (tmp_path / location).parent.mkdir(exist_ok=True)
    onnx.save(
        model, path, save_as_external_data=True, all_tensors_to_one_file=not spread, location=location, size_threshold=0
    )
    assert heavy(story(onnxq, path)) == (3, 3)


# data


def test_a_limit_takes_samples_from_everywhere(tmp_path: Path) -> None:
    """Samples are often sorted by class: of 8 the first 2 would be of one."""
    path = convolutions(tmp_path)
    out = tmp_path / "out.onnx"
    scale = np.repeat(np.array([1, 100], np.float32), 4).reshape(8, 1, 1, 1)
    np.savez(tmp_path / "calib.npz", x=weight(8, 3, 8, 8) * scale)
    job = Job(model=path).with_overrides(
        calib=str(tmp_path / "calib.npz"),
        output=out,
        calib_limit=2,
        validate=False,
        threads=1,
        method="minmax",
        placement="rules",
    )
    result = quantize(job)
    assert result.calibration == f"2 of 8 samples of {tmp_path}/calib.npz"
    model = onnx.load(out)
    (first,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x"]
    (scales,) = [numpy_helper.to_array(i) for i in model.graph.initializer if i.name == first.input[1]]
    assert scales > 0.1


def test_pictures_say_how_they_were_prepared_and_bad_ones_are_not_counted(onnxq: Any, tmp_path: Path) -> None:
    from PIL import Image

    path = convolutions(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(RANDOM.integers(0, 255, (9, 11, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    Image.fromarray(RANDOM.integers(0, 255, (9, 11)).astype(np.uint8)).save(folder / "gray.png")
    for name in (".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"junk")
    (folder / "link.png").symlink_to(folder / "0.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    done = onnxq("quantize", path, "--calib", folder, "--no-validate")
    assert (done.code, "broken.png is no readable picture" in done.sentence) == (2, True)
    done = onnxq("quantize", path, "--calib", folder, "--no-validate", "--skip-bad")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert f"4 of 5 pictures of {folder} (8x8 RGB, NCHW, scale 1/255" in text
    assert "broken.png is no readable picture" in text


def test_one_sample_is_enough_and_none_is_not(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    np.savez(tmp_path / "calib.npz", x=weight(1, 3, 8, 8))
    report = story(onnxq, path)
    assert report["calibration"].startswith("1 sample of ")
    assert any("on 1 calibration sample:" in n for n in report["notes"])
    np.savez(tmp_path / "calib.npz", x=weight(0, 3, 8, 8))
    done = onnxq("quantize", path, "--calib", tmp_path / "calib.npz")
    assert (done.code, "no sample" in done.sentence) == (2, True)


# commands


def test_keep_float_names_must_exist_and_wildcards_that_fit_nothing_are_said(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    done = onnxq("quantize", path, "--calib", tmp_path / "calib.npz", "--placement", "rules", "--keep-float", "Gem")
    assert done.code == 2
    assert done.sentence == '--keep-float "Gem" is no node, op type or output of the model: did you mean "Gemm"?'
    report = story(onnxq, path, "--keep-float", "head*", "--keep-float", "conv?")
    assert 'The keep-float pattern "head*" fits no node, op type or output of this model.' in report["notes"]
    assert not any('"conv?" fits no' in n for n in report["notes"])
    assert heavy(report) == (1, 3)


def test_pairs_that_take_other_inputs_are_no_pair(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], "mean", axes=[1], keepdims=0)]
    wide = save(other, nodes, [value("x", ["N", 10])], [value("y", ["N"])], {}, {})
    done = onnxq("validate", path, wide, "--data", tmp_path / "calib.npz")
    assert (done.code, done.sentence) == (
        2,
        'input "x" takes float32 [N, 3, 8, 8] in the float model, but float32 [N, 10] in the quantized one: compare '
        "two forms of one model",
    )


def test_gate_with_a_share_says_how_much_that_is(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    np.savez(tmp_path / "labelled.npz", x=weight(8, 3, 8, 8), label=np.arange(8))
    same = ("gate", "--baseline", path, "--candidate", path, "--data", tmp_path / "labelled.npz", "--metric", "top1")
    done = onnxq(*same, "--max-drop", "0.5%")
    assert done.code == 3, "eight samples say nothing about half a percent, whatever they are"
    assert "does not decide about the limit of 0.5 % of the float score, which is " in done.out
    assert onnxq(*same, "--max-drop", "99").code == 0
    assert onnxq(*same, "--max-drop", "0,5").code == 2


def test_another_target_is_not_judged_by_this_cpu(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    said = "The model is made for tensorrt, but speed and kernels are those of ONNX Runtime on this CPU"
    assert any(n.startswith(said) for n in story(onnxq, path, "--target", "tensorrt")["notes"])
    assert not any(n.startswith("The model is made for") for n in story(onnxq, path)["notes"])


def test_a_report_that_nobody_reads_to_the_end(tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "onnxq", "inspect", str(path)], stdout=write, stderr=subprocess.PIPE, env=ONE_THREAD,
        encoding="utf-8", check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_report_that_finds_no_room(tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "onnxq", "inspect", str(path)], stdout=full, stderr=subprocess.PIPE, env=ONE_THREAD,
            encoding="utf-8", check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: the report cannot be printed (No space left on device): send it elsewhere\n"


# places


def test_home_is_where_the_tilde_is(onnxq: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convolutions(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert onnxq("quantize", "~/model.onnx", "--calib", "~/calib.npz", "-o", "~/o.onnx", "--no-validate").code == 0
    assert (tmp_path / "o.onnx").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_not_replaced(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for output in (tmp_path / "pipe", "-"):
        done = onnxq("quantize", path, "--calib", tmp_path / "calib.npz", "--no-validate", "-o", output)
        assert (done.code, done.sentence) == (2, f"{output} is no regular file; give the path of the file to write")
    assert (tmp_path / "pipe").is_fifo()


def test_models_and_their_weights_are_never_replaced(onnxq: Any, tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    common = ("quantize", path, "--calib", tmp_path / "calib.npz", "--no-validate", "--placement", "rules")
    for options, said in (
        (("-o", path), "is the model itself"),
        (("-o", tmp_path / "out.onnx"), "which holds the model's weights"),
        (("-o", tmp_path / "out.onnx.data"), "which holds the model's weights"),
        (("--report", path), "would replace a model"),
        (("-o", tmp_path / "o.onnx", "--report", tmp_path / "o.onnx"), "would replace a model"),
    ):
        done = onnxq(*common, *options)
        assert (done.code, said in done.sentence) == (2, True), done.err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert onnxq(*common, "-o", tmp_path / "o.onnx", "--report", tmp_path / "r.json").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    path = convolutions(tmp_path)
    (tmp_path / "slow.py").write_text(
        "import time\nimport numpy as np\n\n\ndef samples():\n    for i in range(10000):\n"
        "        time.sleep(0.01)\n        yield {'x': np.full((1, 3, 8, 8), i / 7, np.float32)}\n"
    )
    places = tmp_path / "out"
    places.mkdir()
    # a test run in the background of a shell hands an ignored SIGINT on to its children
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [
        sys.executable, "-c", start + "from onnxq.cli.main import main; sys.exit(main())", "quantize", str(path),
        "--calib", str(tmp_path / "calib.npz"), "--eval", f"{tmp_path}/slow.py:samples",
        "-o", str(places / "o.onnx"), "--report", str(places / "r.json"), "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ONE_THREAD)
    deadline = time.monotonic() + 60
    while not any(places.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # until the model lies in its temporary folder
    assert any(places.iterdir())
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert complaint.splitlines()[-1] == b"interrupted; no file was left half-written"
    assert list(places.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs ulimit")
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    import resource

    path = convolutions(tmp_path)
    places = tmp_path / "out"
    places.mkdir()
    command = [
        sys.executable, "-m", "onnxq", "quantize", str(path), "--calib", str(tmp_path / "calib.npz"), "--no-validate",
        "--placement", "rules",
        "-o", str(places / "o.onnx"), "--threads", "1",
    ]  # fmt: skip
    done = subprocess.run(
        command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)), capture_output=True,
        encoding="utf-8", check=False, env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 2
    cache, sentence = done.stderr.splitlines()  # the cache is a convenience: that it is full is no error
    assert cache.startswith("warning: the cache ")
    assert sentence == f"error: {places}/o.onnx cannot be written (File too large); choose another path"
    assert list(places.iterdir()) == []


def test_two_at_once_write_one_whole_file(tmp_path: Path) -> None:
    path = convolutions(tmp_path)
    out = tmp_path / "o.onnx"
    command = [
        sys.executable, "-m", "onnxq", "quantize", str(path), "--calib", str(tmp_path / "calib.npz"), "--no-validate",
        "--placement", "rules",
        "--threads", "1", "-o", str(out),
    ]  # fmt: skip
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ONE_THREAD) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    onnx.checker.check_model(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calib.npz", "model.onnx", "o.onnx"]


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path, onnxq_process: Any) -> None:
    """Ten matrices of 256 MB, quantized to a quarter."""
    width, count = 8000, 10
    size = width * width * 4
    nodes, tensors = [], []
    with (tmp_path / "w.bin").open("wb") as file:
        for i in range(count):
            np.resize(weight(width * 97), (width, width)).tofile(file)
            tensor = onnx.TensorProto(
                name=f"w{i}", data_type=F, dims=[width, width], data_location=onnx.TensorProto.EXTERNAL
            )
            for key, text in (("location", "w.bin"), ("offset", str(i * size)), ("length", str(size))):
                tensor.external_data.add(key=key, value=text)
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"m{i - 1}" if i else "x", f"w{i}"], [f"m{i}"], f"mm{i}"))
    ends = [value("x", ["N", width])], [value(f"m{count - 1}", ["N", width])]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "x.npz", x=weight(2, width))
    done = onnxq_process("quantize", tmp_path / "m.onnx", "--calib", tmp_path / "x.npz", "--no-validate", "--json")
    assert (done.code, done.complaints) == (0, [])
    assert heavy(json.loads(done.out)) == (count, count)
    assert (tmp_path / "m.int8.onnx").stat().st_size < 0.26 * count * size
