"""Bad input gives one sentence, exit code 2, no traceback, and leaves no output file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good model, good samples and good pictures, which is the current one."""
    monkeypatch.chdir(tmp_path)
    tiny.save_classifier(Path("model.onnx"))
    tiny.save_samples(Path("calib.npz"))
    tiny.save_pictures(Path("pictures"))
    return tmp_path


@pytest.fixture
def refused(here: Path, onnxq: Any) -> Any:
    """`refused("model.onnx", "--calib", ...)` runs quantize, which must fail cleanly; gives the sentence."""

    def run(*arguments: str) -> str:
        before = sorted(p.relative_to(here) for p in here.rglob("*"))
        outcome = onnxq("quantize", *arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert sorted(p.relative_to(here) for p in here.rglob("*")) == before
        sentence: str = outcome.sentence
        return sentence

    return run


def test_the_good_input_is_good(here: Path, onnxq: Any) -> None:
    outcome = onnxq("quantize", "model.onnx", "--calib", "calib.npz", "--threads", "1", "--no-validate")
    assert outcome.code == 0, outcome.err
    onnx.checker.check_model(onnx.load("model.int8.onnx"), full_check=True)


def test_no_such_model(refused: Any) -> None:
    assert refused("nowhere.onnx", "--calib", "calib.npz") == (
        "nowhere.onnx does not exist; give the path of an .onnx file"
    )


def test_not_an_onnx_file(refused: Any, here: Path) -> None:
    (here / "text.onnx").write_text("This is a text and no model, whatever its name says.\n" * 10)
    assert refused("text.onnx", "--calib", "calib.npz").startswith("text.onnx is not an ONNX file")


def test_empty_file(refused: Any, here: Path) -> None:
    (here / "empty.onnx").touch()
    assert refused("empty.onnx", "--calib", "calib.npz").startswith("empty.onnx is empty")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_truncated_file(refused: Any, here: Path, root: Path, part: float) -> None:
    data = (root / "models/fashion-res8/model.onnx").read_bytes()
    (here / "cut.onnx").write_bytes(data[: int(len(data) * part)])
    assert refused("cut.onnx", "--calib", "calib.npz").startswith("cut.onnx is truncated: ")


def test_an_opset_that_no_runtime_can_check(refused: Any, here: Path) -> None:
    model = onnx.load("model.onnx")
    model.opset_import[0].version = 6
    onnx.save(model, "old.onnx")
    assert refused("old.onnx", "--calib", "calib.npz") == (
        "old.onnx uses opset 6, but ONNX Runtime, by which a conversion would have to be checked, runs none below 7 in "
        "full; export it with opset 13 or later, or convert it with onnx.version_converter and check the result "
        "yourself"
    )


def test_missing_external_data(refused: Any, here: Path) -> None:
    onnx.save(tiny.classifier(), here / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    (here / "big.data").unlink()
    sentence = refused("big.onnx", "--calib", "calib.npz")
    assert sentence.startswith('big.onnx: the external data file "big.data" with the values of tensor "w1" is missing')


def test_a_model_that_onnxruntime_refuses(refused: Any, here: Path) -> None:
    model = tiny.classifier()
    model.graph.node[1].op_type = "NoSuchOp"
    onnx.save(model, here / "odd.onnx")
    assert "NoSuchOp" in refused("odd.onnx", "--calib", "calib.npz")


def test_no_calibration_data(refused: Any) -> None:
    assert refused("model.onnx").startswith("there is nothing to calibrate with: give --calib")


def test_no_model(refused: Any) -> None:
    assert refused("--calib", "calib.npz").startswith("no model is named")


def test_no_such_data(refused: Any) -> None:
    assert "nowhere" in refused("model.onnx", "--calib", "nowhere")


def test_empty_data_folder(refused: Any, here: Path) -> None:
    (here / "empty").mkdir()
    assert refused("model.onnx", "--calib", "empty").startswith("empty holds no samples")


def test_wrong_shape(refused: Any, here: Path) -> None:
    np.savez(here / "flat.npz", image=np.zeros((4, 3, 9, 8), np.float32))
    sentence = refused("model.onnx", "--calib", "flat.npz")
    assert "flat.npz" in sentence
    assert '[4, 3, 9, 8], but input "image" takes [N, 3, 8, 8]' in sentence


def test_wrong_type(refused: Any, here: Path) -> None:
    np.savez(here / "bytes.npz", image=np.zeros((4, *tiny.SHAPE), np.uint8))
    sentence = refused("model.onnx", "--calib", "bytes.npz")
    assert "bytes.npz" in sentence
    assert 'has type uint8, but input "image" takes float32' in sentence


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_in_a_sample(refused: Any, here: Path, value: float) -> None:
    images = np.zeros((4, *tiny.SHAPE), np.float32)
    images[2, 0, 0, 0] = value
    np.savez(here / "bad.npz", image=images)
    sentence = refused("model.onnx", "--calib", "bad.npz")
    assert '"image"' in sentence
    assert "bad.npz[2]" in sentence


def test_corrupt_picture_among_good_ones(refused: Any, here: Path) -> None:
    shutil.copy("pictures/picture_0.png", "pictures/broken.png")
    data = Path("pictures/broken.png").read_bytes()
    Path("pictures/broken.png").write_bytes(data[: len(data) // 2])
    assert "broken.png" in refused("model.onnx", "--calib", "pictures")


def test_corrupt_picture_in_the_evaluation_data(refused: Any, here: Path) -> None:
    Path("pictures/broken.png").write_bytes(b"no picture")
    assert "broken.png" in refused("model.onnx", "--calib", "calib.npz", "--eval", "pictures")


def test_skip_bad_goes_on_and_says_which(here: Path, onnxq: Any) -> None:
    Path("pictures/broken.png").write_bytes(b"no picture")
    outcome = onnxq("quantize", "model.onnx", "--calib", "pictures", "--skip-bad", "--threads", "1", "--no-validate")
    assert outcome.code == 0, outcome.err
    assert "broken.png" in outcome.out
    assert Path("model.int8.onnx").is_file()


@pytest.mark.parametrize(
    ("option", "wrong", "sentence"),
    [
        ("--method", "minmx", 'there is no method "minmx": did you mean "minmax"?'),
        ("--target", "gpu", 'there is no target "gpu": '),
        ("--target", "cpuu", 'there is no target "cpuu": did you mean "cpu"?'),
        ("--metric", "Top1", 'there is no metric "Top1": did you mean "top1"?'),
    ],
)
def test_unknown_names(refused: Any, option: str, wrong: str, sentence: str) -> None:
    assert refused("model.onnx", "--calib", "calib.npz", option, wrong).startswith(sentence)


def test_metric_without_labels(refused: Any, here: Path) -> None:
    np.savez(here / "bare.npz", image=np.zeros((4, *tiny.SHAPE), np.float32))
    sentence = refused("model.onnx", "--calib", "calib.npz", "--eval", "bare.npz", "--metric", "top1")
    assert sentence.startswith('metric "top1" needs labels, but there are none in 4 ')


def test_output_in_a_folder_that_is_not_there(refused: Any) -> None:
    assert refused("model.onnx", "--calib", "calib.npz", "-o", "no/such/out.onnx") == (
        "no/such/out.onnx cannot be written: the folder no/such does not exist; create it first"
    )


def test_output_that_is_a_folder(refused: Any) -> None:
    assert refused("model.onnx", "--calib", "calib.npz", "-o", "pictures").startswith("pictures is a folder")


def test_output_that_is_the_model(refused: Any) -> None:
    assert refused("model.onnx", "--calib", "calib.npz", "-o", "model.onnx").startswith(
        "the output model.onnx is the model itself"
    )


def test_an_older_output_survives_a_failure(refused: Any, here: Path) -> None:
    (here / "model.int8.onnx").write_bytes(b"older")
    refused("model.onnx", "--calib", "nowhere")
    assert (here / "model.int8.onnx").read_bytes() == b"older"


def test_already_quantized(here: Path, onnxq: Any, refused: Any) -> None:
    quick = ("--no-validate", "--threads", "1", "--placement", "rules")
    assert onnxq("quantize", "model.onnx", "--calib", "calib.npz", *quick).code == 0
    assert refused("model.int8.onnx", "--calib", "calib.npz", "-o", "twice.onnx").startswith(
        "model.int8.onnx is quantized already (it has DequantizeLinear, QuantizeLinear)"
    )


def test_bad_preprocessing(refused: Any) -> None:
    assert refused("model.onnx", "--calib", "pictures", "--color", "rbg").startswith("color must be one of rgb, bgr")
    assert refused("model.onnx", "--calib", "pictures", "--mean", "a,b").startswith("invalid value for '--mean'")
    assert "give one or 3" in refused("model.onnx", "--calib", "pictures", "--mean", "0.5,0.5")


def test_bad_job_file(refused: Any, here: Path) -> None:
    (here / "job.yaml").write_text("model: model.onnx\ntarte: cpu\n")
    sentence = refused("--config", "job.yaml")
    assert sentence.startswith("job.yaml:2:1: ")
    assert 'did you mean "target"?' in sentence


def test_no_traceback_in_a_process_of_its_own(here: Path, onnxq_process: Any) -> None:
    outcome = onnxq_process("quantize", "model.onnx", "--calib", "nowhere", cwd=here)
    assert outcome.code == 2
    assert outcome.sentence
    assert outcome.out == ""
